//! Targets that are cgroups.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use lastpacket_tests::{events::Events, needs, netns::Namespace, process::Resident, run};
use libtest_mimic::Trial;
use tracer_core::{output::Body, words};

use crate::scene::pause;

pub fn trials() -> Vec<Trial> {
    vec![needs::live("cgroups::a_cgroup_ends_with_its_last_process", last_process)]
}

/// The first process of a cgroup ends before the others: the target ends with the last one.
fn last_process() -> Result<()> {
    let namespace = Namespace::new()?;
    let cgroup = Cgroup::new()?;
    let (first, last) = (Resident::of(&namespace)?, Resident::of(&namespace)?);
    cgroup.take(&first)?;
    cgroup.take(&last)?;
    let folder = cgroup.0.to_str().context("no text")?;
    let mut lastpacket = run::start(&["trace", "--linger", "100ms", "--cgroup", folder])?;
    lastpacket.wait_for(2, |body| matches!(body, Body::Phase(_)))?;
    first.terminate()?;
    pause(300);
    last.terminate()?;
    let run = lastpacket.finish()?;
    let exits = run.lines.iter().filter(|line| matches!(line.body, Body::Exit(_))).map(|line| line.mono_ns);
    let waited = exits.clone().max().unwrap_or(0) - exits.min().unwrap_or(0);
    ensure!(waited > 250_000_000, "the last exit came {waited} ns after the first");
    ensure!(run.lines.verdict()?.result == words::Result::Idle, "{:?}", run.lines.verdict()?.reasons);
    Ok(())
}

/// A cgroup, removed at the end.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let mount =
            mounts.find(|words| words[2] == "cgroup2").context("no cgroup v2 hierarchy is mounted")?;
        let folder = PathBuf::from(mount[1]).join(format!("live-{}", std::process::id()));
        fs::create_dir(&folder)?;
        Ok(Self(folder))
    }

    fn take(&self, resident: &Resident) -> Result<()> {
        Ok(fs::write(self.0.join("cgroup.procs"), resident.pid().to_string())?)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}
