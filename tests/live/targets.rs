//! Several targets of one `lastpacket`: what belongs to whom, and that nothing of them is lost.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use lastpacket_tests::{
    counters::{self, rise},
    events::{Events, ensure_balanced, ensure_no_gaps},
    machine, needs,
    netns::{Family, Link, Namespace},
    run::{self, Run, cannot_show},
};
use libtest_mimic::Trial;
use socket2::{Protocol, Socket};
use tracer_core::{
    output::{Body, ConnectionEvent, Line},
    verdict::Verdict,
    words::{Confidence, Direction, Ending, Phase},
};

use crate::{
    children::Holder,
    scene::{pause, send, socket},
};

pub fn trials() -> Vec<Trial> {
    vec![
        needs::live("targets::nothing_is_attributed_to_the_wrong_one_of_two", two_at_once),
        needs::live("targets::a_farewell_to_idle_connections_is_no_loss", farewell),
        needs::live("targets::a_process_that_dies_within_a_millisecond_loses_no_event", sudden_deaths),
    ]
}

const PORT: u16 = 8000;
const FAMILY: Family = Family::V4;
/// What a server answers to.
pub const QUESTION: [u8; 100] = [b'?'; 100];
/// What it takes without an answer.
pub const STATEMENT: [u8; 100] = [b'!'; 100];

/// A server and its clients.
pub struct Target {
    pub link: Link,
    pub holder: Holder,
    pub clients: Vec<(u16, Socket)>,
}

/// How a connection of this client's port must have ended.
type Endings = BTreeMap<u16, (Ending, Option<Confidence>)>;

impl Target {
    /// A server that will take `count` connections.
    pub fn new(role: &str, count: usize) -> Result<Self> {
        let link = Link::new()?;
        let listener = socket(&link.server, FAMILY, Protocol::TCP)?;
        listener.bind(&SocketAddr::new(FAMILY.server(), PORT).into())?;
        listener.listen(128)?;
        let holder = Holder::start(&link.server, role, count, listener)?;
        Ok(Self { link, holder, clients: Vec::new() })
    }

    /// A client's connection from this port that says something.
    pub fn connect(&mut self, port: u16, words: &[u8]) -> Result<&Socket> {
        let client = socket(&self.link.client, FAMILY, Protocol::TCP)?;
        client.bind(&SocketAddr::new(FAMILY.client(), port).into())?;
        client.connect(&SocketAddr::new(FAMILY.server(), PORT).into())?;
        send(&client, words)?;
        self.clients.push((port, client));
        Ok(&self.clients[self.clients.len() - 1].1)
    }

    /// A connection whose first words the server has read.
    pub fn connect_and_wait(&mut self, port: u16, words: &[u8]) -> Result<&Socket> {
        self.connect(port, words)?;
        self.holder.wait_until_taken()?;
        Ok(&self.clients[self.clients.len() - 1].1)
    }

    /// What was told of this target.
    fn lines(&self, run: &Run) -> Result<Vec<Line>> {
        let netns = self.link.server.inode()?;
        let mine = |line: &&Line| line.subject.as_ref().is_some_and(|subject| subject.target.netns == netns);
        Ok(run.lines.iter().filter(mine).cloned().collect())
    }
}

/// Traces all targets with one `lastpacket` while `act` makes their connections and ends them.
pub fn trace(targets: &mut [Target], act: impl FnOnce(&mut [Target]) -> Result<()>) -> Result<Run> {
    let pids: Vec<String> = targets.iter().map(|target| target.holder.pid().to_string()).collect();
    let pids = pids.iter().flat_map(|pid| ["--pid", pid]);
    let arguments: Vec<&str> = ["trace", "--linger", "100ms"].into_iter().chain(pids).collect();
    let mut lastpacket = run::start(&arguments)?;
    lastpacket.wait_for(targets.len(), |body| matches!(body, Body::Phase(_)))?;
    act(targets)?;
    let run = lastpacket.finish()?;
    ensure_no_gaps(&run.lines)?;
    Ok(run)
}

