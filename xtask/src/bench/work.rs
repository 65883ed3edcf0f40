//! What user space does per record: the program `tracer-user/benches/work`, timed and counted.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result};
use serde_json::Value;

use super::figure::{Figure, Goal};
use crate::{setup, shell};

const RUNS: usize = 5;
/// Connections of a timed run.
const CONNECTIONS: u64 = 1_000_000;
/// Connections of the shorter and the longer run whose instructions are compared: what differs is the
/// cost of their records, without start and end.
const COUNTED: [u64; 2] = [20_000, 40_000];
const RECORDS_OF_CONNECTION: u64 = 5;
const LIVE: u64 = 1_000_000;

/// Builds the program and runs it.
pub(crate) fn measure() -> Result<Vec<Figure>> {
    let work = build()?;
    let mut figures = Vec::new();
    for (sink, name, rate, allocations) in [
        ("core", "decode and core", Goal::AtLeast(2e6), Goal::AtMost(0.0)),
        ("json", "decode, core and JSON", Goal::AtLeast(1e6), Goal::None),
    ] {
        let runs = (0..RUNS)
            .map(|_| run(&work, &["records", &CONNECTIONS.to_string(), sink]))
            .collect::<Result<Vec<_>>>()?;
        let each = |key: &str| runs.iter().map(|run| value(run, key)).collect::<Result<Vec<_>>>();
        figures.push(Figure::new(name, "records/s", each("records_per_second")?, rate));
        figures.push(Figure::new(name, "allocations/record", each("allocations_per_record")?, allocations));
        if shell::find("valgrind").is_some() {
            figures.push(Figure::new(
                name,
                "instructions/record",
                vec![instructions(&work, sink)?],
                Goal::None,
            ));
        }
    }
    let live = run(&work, &["live", &LIVE.to_string()])?;
    let name = format!("{LIVE} live connections");
    figures.push(Figure::new(name, "MiB", vec![value(&live, "peak_mebibytes")?], Goal::AtMost(256.0)));
    Ok(figures)
}

/// The program with optimisation.
fn build() -> Result<PathBuf> {
    setup::ensure()?;
    let mut cargo = shell::cargo()?;
    let bench = ["bench", "--quiet", "--package", "tracer-user", "--bench", "work", "--no-run"];
    cargo.args(bench).args(["--message-format", "json"]).env("RUSTFLAGS", "");
    let messages = shell::capture(&mut cargo)?;
    let executable = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == "work")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from));
    executable.context("cargo told no executable of the bench `work`")
}

fn run(work: &PathBuf, words: &[&str]) -> Result<Value> {
    let said = shell::capture(Command::new(work).args(words))?;
    serde_json::from_str(&said).with_context(|| format!("the bench `work` said {said}"))
}

fn value(result: &Value, key: &str) -> Result<f64> {
    result[key].as_f64().with_context(|| format!("the bench `work` told no {key}: {result}"))
}

/// Instructions a record, as callgrind counts them: the same in every run.
fn instructions(work: &PathBuf, sink: &str) -> Result<f64> {
    let [shorter, longer] = COUNTED.map(|connections| count(work, connections, sink));
    let difference = longer?.saturating_sub(shorter?) as f64;
    // The program takes as many connections to warm up as it counts.
    let connections = 2 * (COUNTED[1] - COUNTED[0]);
    Ok(difference / (connections * RECORDS_OF_CONNECTION) as f64)
}

fn count(work: &PathBuf, connections: u64, sink: &str) -> Result<u64> {
    let mut valgrind = Command::new("valgrind");
    // Only the turns of the pipeline are counted, not the making of records.
    let turns = ["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*Turn*take*"];
    valgrind.args(turns).arg(work).args(["records", &connections.to_string(), sink]);
    let output = valgrind.output().context("cannot run valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected =
        said.lines().find_map(|line| line.split_once("Collected : ")).map(|(_, count)| count.trim());
    collected
        .and_then(|count| count.parse().ok())
        .with_context(|| format!("callgrind counted nothing:\n{said}"))
}
