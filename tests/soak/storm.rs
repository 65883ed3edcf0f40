//! A storm of refused connections: counts stay exact whatever the ring buffer loses.

use std::{fs, net::SocketAddr, net::TcpStream, thread, time::Instant};

use anyhow::{Context, Result, ensure};
use lastpacket_tests::{
    events::Events,
    needs,
    netns::{Family, Link},
    process::Resident,
    run,
};
use libtest_mimic::Trial;
use tracer_core::{
    output::{Body, Line},
    words::Ending,
};

/// How many connections are refused.
const STORM: u64 = 200_000;
const THREADS: u64 = 2;
/// What the traced process may take of memory, in KiB.
const MEMORY: u64 = 48 << 10;

pub fn trials() -> Vec<Trial> {
    vec![
        needs::live("storm::a_small_ring_buffer_loses_records_but_no_counts", || storm(Some("64"))),
        needs::live("storm::the_default_ring_buffer_loses_nothing", || storm(None)),
    ]
}

fn storm(ring_buffer: Option<&str>) -> Result<()> {
    let link = Link::new()?;
    let resident = Resident::of(&link.server)?;
    let pid = resident.pid().to_string();
    let mut arguments = vec!["trace", "--format", "json", "--linger", "100ms", "--pid", &pid];
    arguments.extend(ring_buffer.iter().flat_map(|kib| ["--ring-buffer", kib]));
    let mut lastpacket = run::start(&arguments)?;
    lastpacket.wait_for(1, |body| matches!(body, Body::Phase(_)))?;
    let began = Instant::now();
    let closed = SocketAddr::new(Family::V4.server(), 1);
    link.client.enter(|| {
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| (0..STORM / THREADS).for_each(|_| drop(TcpStream::connect(closed))));
            }
        });
        Ok(())
    })?;
    let rate = STORM as f64 / began.elapsed().as_secs_f64();
    let memory = resident_memory(lastpacket.pid())?;
    resident.terminate()?;
    let run = lastpacket.finish()?;
    let verdict = run.lines.verdict()?;
    let refused: u64 =
        verdict.losses.iter().filter(|loss| loss.ending == Ending::Refused).map(|loss| loss.count).sum();
    let (told, missing) = (run.lines.resets().len() as u64, missing(&run.lines));
    eprintln!("{rate:.0} resets/s, {missing} records missing of {STORM}, {memory} KiB");
    ensure!(refused == STORM, "the verdict counts {refused} of {STORM}: {:?}", verdict.losses);
    ensure!(told + missing == STORM, "{told} resets are told, {missing} are said to be missing");
    ensure!(ring_buffer.is_some() || missing == 0, "{missing} records were lost");
    ensure!(memory < MEMORY, "lastpacket takes {memory} KiB");
    Ok(())
}

/// Records that are said to have found the ring buffer full.
fn missing(lines: &[Line]) -> u64 {
    let lost =
        lines.iter().filter_map(|line| if let Body::Lost(lost) = &line.body { Some(lost) } else { None });
    lost.filter(|lost| lost.stage == "ring_buffer").map(|lost| lost.count).sum()
}

fn resident_memory(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