/// Every connection has exactly one ending, and it is the right one; no other connection is told of.
fn ensure_endings(lines: &[Line], expected: &Endings) -> Result<()> {
    let mut told = Endings::new();
    for event in lines.closed() {
        let end = event.end.as_ref().context("no end")?;
        if end.ending == Ending::NeverEstablished {
            let goes_on = expected.contains_key(&event.network.peer.port);
            ensure!(goes_on, "no connection that goes on: {event:#?}");
            continue;
        }
        ensure!(event.network.peer.address == FAMILY.client(), "not of our client: {event:#?}");
        ensure!(event.phase == Phase::Exiting, "ended in another phase: {event:#?}");
        let twice = told.insert(event.network.peer.port, (end.ending, end.confidence));
        ensure!(twice.is_none(), "ended twice: {event:#?}");
    }
    ensure!(told == *expected, "endings are {told:#?}, expected {expected:#?}");
    Ok(())
}

/// A hundred connections to two servers at the same address, some from the same ports: only the
/// namespace tells them apart. Both end at once, amid traffic of others.
fn two_at_once() -> Result<()> {
    let mut targets = [Target::new("hold", 50)?, Target::new("hold", 50)?];
    let (mut idle, mut unread) = (Endings::new(), Endings::new());
    let run = trace(&mut targets, |targets| with_noise(|| fifty_each(targets, &mut idle, &mut unread)))?;
    for (target, endings) in targets.iter().zip([&idle, &unread]) {
        let lines = target.lines(&run)?;
        ensure_endings(&lines, endings)?;
        let verdict = lines.verdict()?;
        ensure_balanced(verdict)?;
        let sockets = 50 + second_sockets(&lines, verdict)?;
        ensure!(lines.opened().len() == sockets, "{} connections were opened", lines.opened().len());
        ensure!(
            verdict.connections.ended == sockets as u64 && verdict.connections.open == 0,
            "{:?}",
            verdict.connections
        );
    }
    let [first, second] = [targets[0].lines(&run)?, targets[1].lines(&run)?];
    ensure!(first.resets().is_empty(), "the idle one has resets: {:#?}", first.resets());
    ensure!(second.resets().len() == 50, "the other has {} resets", second.resets().len());
    ensure!(
        (first.verdict()?.lost, second.verdict()?.lost) == (0, 50),
        "losses were attributed to the wrong one"
    );
    let strangers = run.lines.iter().filter(|line| line.subject.is_none()).count();
    ensure!(first.len() + second.len() + strangers == run.lines.len(), "lines of a third target");
    Ok(())
}

/// Sockets that the kernel made and took back within a handshake: as many as it counted too many.
fn second_sockets(lines: &[Line], verdict: &Verdict) -> Result<usize> {
    let given_up = |event: &&ConnectionEvent| {
        event.end.as_ref().is_some_and(|end| end.ending == Ending::NeverEstablished)
    };
    let count = lines.closed().into_iter().filter(given_up).count();
    let opens = verdict.books.iter().find(|book| book.name == "PassiveOpens").context("no PassiveOpens")?;
    ensure!(opens.kernel == 50 + count as u64, "the kernel counted {}, {count} were given up", opens.kernel);
    Ok(count)
}

/// The first server's connections idle, the second's have data that was not read.
fn fifty_each(targets: &mut [Target], idle: &mut Endings, unread: &mut Endings) -> Result<()> {
    for index in 0..50 {
        targets[0].connect_and_wait(20_000 + index, &QUESTION)?;
        idle.insert(20_000 + index, (Ending::IdleClosed, None));
        let client = targets[1].connect_and_wait(20_025 + index, &QUESTION)?;
        send(client, &STATEMENT)?;
        unread.insert(20_025 + index, (Ending::ResetUnread, Some(Confidence::Certain)));
    }
    pause(50);
    targets.iter().try_for_each(|target| target.holder.stop())
}

/// Runs a function while others connect, close and reset: in a namespace of their own and in the
/// machine's.
fn with_noise(function: impl FnOnce() -> Result<()>) -> Result<()> {
    let (other, done) = (Namespace::new()?, AtomicBool::new(false));
    thread::scope(|scope| {
        let inside = scope.spawn(|| other.enter(|| make_noise(&done)));
        let beside = scope.spawn(|| make_noise(&done));
        let result = function();
        done.store(true, Ordering::Relaxed);
        for noise in [inside, beside] {
            noise.join().map_err(|_| anyhow!("the noise panicked"))??;
        }
        result
    })
}

