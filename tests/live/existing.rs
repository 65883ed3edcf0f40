//! Connections that exist when tracing begins: each is found once, whatever else happens meanwhile.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, AtomicU16, Ordering},
    thread,
};

use anyhow::{Context, Result, anyhow, ensure};
use lastpacket_tests::{
    events::{Events, ensure_balanced, ensure_no_gaps, ensure_nothing_lost},
    machine, needs,
    netns::{Family, Link},
    process::Resident,
    run::{self, Run, Running},
};
use libtest_mimic::Trial;
use socket2::{Protocol, Socket};
use tracer_core::output::Body;
use tracer_user::clock;

use crate::{
    options::defer_accept,
    scene::{pause, read_some, send, socket},
};

pub fn trials() -> Vec<Trial> {
    vec![
        needs::live("existing::amid_churn_none_is_doubled_or_lost", amid_churn),
        needs::live("existing::what_is_half_open_is_found_once", half_open),
        needs::live("existing::what_the_server_has_left_is_over", left),
    ]
}

const PORT: u16 = 8000;
const FAMILY: Family = Family::V4;
/// Connections that are there before tracing begins, and for how long after.
const OLD: u16 = 60;
/// Clients that connect and close all the time, on a real processor.
const CHURNERS: u32 = 8;
/// Ports of these clients, each used once.
const FIRST_PORT: u16 = 2_000;
const LAST_PORT: u16 = 60_000;
const OLD_PORTS: u16 = 61_000;
/// Connections of these clients that tracing sees from their beginning, within so many looks.
const AFTERWARDS: u16 = 300;
const PATIENCE: u32 = 200;
/// A close reaches the server's kernel after the client's own call.
const UNDER_WAY: u64 = 200_000_000;

/// When a client began to connect and when it had closed: CLOCK_MONOTONIC in ns.
type Ledger = BTreeMap<u16, (u64, u64)>;

/// What was told of a client's port: times opened, of these found, and times closed.
#[derive(Debug, Default)]
struct Told {
    opened: usize,
    found: usize,
    closed: usize,
}

fn amid_churn() -> Result<()> {
    let link = Link::new()?;
    link.client.sysctl("net.ipv4.ip_local_port_range", "61500 65000")?;
    let (resident, listener, next) =
        (Resident::of(&link.server)?, listen(&link)?, AtomicU16::new(FIRST_PORT));
    let (done, closed) = (AtomicBool::new(false), AtomicBool::new(false));
    let (run, ledger, armed) = thread::scope(|scope| -> Result<_> {
        scope.spawn(|| answer_all(&listener, &closed));
        let old: Result<Vec<Socket>> = (0..OLD).map(|index| client(&link, OLD_PORTS + index)).collect();
        let mut old = old?;
        // On an emulated one each of them is in a kernel program for much of its time.
        let churners = (CHURNERS / machine::slowness()).max(2);
        let churners: Vec<_> = (0..churners).map(|_| scope.spawn(|| churn(&link, &next, &done))).collect();
        pause(300);
        let traced = trace_amid(&resident, &mut old, &next);
        done.store(true, Ordering::SeqCst);
        let ledgers: Vec<Result<Ledger>> = churners
            .into_iter()
            .map(|churner| churner.join().map_err(|_| anyhow!("a client panicked"))?)
            .collect();
        closed.store(true, Ordering::SeqCst);
        drop(old);
        pause(200);
        let (lastpacket, armed) = traced?;
        resident.terminate()?;
        let ledgers = ledgers.into_iter().collect::<Result<Vec<_>>>()?;
        Ok((lastpacket.finish()?, ledgers.into_iter().flatten().collect::<Ledger>(), armed))
    })?;
    ensure_told(&run, &ledger, armed)
}

/// Begins tracing while the churn goes on; some of the old connections end right after. Gives also
/// when tracing had surely begun.
fn trace_amid(resident: &Resident, old: &mut Vec<Socket>, next: &AtomicU16) -> Result<(Running, u64)> {
    let mut lastpacket = begin(resident)?;
    lastpacket.wait_for(OLD.into(), |body| matches!(body, Body::ConnectionOpened(_)))?;
    old.truncate(usize::from(OLD) / 2);
    let armed = clock::mono_ns();
    let enough = next.load(Ordering::SeqCst) + AFTERWARDS;
    for _ in 0..PATIENCE {
        pause(50);
        if next.load(Ordering::SeqCst) > enough {
            break;
        }
    }
    Ok((lastpacket, armed))
}

