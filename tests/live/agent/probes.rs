//! The kubelet's probes beside clients with the same address.

use std::{collections::BTreeSet, net::SocketAddr};

use anyhow::{Context, Result, ensure};
use lastpacket_tests::{
    events::{Events, ensure_balanced, ensure_no_gaps},
    netns::{Family, Link},
};
use nix::sys::signal::Signal;
use tracer_core::{
    output::{Body, Line},
    words::{self, Ending, Origin},
};

use super::pod::{PORT, Pod, agent, client, listener};
use crate::{
    children::{Holder, Prober},
    scene::{pause, read_some},
};

/// The kubelet and a client have the same address, as with masquerading. Both are answered, both wait
/// in vain to be accepted, both are refused: only what the client lost is a loss.
pub fn probes(family: Family) -> Result<()> {
    let (link, pod) = (Link::new()?, Pod::new()?);
    let to = SocketAddr::new(family.server(), PORT);
    let mut holder = Holder::start(&link.server, "hold", 2, listener(&link, family)?)?;
    pod.take(holder.pid())?;
    let mut prober = Prober::start(&link.client)?;
    let mut agent = agent()?;
    agent.wait_for_lines(1, |line| pod.is_of(line) && matches!(line.body, Body::Phase(_)))?;

    let (mut probed, mut lost) = (BTreeSet::new(), BTreeSet::new());
    probed.insert(prober.probe(to)?.0);
    holder.wait_until_taken()?;
    let (answered, _) = client(&link, family)?;
    holder.wait_until_taken()?;
    read_some(answered.as_ref().context("not connected")?)?;
    probed.insert(prober.probe(to)?.0);
    let (queued, port) = client(&link, family)?;
    ensure!(queued.is_some(), "the queue has no room");
    lost.insert(port);
    // So long after its last byte an answer is over, though nobody had looked at it.
    pause(1200);
    holder.stop()?;
    pause(300);
    for _ in 0..5 {
        let (port, connected) = prober.probe(to)?;
        ensure!(!connected, "something listens");
        probed.insert(port);
        let (refused, port) = client(&link, family)?;
        ensure!(refused.is_none(), "something listens");
        lost.insert(port);
    }
    link.client.ip("link del vA")?;
    agent.wait_for_lines(1, |line| pod.is_of(line) && matches!(line.body, Body::Verdict(_)))?;
    agent.signal(Signal::SIGTERM)?;
    let run = agent.finish()?;
    ensure_no_gaps(&run.lines)?;
    ensure_told_apart(&pod.lines(&run.lines), &probed, &lost)
}

fn ensure_told_apart(lines: &[Line], probed: &BTreeSet<u16>, lost: &BTreeSet<u16>) -> Result<()> {
    for event in lines.resets() {
        let (port, is_loss) = (event.network.peer.port, event.confidence.is_some());
        ensure!(probed.contains(&port) == (event.origin == Origin::KubeletProbe), "{event:#?}");
        ensure!(is_loss == lost.contains(&port), "{event:#?}");
    }
    for event in lines.closed() {
        let (port, end) = (event.network.peer.port, event.end.as_ref().context("no end")?);
        ensure!(probed.contains(&port) == (event.origin == Origin::KubeletProbe), "{event:#?}");
        ensure!(end.confidence.is_some() == lost.contains(&port), "{event:#?}");
    }
    let verdict = lines.verdict()?;
    ensure!(verdict.result == words::Result::Cut, "{verdict:#?}");
    ensure!(verdict.lost == lost.len() as u64 && verdict.doubts == 0, "{:#?}", verdict.losses);
    ensure!(verdict.connections.from_peers == 2, "{:#?}", verdict.connections);
    ensure!(lines.resets().iter().filter(|event| event.ending == Some(Ending::Refused)).count() == 10);
    ensure_balanced(verdict)
}
