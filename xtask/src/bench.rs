//! `cargo xtask bench`: what is promised of start, size and memory, measured in one run.

mod agent;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{build, shell};

pub(crate) use agent::pod;

const RUNS: usize = 10;
/// Long enough for what starts late to be counted in the resident memory.
const SETTLED: Duration = Duration::from_secs(1);

/// A number that was measured, beside its limit.
struct Figure {
    name: &'static str,
    values: Vec<f64>,
    unit: &'static str,
    limit: f64,
}

/// Measures, prints a table, and fails if a limit is missed.
pub(crate) fn run() -> Result<()> {
    if !shell::is_root() {
        bail!("the benchmark loads kernel programs and needs root: run it as root, or with `sudo -E`");
    }
    let lastpacket = build::release()?;
    let size = fs::metadata(&lastpacket).context("cannot read the binary")?.len() as f64 / 1e6;
    let runs = (0..RUNS).map(|_| trace_once(&lastpacket)).collect::<Result<Vec<_>>>()?;
    let agent = agent::measure(&lastpacket)?;
    let figures = [
        Figure {
            name: "start to armed",
            values: runs.iter().map(|run| run.0).collect(),
            unit: "ms",
            limit: 300.0,
        },
        Figure {
            name: "resident memory",
            values: runs.iter().map(|run| run.1).collect(),
            unit: "MiB",
            limit: 32.0,
        },
        Figure { name: "agent, 250 pods", values: vec![agent.resident], unit: "MiB", limit: 64.0 },
        Figure { name: "agent, 2,000/s", values: vec![agent.busy], unit: "% of a core", limit: 1.0 },
        Figure { name: "static binary", values: vec![size], unit: "MB", limit: 20.0 },
    ];
    println!("{:<16} {:>8} {:>8} {:>8} {:>8}", "", "min", "median", "max", "limit");
    let missed: Vec<&str> =
        figures.iter().filter(|figure| !print(figure)).map(|figure| figure.name).collect();
    if missed.is_empty() { Ok(()) } else { bail!("above its limit: {}", missed.join(", ")) }
}

fn print(figure: &Figure) -> bool {
    let mut values = figure.values.clone();
    values.sort_by(f64::total_cmp);
    let (Some(min), Some(max)) = (values.first(), values.last()) else { return false };
    let median = values[values.len() / 2];
    println!("{:<16} {min:>8.1} {median:>8.1} {max:>8.1} {:>8.1} {}", figure.name, figure.limit, figure.unit);
    median <= figure.limit
}

/// Traces a process in a network namespace of its own: milliseconds until it is armed, and MiB of
/// resident memory a second later.
fn trace_once(lastpacket: &Path) -> Result<(f64, f64)> {
    let mut target =
        Command::new("unshare").args(["--net", "sleep", "60"]).spawn().context("cannot run unshare")?;
    wait_for_namespace(&target)?;
    let started = Instant::now();
    let mut trace = Command::new(lastpacket)
        .args(["trace", "--format", "json", "--pid", &target.id().to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run lastpacket")?;
    let measured = measure(&mut trace, started);
    end(&mut trace);
    end(&mut target);
    measured
}

/// The first phase of a target is written when it is armed.
fn measure(trace: &mut Child, started: Instant) -> Result<(f64, f64)> {
    let stdout = trace.stdout.take().context("lastpacket has no output")?;
    let mut lines = BufReader::new(stdout).lines().map_while(std::io::Result::ok);
    lines.find(|line| line.contains("\"type\":\"phase\"")).context("lastpacket ended before it was armed")?;
    let armed = started.elapsed().as_secs_f64() * 1e3;
    std::thread::sleep(SETTLED);
    Ok((armed, resident(trace.id())?))
}

/// MiB of resident memory of a process.
fn resident(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("lastpacket ended")?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = resident.trim().trim_end_matches("kB").trim().parse().context("VmRSS is no number")?;
    Ok(kib / 1024.0)
}

/// The namespace is made by the program that was started, a moment after its start.
fn wait_for_namespace(target: &Child) -> Result<()> {
    let own = fs::read_link("/proc/self/ns/net").context("cannot read the own network namespace")?;
    let path = format!("/proc/{}/ns/net", target.id());
    for _ in 0..200 {
        if fs::read_link(&path).is_ok_and(|theirs| theirs != own) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    bail!("unshare made no network namespace within 2 s")
}

fn end(child: &mut Child) {
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
}
