//! Phases and verdicts as a person would note them, beside what was noted before (`cargo xtask bless`
//! writes it anew).

use std::{fmt::Write, fs, path::Path};

use tracer_core::{
    output::{Body, EndpointEvent, Line, Status},
    verdict::{ContainerSummary, Verdict},
};

use crate::driver::Replay;

/// Compares the notes of a replay with its golden file.
pub fn is_golden(name: &str, replay: &Replay) {
    let text = noted(&replay.lines);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("replay/golden/{name}.txt"));
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &text).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, golden, "{name}; if this is meant, run `cargo xtask bless`");
}

/// All times are from the first line on, in milliseconds.
fn noted(lines: &[Line]) -> String {
    let start = lines.first().map_or(0, |line| line.mono_ns);
    let mut text = String::new();
    for line in lines {
        let name = line.subject.as_ref().map_or("", |subject| &subject.target.name);
        let at = at(start, line.mono_ns);
        let note = match &line.body {
            Body::TargetStarted(started) => format!("in scope{}", if started.late { ", late" } else { "" }),
            Body::TargetEnded(ended) => format!("out of scope: {}", ended.reason),
            Body::Endpoint(endpoint) => noted_endpoint(endpoint),
            Body::Verdict(verdict) => noted_verdict(start, verdict),
            _ => continue,
        };
        writeln!(text, "{at} {name} {note}").unwrap();
    }
    text
}

fn at(start: u64, time: u64) -> String {
    format!("{:+9.3}", (time.cast_signed() - start.cast_signed()) as f64 / 1e9)
}

fn noted_endpoint(endpoint: &EndpointEvent) -> String {
    let conditions = [
        (endpoint.ready, "ready"),
        (endpoint.serving, "serving"),
        (endpoint.terminating && endpoint.present, "terminating"),
        (!endpoint.present, "removed"),
    ];
    let words: Vec<&str> = conditions.iter().filter(|(is, _)| *is).map(|(_, word)| *word).collect();
    format!(
        "endpoint of {}: {}",
        endpoint.service,
        if words.is_empty() { "not ready".to_owned() } else { words.join("+") }
    )
}

fn noted_verdict(start: u64, verdict: &Verdict) -> String {
    let mut text = format!("━━ {}", verdict.result);
    for reason in &verdict.reasons {
        write!(text, "\n  {reason}").unwrap();
    }
    for container in &verdict.containers {
        write!(text, "\n  container {}", noted_container(start, container)).unwrap();
    }
    for loss in &verdict.losses {
        let count = (loss.count, loss.ending, loss.phase, &loss.container, loss.confidence);
        write!(text, "\n  {} {} in {} of {}, {}", count.0, count.1, count.2, count.3, count.4).unwrap();
    }
    for finding in &verdict.findings {
        write!(text, "\n  finding {}", finding.id).unwrap();
    }
    let connections = verdict.connections;
    write!(
        text,
        "\n  connections: {} opened, {} found, {} open, {} of peers",
        connections.opened, connections.found, connections.open, connections.from_peers,
    )
    .unwrap();
    text
}

fn noted_container(start: u64, container: &ContainerSummary) -> String {
    let mut text = container.name.to_string();
    for phase in &container.phases {
        write!(text, ", {} {} by {:?}", phase.phase, at(start, phase.mono_ns).trim_start(), phase.source)
            .unwrap();
        if let Some(signal) = &phase.signal {
            write!(text, " ({})", signal.name).unwrap();
        }
    }
    match &container.status {
        Some(Status { exit_code: Some(code), .. }) => write!(text, "; exit code {code}").unwrap(),
        Some(Status { killed_by: Some(signal), .. }) => write!(text, "; killed by {}", signal.name).unwrap(),
        _ => {}
    }
    if let Some(cause) = container.cause {
        write!(text, ", by {cause}").unwrap();
    }
    text
}
