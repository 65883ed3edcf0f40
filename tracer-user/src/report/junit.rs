//! JUnit XML for CI: a test suite for each run of lastpacket, a test case for each pod.
//!
//! It keeps to what all readers understand: attributes and elements that both the schema of Ant and
//! the one of Jenkins have.

use askama::Template;
use tracer_core::{output::Timestamp, words::Result};

use super::{
    model::{Pod, Report},
    summary,
};
use crate::sink::names;

#[derive(Template)]
#[template(path = "junit.xml")]
struct Page {
    suites: Vec<Suite>,
}

struct Suite {
    id: usize,
    name: String,
    node: String,
    timestamp: String,
    time: String,
    properties: Vec<[String; 2]>,
    cases: Vec<Case>,
    out: String,
    errors: usize,
    failures: usize,
    skipped: usize,
}

struct Case {
    class: String,
    name: String,
    time: String,
    kind: &'static str,
    /// The element that tells what is wrong, if anything is.
    element: Option<&'static str>,
    message: String,
    text: String,
}

/// The report as JUnit XML: `cut` is a failure, `unproven` an error, `idle` is skipped. If `strict`, late
/// verdicts and doubts are failures too.
#[must_use]
pub fn render(report: &Report, strict: bool) -> String {
    let mut nodes: Vec<&str> = report.pods.iter().map(|pod| &*pod.node).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let suites = nodes.iter().enumerate().map(|(id, node)| suite(report, id, node, strict));
    let page = Page { suites: suites.collect() };
    // Writing to memory does not fail.
    page.render().unwrap_or_default()
}

fn suite(report: &Report, id: usize, node: &str, strict: bool) -> Suite {
    let pods: Vec<&Pod> = report.pods.iter().filter(|pod| &*pod.node == node).collect();
    let cases: Vec<Case> =
        pods.iter().filter(|pod| pod.result.is_some()).map(|pod| case(pod, strict)).collect();
    let count = |element| cases.iter().filter(|case| case.element == Some(element)).count();
    let began = pods.iter().map(|pod| pod.time).filter(|time| time.0 > 0).min();
    let took: f64 = pods.iter().filter_map(|pod| pod.took()).map(|ns| ns as f64 / 1e9).sum();
    let mut out = report.notes.clone();
    out.push(summary::headline(report.tally()));
    out.extend(report.counts.troubles());
    let node = if node.is_empty() { "unknown" } else { node };
    Suite {
        id,
        name: text(&format!("lastpacket on {node}")),
        node: text(node),
        // The schema knows neither fractions nor zones; it is UTC.
        timestamp: began.unwrap_or(Timestamp(0)).to_string().chars().take(19).collect(),
        time: format!("{took:.3}"),
        properties: summary::sources(report)
            .into_iter()
            .map(|source| ["source".to_owned(), text(&source)])
            .collect(),
        errors: count("error"),
        failures: count("failure"),
        skipped: count("skipped"),
        cases,
        out: text(&out.join("\n")),
    }
}

fn case(pod: &Pod, strict: bool) -> Case {
    let result = pod.result;
    let failed = match result {
        Some(Result::Cut) => Some("failure"),
        Some(Result::Unproven) => Some("error"),
        Some(Result::Late) if strict => Some("failure"),
        _ if strict && pod.doubts() > 0 => Some("failure"),
        Some(Result::Idle) => Some("skipped"),
        _ => None,
    };
    let class = [pod.namespace.as_deref(), pod.workload.as_deref()];
    let class: Vec<&str> = class.into_iter().flatten().collect();
    let word = summary::word(result);
    Case {
        class: text(&if class.is_empty() { "lastpacket".to_owned() } else { class.join(".") }),
        name: text(&pod.name),
        time: format!("{:.3}", pod.took().unwrap_or(0) as f64 / 1e9),
        kind: word,
        element: failed,
        message: text(&format!("{word}: {}", pod.reasons.join("; "))),
        text: text(&details(pod)),
    }
}

/// What one needs to know without the other forms at hand.
fn details(pod: &Pod) -> String {
    let mut lines: Vec<String> =
        pod.lanes.iter().map(|lane| format!("{}: {}", lane.name, summary::way_out(pod, lane))).collect();
    if let Some(verdict) = &pod.verdict {
        lines.extend(verdict.losses.iter().map(|loss| {
            let phase = summary::phase_of(verdict, loss);
            let clients = summary::clients(loss);
            format!("{} {} in {phase}, {}: {clients}", loss.count, loss.ending, loss.confidence)
        }));
        for finding in &verdict.findings {
            lines.push(format!("{}: {}: {}", finding.id, finding.container, finding.text));
            lines.push(format!("→ {}", finding.remedy));
        }
        lines.push(format!("books: {}", summary::books(verdict)));
    }
    lines.join("\n")
}

/// Text without characters that XML cannot hold.
fn text(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(names::clean).collect();
    lines.join("\n").replace(['\u{fffe}', '\u{ffff}'], "\u{fffd}")
}
