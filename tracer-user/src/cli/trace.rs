//! `lastpacket trace`: processes, network namespaces, cgroups, until they end.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tokio::sync::mpsc;
use tracer_core::{
    event::TargetId,
    input::{End, InventoryUpdate, NewContainer, NewTarget},
    output::{Subject, Target},
};

use super::{
    Outcome,
    options::{TraceOptions, duration, interrupted, runtime, tally, timeouts},
};
use crate::{
    clock,
    host::{
        cgroup::Cgroup,
        netns::{self, Netns},
        process::{self, Process},
    },
    pipeline::{Pipeline, TargetSpec},
};

/// What to trace.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// A process, by its id: it and all that share its network namespace
    #[arg(long, value_name = "PID", required_unless_present_any = ["netns", "cgroup"])]
    pid: Vec<u32>,
    /// A network namespace, by its name (`ip netns`) or path
    #[arg(long, value_name = "NAME|PATH")]
    netns: Vec<PathBuf>,
    /// A cgroup (version 2), by its folder or its path from the hierarchy's root
    #[arg(long, value_name = "PATH")]
    cgroup: Vec<PathBuf>,
    /// How long to go on after the last process has exited
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    linger: Duration,
    /// The target's terminationGracePeriodSeconds, to say whether it is in order
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    grace: Option<Duration>,
    /// How long the load balancer lets connections drain: preStop must be shorter than the grace period,
    /// and that shorter than this
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    lb_timeout: Option<Duration>,
    #[command(flatten)]
    options: TraceOptions,
}

/// How often a cgroup is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How often it is looked whether a target has ended.
const ENDS: Duration = Duration::from_millis(20);

/// A target as the user named it.
struct Found {
    name: String,
    netns: PathBuf,
    /// Process ids of the inits, with the names of their containers.
    inits: Vec<Process>,
    cgroup: Option<Cgroup>,
}

pub(super) fn run(arguments: &Arguments) -> Result<Outcome> {
    super::options::require_root()?;
    let found = find(arguments)?;
    runtime()?.block_on(trace(arguments, found))
}

async fn trace(arguments: &Arguments, found: Vec<Found>) -> Result<Outcome> {
    let interrupt = interrupted()?;
    let (mut pipeline, verdicts) = arguments.options.start()?;
    pipeline.observe(Box::new(tally(&verdicts)));
    let mut targets = Vec::new();
    let (tell, mut updates) = mpsc::channel(16);
    for target in found {
        let (cgroup, containers) = (target.cgroup.clone(), target.inits.len());
        let id = add(&mut pipeline, target, arguments)?;
        targets.push(id);
        if let Some(cgroup) = cgroup {
            tokio::spawn(tell_when_empty(id, containers, cgroup, tell.clone()));
        }
    }
    let left = follow(&mut pipeline, targets, &mut updates, arguments.linger, interrupt).await?;
    for target in left {
        let end = match (pipeline.is_gone(target), pipeline.is_terminating(target)) {
            (true, _) => End::Terminated,
            (false, true) => End::Interrupted,
            (false, false) => End::NotTerminated,
        };
        pipeline.finish(target, false, end)?;
    }
    pipeline.close()?;
    Ok(verdicts.borrow().outcome(arguments.options.strict))
}

/// Gives each target's verdict a while after its end, and with it lets go of its network namespace.
/// Returns those that had none yet when it was interrupted.
async fn follow(
    pipeline: &mut Pipeline,
    mut targets: Vec<TargetId>,
    updates: &mut mpsc::Receiver<InventoryUpdate>,
    linger: Duration,
    interrupt: impl Future<Output = ()>,
) -> Result<Vec<TargetId>> {
    let mut interrupt = std::pin::pin!(interrupt);
    let mut ended = BTreeMap::new();
    while !targets.is_empty() {
        let interrupted = async {
            tokio::select! {
                () = &mut interrupt => true,
                () = tokio::time::sleep(ENDS) => false,
            }
        };
        if pipeline.run(updates, interrupted).await? {
            break;
        }
        for target in &targets {
            if pipeline.is_gone(*target) {
                ended.entry(*target).or_insert_with(Instant::now);
            }
        }
        let over = |target: &TargetId| ended.get(target).is_some_and(|ended| ended.elapsed() >= linger);
        for target in targets.extract_if(.., |target| over(target)) {
            pipeline.finish(target, false, End::Terminated)?;
        }
    }
    Ok(targets)
}