fn ensure_told(run: &Run, ledger: &Ledger, armed: u64) -> Result<()> {
    ensure_no_gaps(&run.lines)?;
    ensure_nothing_lost(&run.lines)?;
    let mut told: BTreeMap<u16, Told> = BTreeMap::new();
    for event in run.lines.opened() {
        let told = told.entry(event.network.peer.port).or_default();
        told.opened += 1;
        told.found += usize::from(event.opened_mono_ns.is_none());
    }
    for event in run.lines.closed() {
        told.entry(event.network.peer.port).or_default().closed += 1;
    }
    for (port, told) in &told {
        ensure!((told.opened, told.closed) == (1, 1), "port {port} is told otherwise than once: {told:?}");
    }
    for port in OLD_PORTS..OLD_PORTS + OLD {
        let told = told.get(&port).with_context(|| format!("the old connection of port {port} is lost"))?;
        ensure!(told.found == 1, "an old connection was told as new: {told:?}");
    }
    let began = run.lines.iter().find(|line| matches!(line.body, Body::TargetStarted(_)));
    let began = began.context("no target started")?.mono_ns;
    let (mut before, mut during, mut after) = (0, 0, 0);
    for (port, (connecting, closed)) in ledger {
        match told.get(port) {
            Some(told) if *connecting > armed => {
                ensure!(told.found == 0, "port {port} was new and told as found");
                after += 1;
            }
            Some(_) => {
                ensure!(closed + UNDER_WAY >= began, "port {port} was closed before tracing began");
                during += 1;
            }
            None => {
                ensure!(*connecting < armed, "port {port} connected after tracing had begun and is not told");
                before += 1;
            }
        }
    }
    eprintln!("{before} connections over before tracing, {during} about its beginning, {after} after it");
    ensure!(before > 100 && after > 100, "there was no churn");
    let verdict = run.lines.verdict()?;
    ensure_balanced(verdict)?;
    let numbers = &verdict.connections;
    ensure!(numbers.opened + numbers.found == told.len() as u64 && numbers.open == 0, "{numbers:?}");
    Ok(())
}

/// Connects, asks, reads and closes, from a port of its own each time.
fn churn(link: &Link, next: &AtomicU16, done: &AtomicBool) -> Result<Ledger> {
    link.client.enter(|| {
        let mut ledger = Ledger::new();
        while !done.load(Ordering::SeqCst) {
            let port = next.fetch_add(1, Ordering::SeqCst);
            ensure!(port < LAST_PORT, "no port is left");
            let connecting = clock::mono_ns();
            drop(client_here(port)?);
            ledger.insert(port, (connecting, clock::mono_ns()));
            pause(1);
        }
        Ok(ledger)
    })
}

fn client(link: &Link, port: u16) -> Result<Socket> {
    link.client.enter(|| client_here(port))
}

/// A connection that was asked and answered.
fn client_here(port: u16) -> Result<Socket> {
    let client = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, Some(Protocol::TCP))?;
    client.bind(&SocketAddr::new(FAMILY.client(), port).into())?;
    client.connect(&SocketAddr::new(FAMILY.server(), PORT).into())?;
    send(&client, &[b'x'; 10])?;
    read_some(&client)?;
    Ok(client)
}

fn listen(link: &Link) -> Result<TcpListener> {
    let listener = socket(&link.server, FAMILY, Protocol::TCP)?;
    listener.bind(&SocketAddr::new(FAMILY.server(), PORT).into())?;
    listener.listen(1024)?;
    Ok(listener.into())
}

/// Serves until it is to close.
fn answer_all(listener: &TcpListener, closed: &AtomicBool) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    while !closed.load(Ordering::SeqCst) {
        match listener.accept() {
            Ok((connection, _)) => drop(thread::spawn(move || answer(connection))),
            Err(_) => pause(1),
        }
    }
    Ok(())
}

fn answer(mut connection: TcpStream) -> std::io::Result<()> {
    let mut request = [0; 100];
    while connection.read(&mut request)? > 0 {
        connection.write_all(&[b'y'; 10])?;
    }
    Ok(())
}

/// The listener puts accepting off until there is data: when tracing begins there is a handshake in the
/// kernel's table, and no connection yet.
fn half_open() -> Result<()> {
    let link = Link::new()?;
    let resident = Resident::of(&link.server)?;
    let listener = listen(&link)?;
    defer_accept(&socket2::SockRef::from(&listener), 30)?;
    let client = socket(&link.client, FAMILY, Protocol::TCP)?;
    client.connect(&SocketAddr::new(FAMILY.server(), PORT).into())?;
    let mut lastpacket = begin(&resident)?;
    pause(100);
    send(&client, &[b'x'; 10])?;
    let (server, _) = listener.accept()?;
    lastpacket.wait_for(1, |body| matches!(body, Body::ConnectionOpened(_)))?;
    drop((client, server));
    pause(100);
    ensure_numbers(&end(lastpacket, resident)?, (1, 0))
}

/// The server has closed, the client has not: the kernel keeps a remainder of the server's socket
/// (FIN_WAIT2 as a TIME_WAIT socket), which never changes its state again.
fn left() -> Result<()> {
    let link = Link::new()?;
    let resident = Resident::of(&link.server)?;
    let listener = listen(&link)?;
    let client = socket(&link.client, FAMILY, Protocol::TCP)?;
    client.connect(&SocketAddr::new(FAMILY.server(), PORT).into())?;
    drop(listener.accept()?);
    pause(100);
    let lastpacket = begin(&resident)?;
    pause(100);
    drop(client);
    pause(100);
    ensure_numbers(&end(lastpacket, resident)?, (0, 0))
}

fn begin(resident: &Resident) -> Result<Running> {
    let pid = resident.pid().to_string();
    let mut lastpacket = run::start(&["trace", "--linger", "100ms", "--pid", &pid])?;
    lastpacket.wait_for(1, |body| matches!(body, Body::Phase(_)))?;
    Ok(lastpacket)
}

fn end(lastpacket: Running, resident: Resident) -> Result<Run> {
    resident.terminate()?;
    lastpacket.finish()
}

/// So many were opened and found; all ended.
fn ensure_numbers(run: &Run, (opened, found): (u64, u64)) -> Result<()> {
    let numbers = run.lines.verdict()?.connections;
    ensure!((numbers.opened, numbers.found, numbers.open) == (opened, found, 0), "{numbers:?}");
    ensure_balanced(run.lines.verdict()?)
}
