//! `lastpacket rollout`, the program, against an API server that the test writes to, with the events of
//! a recorded rollout.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test a panic is the failure's message")]

mod scene;

use std::{fs, path::Path, process::Command, thread, time::Duration};

use lastpacket_tests::binary;
use scene::{Ended, OLD, Scene, Watch, as_recorded, drained};
use serde_json::Value;

const WEB: &str = "deployment/web";

/// A rollout of both pods, one after the other.
fn roll(scene: &Scene, watch: &Watch, change: fn(&mut Value) -> bool) {
    scene.begin();
    scene.at_work();
    for (index, (pod, ..)) in OLD.iter().enumerate() {
        scene.end(index, change);
        watch.wait_for(pod);
    }
    scene.complete();
}

fn results(ended: &Ended) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let lines = ended.lines();
    let pods = lines.iter().filter(|line| line["type"] == "pod");
    pods.map(|line| (text(&line["pod"]), text(&line["result"]))).collect()
}

fn reasons(ended: &Ended, pod: &str) -> String {
    let lines = ended.lines();
    let row = lines.iter().find(|line| line["pod"] == pod).unwrap();
    row["reasons"].to_string()
}

fn total(ended: &Ended) -> Value {
    ended.lines().pop().unwrap()
}

fn is_golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("rollout/golden").join(name);
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, golden, "{name}; if this is meant, `cargo xtask bless`");
}

#[test]
fn golden_text_of_a_rollout_on_two_nodes() {
    let scene = Scene::new(&[0, 1]);
    let watch = scene.watch(&[WEB, "--output", "text"], 2);
    roll(&scene, &watch, as_recorded);
    let ended = watch.finish();
    assert_eq!(ended.code(), 1, "{ended:?}");
    assert_eq!(ended.stderr, "", "a pipe shows no progress");
    is_golden("two-nodes.txt", &ended.stdout);
}

#[test]
fn golden_json_of_a_rollout_on_two_nodes() {
    let scene = Scene::new(&[0, 1]);
    let watch = scene.watch(&[WEB], 2);
    roll(&scene, &watch, as_recorded);
    let ended = watch.finish();
    let mut text = String::new();
    for mut line in ended.lines() {
        // The verdict is the agent's, as it came.
        assert!(line["type"] == "rollout" || line["verdict"]["books"].is_array(), "{line}");
        line.as_object_mut().unwrap().remove("verdict");
        text += &(serde_json::to_string_pretty(&line).unwrap() + "\n");
    }
    is_golden("two-nodes.json", &text);
}

#[test]
fn all_drained_is_exit_code_0() {
    let scene = Scene::new(&[0, 1]);
    let watch = scene.watch(&[WEB], 2);
    roll(&scene, &watch, drained);
    let ended = watch.finish();
    assert_eq!(ended.code(), 0, "{ended:?}");
    assert_eq!(results(&ended), OLD.map(|(pod, ..)| (pod.to_owned(), "drained".to_owned())));
    let advice = &total(&ended)["advice"];
    assert!(advice["pre_stop_seconds"].as_u64().is_some(), "{advice}");
}

#[test]
fn losses_may_be_allowed() {
    let scene = Scene::new(&[0, 1]);
    let watch = scene.watch(&[WEB, "--max-losses", "1000"], 2);
    roll(&scene, &watch, as_recorded);
    let ended = watch.finish();
    assert!(total(&ended)["lost"].as_u64().unwrap() > 0, "{ended:?}");
    assert_eq!(ended.code(), 0, "{ended:?}");
}

#[test]
fn an_agent_that_dies_midway() {
    let scene = Scene::new(&[0, 1]);
    let watch = scene.watch(&[WEB, "--verdict-timeout", "1s"], 2);
    scene.begin();
    scene.end(0, drained);
    watch.wait_for(OLD[0].0);
    scene.terminate(1);
    scene.say(1, |line| line["type"] != "verdict");
    scene.cluster.delete("pods", OLD[1].2);
    scene.remove(1);
    scene.complete();
    let ended = watch.finish();
    assert_eq!(results(&ended)[1], (OLD[1].0.to_owned(), "unproven".to_owned()));
    assert!(reasons(&ended, OLD[1].0).contains("the agent on node node2 is gone"), "{ended:?}");
    assert_eq!(ended.code(), 3);
}

