//! Markdown for a comment on a pull request (GitHub's flavour), within the length that a comment may have.

use askama::Template;

use super::{
    model::{Pod, Report},
    summary::{self, Found},
};
use crate::sink::names;

/// Rows of a table; more are left out, and told.
const ROWS: usize = 60;
/// A comment holds 65,536 characters.
const LONGEST: usize = 60_000;

#[derive(Template)]
#[template(path = "report.md", escape = "none")]
struct Page<'a> {
    title: String,
    sign: &'static str,
    word: &'static str,
    headline: String,
    notes: Vec<String>,
    facts: Vec<String>,
    pods: Vec<Row>,
    more_pods: usize,
    findings: Vec<Finding>,
    losses: Vec<[String; 6]>,
    more_losses: usize,
    unbalanced: Vec<String>,
    ways: Vec<[String; 3]>,
    sources: Vec<String>,
    events: u64,
    troubles: &'a [String],
}

struct Row {
    sign: &'static str,
    pod: String,
    word: &'static str,
    lost: u64,
    doubts: u64,
    quiet: String,
    took: String,
    why: String,
}

struct Finding {
    id: String,
    whose: String,
    text: String,
    remedies: Vec<String>,
}

/// The report as Markdown.
#[must_use]
pub fn render(report: &Report) -> String {
    let rows = [ROWS, ROWS / 4, 5].map(|rows| page(report, rows));
    let fitting = rows.iter().position(|text| text.len() <= LONGEST).unwrap_or(2);
    rows.into_iter().nth(fitting).unwrap_or_default()
}

fn page(report: &Report, rows: usize) -> String {
    let mut pods: Vec<&Pod> = report.pods.iter().collect();
    pods.sort_by_key(|pod| summary::severity(pod.result));
    let losses: Vec<[String; 6]> = pods.iter().flat_map(|pod| losses(pod)).collect();
    let troubles: Vec<String> = report.counts.troubles().iter().map(|text| escape(text)).collect();
    let page = Page {
        title: escape(&report.title),
        sign: summary::sign(report.result()),
        word: summary::word(report.result()),
        headline: summary::headline(report.tally()),
        notes: report.incomplete.iter().chain(&report.notes).map(|note| escape(note)).collect(),
        facts: report.facts.iter().take(rows).map(|line| escape(line)).collect(),
        pods: pods.iter().take(rows).map(|pod| row(pod)).collect(),
        more_pods: pods.len().saturating_sub(rows),
        findings: summary::findings(report).iter().take(rows).map(finding).collect(),
        more_losses: losses.len().saturating_sub(rows),
        losses: losses.into_iter().take(rows).collect(),
        unbalanced: pods.iter().flat_map(|pod| unbalanced(pod)).take(rows).collect(),
        ways: pods.iter().flat_map(|pod| ways(pod)).take(rows).collect(),
        sources: summary::sources(report).iter().take(rows).map(|text| escape(text)).collect(),
        events: report.counts.events,
        troubles: &troubles,
    };
    // Writing to memory does not fail.
    page.render().unwrap_or_default()
}

fn row(pod: &Pod) -> Row {
    Row {
        sign: summary::sign(pod.result),
        pod: escape(&summary::full_name(pod)),
        word: summary::word(pod.result),
        lost: pod.lost(),
        doubts: pod.doubts(),
        quiet: summary::quiet(pod),
        took: summary::span(pod.took()),
        why: escape(&pod.reasons.join("; ")),
    }
}

fn finding(found: &Found) -> Finding {
    let pods = names::count(found.pods as u64, "pod", "pods");
    Finding {
        id: escape(found.id),
        whose: format!("{}, {pods}", escape(found.container)),
        text: escape(found.text),
        remedies: found.remedies.iter().map(|remedy| escape(remedy)).collect(),
    }
}

fn losses(pod: &Pod) -> Vec<[String; 6]> {
    let Some(verdict) = &pod.verdict else { return Vec::new() };
    let row = |loss: &tracer_core::verdict::LossCount| {
        [
            escape(&summary::full_name(pod)),
            loss.count.to_string(),
            escape(loss.ending.word()),
            escape(&summary::phase_of(verdict, loss)),
            loss.confidence.word().to_owned(),
            escape(&summary::clients(loss)),
        ]
    };
    verdict.losses.iter().map(row).collect()
}

fn unbalanced(pod: &Pod) -> Vec<String> {
    let books = pod.verdict.iter().flat_map(|verdict| &verdict.books).filter(|book| !book.balanced);
    let tell = |book: &tracer_core::books::Book| {
        let (name, kernel, events) = (&book.name, book.kernel, book.events);
        let pod = summary::full_name(pod);
        escape(&format!("{pod}: {name}: counted {kernel}, the events add up to {events}"))
    };
    books.map(tell).collect()
}

fn ways(pod: &Pod) -> Vec<[String; 3]> {
    let way = |lane: &super::model::Lane| {
        [summary::full_name(pod), lane.name.clone(), summary::way_out(pod, lane)].map(|text| escape(&text))
    };
    pod.lanes.iter().map(way).collect()
}

/// Text that is no Markdown, no HTML, mentions nobody, and stays in its table cell.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '@' => escaped.push_str("&#64;"),
            '#' => escaped.push_str("&#35;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' | '!' | '$' => {
                escaped.push('\\');
                escaped.push(character);
            }
            _ if character.is_control() => escaped.push('\u{fffd}'),
            _ => escaped.push(character),
        }
    }
    // No link either.
    escaped.replace("://", "&#58;//")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_text() {
        let hostile = "</details>|`x` @everyone\n# [a](https://b) _c_";
        let escaped = escape(hostile);
        for mark in ["<", "@", "\n", " `", " #", " [", " _", "://"] {
            assert!(!escaped.contains(mark), "{mark:?} in {escaped}");
        }
    }
}
