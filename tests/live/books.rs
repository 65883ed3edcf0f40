//! The books: both sides as the kernel tells them to others, and what happens where they differ.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lastpacket_tests::{
    counters::{self, rise},
    events::{Events, ensure_balanced},
    needs,
    netns::{Family, Link},
    process::Resident,
    run,
};
use libtest_mimic::Trial;
use socket2::{Protocol, SockAddr};
use tracer_core::{output::Body, words};

use crate::{
    scene::{pause, socket},
    targets::{QUESTION, STATEMENT, Target, trace},
};

pub fn trials() -> Vec<Trial> {
    vec![
        needs::live("books::both_sides_are_told_and_are_what_the_kernel_counts", both_sides),
        needs::live("books::descriptors_of_the_counters_are_held_until_the_verdict", descriptors),
        needs::live("books::resets_without_a_route_back_are_told_as_such", no_route_back),
    ]
}

/// The left side of each book is what the test itself reads of the kernel's counters.
fn both_sides() -> Result<()> {
    let mut targets = [Target::new("hold", 3)?];
    let before = counters::read(&targets[0].link.server)?;
    let run = trace(&mut targets, |targets| {
        let target = &mut targets[0];
        target.connect_and_wait(30_000, &QUESTION)?;
        target.connect_and_wait(30_001, &STATEMENT)?;
        target.connect_and_wait(30_002, &QUESTION)?;
        target.clients[2].1.set_linger(Some(Duration::ZERO))?;
        drop(target.clients.pop());
        refuse(&target.link)?;
        pause(50);
        target.holder.stop()
    })?;
    let after = counters::read(&targets[0].link.server)?;
    let verdict = run.lines.verdict()?;
    ensure_balanced(verdict)?;
    for name in ["OutRsts", "PassiveOpens", "ActiveOpens", "EstabResets"] {
        let book = verdict.books.iter().find(|book| book.name == name).context("no such book")?;
        let rose = rise(&before, &after, name);
        ensure!(book.kernel == rose && book.events == rose, "{name} rose by {rose}: {book:?}");
    }
    ensure!(rise(&before, &after, "OutRsts") > 0 && rise(&before, &after, "EstabResets") > 0);
    for name in ["records", "attribution", "connections"] {
        ensure!(verdict.books.iter().any(|book| book.name == name && book.kernel > 0), "no book {name}");
    }
    Ok(())
}

/// A connection that nobody listens for, in either direction.
fn refuse(link: &Link) -> Result<()> {
    let closed = |address| SocketAddr::new(address, 1);
    let refused = link.client.enter(|| Ok(TcpStream::connect(closed(Family::V4.server()))))?;
    let outbound = link.server.enter(|| Ok(TcpStream::connect(closed(Family::V4.client()))))?;
    ensure!(refused.is_err() && outbound.is_err(), "something listens on port 1");
    Ok(())
}

/// Each target has its own; those of the first are let go while the second goes on.
fn descriptors() -> Result<()> {
    let mut targets = [Target::new("hold", 1)?, Target::new("hold", 1)?];
    let pids = targets.each_ref().map(|target| target.holder.pid().to_string());
    let mut lastpacket = run::start(&["trace", "--linger", "50ms", "--pid", &pids[0], "--pid", &pids[1]])?;
    lastpacket.wait_for(2, |body| matches!(body, Body::Phase(_)))?;
    ensure!(open_counters(lastpacket.pid())? == 2 * FILES, "{} are open", open_counters(lastpacket.pid())?);
    for target in &mut targets {
        target.connect_and_wait(30_000, &QUESTION)?;
    }
    for ended in 1..=2 {
        ensure!(open_counters(lastpacket.pid())? == (3 - ended) * FILES, "not held until the end");
        targets[ended - 1].holder.stop()?;
        lastpacket.wait_for(ended, |body| matches!(body, Body::Verdict(_)))?;
        if ended == 1 {
            // They are closed before the verdict is written.
            ensure!(open_counters(lastpacket.pid())? == FILES, "those of the first are not let go");
        }
    }
    let run = lastpacket.finish()?;
    for line in &run.lines {
        if let Body::Verdict(verdict) = &line.body {
            ensure_balanced(verdict)?;
        }
    }
    Ok(())
}

/// Files of a namespace's counters: totals, more totals, interfaces.
const FILES: usize = 3;

/// Descriptors of the counters of network namespaces that a process has open.
fn open_counters(pid: u32) -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let Ok(leads_to) = fs::read_link(entry?.path()) else { continue };
        let leads_to = leads_to.to_string_lossy().into_owned();
        count += usize::from(
            ["snmp", "netstat", "dev"]
                .iter()
                .any(|name| leads_to.starts_with("/proc/") && leads_to.ends_with(&format!("/net/{name}"))),
        );
    }
    Ok(count)
}

/// A reset over IPv6 to a peer that the target has no route to is made, traced and not sent. The peer
/// is a health checker, so that nothing else spoils the verdict.
fn no_route_back() -> Result<()> {
    let link = Link::new()?;
    link.client.ip("addr add fdaa::1/128 dev vA\n")?;
    let resident = Resident::of(&link.server)?;
    let pid = resident.pid().to_string();
    let mut lastpacket =
        run::start(&["trace", "--linger", "100ms", "--probe-peer", "fdaa::/64", "--pid", &pid])?;
    lastpacket.wait_for(1, |body| matches!(body, Body::Phase(_)))?;
    let before = counters::read(&link.server)?;
    let client = socket(&link.client, Family::V6, Protocol::TCP)?;
    client.bind(&SocketAddr::new("fdaa::1".parse()?, 0).into())?;
    let closed: SockAddr = SocketAddr::new(Family::V6.server(), 1).into();
    ensure!(client.connect_timeout(&closed, Duration::from_millis(200)).is_err(), "connected");
    drop(client);
    ensure!(rise(&before, &counters::read(&link.server)?, "OutRsts") == 0, "the reset was sent");
    resident.terminate()?;
    let run = lastpacket.finish()?;
    let verdict = run.lines.verdict()?;
    ensure!(verdict.result == words::Result::Unproven, "{:?}: {:?}", verdict.result, verdict.reasons);
    ensure!(run.status.code() == Some(3), "{}", run.status);
    let wrong: Vec<_> = verdict.books.iter().filter(|book| !book.balanced).collect();
    ensure!(wrong.len() == 1 && wrong[0].name == "OutRsts", "{wrong:?}");
    ensure!((wrong[0].kernel, wrong[0].events) == (0, 1), "{wrong:?}");
    let told = |reason: &String| reason.contains("OutRsts") && reason.contains("without a route back");
    ensure!(verdict.reasons.iter().any(told), "{:?}", verdict.reasons);
    Ok(())
}