#[test]
fn an_agent_that_begins_anew() {
    let scene = Scene::new(&[0, 1]);
    let watch = scene.watch(&[WEB, "--verdict-timeout", "1s"], 2);
    scene.begin();
    scene.end(0, drained);
    scene.terminate(1);
    scene.say(1, |line| line["type"] != "verdict");
    scene.cluster.end_logs(OLD[1].2);
    let mut first = true;
    scene.say(1, |line| {
        line["agent"]["run_id"] = "another".into();
        line["seq"] = 1.into();
        std::mem::take(&mut first)
    });
    scene.remove(1);
    scene.complete();
    let ended = watch.finish();
    assert!(reasons(&ended, OLD[1].0).contains("began anew"), "{ended:?}");
    assert_eq!(ended.code(), 3);
}

#[test]
fn a_node_without_an_agent() {
    let scene = Scene::new(&[0]);
    let watch = scene.watch(&[WEB], 1);
    scene.begin();
    scene.end(0, drained);
    scene.terminate(1);
    scene.remove(1);
    scene.complete();
    let ended = watch.finish();
    assert!(reasons(&ended, OLD[1].0).contains("no agent runs on node node2"), "{ended:?}");
    assert_eq!(ended.code(), 3);
}

#[test]
fn lines_that_are_missing_leave_a_pod_unproven() {
    let scene = Scene::new(&[0, 1]);
    let watch = scene.watch(&[WEB], 2);
    scene.begin();
    scene.end(0, |line| line["seq"] != 3 && line["seq"] != 4 && drained(line));
    // What was lost was lost, whatever else is not known.
    scene.end(1, |line| line["seq"] != 3 && as_recorded(line));
    scene.complete();
    let ended = watch.finish();
    let mut found = results(&ended);
    found.sort();
    assert_eq!(found[0], (OLD[0].0.to_owned(), "unproven".to_owned()));
    assert_eq!(found[1], (OLD[1].0.to_owned(), "cut".to_owned()));
    assert!(reasons(&ended, OLD[0].0).contains("2 lines that the verdict rests on are missing"), "{ended:?}");
    assert!(total(&ended)["notes"].to_string().contains("2 lines of the agent on node node1"), "{ended:?}");
}

#[test]
fn a_log_that_ends_is_read_on() {
    let scene = Scene::new(&[0, 1]);
    let watch = scene.watch(&[WEB], 2);
    scene.begin();
    let mut count = 0;
    scene.terminate(0);
    scene.say(0, |line| {
        count += 1;
        if count == 3 {
            scene.cluster.end_logs(OLD[0].2);
        }
        drained(line)
    });
    scene.remove(0);
    scene.cluster.log(OLD[1].2, "what a runtime writes");
    scene.end(1, drained);
    scene.complete();
    let ended = watch.finish();
    assert_eq!((results(&ended).len(), ended.code()), (2, 0), "{ended:?}");
    assert!(total(&ended)["notes"].to_string().contains("are no events"), "{ended:?}");
}

#[test]
fn a_rollout_that_is_under_way_is_joined() {
    let scene = Scene::new(&[0, 1]);
    scene.begin();
    scene.at_work();
    // Long before the watch; then while it looks.
    scene.say(0, |line| {
        line["time"] = "2026-11-21T08:05:00Z".into();
        drained(line)
    });
    scene.remove(0);
    let watch = scene.watch(&[WEB], 2);
    watch.wait_for(OLD[0].0);
    scene.end(1, |line| {
        line["time"] = "2026-11-21T08:05:30Z".into();
        drained(line)
    });
    watch.wait_for(OLD[1].0);
    scene.complete();
    let ended = watch.finish();
    assert_eq!((results(&ended).len(), ended.code()), (2, 0), "{ended:?}");
    assert!(total(&ended)["notes"].to_string().contains("under way already"), "{ended:?}");
}

#[test]
fn restart_begins_a_rollout_when_all_is_watched() {
    let scene = Scene::new(&[0, 1]);
    let watch = scene.watch(&[WEB, "--restart"], 2);
    while scene.cluster.patches().is_empty() {
        thread::sleep(Duration::from_millis(20));
    }
    let patch = scene.cluster.patches().remove(0);
    let annotations = &patch["spec"]["template"]["metadata"]["annotations"];
    assert!(annotations["kubectl.kubernetes.io/restartedAt"].is_string(), "{patch}");
    scene.end(0, drained);
    scene.end(1, drained);
    scene.complete();
    let ended = watch.finish();
    assert_eq!((results(&ended).len(), ended.code()), (2, 0), "{ended:?}");
}

