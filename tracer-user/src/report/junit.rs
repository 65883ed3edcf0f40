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

/// Which verdicts make a test fail. Where one that is not well is none of these, its test is skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failing {
    /// `cut`, as a failure.
    pub cut: bool,
    /// `unproven`, as an error.
    pub unproven: bool,
    /// `late`, and verdicts with doubts, as failures.
    pub late_or_doubtful: bool,
}

impl Failing {
    /// What fails where nothing else is said; if `strict`, late verdicts and doubts, too.
    #[must_use]
    pub fn usual(strict: bool) -> Self {
        Self { cut: true, unproven: true, late_or_doubtful: strict }
    }
}

/// The report as JUnit XML.
#[must_use]
pub fn render(report: &Report, failing: Failing) -> String {
    let mut nodes: Vec<&str> = report.pods.iter().map(|pod| &*pod.node).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let incomplete = report.incomplete.as_ref().map(|reason| incomplete(report, reason));
    let of_nodes = nodes.iter().map(|node| suite(report, node, failing));
    let mut suites: Vec<Suite> = incomplete.into_iter().chain(of_nodes).collect();
    suites.iter_mut().enumerate().for_each(|(id, suite)| suite.id = id);
    let page = Page { suites };
    // Writing to memory does not fail.
    page.render().unwrap_or_default()
}

/// A suite with a test that tells why the report is not whole.
fn incomplete(report: &Report, reason: &str) -> Suite {
    let case = Case {
        class: "lastpacket".to_owned(),
        name: text(&report.title),
        time: "0.000".to_owned(),
        kind: summary::word(Some(Result::Unproven)),
        element: Some("error"),
        message: text(reason),
        text: String::new(),
    };
    Suite { cases: vec![case], errors: 1, ..suite(report, "", Failing::usual(false)) }
}

fn suite(report: &Report, node: &str, failing: Failing) -> Suite {
    let pods: Vec<&Pod> = report.pods.iter().filter(|pod| &*pod.node == node).collect();
    let cases: Vec<Case> =
        pods.iter().filter(|pod| pod.result.is_some()).map(|pod| case(pod, failing)).collect();
    let count = |element| cases.iter().filter(|case| case.element == Some(element)).count();
    let began = pods.iter().map(|pod| pod.time).filter(|time| time.0 > 0).min();
    let took: f64 = pods.iter().filter_map(|pod| pod.took()).map(|ns| ns as f64 / 1e9).sum();
    let mut out: Vec<String> = report.incomplete.iter().chain(&report.notes).cloned().collect();
    out.push(summary::headline(report.tally()));
    out.extend(report.facts.iter().cloned());
    out.extend(report.counts.troubles());
    let node = if node.is_empty() { "unknown" } else { node };
    Suite {
        id: 0,
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

fn case(pod: &Pod, failing: Failing) -> Case {
    let result = pod.result;
    let doubtful = result == Some(Result::Late) || pod.doubts() > 0;
    let failed = match result {
        Some(Result::Cut) if failing.cut => Some("failure"),
        Some(Result::Unproven) if failing.unproven => Some("error"),
        _ if failing.late_or_doubtful && doubtful => Some("failure"),
        Some(Result::Cut | Result::Unproven | Result::Idle) => Some("skipped"),
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
