//! Storms of resets and of connections: counts stay exact whatever the ring buffer loses, the default
//! one loses nothing, and memory stays bounded.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Instant,
};

use anyhow::{Context, Result, anyhow, ensure};
use lastpacket_tests::{
    counters::{self, rise},
    events::{Events, ensure_balanced},
    machine, needs,
    netns::{Family, Link},
    process::Resident,
    run::{self, Run, Running},
};
use libtest_mimic::Trial;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use tracer_core::{
    output::{Body, Line},
    words::{Ending, Result as Word},
};

use crate::scene::socket;

pub fn trials() -> Vec<Trial> {
    vec![
        needs::live("storm::of_resets_against_a_small_ring_buffer_loses_no_counts", || resets(Some("64"))),
        needs::live("storm::of_resets_against_the_default_ring_buffer_loses_nothing", || resets(None)),
        needs::live("storm::of_connections_loses_nothing", connections),
    ]
}

/// How many connections are refused; fewer where that takes longer.
fn how_many_resets() -> u64 {
    200_000 / u64::from(machine::slowness())
}

/// How many are made and closed.
fn how_many_connections() -> u64 {
    40_000 / u64::from(machine::slowness())
}

const THREADS: u64 = 2;
/// What a storm may add to lastpacket's memory at its peak, in KiB: to some 19 MiB, so that it stays near 50.
/// The output's queue may take 8 MiB, its lines some more in memory; nothing of that is there from the start, since
/// the memory that reading the kernel's types took is given back. The ring buffer's pages are.
const MEMORY: u64 = 32 << 10;
const PORT: u16 = 8000;

/// Gives lastpacket too, with its memory in KiB before the storm.
fn begin(link: &Link, ring_buffer: Option<&str>) -> Result<(Running, Resident, u64)> {
    let resident = Resident::of(&link.server)?;
    let pid = resident.pid().to_string();
    let mut arguments = vec!["trace", "--linger", "100ms", "--pid", &pid];
    arguments.extend(ring_buffer.iter().flat_map(|kib| ["--ring-buffer", kib]));
    let mut lastpacket = run::start(&arguments)?;
    lastpacket.wait_for(1, |body| matches!(body, Body::Phase(_)))?;
    forget_peak_memory(lastpacket.pid())?;
    let memory = peak_memory(lastpacket.pid())?;
    Ok((lastpacket, resident, memory))
}

/// Ends the target; gives the run, and how much its memory had grown at its peak in KiB.
fn end(lastpacket: Running, resident: Resident, before: u64) -> Result<(Run, u64)> {
    let grown = peak_memory(lastpacket.pid())?.saturating_sub(before);
    resident.terminate()?;
    let run = lastpacket.finish()?;
    Ok((run, grown))
}

/// Threads that do as much as they can; gives how many times a second.
fn at_full_speed(link: &Link, times: u64, act: impl Fn(u64) -> Result<()> + Sync) -> Result<f64> {
    let began = Instant::now();
    link.client.enter(|| {
        thread::scope(|scope| {
            let one = |thread| (0..times / THREADS).try_for_each(|_| act(thread));
            let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || one(thread))).collect();
            let join = |thread: thread::ScopedJoinHandle<'_, Result<()>>| {
                thread.join().map_err(|_| anyhow!("a client panicked"))?
            };
            threads.into_iter().try_for_each(join)
        })
    })?;
    Ok(times as f64 / began.elapsed().as_secs_f64())
}

fn resets(ring_buffer: Option<&str>) -> Result<()> {
    let wanted = how_many_resets();
    let link = Link::new()?;
    let (lastpacket, resident, memory) = begin(&link, ring_buffer)?;
    let before = counters::read(&link.server)?;
    let closed = SocketAddr::new(Family::V4.server(), 1);
    let rate = at_full_speed(&link, wanted, |_| {
        ensure!(TcpStream::connect(closed).is_err(), "something listens");
        Ok(())
    })?;
    let sent = rise(&before, &counters::read(&link.server)?, "OutRsts");
    let (run, grown) = end(lastpacket, resident, memory)?;
    let verdict = run.lines.verdict()?;
    let refused: u64 =
        verdict.losses.iter().filter(|loss| loss.ending == Ending::Refused).map(|loss| loss.count).sum();
    let (told, missing) = (run.lines.resets().len() as u64, missing(&run.lines, "ring_buffer"));
    let unwritten = self::missing(&run.lines, "sink");
    eprintln!("{rate:.0} resets/s; {missing} records missing of {wanted}, {unwritten} lines; +{grown} KiB");
    ensure_all_lines_accounted_for(&run.lines)?;
    ensure!(sent == wanted, "the kernel counts {sent} resets");
    ensure!(refused == wanted, "the verdict counts {refused}: {:?}", verdict.losses);
    ensure!(verdict.result == Word::Cut && verdict.lost == wanted, "{:?}", verdict.reasons);
    ensure_balanced(verdict)?;
    let nowhere = wanted.checked_sub(told + missing).context("more resets than there were")?;
    ensure!(nowhere <= unwritten, "{nowhere} resets are neither told nor said to be missing");
    ensure!(ring_buffer.is_some() || missing == 0, "{missing} records were lost");
    let reason = format!("{missing} records were lost");
    ensure!(
        missing == 0 || verdict.reasons.iter().any(|told| told.starts_with(&reason)),
        "{:?}",
        verdict.reasons
    );
    ensure!(grown < MEMORY, "lastpacket's memory grew by {grown} KiB");
    Ok(())
}

