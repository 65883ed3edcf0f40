//! What all forms of a report say in the same words: headline, findings once for all pods, times.

use std::collections::BTreeMap;

use tracer_core::{
    event::Mono,
    output::Timestamp,
    verdict::{LossCount, Verdict},
    words::{Phase, Result},
};

use super::model::{Lane, Pod, Report, Tally};
use crate::sink::names;

/// A finding of one or several pods.
#[derive(Debug)]
pub(super) struct Found<'a> {
    /// Its id, as in docs/findings.md.
    pub(super) id: &'a str,
    /// Which container.
    pub(super) container: &'a str,
    /// What was seen in the first of them.
    pub(super) text: &'a str,
    /// What to do: the remedies, each once.
    pub(super) remedies: Vec<&'a str>,
    /// How many pods.
    pub(super) pods: usize,
}

/// Remedies told of a finding; others differ in their numbers.
const REMEDIES: usize = 3;

/// The answer for all, in a word.
pub(super) fn word(result: Option<Result>) -> &'static str {
    result.map_or("no verdict", Result::word)
}

/// A mark beside a verdict's word, for where there are no colours.
pub(super) fn sign(result: Option<Result>) -> &'static str {
    match result {
        Some(Result::Drained) => "✅",
        Some(Result::Late) => "⚠️",
        Some(Result::Cut) => "❌",
        Some(Result::Idle) => "💤",
        Some(Result::Unproven) => "❔",
        None => "➖",
    }
}

/// The worst first.
pub(super) fn severity(result: Option<Result>) -> usize {
    let order = [Some(Result::Cut), Some(Result::Unproven), Some(Result::Late), Some(Result::Drained)];
    order.iter().position(|other| *other == result).unwrap_or(order.len())
}

/// The pods by verdict, the worst first, and their losses.
pub(super) fn headline(tally: Tally) -> String {
    let counts = [
        (tally.cut, "cut"),
        (tally.unproven, "unproven"),
        (tally.late, "late"),
        (tally.drained, "drained"),
        (tally.idle, "idle"),
        (tally.none, "not judged"),
    ];
    let told = counts.into_iter().filter(|(count, _)| *count > 0);
    let mut parts: Vec<String> = told.map(|(count, word)| format!("{count} {word}")).collect();
    if parts.is_empty() {
        return "no pod was seen".to_owned();
    }
    if tally.lost > 0 {
        parts.push(names::count(tally.lost, "connection lost", "connections lost"));
    }
    if tally.doubts > 0 {
        parts.push(format!("{} not provable", names::count(tally.doubts, "ending", "endings")));
    }
    parts.join(", ")
}

/// The findings of all pods, the most frequent first.
pub(super) fn findings(report: &Report) -> Vec<Found<'_>> {
    let mut found: BTreeMap<(&str, &str), Found> = BTreeMap::new();
    let verdicts = report.pods.iter().filter_map(|pod| pod.verdict.as_ref());
    for finding in verdicts.flat_map(|verdict| &verdict.findings) {
        let entry = found.entry((&finding.id, &finding.container)).or_insert_with(|| Found {
            id: &finding.id,
            container: &finding.container,
            text: &finding.text,
            remedies: Vec::new(),
            pods: 0,
        });
        entry.pods += 1;
        if entry.remedies.len() < REMEDIES && !entry.remedies.contains(&finding.remedy.as_str()) {
            entry.remedies.push(&finding.remedy);
        }
    }
    let mut found: Vec<_> = found.into_values().collect();
    found.sort_by_key(|found| std::cmp::Reverse(found.pods));
    found
}

/// A pod with its namespace.
pub(super) fn full_name(pod: &Pod) -> String {
    match &pod.namespace {
        Some(namespace) => format!("{namespace}/{}", pod.name),
        None => pod.name.clone(),
    }
}

/// A time span in seconds; nothing if it is not known.
pub(super) fn span(ns: Option<Mono>) -> String {
    ns.map_or(String::new(), |ns| format!("{:.3} s", ns as f64 / 1e9))
}

/// How long traffic had been quiet at the exit; or how long after the exit it still came.
pub(super) fn quiet(pod: &Pod) -> String {
    pod.quiet_ns().map_or(String::new(), |ns| match names::seconds(ns) {
        late if late < 0.0 => format!("none, until {:+.3} s", -late),
        quiet => format!("{quiet:.3} s"),
    })
}

/// A container's phases after running with their times since the termination's begin, and how it ended.
pub(super) fn way_out(pod: &Pod, lane: &Lane) -> String {
    let zero = pod.began.unwrap_or(0);
    let steps = lane.phases.iter().filter(|(phase, ..)| *phase != Phase::Running);
    let steps = steps.map(|(_, time, name)| format!("{name} {}", names::since(zero, *time)));
    let status = lane.status.as_ref().map(|status| names::way_out(status, lane.cause));
    let all: Vec<String> = steps.chain(status).collect();
    if all.is_empty() { "running".to_owned() } else { all.join(", ") }
}

/// Where the container was at a loss, as people call it.
pub(super) fn phase_of(verdict: &Verdict, loss: &LossCount) -> String {
    let container = verdict.containers.iter().find(|container| container.name == loss.container);
    let start =
        container.and_then(|container| container.phases.iter().find(|start| start.phase == loss.phase));
    let signal = start.and_then(|start| start.signal.as_ref());
    names::phase(loss.phase, signal.map(|signal| signal.name.as_str())).to_owned()
}

/// The first clients of a loss.
pub(super) fn clients(loss: &LossCount) -> String {
    let mut peers: Vec<String> = loss.peers.iter().map(|peer| names::endpoint(*peer)).collect();
    if (loss.peers.len() as u64) < loss.count {
        peers.push("…".to_owned());
    }
    peers.join(", ")
}

/// Books that balance, and all of them.
pub(super) fn books(verdict: &Verdict) -> String {
    let balanced = verdict.books.iter().filter(|book| book.balanced).count();
    format!("{balanced} of {} balance", verdict.books.len())
}

/// Where the events come from, one sentence for each machine and version.
pub(super) fn sources(report: &Report) -> Vec<String> {
    let mut sources: BTreeMap<String, (u64, Timestamp)> = BTreeMap::new();
    for run in &report.runs {
        let version = run.version.as_ref();
        let version =
            version.map_or(String::new(), |(own, kernel)| format!(", lastpacket {own}, Linux {kernel}"));
        let entry = sources.entry(format!("{}{version}", run.node)).or_insert((0, run.began));
        *entry = (entry.0 + 1, entry.1.min(run.began));
    }
    let told = |(source, (runs, began)): (String, (u64, Timestamp))| {
        let runs = if runs > 1 { format!(", {runs} runs") } else { String::new() };
        format!("{source}{runs}, from {began}")
    };
    sources.into_iter().map(told).collect()
}
