//! The summary of a run, and the table in `docs/probes.md` of what each kernel shows.

use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{kernel::KERNELS, machine::Outcome};
use crate::shell;

const DOCUMENT: &str = "docs/probes.md";
const BEGIN: &str = "<!-- begin: made by `cargo xtask vm` -->\n";
const END: &str = "<!-- end -->";
/// Begins the names of the rows about tests, which are the last.
const TESTS: &str = "tests";

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

/// What the table says of a kernel.
#[derive(Clone, Debug, PartialEq)]
struct Column {
    kernel: String,
    /// Names of rows, and what stands there.
    cells: Vec<(String, String)>,
}

impl Column {
    fn cell(&self, row: &str) -> &str {
        self.cells.iter().find(|(name, _)| name == row).map_or("", |(_, cell)| cell)
    }
}

/// Writes the columns of these kernels into the document; those of others stay.
pub(crate) fn record(outcomes: &[&Outcome]) -> Result<()> {
    let path = shell::workspace()?.join(DOCUMENT);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {DOCUMENT}"))?;
    let (before, rest) =
        text.split_once(BEGIN).with_context(|| format!("{DOCUMENT} has no place for the table"))?;
    let (table, after) =
        rest.split_once(END).with_context(|| format!("the table in {DOCUMENT} does not end"))?;
    let mut columns: Vec<Column> = outcomes.iter().map(|outcome| column(outcome)).collect();
    let stays = |old: &Column| outcomes.iter().all(|outcome| outcome.name != old.kernel);
    columns.extend(parse(table).into_iter().filter(stays));
    columns.sort_by_key(|column| KERNELS.iter().position(|choice| choice.name == column.kernel));
    fs::write(&path, format!("{before}{BEGIN}{}{END}{after}", markdown(&columns)))
        .with_context(|| format!("cannot write {DOCUMENT}"))
}

/// What [`markdown`] wrote.
fn parse(table: &str) -> Vec<Column> {
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    let rows: Vec<Vec<String>> = table.lines().map(cells).collect();
    let Some(([_, kernels @ ..], rows)) = rows.split_first().map(|(head, rows)| (&head[..], rows)) else {
        return Vec::new();
    };
    let cell = |row: &Vec<String>, at: usize| Some((row[0].clone(), row.get(at)?.clone()));
    let column = |(at, kernel): (usize, &String)| Column {
        kernel: kernel.clone(),
        cells: rows.iter().skip(1).filter_map(|row| cell(row, at + 1)).collect(),
    };
    kernels.iter().enumerate().map(column).collect()
}

/// A row per condition of `lastpacket check`, and two of the tests; a column per kernel.
fn markdown(columns: &[Column]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in columns.iter().flat_map(|column| &column.cells) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    names.sort_by_key(|name| name.starts_with(TESTS));
    let mut table = row("", columns, |column| &column.kernel) + &row("---", columns, |_| "---");
    for name in names {
        table += &row(name, columns, |column| column.cell(name));
    }
    table
}

fn row<'a>(name: &str, columns: &'a [Column], cell: impl Fn(&'a Column) -> &'a str) -> String {
    let cells: Vec<&str> = columns.iter().map(cell).collect();
    format!("| {name} | {} |\n", cells.join(" | "))
}

fn column(outcome: &Outcome) -> Column {
    let mut cells = vec![("Debian's version".to_owned(), outcome.release.clone().unwrap_or_default())];
    cells.extend(conditions(outcome));
    cells.push((TESTS.to_owned(), outcome.results.join("; ")));
    cells.push((format!("{TESTS} left out"), left_out(outcome)));
    Column { kernel: outcome.name.to_owned(), cells }
}

fn left_out(outcome: &Outcome) -> String {
    let named: Vec<String> =
        super::left_out(outcome.name).map(|(name, reason)| format!("`{name}`: {reason}")).collect();
    if named.is_empty() { "none".to_owned() } else { named.join("; ") }
}

/// What `lastpacket check` says of the kernel.
fn conditions(outcome: &Outcome) -> Vec<(String, String)> {
    let conditions = outcome.check.as_ref().and_then(|check| check["conditions"].as_array());
    let cell = |condition: &Value| {
        let name = condition["name"].as_str()?;
        // What the machine is, not what its kernel shows.
        if name.starts_with("CAP_") || ["kernel", "lockdown", "cgroups"].contains(&name) {
            return None;
        }
        let found = condition["found"].as_str().unwrap_or_default().replace('|', "/");
        // A hook that is there is told enough by its being there.
        let there = name.starts_with("hook ") && condition["status"] == "ok";
        Some((name.to_owned(), if there { "yes".to_owned() } else { found }))
    };
    conditions.into_iter().flatten().filter_map(cell).collect()
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
        let outcome = |name, check| Outcome {
            name,
            release: Some(format!("{name}.1")),
            check,
            results: vec!["ok. 1 passed".to_owned()],
            ..Outcome::default()
        };
        let columns = [
            column(&outcome("6.1", check("limited", "none"))),
            column(&outcome("6.12", check("ok", "fine"))),
        ];
        let table = markdown(&columns);
        assert_eq!(
            table,
            "|  | 6.1 | 6.12 |\n| --- | --- | --- |\n| Debian's version | 6.1.1 | 6.12.1 |\n\
             | hook a | none | yes |\n| tests | ok. 1 passed | ok. 1 passed |\n\
             | tests left out | none | none |\n"
        );
        assert_eq!(parse(&table), columns);
    }
}