/// Each is made, asked, answered and closed by its client.
fn connections() -> Result<()> {
    let made = how_many_connections();
    let link = Link::new()?;
    // Each thread has addresses of its own: a client's port is used again only a minute after its close.
    link.client.ip("route add local 10.100.0.0/16 dev lo\n")?;
    link.client.sysctl("net.ipv4.ip_local_port_range", "1024 65000")?;
    link.server.ip("route add 10.100.0.0/16 via 10.99.0.1\n")?;
    let listener = socket(&link.server, Family::V4, Protocol::TCP)?;
    listener.bind(&SocketAddr::new(Family::V4.server(), PORT).into())?;
    listener.listen(1024)?;
    let listener = TcpListener::from(listener);
    let (lastpacket, resident, memory) = begin(&link, None)?;
    let rate = thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| serve(&listener));
        }
        let rate = at_full_speed(&link, made, exchange);
        // Whoever waits to accept gets an error.
        SockRef::from(&listener).shutdown(Shutdown::Both)?;
        rate
    })?;
    let (run, grown) = end(lastpacket, resident, memory)?;
    let verdict = run.lines.verdict()?;
    let (missing, unwritten) = (missing(&run.lines, "ring_buffer"), missing(&run.lines, "sink"));
    eprintln!("{rate:.0} connections/s; {missing} records missing, {unwritten} lines; +{grown} KiB");
    let numbers = verdict.connections;
    ensure_all_lines_accounted_for(&run.lines)?;
    ensure!(missing == 0, "{missing} records were lost");
    ensure!((numbers.opened, numbers.ended, numbers.open) == (made, made, 0), "{numbers:?}");
    let told = run.lines.closed().len() as u64;
    ensure!(told <= made && made <= told + unwritten, "{told} are told as closed");
    ensure!(verdict.lost == 0 && verdict.doubts == 0, "{:?}", verdict.losses);
    ensure_balanced(verdict)?;
    ensure!(grown < MEMORY, "lastpacket's memory grew by {grown} KiB");
    Ok(())
}

fn exchange(thread: u64) -> Result<()> {
    let client = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    let address = Ipv4Addr::new(10, 100, 0, 1 + u8::try_from(thread)?);
    client.bind(&SocketAddr::new(address.into(), 0).into())?;
    let server: SockAddr = SocketAddr::new(Family::V4.server(), PORT).into();
    client.connect(&server)?;
    let mut stream = TcpStream::from(client);
    stream.write_all(&[b'x'; 100])?;
    stream.read_exact(&mut [0; 10])?;
    Ok(())
}

fn serve(listener: &TcpListener) -> std::io::Result<()> {
    loop {
        let (mut connection, _) = listener.accept()?;
        connection.read_exact(&mut [0; 100])?;
        connection.write_all(&[b'y'; 10])?;
        while connection.read(&mut [0; 100])? > 0 {}
    }
}

/// A reader that is too slow, as this one is, misses lines: each is a gap in the numbers, and told.
fn ensure_all_lines_accounted_for(lines: &[Line]) -> Result<()> {
    let (last, written) = (lines.last().map_or(0, |line| line.seq), lines.len() as u64);
    let unwritten = missing(lines, "sink");
    ensure!(last == written + unwritten, "{written} of {last} lines, {unwritten} are said to be missing");
    Ok(())
}

/// What is said to have been lost at a stage.
fn missing(lines: &[Line], stage: &str) -> u64 {
    let lost =
        lines.iter().filter_map(|line| if let Body::Lost(lost) = &line.body { Some(lost) } else { None });
    lost.filter(|lost| lost.stage == stage).map(|lost| lost.count).sum()
}

/// From now on the peak is counted anew (proc_pid_clear_refs(5)).
fn forget_peak_memory(pid: u32) -> Result<()> {
    Ok(fs::write(format!("/proc/{pid}/clear_refs"), "5")?)
}

fn peak_memory(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
