//! `lastpacket rehearse`: a pod's termination on this machine, without Kubernetes.

use std::{cell::RefCell, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use tokio::{sync::mpsc, time::Instant};
use tracer_core::{
    event::TargetId,
    input::{InventoryUpdate, NewContainer, NewTarget},
    lifecycle::Source,
    output::{Body, Subject, Target},
};

use super::{
    Outcome,
    options::{TraceOptions, duration, interrupted, runtime, tally},
};
use crate::{
    clock,
    host::{netns::Inside, process::Process},
    pipeline::{Pipeline, TargetSpec},
    rehearse::{
        comparison::LossLog,
        demo,
        load::{Load, LoadPlan, LoadSpec, Summary},
        ready::{Readiness, wait_ready},
        sandbox::{CHECKER, Namespaces, Sandbox},
        terminate::{Step, StopSignal, TerminationPlan, terminate},
    },
};

/// What to rehearse.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Rehearse the built-in server instead of a command: it exits at once, or drains
    #[arg(long, value_enum, conflicts_with = "command", required_unless_present = "command")]
    demo: Option<demo::Behaviour>,
    /// The port that takes traffic [default: the first that listens]
    #[arg(long)]
    port: Option<u16>,
    /// A path that must answer 2xx before the load begins [default: the port accepts a connection]
    #[arg(long, value_name = "PATH", value_parser = path)]
    ready: Option<String>,
    /// How long the server may take to become ready
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    ready_timeout: Duration,
    /// The load: groups of clients, such as keep-alive:4,fresh:50/s,long:2:6s,stream:1,upload:1,idle:2
    #[arg(long, value_name = "GROUPS", default_value = "keep-alive:4,fresh:50/s")]
    load: LoadSpec,
    /// The path that is asked for
    #[arg(long, value_name = "PATH", default_value = "/", value_parser = path)]
    path: String,
    /// The path that long requests ask for; {ms} is their duration
    #[arg(long, value_name = "PATH", default_value = "/slow?ms={ms}", value_parser = path)]
    long_path: String,
    /// How long the load runs before termination begins
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration)]
    warm_up: Duration,
    /// How long new connections keep coming after termination began: the load balancer's delay
    #[arg(long, value_name = "DURATION", default_value = "500ms", value_parser = duration)]
    lag: Duration,
    /// A command to run in the server's namespaces before the stop signal
    #[arg(long, value_name = "COMMAND")]
    pre_stop: Option<String>,
    /// The signal that asks the server to stop
    #[arg(long, value_name = "SIGNAL", default_value = "SIGTERM")]
    stop_signal: StopSignal,
    /// terminationGracePeriodSeconds: preStop and stopping together, then SIGKILL
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    grace: Duration,
    /// Repeats the same load
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    options: TraceOptions,
    /// The server and its arguments
    #[arg(last = true)]
    command: Vec<String>,
}

/// How long after the exit late segments are waited for.
const AFTER_EXIT: Duration = Duration::from_millis(300);
/// How long requests in flight may take after the server has exited.
const LAST_REQUESTS: Duration = Duration::from_secs(2);

pub(super) fn run(arguments: &Arguments) -> Result<Outcome> {
    super::options::require_root()?;
    runtime()?.block_on(async {
        tokio::select! {
            outcome = rehearse(arguments) => outcome,
            signal = interrupted() => { signal?; bail!("interrupted; the server was killed, and nothing is left behind") }
        }
    })
}

async fn rehearse(arguments: &Arguments) -> Result<Outcome> {
    let (mut pipeline, verdicts) = arguments.options.start()?;
    let losses = Rc::new(RefCell::new(LossLog::default()));
    let (mut count, log) = (tally(&verdicts), Rc::clone(&losses));
    pipeline.observe(Box::new(move |line| {
        count(line);
        log.borrow_mut().add(line);
    }));
    let namespaces = Namespaces::create("rehearsal").await?;
    let target = add_target(&mut pipeline, &namespaces, &arguments.options).await?;
    let words = arguments.words()?;
    let sandbox = namespaces.start(&words, None).await?;
    add_container(&mut pipeline, target, &sandbox, &words)?;

    let (tell, mut updates) = mpsc::channel(16);
    let clients = pipeline.run(&mut updates, drive(arguments, &sandbox, target, tell)).await??;
    pipeline.finish(target, true, true)?;
    let comparison = losses.borrow().compare(&clients);
    pipeline.announce(Body::Rehearsal(Box::new(comparison)))?;
    drop(sandbox);
    pipeline.close()?;
    Ok(verdicts.borrow().outcome(arguments.options.strict))
}

