//! The rollout's own progress: joined, started, failed, never finished.

use std::{thread, time::Duration};

use super::{said::drained, scene::Scene};

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
    let watch = scene.watch(&[], 2);
    watch.wait_for(scene.old(0));
    scene.end(1, |line| {
        line["time"] = "2026-11-21T08:05:30Z".into();
        drained(line)
    });
    watch.wait_for(scene.old(1));
    scene.complete();
    let ended = watch.finish();
    assert_eq!((ended.results().len(), ended.code()), (2, 0), "{ended:?}");
    assert!(ended.total()["notes"].to_string().contains("under way already"), "{ended:?}");
}

#[test]
fn restart_begins_a_rollout_when_all_is_watched() {
    let scene = Scene::new(&[0, 1]);
    let watch = scene.watch(&["--restart"], 2);
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
    assert_eq!((ended.results().len(), ended.code()), (2, 0), "{ended:?}");
}

#[test]
fn a_rollout_that_never_finishes() {
    let scene = Scene::new(&[0, 1]);
    let watch = scene.watch(&["--timeout", "6s"], 2);
    scene.begin();
    scene.at_work();
    scene.end(0, drained);
    scene.terminate(1);
    let ended = watch.finish();
    assert!(ended.reasons(scene.old(1)).contains("had not ended when the watch did"), "{ended:?}");
    assert_eq!((ended.total()["rollout"].as_str(), ended.code()), (Some("timed_out"), 3));
}

#[test]
fn a_rollout_that_fails() {
    let scene = Scene::new(&[0, 1]);
    let watch = scene.watch(&[], 2);
    scene.begin();
    scene.at_work();
    scene.edit(|deployment| {
        deployment["status"]["conditions"] = serde_json::json!([
            {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]);
    });
    let ended = watch.finish();
    assert!(ended.total()["reason"].to_string().contains("progress deadline"), "{ended:?}");
    assert_eq!(ended.code(), 3);
}

#[test]
fn a_rollout_that_never_begins() {
    let scene = Scene::new(&[0, 1]);
    let ended = scene.watch(&["--timeout", "2s"], 2).finish();
    assert!(ended.stderr.contains("no rollout of deployment/web began"), "{ended:?}");
    assert_eq!(ended.code(), 2);
}
