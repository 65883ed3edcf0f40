//! Peers: each client's address with its connections, its delay and its losses; beyond 1,000 a sum.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use lastpacket_tests::{
    events::{Events, ensure_balanced, ensure_nothing_lost, unseen_calls},
    machine, needs,
    netns::{Family, Link},
    process, run,
};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tracer_core::{
    output::{Body, ConnectionEvent, Line},
    verdict::PeerSummary,
};
use tracer_user::clock;

use crate::scene::{pause, read_some, send};

pub fn trials() -> Vec<Trial> {
    vec![needs::live("peers::beyond_a_thousand_they_are_summed_and_said_to_be", many)]
}

const PORT: u16 = 8000;
/// Clients' addresses, a hundred more than are kept one by one.
const CLIENTS: u16 = 1_100;
const KEPT: usize = 1_000;

/// When a client's connections began: between which two readings of CLOCK_MONOTONIC.
type Ledger = BTreeMap<IpAddr, Vec<(u64, u64)>>;

/// A client's address, reached through the client's end of the link.
fn address(index: u16) -> IpAddr {
    let [high, low] = index.to_be_bytes();
    Ipv4Addr::new(10, 100, high, low).into()
}

struct Server(Child);

impl Server {
    fn new(link: &Link) -> Result<Self> {
        let this = std::env::current_exe()?;
        let child = link.server.enter(|| {
            let mut command = Command::new(this);
            command.args(["child", &format!("http-serves-on:{PORT}")]).stdin(Stdio::null());
            command.spawn().context("cannot start itself")
        })?;
        pause(300);
        Ok(Self(child))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn many() -> Result<()> {
    let link = Link::new()?;
    link.client.ip("route add local 10.100.0.0/16 dev lo\n")?;
    link.server.ip("route add 10.100.0.0/16 via 10.99.0.1\n")?;
    let server = Server::new(&link)?;
    let pid = server.0.id();
    let linger = machine::milliseconds(400);
    let mut lastpacket = run::start(&["trace", "--linger", &linger, "--pid", &pid.to_string()])?;
    lastpacket.wait_for(1, |body| matches!(body, Body::Phase(_)))?;
    let mut ledger = Ledger::new();
    for index in 1..=CLIENTS {
        ask(&link, address(index), &mut ledger)?.context("refused")?;
    }
    process::signal(pid, Signal::SIGTERM)?;
    let stopped = clock::mono_ns();
    // It serves on: two of these come again, one of the first and one of the last.
    for index in [7, 7, CLIENTS] {
        ask(&link, address(index), &mut ledger)?.context("refused")?;
    }
    lastpacket.wait_for(4, |body| matches!(body, Body::Phase(_)))?;
    for index in [8, CLIENTS - 1] {
        ensure!(ask(&link, address(index), &mut ledger)?.is_none(), "it still serves");
    }
    let run = lastpacket.finish()?;
    ensure_nothing_lost(&run.lines)?;
    let unseen = unseen_calls(&run.lines);
    let verdict = run.lines.verdict()?;
    ensure_balanced(verdict)?;
    let peers = &verdict.peers;
    ensure!(peers.each.len() == KEPT, "{} are told one by one", peers.each.len());
    for peer in &peers.each {
        let address = peer.address.context("no address")?;
        ensure_as_seen(peer, &ledger[&address], stopped, u64::from(address == self::address(8)), unseen)
            .with_context(|| format!("{:#?}", told_of(&run.lines, address)))?;
    }
    let others = peers.others.as_ref().context("nobody said that there are others")?;
    let told = |address: &IpAddr| peers.each.iter().any(|peer| peer.address == Some(*address));
    let rest = ledger.iter().filter(|(address, _)| !told(address)).flat_map(|(_, seen)| seen);
    let mut rest: Vec<(u64, u64)> = rest.copied().collect();
    rest.sort_unstable();
    ensure!(rest.len() == 102, "{} connections of others", rest.len());
    ensure!(others.address.is_none(), "{others:?}");
    ensure_as_seen(others, &rest, stopped, 1, unseen)
}

/// What was told of a peer's connections.
fn told_of(lines: &[Line], peer: IpAddr) -> Vec<&ConnectionEvent> {
    let events = lines.opened().into_iter().chain(lines.closed());
    events.filter(|event| event.network.peer.address == peer).collect()
}

/// A peer is told as its client saw it. A read or write that is `unseen` makes a doubt.
fn ensure_as_seen(
    peer: &PeerSummary,
    seen: &[(u64, u64)],
    stopped: u64,
    lost: u64,
    unseen: u64,
) -> Result<()> {
    ensure!(peer.connections == seen.len() as u64, "{peer:?}, but it connected {} times", seen.len());
    ensure!(peer.lost == lost && peer.doubts <= unseen, "{peer:?}, {unseen} calls unseen");
    let after: Vec<_> = seen.iter().filter(|(began, _)| *began >= stopped).collect();
    let within = |time: Option<u64>, seen: Option<&&(u64, u64)>| match (time, seen) {
        (None, None) => true,
        (Some(time), Some((began, over))) => (*began..=*over).contains(&time),
        _ => false,
    };
    ensure!(within(peer.first_after_mono_ns, after.first()), "{peer:?}: first of {after:?}");
    ensure!(within(peer.last_after_mono_ns, after.last()), "{peer:?}: last of {after:?}");
    Ok(())
}

/// A request from this address and its answer; `None` if it was refused.
fn ask(link: &Link, from: IpAddr, ledger: &mut Ledger) -> Result<Option<()>> {
    link.client.enter(|| {
        let client = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        client.bind(&SocketAddr::new(from, 0).into())?;
        let server: SockAddr = SocketAddr::new(Family::V4.server(), PORT).into();
        let began = clock::mono_ns();
        if client.connect(&server).is_err() {
            ledger.entry(from).or_default().push((began, clock::mono_ns()));
            return Ok(None);
        }
        send(
            &client,
            b"GET / HTTP/1.1\r\nhost: here\r\nuser-agent: a client with an address of its own\r\n\r\n",
        )?;
        read_some(&client)?;
        ledger.entry(from).or_default().push((began, clock::mono_ns()));
        Ok(Some(()))
    })
}
