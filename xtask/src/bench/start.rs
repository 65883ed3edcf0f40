//! Start to armed, resident memory, and the size of the binary.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{
    figure::{Figure, Goal},
    process,
};

const RUNS: usize = 10;
/// Long enough for what starts late to be counted in the resident memory.
const SETTLED: Duration = Duration::from_secs(1);

/// Starts the tracer on a process of its own, again and again.
pub(crate) fn measure() -> Result<Vec<Figure>> {
    let lastpacket = super::lastpacket()?;
    let size = fs::metadata(&lastpacket).context("cannot read the binary")?.len() as f64 / 1e6;
    let runs = (0..RUNS).map(|_| trace_once(&lastpacket)).collect::<Result<Vec<_>>>()?;
    let (armed, resident) = runs.into_iter().unzip();
    Ok(vec![
        Figure::new("start to armed", "ms", armed, Goal::AtMost(300.0)),
        Figure::new("resident memory", "MiB", resident, Goal::AtMost(32.0)),
        Figure::new("static binary", "MB", vec![size], Goal::AtMost(20.0)),
    ])
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
    let measured = read(&mut trace, started);
    end(&mut trace);
    end(&mut target);
    measured
}

/// The first phase of a target is written when it is armed.
fn read(trace: &mut Child, started: Instant) -> Result<(f64, f64)> {
    let stdout = trace.stdout.take().context("lastpacket has no output")?;
    let mut lines = BufReader::new(stdout).lines().map_while(std::io::Result::ok);
    lines.find(|line| line.contains("\"type\":\"phase\"")).context("lastpacket ended before it was armed")?;
    let armed = started.elapsed().as_secs_f64() * 1e3;
    std::thread::sleep(SETTLED);
    Ok((armed, process::resident(trace.id())?))
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
