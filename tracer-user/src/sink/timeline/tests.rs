//! Recorded runs as text, compared with files. `cargo xtask bless` renews them.

use std::{fs, io::Read, path::PathBuf, sync::Arc};

use tracer_core::{
    output::{Body, Line, Subject, Target, UnseenLoss},
    words::{Confidence, Ending},
};

use super::{Look, Timeline};
use crate::sink::Render;

fn recording(name: &str) -> Vec<Line> {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../tests/fixtures/timeline/{name}.jsonl.gz"));
    let mut text = String::new();
    flate2::read::GzDecoder::new(fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn render(lines: &[Line], look: Look) -> String {
    let mut timeline = Timeline::new(look);
    let mut bytes = Vec::new();
    lines.iter().for_each(|line| timeline.line(line, &mut bytes));
    timeline.end(&mut bytes);
    String::from_utf8(bytes).unwrap()
}

/// Compares with a file; with `UPDATE=1` writes it.
fn golden(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("src/sink/timeline/golden/{name}.txt"));
    if std::env::var_os("UPDATE").is_some_and(|update| update == "1") {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        return;
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        text == expected,
        "{} is not what is made now; see the difference after `cargo xtask bless`. Now:\n{text}",
        path.display()
    );
}

fn golden_at_both_widths(name: &str) {
    let lines = recording(name);
    for width in [80, 200] {
        let text = render(&lines, Look::new(width, false));
        assert!(!text.contains('\x1b'));
        for line in text.lines() {
            assert!(super::style::columns(line) <= width, "{width}: {line}");
        }
        golden(&format!("{name}-{width}"), &text);
    }
}

#[test]
fn golden_abrupt_exit() {
    golden_at_both_widths("abrupt");
}

#[test]
fn golden_graceful_exit() {
    golden_at_both_widths("graceful");
}

#[test]
fn golden_flood_of_losses() {
    golden_at_both_widths("flood");
}

#[test]
fn golden_nginx_with_pre_stop() {
    golden_at_both_widths("nginx");
}

#[test]
fn golden_kill_at_the_end_of_grace() {
    golden_at_both_widths("killed");
}

#[test]
fn golden_colour() {
    golden("abrupt-80-colour", &render(&recording("abrupt"), Look::new(80, true)));
}

/// What should not be: books that do not balance, failures and losses that do not match, two targets.
#[test]
fn golden_puzzles() {
    let mut lines = recording("abrupt");
    for line in &mut lines {
        match &mut line.body {
            Body::Verdict(verdict) => {
                verdict.books[0].kernel += 1;
                verdict.books[0].balanced = false;
            }
            Body::Rehearsal(event) => {
                event.failures[0].explained_by = None;
                event.explained -= 1;
                let peer = "10.99.0.1:40000".to_owned();
                event.unseen_losses.push(UnseenLoss {
                    peer,
                    ending: Ending::LateData,
                    confidence: Confidence::Certain,
                });
            }
            _ => {}
        }
    }
    let mut other = lines[1].clone();
    let target = Target { name: "other\x1b[2J".to_owned(), netns: 1 };
    other.subject = Some(Arc::new(Subject { target, k8s: None }));
    lines.insert(2, other);
    golden("puzzles-80", &render(&lines, Look::new(80, false)));
}

#[test]
fn colour_changes_nothing_else() {
    let lines = recording("abrupt");
    let coloured = render(&lines, Look::new(80, true));
    let mut plain = String::new();
    let mut escape = false;
    for character in coloured.chars() {
        match (character, escape) {
            ('\x1b', _) => escape = true,
            ('m', true) => escape = false,
            (_, true) => {}
            (other, false) => plain.push(other),
        }
    }
    let trim = |text: &str| text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
    assert_eq!(trim(&plain), trim(&render(&lines, Look::new(80, false))));
}

#[test]
fn a_recording_that_breaks_off_still_has_its_picture() {
    let mut lines = recording("abrupt");
    lines.truncate(lines.len() - 2);
    let text = render(&lines, Look::new(80, false));
    assert!(text.contains("no verdict"), "{text}");
    assert!(text.contains("losses"), "{text}");
}
