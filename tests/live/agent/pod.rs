//! A pod that a kubelet could have made: a process in a cgroup and a network namespace of its own, and
//! an agent and clients for it.

use std::{fs, net::SocketAddr, path::PathBuf};

use anyhow::{Context, Result};
use lastpacket_tests::{
    netns::{Family, Link},
    run::{self, Running},
};
use socket2::{Protocol, Socket};
use tracer_core::output::Line;

use crate::scene::{send, socket};

/// Where the pod serves.
pub const PORT: u16 = 8000;
/// Asks, and wants an answer.
const QUESTION: [u8; 100] = [b'?'; 100];

/// A pod with one container, as its cgroup shows it.
pub struct Pod {
    uid: String,
    folders: [PathBuf; 3],
}

impl Pod {
    /// One that no API knows.
    pub fn new() -> Result<Self> {
        Self::with_uid(fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim_end())
    }

    /// Makes its cgroups, so far without a process.
    pub fn with_uid(uid: &str) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let mount =
            mounts.find(|words| words[2] == "cgroup2").context("no cgroup v2 hierarchy is mounted")?;
        let uid = uid.to_owned();
        let node = PathBuf::from(mount[1]).join(format!("live-{}", &uid[..8]));
        let pod = node.join(format!("kubepods/burstable/pod{uid}"));
        let mut made = Self { uid, folders: [pod.clone(), pod, node] };
        made.folders[0].push(made.container_id());
        fs::create_dir_all(&made.folders[0])?;
        Ok(made)
    }

    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// As the runtime calls it.
    pub fn container_id(&self) -> String {
        self.uid.replace('-', "").repeat(2)
    }

    pub fn take(&self, pid: u32) -> Result<()> {
        Ok(fs::write(self.folders[0].join("cgroup.procs"), pid.to_string())?)
    }

    /// What was told of it.
    pub fn lines(&self, lines: &[Line]) -> Vec<Line> {
        lines.iter().filter(|line| self.is_of(line)).cloned().collect()
    }

    pub fn is_of(&self, line: &Line) -> bool {
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

pub fn agent() -> Result<Running> {
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
pub fn client(link: &Link, family: Family) -> Result<(Option<Socket>, u16)> {
    let client = socket(&link.client, family, Protocol::TCP)?;
    client.bind(&SocketAddr::new(family.client(), 0).into())?;
    let port = client.local_addr()?.as_socket().context("no address")?.port();
    let connected = client.connect(&SocketAddr::new(family.server(), PORT).into());
    if connected.is_ok() {
        send(&client, &QUESTION)?;
    }
    Ok((connected.is_ok().then_some(client), port))
}

pub fn listener(link: &Link, family: Family) -> Result<Socket> {
    let listener = socket(&link.server, family, Protocol::TCP)?;
    listener.bind(&SocketAddr::new(family.server(), PORT).into())?;
    listener.listen(128)?;
    Ok(listener)
}
