//! A verdict with all that it rests on.

use anstyle::Style;
use tracer_core::{
    books::Book,
    findings::Finding,
    verdict::{ContainerSummary, LossCount, PhaseSummary, Verdict},
    words::{Hop, Result},
};

use super::{
    history::History,
    names,
    style::{BAD, DOUBT, GOOD, Look, NEUTRAL, STRONG, columns},
    table::{fact, indented, table},
};

/// All of it, line by line.
pub(super) fn tell(look: Look, history: &History, verdict: &Verdict) -> Vec<String> {
    let mut lines = vec![headline(look, history, verdict)];
    for reason in &verdict.reasons {
        lines.extend(indented(look, 2, &names::clean(reason)));
    }
    lines.extend(losses(look, verdict));
    lines.extend(verdict.findings.iter().flat_map(|finding| self::finding(look, finding)));
    for container in &verdict.containers {
        lines.extend(fact(look, &container.name, &way_out(container)));
    }
    lines.extend(traffic(look, history, verdict));
    lines.extend(harmless(look, history));
    lines.extend(books(look, &verdict.books));
    if !verdict.cannot_show.is_empty() {
        lines.extend(fact(look, "not shown", &format!("by this kernel: {}", verdict.cannot_show.join("; "))));
    }
    lines
}

/// For a target that was not terminated while it was traced.
pub(super) fn tell_none(look: Look, history: &History) -> Vec<String> {
    let text = format!("━━ no verdict ━━ {}: its end was not traced ", history.name);
    let mut lines = vec![ruled(look, STRONG, &text)];
    lines.extend(harmless(look, history));
    lines
}

fn headline(look: Look, history: &History, verdict: &Verdict) -> String {
    let word = verdict.result.word().to_uppercase();
    let doubts = match verdict.doubts {
        doubts if doubts > 0 && verdict.lost == 0 => format!(" ({doubts} not provable)"),
        _ => String::new(),
    };
    let style = match verdict.result {
        Result::Drained => GOOD,
        Result::Cut => BAD,
        Result::Late | Result::Unproven => DOUBT.bold(),
        Result::Idle => NEUTRAL,
    };
    ruled(look, style, &format!("━━ {word}{doubts} ━━ {}: {} ", history.name, names::meaning(verdict.result)))
}

fn ruled(look: Look, style: Style, text: &str) -> String {
    let rest = look.width().saturating_sub(columns(text));
    look.paint(style, &format!("{text}{}", "━".repeat(rest)))
}

/// Losses by what they are counted by; peers as far as there is room.
fn losses(look: Look, verdict: &Verdict) -> Vec<String> {
    let row = |loss: &LossCount| {
        let within = if loss.hop == Hop::Loopback { " (within the pod)" } else { "" };
        let mut cells = vec![
            loss.count.to_string(),
            format!("{}{within}", loss.ending.word()),
            phase_of_loss(loss, &verdict.containers),
            loss.confidence.word().to_owned(),
        ];
        if verdict.containers.len() > 1 {
            cells.push(names::clean(&loss.container));
        }
        let mut peers: Vec<String> = loss.peers.iter().map(|peer| names::endpoint(*peer)).collect();
        if (loss.peers.len() as u64) < loss.count {
            peers.push("…".to_owned());
        }
        cells.push(peers.join(", "));
        cells
    };
    let rows: Vec<Vec<String>> = verdict.losses.iter().map(row).collect();
    let mut heads = vec!["count", "ending", "phase", "loss"];
    if verdict.containers.len() > 1 {
        heads.push("container");
    }
    heads.push("clients");
    table(look, &heads, &rows)
}

fn phase_of_loss(loss: &LossCount, containers: &[ContainerSummary]) -> String {
    let container = containers.iter().find(|container| container.name == loss.container);
    let start =
        container.and_then(|container| container.phases.iter().find(|start| start.phase == loss.phase));
    let signal = start.and_then(|start| start.signal.as_ref()).map(|signal| names::clean(&signal.name));
    names::phase(loss.phase, signal.as_deref()).to_owned()
}