/// Load, termination, and what comes after it, while the pipeline runs.
async fn drive(
    arguments: &Arguments,
    sandbox: &Sandbox,
    target: TargetId,
    tell: mpsc::Sender<InventoryUpdate>,
) -> Result<Summary> {
    let address = wait_ready(sandbox, &arguments.readiness()).await?;
    let load = Load::start(sandbox.namespaces().clients(), &arguments.load_plan(), address);
    tokio::select! {
        () = tokio::time::sleep(arguments.warm_up) => {}
        exit = sandbox.exited() => {
            bail!("the server ended by itself while the load ran ({}), before it was to be terminated; {}", exit?.status, last_output(sandbox));
        }
    }
    let clients = load.snapshot();
    if clients.total().ok == 0 {
        bail!(
            "no request to {address} was answered before termination began: {}",
            why_none(&clients, address)
        );
    }
    let stop_new = async {
        tokio::time::sleep(arguments.lag).await;
        load.stop_new();
    };
    let on_step = |step: &Step| {
        if let Step::PreStopStarted { at_mono_ns } = step {
            let update = InventoryUpdate::PreStop {
                target,
                container: Some(0),
                time: *at_mono_ns,
                source: Source::Rehearsal,
            };
            // The channel has room for all steps of a termination.
            let _ = tell.try_send(update);
        }
    };
    let plan = arguments.termination_plan()?;
    let (timings, ()) = tokio::join!(terminate(sandbox, &plan, on_step), stop_new);
    let timings = timings?;
    if let Some(Err(error)) = &timings.pre_stop {
        log::warn!("the preStop hook did not run: {error}");
    }
    let clients = load.finish(Instant::now() + LAST_REQUESTS).await;
    tokio::time::sleep(AFTER_EXIT).await;
    Ok(clients)
}

fn why_none(clients: &Summary, address: SocketAddr) -> String {
    clients.failures.first().map_or_else(
        || format!("none was complete in time; see whether {address} answers HTTP/1.1, or raise --warm-up"),
        |failure| format!("{:?}; see --port and --path", failure.outcome),
    )
}

fn last_output(sandbox: &Sandbox) -> String {
    match sandbox.output().last_lines(20) {
        lines if lines.is_empty() => "it printed nothing".to_owned(),
        lines => format!("it printed last:\n{lines}"),
    }
}

async fn add_target(
    pipeline: &mut Pipeline,
    namespaces: &Namespaces,
    options: &TraceOptions,
) -> Result<TargetId> {
    let inside = namespaces.run_inside(Inside::of_this_thread).await??;
    let keys = pipeline.scope_keys(inside.identity, None)?;
    let subject =
        Subject { target: Target { name: "rehearsal".to_owned(), netns: inside.identity.inode }, k8s: None };
    let mut checkers = options.probe_peer.clone();
    for address in [CHECKER.v4.into(), CHECKER.v6.into()] {
        checkers.push(tracer_core::input::Network { address, prefix: 128 });
    }
    pipeline.add_target(TargetSpec {
        new: NewTarget {
            id: 0,
            subject: Arc::new(subject),
            time: clock::mono_ns(),
            addresses: inside.addresses,
            checkers,
            one_way: options.one_way.clone(),
            shared_network: false,
            late: false,
        },
        containers: Vec::new(),
        keys,
        totals: Some(inside.totals),
        sockets: Some(inside.sockets),
    })
}

fn add_container(
    pipeline: &mut Pipeline,
    target: TargetId,
    sandbox: &Sandbox,
    words: &[String],
) -> Result<()> {
    let name = words.first().and_then(|word| word.rsplit('/').next()).unwrap_or("server");
    // A server that has ended already is told by the readiness check, with what it printed.
    let pidns = Process::read(sandbox.pid()).ok().and_then(|process| u32::try_from(process.pidns).ok());
    pipeline.add_container(NewContainer {
        target,
        container: 0,
        name: name.into(),
        pid: sandbox.pid(),
        pidns,
        cgroup: sandbox.namespaces().cgroup().map(crate::rehearse::sandbox::Cgroup::id),
        time: sandbox.started_mono_ns(),
    })
}

impl Arguments {
    /// The command to run: the one given, or ourselves as the demonstration server.
    fn words(&self) -> Result<Vec<String>> {
        let Some(demo) = self.demo else { return Ok(self.command.clone()) };
        let this = std::env::current_exe().context("cannot find this program's own file")?;
        let behaviour = clap::ValueEnum::to_possible_value(&demo).context("no such demo")?;
        let mut words = vec![this.to_string_lossy().into_owned(), "demo-server".to_owned()];
        words.extend(["--behaviour".to_owned(), behaviour.get_name().to_owned()]);
        words.extend(self.port.iter().flat_map(|port| ["--port".to_owned(), port.to_string()]));
        Ok(words)
    }

    fn readiness(&self) -> Readiness {
        Readiness { port: self.port, path: self.ready.clone(), timeout: self.ready_timeout }
    }

    fn load_plan(&self) -> LoadPlan {
        LoadPlan {
            spec: self.load.clone(),
            path: self.path.clone(),
            long_path: self.long_path.clone(),
            seed: self.seed,
        }
    }

    fn termination_plan(&self) -> Result<TerminationPlan> {
        let hook = |text: &String| vec!["/bin/sh".to_owned(), "-c".to_owned(), text.clone()];
        Ok(TerminationPlan {
            pre_stop: self.pre_stop.as_ref().map(hook),
            stop_signal: self.stop_signal,
            grace: self.grace,
        })
    }
}

fn path(text: &str) -> Result<String, String> {
    if text.starts_with('/') { Ok(text.to_owned()) } else { Err("a path begins with /".to_owned()) }
}
