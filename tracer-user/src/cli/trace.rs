//! `lastpacket trace`: processes, network namespaces, cgroups, pods, until they end.

mod find;
mod pods;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};
use tracer_core::{
    event::TargetId,
    input::{Declared, End, InventoryUpdate, NewContainer, NewTarget},
    lifecycle::Source,
    output::Subject,
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
        probers::Probers,
        process::{self, Process},
    },
    pipeline::{Pipeline, TargetSpec},
};

/// What to trace.
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Arguments {
    /// A process, by its id: it and all that share its network namespace
    #[arg(long, value_name = "PID", required_unless_present_any = ["netns", "cgroup", "pod", "selector", "container"])]
    pid: Vec<u32>,
    /// A network namespace, by its name (`ip netns`) or path
    #[arg(long, value_name = "NAME|PATH")]
    netns: Vec<PathBuf>,
    /// A cgroup (version 2), by its folder or its path from the hierarchy's root
    #[arg(long, value_name = "PATH")]
    cgroup: Vec<PathBuf>,
    /// A pod of this node, by its name (which the Kubernetes API knows) or its uid
    #[arg(long, value_name = "NAMESPACE/NAME|UID")]
    pod: Vec<String>,
    /// The pods of this node that have these labels, as in `kubectl get --selector`
    #[arg(long, value_name = "LABELS")]
    selector: Option<String>,
    /// The pod of this node that a container is in, by the container's id or the beginning of it
    #[arg(long, value_name = "ID")]
    container: Vec<String>,
    /// How to reach the Kubernetes API [default: KUBECONFIG, ~/.kube/config, the service account]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
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

const HELP: &str = "\
SIGUSR1 tells that the termination of the targets begins, as the Kubernetes API tells of pods: what comes \
before the stop signal is preStop then, and no part of running.";

/// How often a cgroup is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How often it is looked whether a target has ended.
const ENDS: Duration = Duration::from_millis(20);

/// A target as the user named it.
struct Found {
    subject: Arc<Subject>,
    netns: PathBuf,
    containers: Vec<Member>,
    /// Its termination had begun before.
    late: bool,
}

/// A container of a target: its first process, and its cgroup if that is known.
struct Member {
    declared: Declared,
    init: Process,
    cgroup: Option<Cgroup>,
}

pub(super) fn run(arguments: &Arguments) -> Result<Outcome> {
    super::options::require_root()?;
    runtime()?.block_on(async {
        let found = find::find(arguments).await?;
        trace(arguments, found).await
    })
}

async fn trace(arguments: &Arguments, found: Vec<Found>) -> Result<Outcome> {
    let interrupt = interrupted()?;
    let told = signal(SignalKind::user_defined1()).context("cannot handle SIGUSR1")?;
    let (mut pipeline, verdicts) = arguments.options.start()?;
    // On a node the kubelet's probes are no traffic. One that is started again meanwhile is not known.
    pipeline.set_probers(Probers::default().look())?;
    pipeline.observe(Box::new(tally(&verdicts)));
    let mut targets = Vec::new();
    let (tell, mut updates) = mpsc::channel(16);
    for target in found {
        let id = add(&mut pipeline, &target, arguments)?;
        targets.push(id);
        for (member, container) in target.containers.into_iter().zip(0..) {
            if let Some(cgroup) = member.cgroup {
                tokio::spawn(tell_when_empty(id, container, cgroup, tell.clone()));
            }
        }
    }
    tokio::spawn(tell_of_termination(told, targets.clone(), tell));
    let left = follow(&mut pipeline, targets, &mut updates, arguments.linger, interrupt).await?;
    for target in left {
        let end = match (pipeline.is_gone(target), pipeline.is_terminating(target)) {
            (true, _) => End::Terminated,
            (false, true) => End::Interrupted,
            (false, false) => End::NotTerminated,
        };
        finish(&mut pipeline, target, end)?;
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
            finish(pipeline, target, End::Terminated)?;
        }
    }
    Ok(targets)
}

fn finish(pipeline: &mut Pipeline, target: TargetId, end: End) -> Result<()> {
    let interface_gone = !pipeline.has_interface(target);
    pipeline.finish(target, interface_gone, end)
}

/// Passes on that the termination of the targets begins.
async fn tell_of_termination(mut told: Signal, targets: Vec<TargetId>, tell: mpsc::Sender<InventoryUpdate>) {
    while told.recv().await.is_some() {
        let time = clock::mono_ns();
        for target in targets.iter().copied() {
            let began = InventoryUpdate::PreStop { target, container: None, time, source: Source::User };
            // Nobody listens any more when tracing has ended.
            let _ = tell.send(began).await;
        }
    }
}

/// The kernel tells of the ends of inits; that others of a cgroup have ended too, its files tell.
async fn tell_when_empty(
    target: TargetId,
    container: u32,
    cgroup: Cgroup,
    tell: mpsc::Sender<InventoryUpdate>,
) {
    while cgroup.processes().is_ok_and(|pids| !pids.is_empty()) {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    let gone = InventoryUpdate::ContainerGone { target, container, time: clock::mono_ns() };
    // Nobody listens any more when tracing has ended.
    let _ = tell.send(gone).await;
}

/// Puts a target in scope with its containers.
fn add(pipeline: &mut Pipeline, found: &Found, arguments: &Arguments) -> Result<TargetId> {
    let options = &arguments.options;
    let inside = Netns::open(&found.netns)?.look()?;
    let shared_network = inside.identity.inode == netns::machine_inode()?;
    let cgroups = found.containers.iter().filter_map(|member| Some(member.cgroup.as_ref()?.id));
    let keys = if shared_network {
        pipeline.shared_keys(inside.identity, cgroups.collect::<BTreeSet<_>>().into_iter())?
    } else {
        pipeline.scope_keys(inside.identity, None)?
    };
    let time = clock::mono_ns();
    let mut subject = Subject::clone(&found.subject);
    subject.target.netns = inside.identity.inode;
    let machine = process::machine_pidns()?;
    let mut containers = Vec::new();
    for (Member { declared, init, cgroup }, container) in found.containers.iter().zip(0..) {
        containers.push(NewContainer {
            target: 0,
            container,
            name: declared.name.clone(),
            pid: init.pid,
            pidns: (init.pidns != machine).then_some(u32::try_from(init.pidns)?),
            cgroup: cgroup.as_ref().map(|cgroup| cgroup.id),
            stop_signal: declared.stop_signal,
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
            late: found.late,
            timeouts: timeouts(arguments.grace, arguments.lb_timeout),
        },
        armed: true,
        containers,
        keys,
        totals: inside.totals.filter(|_| !shared_network),
        sockets: inside.sockets.filter(|_| !shared_network),
    })
}
