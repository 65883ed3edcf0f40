//! What was measured, for people and for programs: the terminal, `docs/performance.md`, and JSON.

use std::fs;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Part, figure::Figure, machine::Machine};
use crate::shell;

const DOCUMENT: &str = "docs/performance.md";
const RESULTS: &str = "target/bench.json";
const HEADS: [&str; 7] = ["", "unit", "min", "median", "max", "goal", "reached"];

/// Prints the figures of a part.
pub(crate) fn print(part: Part, figures: &[Figure]) {
    let rows: Vec<[String; 7]> =
        [HEADS.map(str::to_owned)].into_iter().chain(figures.iter().map(Figure::cells)).collect();
    let widths: [usize; 7] = std::array::from_fn(|column| {
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
    });
    println!("--- {part}");
    for row in &rows {
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| match column {
            0 | 1 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}

/// Puts the figures of a part where the document has its place for them.
pub(crate) fn record(part: Part, figures: &[Figure], machine: &Machine) -> Result<()> {
    let path = shell::workspace()?.join(DOCUMENT);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {DOCUMENT}"))?;
    let begin = format!("<!-- begin: made by `cargo xtask bench {part}` -->\n");
    let place = || format!("{DOCUMENT} has no place for `{part}`");
    let (before, rest) = text.split_once(&begin).with_context(place)?;
    let (_, after) = rest.split_once("<!-- end -->").with_context(place)?;
    let mut table = format!("Measured on {machine}.\n\n| {} |\n", HEADS.join(" | "));
    table += "|---|---|--:|--:|--:|--:|---|\n";
    for figure in figures {
        table += &format!("| {} |\n", figure.cells().join(" | "));
    }
    fs::write(&path, format!("{before}{begin}{table}{}{after}", "<!-- end -->"))
        .with_context(|| format!("cannot write {DOCUMENT}"))
}

/// Keeps the figures of a part for programs, beside those of other parts that were measured before.
pub(crate) fn keep(part: Part, figures: &[Figure], machine: &Machine) -> Result<()> {
    let path = shell::workspace()?.join(RESULTS);
    let before = fs::read_to_string(&path).ok().and_then(|text| serde_json::from_str(&text).ok());
    let mut all: Value = before.unwrap_or_else(|| json!({}));
    let figures: Vec<Value> = figures.iter().map(Figure::json).collect();
    all[part.to_string()] = json!({"machine": machine.json(), "figures": figures});
    fs::write(&path, format!("{all:#}\n")).with_context(|| format!("cannot write {RESULTS}"))
}
