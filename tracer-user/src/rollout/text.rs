//! Rows and total for people. Pure.

use tracer_core::words::{Phase, Result};

use super::{
    row::{PhaseTime, Row},
    total::Total,
};

/// A pod that has ended: a line, and below it what needs to be said.
#[must_use]
pub fn row(row: &Row) -> String {
    let mut facts = Vec::new();
    if !row.phases.is_empty() {
        facts.push(phases(&row.phases));
    }
    if let Some(quiet) = row.quiet_seconds {
        facts.push(if quiet < 0.0 {
            format!("traffic until {:.1} s after the exit", -quiet)
        } else {
            format!("quiet for {quiet:.1} s")
        });
    }
    if row.lost > 0 {
        facts.push(format!("{} lost", row.lost));
    }
    if row.doubts > 0 {
        facts.push(format!("{} not provable", row.doubts));
    }
    let node = row.node.as_deref().unwrap_or("no node");
    let result = row.result.word().to_uppercase();
    let mut text = format!("{result:<8}  {}  on {node}", row.pod);
    if !facts.is_empty() {
        text += &format!("  {}", facts.join("; "));
    }
    if !matches!(row.result, Result::Drained | Result::Idle) {
        for reason in &row.reasons {
            text += &format!("\n          {reason}");
        }
    }
    clean(&text) + "\n"
}

/// The phases of each container, in a line.
fn phases(phases: &[PhaseTime]) -> String {
    let mut containers: Vec<(&str, Vec<String>)> = Vec::new();
    for phase in phases {
        let words = format!("{} +{:.1} s", name(phase), phase.seconds);
        match containers.iter_mut().find(|(container, _)| *container == &*phase.container) {
            Some((_, entered)) => entered.push(words),
            None => containers.push((&phase.container, vec![words])),
        }
    }
    match containers.as_slice() {
        [(_, entered)] => entered.join(", "),
        several => several
            .iter()
            .map(|(container, entered)| format!("{container}: {}", entered.join(", ")))
            .collect::<Vec<_>>()
            .join("; "),
    }
}

fn name(phase: &PhaseTime) -> String {
    match (phase.phase, &phase.signal) {
        (_, Some(signal)) => signal.name.clone(),
        (Phase::PreStop, _) => "preStop".to_owned(),
        (Phase::AfterExit, _) => "exit".to_owned(),
        (phase, _) => phase.word().replace('_', " "),
    }
}

/// What all pods add up to.
#[must_use]
pub fn total(total: &Total) -> String {
    let verdicts: Vec<String> = Result::ALL
        .iter()
        .filter(|result| total.count(**result) > 0)
        .map(|result| format!("{} {result}", total.count(*result)))
        .collect();
    let verdicts = if verdicts.is_empty() { String::new() } else { format!(": {}", verdicts.join(", ")) };
    let mut lines = vec![
        String::new(),
        format!(
            "{} in namespace {}: {}{}",
            total.workload,
            total.namespace,
            total.rollout.replace('_', " "),
            total.reason.as_ref().map(|reason| format!(", {reason}")).unwrap_or_default()
        ),
        format!("  {} pods ended{verdicts}", total.pods),
        format!(
            "  {} connections were lost, {} endings cannot be told from a loss",
            total.lost, total.doubts
        ),
    ];
    for finding in &total.findings {
        lines.push(format!("  ▸ {} ({})", finding.id, finding.pods.join(", ")));
        lines.push(format!("    {}: {}", finding.container, finding.text));
        lines.push(format!("    → {}", finding.remedy));
    }
    if let Some(lag) = &total.propagation_lag {
        lines.push(format!("  load balancers let go {lag}"));
    }
    if let Some(advice) = &total.advice {
        lines.push(format!("  → {advice}, as measured and with a margin"));
    }
    lines.extend(total.notes.iter().map(|note| format!("  note: {note}")));
    clean(&lines.join("\n")) + "\n"
}

/// What others wrote has no control over the terminal.
fn clean(text: &str) -> String {
    text.chars().map(|char| if char.is_control() && char != '\n' { '\u{fffd}' } else { char }).collect()
}