fn make_noise(done: &AtomicBool) -> Result<()> {
    let listener = std::net::TcpListener::bind((IpAddr::from([127, 0, 0, 1]), 0))?;
    while !done.load(Ordering::Relaxed) {
        let client = Socket::from(std::net::TcpStream::connect(listener.local_addr()?)?);
        let (accepted, _) = listener.accept()?;
        client.set_linger(Some(Duration::ZERO))?;
        drop((client, accepted));
        pause(1);
    }
    Ok(())
}

/// The farewell comes long after the answer, and right before the exit.
fn farewell() -> Result<()> {
    let mut targets = [Target::new("hold-and-part", 3)?];
    let run = trace(&mut targets, |targets| {
        for port in 30_000..30_003 {
            targets[0].connect_and_wait(port, &QUESTION)?;
        }
        pause(1200);
        targets[0].holder.stop()
    })?;
    let lines = targets[0].lines(&run)?;
    // Where the applications' calls are not seen (before 6.3), the farewell may be the end of an answer
    // that took that long: a doubt, and no more.
    let seen = !cannot_show(&run, "requests without an answer");
    let ending =
        if seen { (Ending::IdleClosed, None) } else { (Ending::MidResponse, Some(Confidence::Possible)) };
    ensure_endings(&lines, &(30_000..30_003).map(|port| (port, ending)).collect())?;
    ensure!(lines.verdict()?.lost == 0, "{:?}", lines.verdict()?.losses);
    Ok(())
}

/// Each server exits within its signal handler, with an idle connection, one that waits for its answer,
/// one with unread data, and one that it never accepted.
fn sudden_deaths() -> Result<()> {
    let mut targets = twenty_targets()?;
    let mut resets = Vec::new();
    let run = trace(&mut targets, |targets| {
        for target in targets {
            resets.push(die_suddenly(target)?);
        }
        Ok(())
    })?;
    for (target, resets) in targets.iter().zip(resets) {
        ensure_sudden_death(&target.lines(&run)?, resets)?;
    }
    let quickest = targets.iter().filter_map(|target| time_to_die(&target.lines(&run).ok()?)).min();
    ensure!(
        quickest < Some(Duration::from_millis(1) * machine::slowness()),
        "the quickest took {quickest:?} to die"
    );
    Ok(())
}

/// All at once: each waits for its link.
fn twenty_targets() -> Result<Vec<Target>> {
    thread::scope(|scope| {
        let makers: Vec<_> = (0..20).map(|_| scope.spawn(|| Target::new("hold", 3))).collect();
        makers
            .into_iter()
            .map(|maker| maker.join().map_err(|_| anyhow!("making a target panicked"))?)
            .collect()
    })
}

/// Gives the resets that the kernel counted.
fn die_suddenly(target: &mut Target) -> Result<u64> {
    target.connect_and_wait(30_000, &QUESTION)?;
    target.connect_and_wait(30_001, &STATEMENT)?;
    send(target.connect_and_wait(30_002, &STATEMENT)?, &STATEMENT)?;
    target.connect(30_003, &QUESTION)?;
    pause(20);
    let before = counters::read(&target.link.server)?;
    target.holder.stop()?;
    pause(50);
    Ok(rise(&before, &counters::read(&target.link.server)?, "OutRsts"))
}

fn ensure_sudden_death(lines: &[Line], resets: u64) -> Result<()> {
    let certain = Some(Confidence::Certain);
    let endings = Endings::from([
        (30_000, (Ending::IdleClosed, None)),
        (30_001, (Ending::Unanswered, Some(Confidence::Likely))),
        (30_002, (Ending::ResetUnread, certain)),
        (30_003, (Ending::ResetBacklog, certain)),
    ]);
    ensure_endings(lines, &endings)?;
    let verdict = lines.verdict()?;
    ensure_balanced(verdict)?;
    ensure!(verdict.lost == 3, "{} lost: {:?}", verdict.lost, verdict.reasons);
    let sent = lines.resets().iter().filter(|reset| reset.direction == Direction::Sent).count() as u64;
    ensure!((resets, sent) == (2, 2), "the kernel counted {resets} resets, {sent} were traced");
    Ok(())
}

/// From the stop signal to the exit.
fn time_to_die(lines: &[Line]) -> Option<Duration> {
    let time = |wanted: Phase| {
        lines.iter().find_map(|line| match &line.body {
            Body::Phase(event) if event.phase == wanted => Some(line.mono_ns),
            _ => None,
        })
    };
    Some(Duration::from_nanos(time(Phase::Exiting)? - time(Phase::StopSignal)?))
}
