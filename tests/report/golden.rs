//! Every form of a report, compared with files, which `cargo xtask bless` renews; and the text, which
//! must be what was seen live.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use lastpacket_tests::needs::anywhere;
use libtest_mimic::Trial;
use tracer_core::output::Line;
use tracer_user::{
    report::{Failing, html, junit, markdown, text::Text},
    sink::{
        Render,
        timeline::{Look, Timeline},
    },
};

use super::inputs::{self, REHEARSALS};

/// Recordings of real pods whose reports are kept.
const RECORDINGS: [&str; 3] =
    ["rollout-restart-under-load", "sidecar-delete-under-load", "tls-nginx-delete-under-load"];

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for name in REHEARSALS {
        trials.push(anywhere(format!("text_is_what_was_seen_live::{name}"), move || {
            let lines = inputs::rehearsal_lines(name)?;
            text_is_live(&inputs::rehearsal(name)?, &lines)
        }));
    }
    for name in RECORDINGS {
        trials.push(anywhere(format!("golden::{name}"), move || {
            all_forms(name, &inputs::recorded_pods(name)?)
        }));
        trials.push(anywhere(format!("text_is_what_was_seen_live::{name}"), move || {
            let lines = inputs::recorded_pods(name)?;
            let json: Result<Vec<String>, _> = lines.iter().map(serde_json::to_string).collect();
            text_is_live(&json?.join("\n"), &lines)
        }));
    }
    trials.push(anywhere("golden::nginx", || all_forms("nginx", &inputs::rehearsal_lines("nginx")?)));
    trials.push(anywhere("golden::rollout", || all_forms("rollout", &inputs::rollout()?)));
    trials
}

fn all_forms(name: &str, lines: &[Line]) -> Result<()> {
    let report = inputs::report(name, lines)?;
    compare(&format!("{name}.md"), &markdown::render(&report))?;
    compare(&format!("{name}.xml"), &junit::render(&report, Failing::usual(false)))?;
    compare(&format!("{name}.html"), &html::render(&report))?;
    let mut text = Text::new(Look::new(80, false));
    lines.iter().for_each(|line| text.take(line));
    compare(&format!("{name}.txt"), &String::from_utf8(text.finish())?)
}

/// Compares with a file; with `UPDATE=1` writes it.
fn compare(name: &str, now: &str) -> Result<()> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("report/golden").join(name);
    if std::env::var_os("UPDATE").is_some_and(|update| update == "1") {
        fs::create_dir_all(path.parent().context("no folder")?)?;
        return Ok(fs::write(&path, now)?);
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    let differs = now.lines().zip(expected.lines()).find(|(now, expected)| now != expected);
    ensure!(
        now == expected,
        "{} is not what is made now; see the difference after `cargo xtask bless`. First: {differs:?}",
        path.display()
    );
    Ok(())
}

/// What the pipeline wrote while it happened, from its own events, beside what a report makes of the
/// recorded text.
fn text_is_live(recorded: &str, lines: &[Line]) -> Result<()> {
    for width in [80, 200] {
        let look = Look::new(width, false);
        let (mut live, mut timeline) = (Vec::new(), Timeline::new(look));
        lines.iter().for_each(|line| timeline.line(line, &mut live));
        timeline.end(&mut live);
        let mut text = Text::new(look);
        let (mut reader, mut events) = (tracer_user::report::read::Reader::new(0), Vec::new());
        let mut stream = tracer_user::report::read::Stream::default();
        recorded.lines().for_each(|line| reader.line(&mut stream, line.as_bytes(), &mut events));
        reader.end(&mut events);
        events.iter().for_each(|line| text.take(line));
        ensure!(text.finish() == live, "it differs at {width} columns");
    }
    Ok(())
}
