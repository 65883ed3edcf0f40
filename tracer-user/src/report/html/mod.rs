//! One page for a browser, with nothing beside it: no network, no framework, no inline attributes of
//! style, so that it is shown under any content security policy.
//!
//! A lane for each container and each peer; places are percentages of the width, so that the page is
//! right on a phone as on a wall. All text is escaped by the template engine.

mod axis;
mod bands;
mod peers;
mod view;

use askama::Template;
use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};

use super::{model::Report, summary};
use view::PodView;

const STYLE: &str = include_str!("../templates/style.css");
const SCRIPT: &str = include_str!("../templates/script.js");

/// Pods with a plot; the others are in the table.
const PLOTS: usize = 100;
/// Bars, marks and lanes on the whole page, so that it has at most some megabytes and browsers stay quick.
const BARS: usize = 6_000;
const MARKS: usize = 3_000;
const LANES: usize = 240;
/// Pods whose plot is open at first.
const OPEN: usize = 6;

/// What the plot of a pod may hold.
#[derive(Clone, Copy)]
struct Limits {
    lanes: usize,
    /// Bars of connections.
    bars: usize,
    /// Columns of a lane that shows numbers over time.
    columns: usize,
    /// Places of a lane where marks may lie.
    places: usize,
}

impl Limits {
    /// A fair share of the page for each plot.
    fn of(plots: usize) -> Self {
        let plots = plots.max(1);
        let lanes = (LANES / plots).clamp(4, 40);
        let all = lanes * plots;
        let (columns, places) = ((BARS / all).clamp(20, 160), (MARKS / all).clamp(10, 100));
        Self { lanes, bars: (BARS / plots).max(40), columns, places }
    }
}

#[derive(Template)]
#[template(path = "page.html")]
struct Page<'a> {
    policy: String,
    style: &'static str,
    script: &'static str,
    title: &'a str,
    word: &'static str,
    headline: String,
    notes: Vec<&'a str>,
    facts: &'a [String],
    findings: Vec<summary::Found<'a>>,
    pods: Vec<PodView<'a>>,
    more_pods: usize,
    sources: Vec<String>,
    events: u64,
    troubles: Vec<String>,
}

/// The report as HTML.
#[must_use]
pub fn render(report: &Report) -> String {
    let mut pods: Vec<_> = report.pods.iter().collect();
    pods.sort_by_key(|pod| summary::severity(pod.result));
    let plots = pods.len().min(PLOTS);
    let limits = Limits::of(plots);
    let view = |(number, pod)| PodView::of(pod, number, number < OPEN, limits);
    let page = Page {
        policy: policy(),
        style: STYLE,
        script: SCRIPT,
        title: &report.title,
        word: summary::word(report.result()),
        headline: summary::headline(report.tally()),
        notes: report.incomplete.iter().chain(&report.notes).map(String::as_str).collect(),
        facts: &report.facts,
        findings: summary::findings(report),
        pods: pods.iter().copied().take(PLOTS).enumerate().map(view).collect(),
        more_pods: pods.len() - plots,
        sources: summary::sources(report),
        events: report.counts.events,
        troubles: report.counts.troubles(),
    };
    // Writing to memory does not fail.
    without_controls(page.render().unwrap_or_default())
}

/// HTML has no control characters but white space (WHATWG HTML, 13.1.4): names may.
fn without_controls(page: String) -> String {
    let forbidden = |character: char| character.is_control() && !character.is_whitespace();
    if page.contains(forbidden) { page.replace(forbidden, "\u{fffd}") } else { page }
}

/// Nothing is loaded, and only the page's own style and script count.
fn policy() -> String {
    let hash = |text: &str| format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)));
    format!(
        "default-src 'none'; img-src data:; style-src {}; script-src {}; base-uri 'none'; form-action 'none'",
        hash(STYLE),
        hash(SCRIPT)
    )
}
