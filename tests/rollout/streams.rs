//! The agents' logs: what a pod's verdict is where they have gaps, end, or are not there.

use super::{
    said::{as_recorded, drained},
    scene::{NODES, Scene},
};

#[test]
fn an_agent_that_dies_midway() {
    let scene = Scene::new(&[0, 1]);
    let watch = scene.watch(&["--verdict-timeout", "1s"], 2);
    scene.begin();
    scene.end(0, drained);
    watch.wait_for(scene.old(0));
    scene.terminate(1);
    scene.say(1, |line| line["type"] != "verdict");
    scene.cluster.delete("pods", NODES[1].1);
    scene.remove(1);
    scene.complete();
    let ended = watch.finish();
    assert_eq!(ended.results()[1], (scene.old(1).to_owned(), "unproven".to_owned()));
    assert!(ended.reasons(scene.old(1)).contains("the agent on node node2 is gone"), "{ended:?}");
    assert_eq!(ended.code(), 3);
}

#[test]
fn an_agent_that_begins_anew() {
    let scene = Scene::new(&[0, 1]);
    let watch = scene.watch(&["--verdict-timeout", "5s"], 2);
    scene.begin();
    scene.end(0, drained);
    scene.terminate(1);
    scene.say(1, |line| line["type"] != "verdict");
    scene.cluster.end_logs(NODES[1].1);
    let mut first = true;
    scene.say(1, |line| {
        line["agent"]["run_id"] = "another".into();
        line["seq"] = 1.into();
        std::mem::take(&mut first)
    });
    scene.remove(1);
    scene.complete();
    let ended = watch.finish();
    assert!(ended.reasons(scene.old(1)).contains("began anew"), "{ended:?}");
    assert_eq!(ended.code(), 3);
}

#[test]
fn a_node_without_an_agent() {
    let scene = Scene::new(&[0]);
    let watch = scene.watch(&[], 1);
    scene.begin();
    scene.end(0, drained);
    scene.terminate(1);
    scene.remove(1);
    scene.complete();
    let ended = watch.finish();
    assert!(ended.reasons(scene.old(1)).contains("no agent runs on node node2"), "{ended:?}");
    assert_eq!(ended.code(), 3);
}

#[test]
fn lines_that_are_missing_leave_a_pod_unproven() {
    let scene = Scene::new(&[0, 1]);
    let watch = scene.watch(&[], 2);
    scene.begin();
    scene.end(0, |line| line["seq"] != 3 && line["seq"] != 4 && drained(line));
    // What was lost was lost, whatever else is not known.
    scene.end(1, |line| line["seq"] != 3 && as_recorded(line));
    scene.complete();
    let ended = watch.finish();
    let mut found = ended.results();
    found.sort();
    assert_eq!(found[0], (scene.old(0).to_owned(), "unproven".to_owned()));
    assert_eq!(found[1], (scene.old(1).to_owned(), "cut".to_owned()));
    assert!(
        ended.reasons(scene.old(0)).contains("2 lines that the verdict rests on are missing"),
        "{ended:?}"
    );
    assert!(ended.total()["notes"].to_string().contains("2 lines of the agent on node node1"), "{ended:?}");
}

#[test]
fn a_log_that_ends_is_read_on() {
    let scene = Scene::new(&[0, 1]);
    let watch = scene.watch(&[], 2);
    scene.begin();
    let mut count = 0;
    scene.terminate(0);
    scene.say(0, |line| {
        count += 1;
        if count == 3 {
            scene.cluster.end_logs(NODES[0].1);
        }
        drained(line)
    });
    scene.remove(0);
    scene.cluster.log(NODES[1].1, "what a runtime writes");
    scene.end(1, drained);
    scene.complete();
    let ended = watch.finish();
    assert_eq!((ended.results().len(), ended.code()), (2, 0), "{ended:?}");
    assert!(ended.total()["notes"].to_string().contains("are no events"), "{ended:?}");
}

#[test]
fn a_log_that_is_rotated_while_it_is_read() {
    let scene = Scene::new(&[0, 1]);
    let watch = scene.watch(&[], 2);
    scene.begin();
    let mut count = 0;
    scene.end(0, |line| {
        count += 1;
        if count == 100 {
            scene.cluster.rotate_log(NODES[0].1);
        }
        // These were in the part that was rotated away before anybody read them.
        !(100..105).contains(&count) && drained(line)
    });
    // What was lost was lost.
    scene.end(1, |line| {
        if line["type"] == "verdict" {
            scene.cluster.rotate_log(NODES[1].1);
        }
        line["type"] != "reset" && as_recorded(line)
    });
    scene.complete();
    let ended = watch.finish();
    let mut found = ended.results();
    found.sort();
    assert_eq!(found[0], (scene.old(0).to_owned(), "unproven".to_owned()));
    assert_eq!(found[1], (scene.old(1).to_owned(), "cut".to_owned()));
    assert!(ended.reasons(scene.old(0)).contains("lines that the verdict rests on are missing"), "{ended:?}");
    assert_eq!(ended.code(), 1);
}

#[test]
fn a_log_that_cannot_be_read() {
    let scene = Scene::new(&[0, 1]);
    let watch = scene.watch(&["--verdict-timeout", "1s"], 2);
    scene.begin();
    scene.end(0, drained);
    watch.wait_for(scene.old(0));
    scene.cluster.break_log(NODES[1].1);
    scene.end(1, drained);
    scene.complete();
    let ended = watch.finish();
    let reasons = ended.reasons(scene.old(1));
    assert!(reasons.contains("the log of the agent on node node2 cannot be read"), "{ended:?}");
    assert_eq!(ended.code(), 3);
}

#[test]
fn an_agent_that_gives_no_verdict() {
    let scene = Scene::new(&[0, 1]);
    let watch = scene.watch(&["--verdict-timeout", "1s"], 2);
    scene.begin();
    scene.end(0, drained);
    scene.end(1, |line| {
        if line["type"] == "verdict" {
            line["type"] = "of a newer agent".into();
        }
        true
    });
    scene.complete();
    let ended = watch.finish();
    assert!(ended.reasons(scene.old(1)).contains("the agent on node node2 gave no verdict"), "{ended:?}");
    assert_eq!(ended.code(), 3);
}
