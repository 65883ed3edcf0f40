//! The targets that a user names.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use tracer_core::{
    input::Declared,
    output::{Subject, Target},
};

use super::{Arguments, Found, Member, pods};
use crate::host::{
    cgroup::Cgroup,
    netns,
    process::{self, Process},
};

/// All targets that the arguments name, each once.
///
/// # Errors
/// If one of them is not there, or cannot be told from another.
pub(super) async fn find(arguments: &Arguments) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for pid in &arguments.pid {
        found.push(by_pid(*pid)?);
    }
    for path in &arguments.netns {
        found.push(by_netns(path)?);
    }
    for path in &arguments.cgroup {
        found.push(by_cgroup(path)?);
    }
    found.extend(pods::find(arguments).await?);
    let mut seen = BTreeMap::new();
    for target in &found {
        let inode = netns::inode(&target.netns)?;
        let cgroups: Vec<u64> =
            target.containers.iter().filter_map(|member| Some(member.cgroup.as_ref()?.id)).collect();
        let name = &target.subject.target.name;
        if let Some(other) = seen.insert((inode, cgroups), name) {
            bail!("{name} and {other} share a network namespace; name one of them");
        }
    }
    Ok(found)
}

/// A target that is no pod.
fn target(name: String, netns: PathBuf, inits: Vec<Process>, cgroup: Option<&Cgroup>) -> Found {
    let member = |init: Process| {
        let declared = Declared { name: init.comm.as_str().into(), stop_signal: None };
        Member { declared, init, cgroup: cgroup.cloned() }
    };
    let subject = Arc::new(Subject { target: Target { name, netns: 0 }, k8s: None });
    Found { subject, netns, containers: inits.into_iter().map(member).collect(), late: false }
}

fn by_pid(pid: u32) -> Result<Found> {
    let process = Process::read(pid)?;
    let own = process.netns == netns::machine_inode()?;
    let cgroup = match (&process.cgroup, own) {
        (Some(path), true) if path != "/" => Some(Cgroup::open(Path::new(path))?),
        (_, true) => bail!(
            "process {pid} shares the machine's network namespace and has no cgroup of its own; trace a process with a namespace of its own, or put it into a cgroup"
        ),
        _ => None,
    };
    Ok(target(format!("pid {pid}"), process.netns_path(), vec![process], cgroup.as_ref()))
}

fn by_netns(path: &Path) -> Result<Found> {
    let file = if path.components().count() == 1 && !path.exists() {
        Path::new("/run/netns").join(path)
    } else {
        path.to_owned()
    };
    let inode = netns::inode(&file)
        .with_context(|| format!("no network namespace {}; look with `ip netns`", path.display()))?;
    if inode == netns::machine_inode()? {
        bail!("{} is the machine's own network namespace; trace by --pid or --cgroup", path.display());
    }
    Ok(target(path.display().to_string(), file, inits_of(|process| process.netns == inode), None))
}

fn by_cgroup(path: &Path) -> Result<Found> {
    let cgroup = Cgroup::open(path)?;
    let pids = cgroup.processes()?;
    let inits = inits_of(|process| pids.contains(&process.pid));
    let Some(first) = inits.first() else {
        bail!("no process is in cgroup {}; start it first", path.display());
    };
    if let Some(other) = inits.iter().find(|process| process.netns != first.netns) {
        bail!(
            "cgroup {} has processes in several network namespaces ({} and {}); name a cgroup below it",
            path.display(),
            first.pid,
            other.pid
        );
    }
    Ok(target(path.display().to_string(), first.netns_path(), inits, Some(&cgroup)))
}

/// Of the processes that match, those whose parent does not: the first ones of their trees, and the
/// first of every pid namespace.
fn inits_of(matches: impl Fn(&Process) -> bool) -> Vec<Process> {
    let all: Vec<Process> = process::all().into_iter().filter(matches).collect();
    let pids: Vec<u32> = all.iter().map(|process| process.pid).collect();
    all.into_iter().filter(|process| process.is_namespace_init || !pids.contains(&process.parent)).collect()
}
