//! What is a failure: exit codes, and the tests of JUnit, which must agree.

use super::{
    said::{as_recorded, doubtful, drained},
    scene::Scene,
    watch::Ended,
};
use serde_json::Value;

fn ended(options: &[&str], change: fn(&mut Value) -> bool) -> Ended {
    let scene = Scene::new(&[0, 1]);
    let watch = scene.watch(options, 2);
    scene.roll(&watch, change);
    watch.finish()
}

/// As recorded, but no agent says what it lost.
fn without_verdict(line: &mut Value) -> bool {
    line["type"] != "verdict"
}

fn late(line: &mut Value) -> bool {
    drained(line);
    if line["type"] == "verdict" {
        line["result"] = "late".into();
    }
    true
}

/// The rollout's exit code, and whether JUnit has a failure or an error.
fn judged(options: &[&str], change: fn(&mut Value) -> bool) -> (i32, bool) {
    let junit = ended(&[&["--output", "junit", "--verdict-timeout", "1s"], options].concat(), change);
    let fails = junit.stdout.contains("<failure ") || junit.stdout.contains("<error ");
    (junit.code(), fails)
}

#[test]
fn all_drained_is_exit_code_0() {
    let ended = ended(&["--strict"], drained);
    assert_eq!(ended.code(), 0, "{ended:?}");
    let pods = ["web-old-a", "web-old-b"];
    assert_eq!(ended.results(), pods.map(|pod| (pod.to_owned(), "drained".to_owned())));
    let advice = &ended.total()["advice"];
    assert!(advice["pre_stop_seconds"].as_u64().is_some(), "{advice}");
}

#[test]
fn losses_are_a_failure_unless_they_are_allowed() {
    assert_eq!(judged(&[], as_recorded), (1, true));
    assert_eq!(judged(&["--max-losses", "3"], as_recorded), (1, true), "there are four");
    assert_eq!(judged(&["--max-losses", "4"], as_recorded), (0, false));
    assert_eq!(judged(&["--fail-on", "unproven"], as_recorded), (0, false));
}

#[test]
fn what_is_not_proven_is_a_failure_unless_it_is_allowed() {
    assert_eq!(judged(&[], without_verdict), (3, true));
    assert_eq!(judged(&["--fail-on", "cut"], without_verdict), (0, false));
}

#[test]
fn late_verdicts_and_doubts_are_a_failure_if_strict() {
    assert_eq!(judged(&[], late), (0, false));
    assert_eq!(judged(&["--strict"], late), (1, true));
    assert_eq!(judged(&[], doubtful), (0, false));
    assert_eq!(judged(&["--strict"], doubtful), (1, true));
}
