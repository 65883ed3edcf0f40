//! `lastpacket rehearse`: a pod's termination on this machine, without Kubernetes.

mod arguments;
mod driver;
mod repeated;

use std::{cell::RefCell, fs::File, rc::Rc, sync::Arc};

use anyhow::{Context, Result, bail};
use tokio::sync::mpsc;
use tracer_core::{
    event::TargetId,
    input::{End, Network, NewContainer, NewTarget},
    output::{Body, Subject, Target},
};

pub(super) use self::arguments::Arguments;
use self::repeated::Repeated;
use super::{
    Outcome,
    options::{Format, interrupted, runtime, tally},
    progress::Progress,
};
use crate::{
    clock,
    host::{netns::Inside, process::Process},
    pipeline::{Pipeline, TargetSpec},
    rehearse::{
        certificate::Certificate,
        comparison::LossLog,
        sandbox::{CHECKER, Cgroup, Container, Namespaces},
    },
    sink::{
        Render,
        timeline::{Look, Timeline},
    },
};

pub(super) fn run(arguments: &Arguments) -> Result<Outcome> {
    arguments.check()?;
    super::options::require_root()?;
    let progress = Progress::start(arguments.options.format() == Format::Text);
    let outcome = runtime()?.block_on(async {
        let interrupted = interrupted()?;
        tokio::select! {
            outcome = rehearse_all(arguments, &progress) => outcome,
            () = interrupted => { bail!("interrupted; the server was killed, and nothing is left behind") }
        }
    });
    progress.end();
    outcome
}

async fn rehearse_all(arguments: &Arguments, progress: &Progress) -> Result<Outcome> {
    let text: Box<dyn Render> = if arguments.repeat == 1 {
        Box::new(Timeline::new(Look::of_stdout()))
    } else {
        Box::new(Repeated::default())
    };
    progress.tell("loading the kernel programs");
    let (mut pipeline, verdicts) = arguments.options.start_to(text, progress.beside(std::io::stdout()))?;
    let losses = Rc::new(RefCell::new(LossLog::default()));
    let (mut count, log) = (tally(&verdicts), Rc::clone(&losses));
    pipeline.observe(Box::new(move |line| {
        count(line);
        log.borrow_mut().add(line);
    }));
    for number in 1..=arguments.repeat {
        losses.take();
        let name = if arguments.repeat == 1 { "rehearsal".to_owned() } else { format!("rehearsal {number}") };
        let failed_hook = rehearse(arguments, &mut pipeline, name, &losses, progress).await?;
        if let Some(why) = failed_hook {
            pipeline.close()?;
            bail!(
                "{why}; termination went on, as in Kubernetes, but its verdict is without the hook: mend --pre-stop"
            );
        }
    }
    pipeline.close()?;
    Ok(verdicts.borrow().outcome(arguments.options.strict))
}

/// Returns why the pre-stop hook failed, if it did.
async fn rehearse(
    arguments: &Arguments,
    pipeline: &mut Pipeline,
    name: String,
    losses: &RefCell<LossLog>,
    progress: &Progress,
) -> Result<Option<String>> {
    progress.tell(format!("{name}: starting the server"));
    let certificate = if arguments.tls { Some(Certificate::create()?) } else { None };
    let namespaces = Namespaces::create("rehearsal").await?;
    let target = add_target(pipeline, &namespaces, arguments, name).await?;
    let log = arguments.log.as_deref().map(|path| {
        let file = File::options().create(true).append(true).open(path);
        file.with_context(|| format!("cannot write to {}; see --log", path.display()))
    });
    let specs = arguments.containers(certificate.as_ref())?;
    let sandbox = namespaces.start_all(specs, log.transpose()?.as_ref()).await?;
    for (number, container) in sandbox.containers().enumerate() {
        // The others get SIGTERM.
        let stop_signal = (number == 0).then_some(arguments.stop_signal());
        add_container(pipeline, target, u32::try_from(number)?, container, stop_signal)?;
    }
    let (tell, mut updates) = mpsc::channel(16);
    let driven = driver::drive(arguments, &sandbox, target, tell, progress);
    let driver::Driven { clients, failed_hook } = pipeline.run(&mut updates, driven).await??;
    pipeline.finish(target, true, End::Terminated)?;
    let comparison = losses.borrow().compare(&clients);
    pipeline.announce(Body::Rehearsal(Box::new(comparison)))?;
    Ok(failed_hook)
}

async fn add_target(
    pipeline: &mut Pipeline,
    namespaces: &Namespaces,
    arguments: &Arguments,
    name: String,
) -> Result<TargetId> {
    let options = &arguments.options;
    let inside = namespaces.run_inside(Inside::of_this_thread).await??;
    let keys = pipeline.scope_keys(inside.identity, None)?;
    let subject = Subject { target: Target { name, netns: inside.identity.inode }, k8s: None };
    let mut checkers = options.probe_peer.clone();
    for address in [CHECKER.v4.into(), CHECKER.v6.into()] {
        checkers.push(Network { address, prefix: 128 });
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
            timeouts: arguments.timeouts(),
        },
        armed: true,
        containers: Vec::new(),
        keys,
        totals: inside.totals,
        sockets: inside.sockets,
    })
}

fn add_container(
    pipeline: &mut Pipeline,
    target: TargetId,
    number: u32,
    container: &Container,
    stop_signal: Option<u32>,
) -> Result<()> {
    // A server that has ended already is told by the readiness check, with what it printed.
    let pidns = Process::read(container.pid()).ok().and_then(|process| u32::try_from(process.pidns).ok());
    pipeline.add_container(NewContainer {
        target,
        container: number,
        name: container.spec().name.as_str().into(),
        pid: container.pid(),
        pidns,
        cgroup: container.cgroup().map(Cgroup::id),
        stop_signal,
        time: container.started_mono_ns(),
    })
}