/// The kernel tells of the ends of inits; that others of a cgroup have ended too, its files tell.
async fn tell_when_empty(
    target: TargetId,
    containers: usize,
    cgroup: Cgroup,
    tell: mpsc::Sender<InventoryUpdate>,
) {
    while cgroup.processes().is_ok_and(|pids| !pids.is_empty()) {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    for container in 0..containers as u32 {
        let gone = InventoryUpdate::ContainerGone { target, container, time: clock::mono_ns() };
        // Nobody listens any more when tracing has ended.
        let _ = tell.send(gone).await;
    }
}

/// Puts a target in scope with its containers.
fn add(pipeline: &mut Pipeline, found: Found, arguments: &Arguments) -> Result<TargetId> {
    let options = &arguments.options;
    let inside = Netns::open(&found.netns)?.look()?;
    let shared_network = inside.identity.inode == netns::machine_inode()?;
    let keys = pipeline.scope_keys(inside.identity, found.cgroup.as_ref().filter(|_| shared_network))?;
    let time = clock::mono_ns();
    let subject = Subject { target: Target { name: found.name, netns: inside.identity.inode }, k8s: None };
    let machine = process::machine_pidns()?;
    let mut containers = Vec::new();
    for (container, init) in found.inits.iter().enumerate() {
        containers.push(NewContainer {
            target: 0,
            container: u32::try_from(container)?,
            name: init.comm.as_str().into(),
            pid: init.pid,
            pidns: (init.pidns != machine).then_some(u32::try_from(init.pidns)?),
            cgroup: found.cgroup.as_ref().map(|cgroup| cgroup.id),
            stop_signal: None,
            time,
        });
    }
    pipeline.add_target(TargetSpec {
        new: NewTarget {
            id: 0,
            subject: Arc::new(subject),
            time,
            addresses: inside.addresses,
            checkers: options.probe_peer.clone(),
            one_way: options.one_way.clone(),
            shared_network,
            late: false,
            timeouts: timeouts(arguments.grace, arguments.lb_timeout),
        },
        armed: true,
        containers,
        keys,
        totals: inside.totals.filter(|_| !shared_network),
        sockets: inside.sockets.filter(|_| !shared_network),
    })
}

fn find(arguments: &Arguments) -> Result<Vec<Found>> {
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
    let mut seen = BTreeMap::new();
    for target in &found {
        let inode = netns::inode(&target.netns)?;
        if let Some(other) =
            seen.insert((inode, target.cgroup.as_ref().map(|cgroup| cgroup.id)), &target.name)
        {
            bail!("{} and {other} share a network namespace; name one of them", target.name);
        }
    }
    Ok(found)
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
    Ok(Found { name: format!("pid {pid}"), netns: process.netns_path(), inits: vec![process], cgroup })
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
    Ok(Found {
        name: path.display().to_string(),
        netns: file,
        inits: inits_of(|process| process.netns == inode),
        cgroup: None,
    })
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
    Ok(Found { name: path.display().to_string(), netns: first.netns_path(), inits, cgroup: Some(cgroup) })
}

/// Of the processes that match, those whose parent does not: the first ones of their trees, and the
/// first of every pid namespace.
fn inits_of(matches: impl Fn(&Process) -> bool) -> Vec<Process> {
    let all: Vec<Process> = process::all().into_iter().filter(matches).collect();
    let pids: Vec<u32> = all.iter().map(|process| process.pid).collect();
    all.into_iter().filter(|process| process.is_namespace_init || !pids.contains(&process.parent)).collect()
}
