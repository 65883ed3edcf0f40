//! What is written, in every form, compared with files, which `cargo xtask bless` renews.

use std::{fs, path::Path};

use super::{
    said::{as_recorded, drained},
    scene::Scene,
    watch::Ended,
};

/// A rollout on two nodes, written in this form.
fn two_nodes(form: &str) -> Ended {
    let scene = Scene::new(&[0, 1]);
    let watch = scene.watch(&["--output", form], 2);
    scene.roll(&watch, as_recorded);
    let ended = watch.finish();
    assert_eq!(ended.code(), 1, "{ended:?}");
    ended
}

fn is_golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("rollout/golden").join(name);
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    let differs = text.lines().zip(golden.lines()).find(|(now, golden)| now != golden);
    assert!(text == golden, "{name}; if this is meant, `cargo xtask bless`. First: {differs:?}");
}

#[test]
fn golden_text() {
    let ended = two_nodes("text");
    assert_eq!(ended.stderr, "", "a pipe shows no progress");
    is_golden("two-nodes.txt", &ended.stdout);
}

#[test]
fn golden_json() {
    let ended = two_nodes("json");
    let mut text = String::new();
    for mut line in ended.lines() {
        // The verdict is the agent's, as it came.
        assert!(line["type"] == "rollout" || line["verdict"]["books"].is_array(), "{line}");
        line.as_object_mut().unwrap().remove("verdict");
        text += &(serde_json::to_string_pretty(&line).unwrap() + "\n");
    }
    is_golden("two-nodes.json", &text);
    assert_eq!(ended.stderr, "");
}

#[test]
fn golden_reports() {
    for (form, file) in [("markdown", "two-nodes.md"), ("junit", "two-nodes.xml"), ("html", "two-nodes.html")]
    {
        let ended = two_nodes(form);
        is_golden(file, &ended.stdout);
        let text =
            fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("rollout/golden/two-nodes.txt"));
        assert_eq!(ended.stderr, text.unwrap(), "the text goes to stderr meanwhile");
    }
}

#[test]
fn a_pipe_gets_json_lines() {
    let scene = Scene::new(&[0, 1]);
    let watch = scene.watch(&[], 2);
    scene.roll(&watch, drained);
    let ended = watch.finish();
    assert_eq!((ended.lines().len(), ended.code()), (3, 0), "{ended:?}");
}

#[test]
fn a_report_tells_pods_of_which_nothing_was_heard_and_leaves_others_out() {
    let scene = Scene::new(&[0]);
    let watch = scene.watch(&["--output", "html"], 1);
    scene.begin();
    scene.end(0, drained);
    scene.terminate(1);
    scene.remove(1);
    scene.complete();
    let ended = watch.finish();
    for words in [scene.old(0), scene.old(1), "no agent runs on node node2", "211 connections"] {
        assert!(ended.stdout.contains(words), "{words}: {}", ended.stdout);
    }
    assert!(!ended.stdout.contains("web-new"), "pods that run on are no part of it: {}", ended.stdout);
    assert_eq!(ended.code(), 3);
}

#[test]
fn a_report_tells_that_a_rollout_was_not_complete() {
    for (form, words) in [
        ("markdown", "> the rollout timed out: it was not complete within --timeout"),
        ("junit", "<error type=\"unproven\" message=\"the rollout timed out"),
        ("html", "badge v-unproven"),
    ] {
        let scene = Scene::new(&[0, 1]);
        let watch = scene.watch(&["--output", form, "--timeout", "4s"], 2);
        scene.begin();
        scene.at_work();
        scene.end(0, drained);
        let ended = watch.finish();
        assert!(ended.stdout.contains(words), "{form}: {}", ended.stdout);
        assert_eq!(ended.code(), 3, "{form}");
    }
}
