//! What reports are made of: recorded rehearsals, replays of recorded pods, a rollout over two nodes.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};
use flate2::read::GzDecoder;
use tracer_core::output::{Agent, Body, K8s, Line, Named, Pod, Subject, Target};
use tracer_user::report::{
    Fold, Report,
    read::{PATIENCE, Reader, Stream},
};

/// Rehearsals that were recorded as events.
pub const REHEARSALS: [&str; 5] = ["abrupt", "flood", "graceful", "killed", "nginx"];

/// A file of a recorded rehearsal.
pub fn rehearsal_file(name: &str) -> PathBuf {
    fixture(&format!("timeline/{name}"))
}

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("fixtures/{name}.jsonl.gz"))
}

/// The text of a recorded rehearsal.
pub fn rehearsal(name: &str) -> Result<String> {
    text(&rehearsal_file(name))
}

/// The events of a recorded rehearsal, by the derived deserialiser and not by the report's own.
pub fn rehearsal_lines(name: &str) -> Result<Vec<Line>> {
    lines(&rehearsal_file(name))
}

/// What was told of real pods in the replay of a recording (`tests/recordings`), kept as it was.
pub fn recorded_pods(name: &str) -> Result<Vec<Line>> {
    lines(&fixture(&format!("report/{name}")))
}

fn text(path: &Path) -> Result<String> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let mut text = String::new();
    GzDecoder::new(file).read_to_string(&mut text)?;
    Ok(text)
}

fn lines(path: &Path) -> Result<Vec<Line>> {
    text(path)?.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// A report of events, through their text.
pub fn report(title: &str, lines: &[Line]) -> Result<Report> {
    let (mut reader, mut stream, mut events) = (Reader::new(PATIENCE), Stream::default(), Vec::new());
    for line in lines {
        reader.line(&mut stream, &serde_json::to_vec(line)?, &mut events);
    }
    reader.end(&mut events);
    let mut fold = Fold::default();
    events.iter().for_each(|line| fold.take(line));
    Ok(fold.finish(title.to_owned(), reader.counts()))
}

/// A rollout of a Deployment over two nodes: rehearsals as its pods.
/// One stream has a gap.
pub fn rollout() -> Result<Vec<Line>> {
    let mut all = Vec::new();
    for (number, name) in ["nginx", "graceful", "killed", "graceful"].into_iter().enumerate() {
        let node = if number % 2 == 0 { "node1" } else { "node2" };
        let pod = format!("web-7d9f8b6c5-{}", ["x2x7p", "k9qvd", "m4wzn", "b7h2c"][number]);
        let mut lines = rehearsal_lines(name)?;
        lines.retain(|line| !matches!(line.body, Body::Rehearsal(_)));
        if number == 3 {
            lines.drain(60..64);
        }
        lines.iter_mut().for_each(|line| be_of(line, node, number, &pod));
        all.extend(lines);
    }
    Ok(all)
}

/// The line as an agent writes it of a pod.
fn be_of(line: &mut Line, node: &str, number: usize, pod: &str) {
    line.node = node.into();
    line.agent = Agent { run_id: format!("run-{number}").into() };
    if line.subject.is_some() {
        let named = |name: &str| Some(Named { name: name.to_owned() });
        let uid = format!("00000000-0000-0000-0000-00000000000{number}");
        let k8s = K8s {
            namespace: named("shop"),
            pod: Pod { name: Some(pod.to_owned()), uid },
            deployment: named("web"),
            ..K8s::default()
        };
        let target = Target { name: pod.to_owned(), netns: 4_026_532_000 + number as u64 };
        line.subject = Some(Arc::new(Subject { target, k8s: Some(k8s) }));
    }
}

/// Names that would be markup, commands or another line, wherever text comes from outside.
pub fn hostile() -> Result<Vec<Line>> {
    let evil = "</title><script>hacked=1</script><img src=x onerror=hacked=1>\"'&]]>|`\n\u{1b}[2J\u{fffe}";
    let mut lines = rehearsal_lines("nginx")?;
    for (number, line) in lines.iter_mut().enumerate() {
        line.node = evil.into();
        if let Some(subject) = &line.subject {
            let target = Target { name: evil.to_owned(), netns: subject.target.netns };
            line.subject = Some(Arc::new(Subject { target, k8s: None }));
        }
        match &mut line.body {
            Body::Phase(event) => event.container.name = evil.into(),
            Body::Reset(event) => event.reason = (number % 2 == 0).then(|| evil.into()),
            Body::Verdict(verdict) => {
                verdict.reasons.push(evil.to_owned());
                for finding in &mut verdict.findings {
                    (finding.id, finding.text, finding.remedy) = (evil.into(), evil.into(), evil.into());
                    finding.container = evil.into();
                }
                verdict.books[0].name = evil.to_owned();
            }
            _ => {}
        }
    }
    Ok(lines)
}