fn finding(look: Look, finding: &Finding) -> Vec<String> {
    let text = format!("{}: {}", names::clean(&finding.container), names::clean(&finding.text));
    let mut lines =
        vec![format!("  {} {}", look.paint(DOUBT, "▸"), look.paint(STRONG, &names::clean(&finding.id)))];
    let remedy = format!("→ {}", names::clean(&finding.remedy));
    for text in [text, remedy] {
        lines.extend(indented(look, 4, &text));
    }
    lines
}

fn way_out(container: &ContainerSummary) -> String {
    let first = container.phases.get(1).map_or(0, |start| start.mono_ns);
    let step = |start: &PhaseSummary| {
        let signal = start.signal.as_ref().map(|signal| names::clean(&signal.name));
        let ignored = if start.ignored { " (ignored)" } else { "" };
        let name = names::phase(start.phase, signal.as_deref());
        format!("{name}{ignored} {}", names::since(first, start.mono_ns))
    };
    let mut steps: Vec<String> = container.phases.iter().skip(1).map(step).collect();
    steps.extend(container.status.as_ref().map(|status| names::way_out(status, container.cause)));
    if steps.is_empty() { "running".to_owned() } else { steps.join(", ") }
}

fn traffic(look: Look, history: &History, verdict: &Verdict) -> Vec<String> {
    let (numbers, traffic) = (&verdict.connections, &verdict.traffic);
    let zero = history.began.as_ref().map(|(time, _)| *time);
    let at = |what: &str, time: Option<u64>| Some(format!("{what} {}", names::since(zero?, time?)));
    let quiet = traffic.quiet_ns.map(|quiet| match quiet {
        0.. => format!("{:.3} s quiet before the exit", names::seconds(quiet)),
        _ => format!("until {:.3} s after the exit", names::seconds(-quiet)),
    });
    let arrivals = [
        at("last new connection", traffic.last_connection_mono_ns),
        at("last data", traffic.last_data_mono_ns),
        at("last answer", traffic.last_sent_mono_ns),
        quiet,
    ];
    let arrivals: Vec<String> = arrivals.into_iter().flatten().collect();
    let mut lines = Vec::new();
    if !arrivals.is_empty() {
        lines.extend(fact(look, "traffic", &arrivals.join(", ")));
    }
    let counts = format!(
        "{} opened, {} found open, {} of clients, {} still open",
        numbers.opened, numbers.found, numbers.from_peers, numbers.open
    );
    lines.extend(fact(look, "connections", &counts));
    if let Some(within) = &traffic.loopback {
        let steps = [
            Some(format!("{} connections", within.connections)),
            at("last new connection", within.last_connection_mono_ns),
            at("last data", within.last_data_mono_ns),
        ];
        let steps: Vec<String> = steps.into_iter().flatten().collect();
        lines.extend(fact(look, "within pod", &steps.join(", ")));
    }
    lines
}

fn harmless(look: Look, history: &History) -> Vec<String> {
    if history.harmless.is_empty() {
        return Vec::new();
    }
    let counts: Vec<String> =
        history.harmless.iter().map(|(what, count)| format!("{count} {what}")).collect();
    fact(look, "harmless", &format!("resets: {}", counts.join(", ")))
}

/// One line if they balance; what does not balance is told in full.
fn books(look: Look, books: &[Book]) -> Vec<String> {
    let balanced = books.iter().filter(|book| book.balanced).count();
    if books.is_empty() {
        return fact(look, "books", "none could be kept");
    }
    let mut lines = fact(look, "books", &format!("{balanced} of {} balance", books.len()));
    for book in books.iter().filter(|book| !book.balanced) {
        let more = i128::from(book.kernel) - i128::from(book.events);
        let name = names::clean(&book.name);
        let text =
            format!("{name}: counted {}, the events add up to {} ({more:+})", book.kernel, book.events);
        lines.extend(fact(look, "", &text).into_iter().map(|line| look.paint(BAD, &line)));
    }
    lines
}
