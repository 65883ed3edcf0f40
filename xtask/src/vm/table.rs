//! The summary of a run, and the table in `docs/probes.md` of what each kernel shows.

use std::fs;

use anyhow::{Context, Result};

use super::machine::Outcome;
use crate::shell;

const DOCUMENT: &str = "docs/probes.md";
const BEGIN: &str = "<!-- begin: made by `cargo xtask vm` -->\n";
const END: &str = "<!-- end -->";

/// Prints a line per kernel.
pub(crate) fn print(outcomes: &[Outcome]) {
    println!("==> kernels");
    for outcome in outcomes {
        let release = outcome.release.as_deref().unwrap_or("did not start");
        let result = match outcome.exit {
            _ if outcome.timed_out => "ran too long".to_owned(),
            None => "ended without a result".to_owned(),
            Some(0) => "passed".to_owned(),
            Some(code) => format!("FAILED ({code})"),
        };
        let took = outcome.took.as_secs_f64();
        println!(
            "    {:<8}{release:<30}{result:<24}{took:>7.1} s  {}",
            outcome.name,
            outcome.results.join("; ")
        );
    }
}

/// Writes the table into the document, if it has a place for it.
pub(crate) fn record(outcomes: &[Outcome]) -> Result<()> {
    let path = shell::workspace()?.join(DOCUMENT);
    let Ok(text) = fs::read_to_string(&path) else { return Ok(()) };
    let (before, rest) =
        text.split_once(BEGIN).with_context(|| format!("{DOCUMENT} has no place for the table"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("the table in {DOCUMENT} does not end"))?;
    fs::write(&path, format!("{before}{BEGIN}{}{END}{after}", markdown(outcomes)))
        .with_context(|| format!("cannot write {DOCUMENT}"))
}

/// A row per condition of `lastpacket check`, a column per kernel.
fn markdown(outcomes: &[Outcome]) -> String {
    let mut rows = vec![row("", outcomes, |outcome| outcome.release.clone())];
    rows.push(row("---", outcomes, |_| Some("---".to_owned())));
    for name in conditions(outcomes) {
        rows.push(row(&name, outcomes, |outcome| cell(outcome, &name)));
    }
    if outcomes.iter().any(|outcome| !outcome.results.is_empty()) {
        rows.push(row("tests", outcomes, |outcome| Some(outcome.results.join("; "))));
        rows.push(row("tests left out", outcomes, |outcome| Some(left_out(outcome))));
    }
    rows.concat()
}

fn left_out(outcome: &Outcome) -> String {
    let named: Vec<String> =
        super::left_out(outcome.name).map(|(name, reason)| format!("`{name}`: {reason}")).collect();
    if named.is_empty() { "none".to_owned() } else { named.join("; ") }
}

fn row(name: &str, outcomes: &[Outcome], cell: impl Fn(&Outcome) -> Option<String>) -> String {
    let cells: Vec<String> = outcomes.iter().map(|outcome| cell(outcome).unwrap_or_default()).collect();
    format!("| {name} | {} |\n", cells.join(" | "))
}

/// Names of all conditions that say something of the kernel, in their order.
fn conditions(outcomes: &[Outcome]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for condition in
        outcomes.iter().filter_map(|outcome| outcome.check.as_ref()?["conditions"].as_array()).flatten()
    {
        let Some(name) = condition["name"].as_str() else { continue };
        // What the machine is, not what its kernel shows.
        let of_machine = name.starts_with("CAP_") || ["kernel", "lockdown", "cgroups"].contains(&name);
        if !of_machine && !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

fn cell(outcome: &Outcome, name: &str) -> Option<String> {
    let conditions = outcome.check.as_ref()?["conditions"].as_array()?;
    let condition = conditions.iter().find(|condition| condition["name"] == name)?;
    let found = condition["found"].as_str().unwrap_or_default().replace('|', "/");
    // A hook that is there is told enough by its being there.
    let there = name.starts_with("hook ") && condition["status"] == "ok";
    Some(if there { "yes".to_owned() } else { found })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_row_per_condition_and_a_column_per_kernel() {
        let check = |status: &str, found: &str| {
            Some(serde_json::json!({"conditions": [
                {"name": "CAP_BPF", "status": "ok", "found": "x"},
                {"name": "hook a", "status": status, "found": found},
            ]}))
        };
        let outcome = |release: &str, check| Outcome {
            release: Some(release.to_owned()),
            check,
            results: vec!["ok. 1 passed".to_owned()],
            ..Outcome::default()
        };
        let table =
            markdown(&[outcome("5.10", check("limited", "none")), outcome("7.3", check("ok", "fine"))]);
        assert_eq!(
            table,
            "|  | 5.10 | 7.3 |\n| --- | --- | --- |\n| hook a | none | yes |\n| tests | ok. 1 passed | ok. 1 passed |\n| tests left out | none | none |\n"
        );
    }
}