#[test]
fn a_rollout_that_never_finishes() {
    let scene = Scene::new(&[0, 1]);
    let watch = scene.watch(&[WEB, "--timeout", "6s"], 2);
    scene.begin();
    scene.at_work();
    scene.end(0, drained);
    scene.terminate(1);
    let ended = watch.finish();
    assert!(reasons(&ended, OLD[1].0).contains("had not ended when the watch did"), "{ended:?}");
    assert_eq!((total(&ended)["rollout"].as_str(), ended.code()), (Some("timed_out"), 3));
}

#[test]
fn a_rollout_that_fails() {
    let scene = Scene::new(&[0, 1]);
    let watch = scene.watch(&[WEB], 2);
    scene.begin();
    scene.at_work();
    scene.cluster.edit("deployments", "web", |deployment| {
        deployment["status"]["conditions"] = serde_json::json!([
            {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]);
    });
    let ended = watch.finish();
    assert!(total(&ended)["reason"].to_string().contains("progress deadline"), "{ended:?}");
    assert_eq!(ended.code(), 3);
}

#[test]
fn a_rollout_that_never_begins() {
    let scene = Scene::new(&[0, 1]);
    let ended = scene.watch(&[WEB, "--timeout", "2s"], 2).finish();
    assert!(ended.stderr.contains("no rollout of deployment/web began"), "{ended:?}");
    assert_eq!(ended.code(), 2);
}

#[test]
fn without_permissions_it_says_which_before_anything_else() {
    let scene = Scene::new(&[0, 1]);
    scene.cluster.deny("get", "pods/log");
    scene.cluster.deny("patch", "deployments");
    let ended = scene.start(&[WEB, "--restart"]).finish();
    assert_eq!(ended.code(), 2, "{ended:?}");
    for words in
        ["get pods/log in namespace lastpacket", "patch deployments in namespace shop", "docs/rollout.md"]
    {
        assert!(ended.stderr.contains(words), "{words}: {}", ended.stderr);
    }
    assert!(scene.cluster.patches().is_empty());
    let without = scene.start(&[WEB, "--agents", "elsewhere"]).finish();
    assert!(without.stderr.contains("in namespace elsewhere"), "{without:?}");
}

#[test]
fn without_any_agent_nothing_is_restarted() {
    let scene = Scene::new(&[]);
    let ended = scene.start(&[WEB, "--restart"]).finish();
    assert!(ended.stderr.contains("no agent runs in namespace lastpacket"), "{ended:?}");
    assert_eq!(ended.code(), 2);
    assert!(scene.cluster.patches().is_empty());
}

#[test]
fn what_cannot_be_watched() {
    let scene = Scene::new(&[0, 1]);
    for (arguments, words) in [
        (&["deployment/none"][..], "there is no deployment/none in namespace shop"),
        (&["deployment/web", "-n", "elsewhere"], "in namespace elsewhere"),
        (&["pod/web"], "pod/web is no workload"),
        (&["deployment/web", "--context", "none"], "kubectl config get-contexts"),
        (&["deployment/web", "--fail-on", "late"], "late"),
    ] {
        let ended = scene.start(arguments).finish();
        assert!(ended.code() == 2 && ended.stderr.contains(words), "{arguments:?}: {ended:?}");
    }
    scene.cluster.edit("deployments", "web", |deployment| deployment["spec"]["paused"] = true.into());
    let ended = scene.start(&[WEB, "--restart"]).finish();
    assert!(ended.code() == 2 && ended.stderr.contains("kubectl rollout resume"), "{ended:?}");
}

#[test]
fn called_by_kubectl_it_names_itself_so() {
    let folder = std::env::temp_dir().join(format!("lastpacket-plugin-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let plugin = folder.join("kubectl-lastpacket");
    std::os::unix::fs::symlink(fs::canonicalize(binary::lastpacket().unwrap()).unwrap(), &plugin).unwrap();
    let ended = Watch::start({
        let mut command = Command::new(&plugin);
        command.args(["rollout", "--help"]);
        command
    })
    .finish();
    fs::remove_dir_all(&folder).unwrap();
    assert!(
        ended.stdout.contains("Usage: kubectl lastpacket rollout [OPTIONS] <KIND/NAME>"),
        "{}",
        ended.stdout
    );
}
