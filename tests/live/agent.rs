//! The agent on a node that has a pod: a process in a cgroup that a kubelet could have made.

use std::{collections::BTreeSet, fs, net::SocketAddr, path::PathBuf};

use anyhow::{Context, Result, ensure};
use lastpacket_tests::{
    events::{Events, ensure_balanced, ensure_no_gaps},
    needs,
    netns::{Family, Link},
    run::{self, Running},
};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use socket2::{Protocol, Socket};
use tracer_core::{
    output::{Body, Line},
    words::{self, Ending, Origin, Phase},
};

use crate::{
    children::{Holder, Prober},
    scene::{pause, read_some, send, socket},
};

pub fn trials() -> Vec<Trial> {
    vec![
        needs::live("agent::probes_are_never_a_loss_v4", || probes(Family::V4)),
        needs::live("agent::probes_are_never_a_loss_v6", || probes(Family::V6)),
        needs::live("agent::a_pod_that_lives_300_ms_is_judged", short_life),
    ]
}

const PORT: u16 = 8000;
/// Asks, and wants an answer.
const QUESTION: [u8; 100] = [b'?'; 100];

/// A pod with one container, as its cgroup shows it.
struct Pod {
    uid: String,
    folders: [PathBuf; 3],
}

impl Pod {
    /// Makes its cgroups, so far without a process.
    fn new() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let mount =
            mounts.find(|words| words[2] == "cgroup2").context("no cgroup v2 hierarchy is mounted")?;
        let random = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
        let uid = random.trim_end().to_owned();
        let node = PathBuf::from(mount[1]).join(format!("live-{}", &uid[..8]));
        let pod = node.join(format!("kubepods/burstable/pod{uid}"));
        let container = pod.join(uid.replace('-', "").repeat(2));
        fs::create_dir_all(&container)?;
        Ok(Self { uid, folders: [container, pod, node] })
    }

    fn take(&self, pid: u32) -> Result<()> {
        Ok(fs::write(self.folders[0].join("cgroup.procs"), pid.to_string())?)
    }

    /// What was told of it.
    fn lines(&self, lines: &[Line]) -> Vec<Line> {
        lines.iter().filter(|line| self.is_of(line)).cloned().collect()
    }

    fn is_of(&self, line: &Line) -> bool {
        let k8s = line.subject.as_ref().and_then(|subject| subject.k8s.as_ref());
        k8s.is_some_and(|k8s| k8s.pod.uid == self.uid)
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let [container, pod, node] = &self.folders;
        let between = [node.join("kubepods/burstable"), node.join("kubepods")];
        for folder in [container, pod, &between[0], &between[1], node] {
            let _ = fs::remove_dir(folder);
        }
    }
}

fn agent() -> Result<Running> {
    run::start(&[
        "agent",
        "--without-api",
        "--format",
        "json",
        "--listen",
        "127.0.0.1:0",
        "--node-name",
        "here",
    ])
}

/// A client's connection, and its port.
fn client(link: &Link, family: Family) -> Result<(Option<Socket>, u16)> {
    let client = socket(&link.client, family, Protocol::TCP)?;
    client.bind(&SocketAddr::new(family.client(), 0).into())?;
    let port = client.local_addr()?.as_socket().context("no address")?.port();
    let connected = client.connect(&SocketAddr::new(family.server(), PORT).into());
    if connected.is_ok() {
        send(&client, &QUESTION)?;
    }
    Ok((connected.is_ok().then_some(client), port))
}

fn listener(link: &Link, family: Family) -> Result<Socket> {
    let listener = socket(&link.server, family, Protocol::TCP)?;
    listener.bind(&SocketAddr::new(family.server(), PORT).into())?;
    listener.listen(128)?;
    Ok(listener)
}

/// The kubelet and a client have the same address, as with masquerading. Both are answered, both wait
/// in vain to be accepted, both are refused: only what the client lost is a loss.
fn probes(family: Family) -> Result<()> {
    let (link, pod) = (Link::new()?, Pod::new()?);
    let to = SocketAddr::new(family.server(), PORT);
    let mut holder = Holder::start(&link.server, "hold", 2, listener(&link, family)?)?;
    pod.take(holder.pid())?;
    let mut prober = Prober::start(&link.client)?;
    let mut agent = agent()?;
    agent.wait_for_line(1, |line| pod.is_of(line) && matches!(line.body, Body::Phase(_)))?;

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
    pause(50);
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
    agent.wait_for_line(1, |line| pod.is_of(line) && matches!(line.body, Body::Verdict(_)))?;
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

/// A pod that is there for no longer than this is found by the kernel's events, not by a regular look.
fn short_life() -> Result<()> {
    let link = Link::new()?;
    let mut agent = agent()?;
    agent.wait_for(1, |body| matches!(body, Body::AgentStarted(_)))?;
    // Past the first look, and far from the next.
    pause(700);
    let mut holder = Holder::start(&link.server, "hold", 1, listener(&link, Family::V4)?)?;
    let pod = Pod::new()?;
    pod.take(holder.pid())?;
    pause(150);
    let (connection, port) = client(&link, Family::V4)?;
    holder.wait_until_taken()?;
    pause(150);
    holder.stop()?;
    pause(100);
    drop(connection);
    link.client.ip("link del vA")?;
    agent.wait_for_line(1, |line| pod.is_of(line) && matches!(line.body, Body::Verdict(_)))?;
    agent.signal(Signal::SIGTERM)?;
    let lines = pod.lines(&agent.finish()?.lines);
    let phases: Vec<_> = lines.phases().iter().map(|event| event.phase).collect();
    ensure!(phases == [Phase::Running, Phase::StopSignal, Phase::Exiting, Phase::AfterExit], "{phases:?}");
    ensure!(lines.closed().iter().any(|event| event.network.peer.port == port), "{lines:#?}");
    let verdict = lines.verdict()?;
    ensure!(verdict.result == words::Result::Late, "{verdict:#?}");
    ensure_balanced(verdict)
}
