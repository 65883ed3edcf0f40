//! What a process takes: memory and processor time, as the kernel counts them.

use std::fs;

use anyhow::{Context, Result};

/// Resident memory in MiB.
pub(crate) fn resident(pid: u32) -> Result<f64> {
    memory(pid, "VmRSS:")
}

/// The most memory that it had resident until now, in MiB.
pub(crate) fn peak(pid: u32) -> Result<f64> {
    memory(pid, "VmHWM:")
}

fn memory(pid: u32, field: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the process ended")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<f64>().ok());
    Ok(kib.with_context(|| format!("the kernel tells no {field}"))? / 1024.0)
}

/// Seconds of processor time until now, in the process and in the kernel for it.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the process ended")?;
    // The name, in brackets, may contain anything; utime and stime are the 14th and 15th fields.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    let ticks: f64 = ticks.sum::<Result<f64, _>>().context("the kernel tells no processor time")?;
    // SAFETY: it takes a number and gives one.
    Ok(ticks / unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64)
}
