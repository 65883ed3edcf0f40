//! What grows with pods and with live connections: memory, processor time, time to the verdict.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{
    figure::{Figure, Goal},
    following::Following,
    hold::Held,
    link,
    plot::{self, Series},
    pod::Pod,
    process, work,
};
use crate::shell;

/// Pods that the agent knows.
const KNOWN: [u32; 3] = [10, 100, 1_000];
/// Of the last of these, those that are terminated at once.
const TERMINATED: [usize; 3] = [1, 10, 250];
/// Real connections that are held by one process, up to what descriptors allow.
const REAL: [u32; 3] = [5_000, 10_000, 15_000];
/// Synthetic ones.
const SYNTHETIC: [u64; 7] = [1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000];
/// How long an agent is left alone before it is measured, and while.
const SETTLED: Duration = Duration::from_secs(3);
const WATCHED: Duration = Duration::from_secs(5);

/// Measures all of it, and draws how memory grows.
pub(crate) fn measure() -> Result<Vec<Figure>> {
    let lastpacket = super::lastpacket()?;
    let mut figures = Vec::new();
    for count in KNOWN {
        eprintln!("    {count} pods");
        known(&lastpacket, count, &mut figures)?;
    }
    let real = real(&lastpacket)?;
    let synthetic = synthetic()?;
    for (name, points) in [("live connections", &real), ("synthetic live connections", &synthetic)] {
        figures.extend(points.iter().map(|(count, memory)| {
            let goal = if *count >= 1e6 { Goal::AtMost(256.0) } else { Goal::None };
            Figure::new(format!("{count} {name}"), "MiB", vec![*memory], goal)
        }));
    }
    plot::draw(&[
        Series { name: "lastpacket trace, real connections", points: real },
        Series { name: "decode and core, synthetic connections", points: synthetic },
    ])?;
    Ok(figures)
}

/// An agent with so many pods, none of which terminates; of the most, some are terminated then.
fn known(lastpacket: &Path, count: u32, figures: &mut Vec<Figure>) -> Result<()> {
    let mut pods = (1..=count).map(Pod::start).collect::<Result<Vec<_>>>()?;
    let agent = Following::start(lastpacket)?;
    agent.wait_for_targets(pods.len())?;
    std::thread::sleep(SETTLED);
    let before = process::cpu_seconds(agent.pid())?;
    std::thread::sleep(WATCHED);
    let share = (process::cpu_seconds(agent.pid())? - before) / WATCHED.as_secs_f64() * 100.0;
    let name = format!("{count} pods known");
    figures.push(Figure::new(&name, "MiB", vec![process::resident(agent.pid())?], Goal::None));
    figures.push(Figure::new(name, "% of a core", vec![share], Goal::None));
    if Some(&count) != KNOWN.last() {
        return Ok(());
    }
    for many in TERMINATED {
        eprintln!("    {many} of them terminated at once");
        let terminated = pods.split_off(pods.len().saturating_sub(many));
        let before = process::cpu_seconds(agent.pid())?;
        let began = Instant::now();
        terminated.iter().for_each(Pod::terminate);
        drop(terminated);
        let took = agent.wait_for_verdicts(many)?.saturating_duration_since(began);
        let name = format!("{many} of {} pods terminated at once", pods.len() + many);
        figures.push(Figure::new(&name, "s to the last verdict", vec![took.as_secs_f64()], Goal::None));
        let spent = process::cpu_seconds(agent.pid())? - before;
        figures.push(Figure::new(&name, "s of processor time", vec![spent], Goal::None));
        figures.push(Figure::new(name, "MiB", vec![process::peak(agent.pid())?], Goal::None));
    }
    Ok(())
}

/// Peak memory of a tracer while so many connections to its target are held.
fn real(lastpacket: &Path) -> Result<Vec<(f64, f64)>> {
    eprintln!("    up to {} connections held", REAL[REAL.len() - 1]);
    let (server, client) = (Pod::start(1)?, Pod::start(2)?);
    link::link(&server, &client)?;
    let tracer = super::tracers::Tracers::ours(lastpacket.to_owned())
        .start(super::tracers::Variant::Armed, &server)?;
    let pid = *tracer.pids().first().context("the tracer ended")?;
    let mut held = Held::start(&server, &client)?;
    let mut points = Vec::new();
    let mut open = 0;
    for count in REAL {
        held.more(count - open)?;
        open = count;
        // Its records are taken within milliseconds.
        std::thread::sleep(Duration::from_secs(1));
        points.push((f64::from(count), process::peak(pid)?));
    }
    Ok(points)
}

/// Peak memory of the core's own benchmark while so many connections are live.
fn synthetic() -> Result<Vec<(f64, f64)>> {
    let work = work::build("work")?;
    let point = |count: u64| {
        eprintln!("    {count} synthetic connections");
        let said = shell::capture(Command::new(&work).args(["live", &count.to_string()]))?;
        let result: Value = serde_json::from_str(&said).context("the bench `work` told no JSON")?;
        let memory = result["peak_resident_mebibytes"].as_f64().context("the bench `work` told no memory")?;
        Ok((count as f64, memory))
    };
    SYNTHETIC.into_iter().map(point).collect()
}
