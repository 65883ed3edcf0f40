//! What user space does per record: the benchmarks `rate` (criterion) and `work` (counted) of `tracer-user`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use serde_json::Value;

use super::figure::{Figure, Goal};
use crate::{setup, shell};

/// Connections whose allocations are counted, after as many as it takes for tables to be of steady size.
const CONNECTIONS: u64 = 1_000_000;
/// What a million connections that ended may leave behind, beside what is remembered for a minute.
const LEFT_BEHIND: f64 = 1.0;
/// A table may still grow once: none is asked for per record.
const STRAY: f64 = 1e-6;
/// Connections of the shorter and the longer run whose instructions are compared: what differs is the
/// cost of their records, without start and end.
const COUNTED: [u64; 2] = [20_000, 40_000];
const RECORDS_OF_CONNECTION: u64 = 5;
/// Records that one iteration of `rate` takes.
const RECORDS_OF_ITERATION: f64 = 1000.0;

/// Builds the programs and runs them.
pub(crate) fn measure() -> Result<Vec<Figure>> {
    let (rate, work) = (build("rate")?, build("work")?);
    eprintln!("    records a second");
    let estimates = measure_rates(&rate)?;
    let mut figures = Vec::new();
    for (sink, name, rate, allocations) in [
        ("core", "decode and core", Goal::AtLeast(2e6), Goal::AtMost(STRAY)),
        ("json", "decode, core and JSON", Goal::AtLeast(1e6), Goal::None),
    ] {
        eprintln!("    allocations and instructions of {name}");
        let counted = run(&work, &["records", &CONNECTIONS.to_string(), sink])?;
        let one = |unit, key: &str, factor: f64, goal| {
            Ok::<_, anyhow::Error>(Figure::new(name, unit, vec![value(&counted, key)? * factor], goal))
        };
        figures.push(Figure::new(name, "records/s", rates(&estimates, sink)?, rate));
        figures.push(one("allocations/record", "allocations_per_record", 1.0, allocations)?);
        if sink == "core" {
            let left = Goal::AtMost(LEFT_BEHIND);
            figures.push(one(
                "MiB left by 1,000,000 that ended",
                "bytes_grown",
                1.0 / f64::from(1 << 20),
                left,
            )?);
        }
        if shell::find("valgrind").is_some() {
            figures.push(Figure::new(
                name,
                "instructions/record",
                vec![instructions(&work, sink)?],
                Goal::None,
            ));
        }
    }
    Ok(figures)
}

/// Lets criterion measure, and gives the folder of its estimates.
fn measure_rates(rate: &Path) -> Result<PathBuf> {
    let folder = shell::workspace()?.join("target/criterion");
    shell::capture(Command::new(rate).args(["--bench", "--noplot"]).env("CRITERION_HOME", &folder))?;
    Ok(folder)
}

/// Records a second: criterion's samples, each the mean of some iterations.
fn rates(folder: &Path, sink: &str) -> Result<Vec<f64>> {
    let path = folder.join(format!("records/{sink}/new/sample.json"));
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let sample: Value = serde_json::from_str(&text).context("criterion's sample is no JSON")?;
    let numbers = |key: &str| sample[key].as_array().into_iter().flatten().filter_map(Value::as_f64);
    let rates: Vec<f64> = numbers("iters")
        .zip(numbers("times"))
        .map(|(iterations, nanoseconds)| RECORDS_OF_ITERATION * iterations / nanoseconds * 1e9)
        .collect();
    anyhow::ensure!(!rates.is_empty(), "criterion took no samples");
    Ok(rates)
}

/// A benchmark of `tracer-user`, with optimisation.
pub(super) fn build(name: &str) -> Result<PathBuf> {
    setup::ensure()?;
    let mut cargo = shell::cargo()?;
    let bench = ["bench", "--quiet", "--package", "tracer-user", "--bench", name, "--no-run"];
    cargo.args(bench).args(["--message-format", "json"]).env("RUSTFLAGS", "");
    let messages = shell::capture(&mut cargo)?;
    let executable = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from));
    executable.with_context(|| format!("cargo told no executable of the bench `{name}`"))
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
