//! What happens to the server while it is traced: readiness, load, termination, and the last answers.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Result, bail};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tracer_core::{event::TargetId, input::InventoryUpdate, lifecycle::Source};

use super::{Arguments, Progress};
use crate::rehearse::{
    load::{Kind, Load, Outcome, Summary},
    ready::{called, last_output, wait_ready},
    sandbox::Sandbox,
    terminate::{Step, Timings, terminate},
};

/// How long after the exit late segments are waited for.
const AFTER_EXIT: Duration = Duration::from_millis(300);
/// How long requests in flight may take after the server has exited.
const LAST_REQUESTS: Duration = Duration::from_secs(2);
const REFRESH: Duration = Duration::from_millis(200);

/// What came of a rehearsal beside what was traced.
pub(super) struct Driven {
    /// What the clients saw.
    pub(super) clients: Summary,
    /// Why the pre-stop hook did not do its work, if it did not.
    pub(super) failed_hook: Option<String>,
}

/// Runs the whole rehearsal of started containers.
///
/// # Errors
/// If the server does not become ready, ends by itself, or answers nothing.
pub(super) async fn drive(
    arguments: &Arguments,
    sandbox: &Sandbox,
    target: TargetId,
    tell: mpsc::Sender<InventoryUpdate>,
    progress: &Progress,
) -> Result<Driven> {
    progress.tell("waiting until the server is ready");
    let address = wait_ready(sandbox, &arguments.readiness()?).await?;
    let load = Load::start(sandbox.namespaces().clients(), &arguments.load_plan()?, address);
    tokio::select! {
        () = sleep(arguments.warm_up) => {}
        () = show_load(&load, progress) => {}
        ended = sandbox.any_exited() => {
            let (container, exit) = ended?;
            container.output().complete().await;
            bail!(
                "{} ended by itself while the load ran ({}), before it was to be terminated; {}",
                called(sandbox, container), exit.status, last_output(container)
            );
        }
    }
    let before = load.snapshot();
    check_load(arguments, &before, address, progress)?;
    let stop_new = async {
        sleep(arguments.lag).await;
        load.stop_new();
    };
    let on_step = |step: &Step| {
        progress.tell(words(step, arguments));
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
    let plan = arguments.termination_plan();
    let (timings, ()) = tokio::join!(terminate(sandbox, &plan, on_step), stop_new);
    let timings = timings?;
    if let Some(warning) = warning_of_hook(&timings) {
        progress.warn(&format!("{warning}; termination went on, as in Kubernetes"));
    }
    let clients = load.finish(Instant::now() + LAST_REQUESTS).await;
    sleep(AFTER_EXIT).await;
    let errors = clients.total().server_errors - before.total().server_errors;
    if errors > 0 && before.total().server_errors == 0 {
        progress.warn(&format!(
            "{errors} requests were answered 5xx after termination began: complete answers, no losses"
        ));
    }
    Ok(Driven { clients, failed_hook: failure_of_hook(&timings) })
}

/// Shows how the load fares, for ever.
async fn show_load(load: &Load, progress: &Progress) {
    loop {
        let total = load.snapshot().total();
        progress.tell(format!("load: {} requests answered, {} failed", total.ok, total.failed));
        sleep(REFRESH).await;
    }
}

/// Whether the load is one that the server can serve: what is refused from the start proves nothing.
fn check_load(
    arguments: &Arguments,
    clients: &Summary,
    address: SocketAddr,
    progress: &Progress,
) -> Result<()> {
    let total = clients.total();
    let short = |kind| matches!(kind, Kind::KeepAlive | Kind::Fresh | Kind::Idle);
    let must_answer = arguments.load.0.iter().any(|group| short(group.kind));
    if total.ok == 0 && (must_answer || total.failed > 0) {
        bail!(
            "no request to {address} was answered before termination began: {}",
            why_none(clients, address)
        );
    }
    for (kind, counts) in &clients.counts {
        let errors = counts.client_errors + counts.server_errors;
        if counts.ok > 0 && errors == counts.ok {
            progress.warn(&format!(
                "every {kind} request was answered with an error status; see --path and --long-path"
            ));
        }
    }
    if total.failed > 0 {
        progress.warn(&format!(
            "{} of {} requests failed before termination began; the verdict counts them too",
            total.failed,
            total.failed + total.ok
        ));
    }
    Ok(())
}

fn why_none(clients: &Summary, address: SocketAddr) -> String {
    let remedy = "see --port, --path, --tls and --http2";
    match clients.failures.first().map(|failure| &failure.outcome) {
        Some(Outcome::Failed { cause, phase }) => format!("{cause} ({phase}); {remedy}"),
        _ => format!(
            "none was complete in time; see whether {address} speaks HTTP, or raise --warm-up; {remedy}"
        ),
    }
}

fn words(step: &Step, arguments: &Arguments) -> String {
    let plan = arguments.termination_plan();
    match step {
        Step::PreStopStarted { .. } => "preStop".to_owned(),
        Step::PreStopEnded(_) => "preStop has ended".to_owned(),
        Step::StopSignal { .. } => format!("{} sent, grace period {:?}", plan.stop_signal, plan.grace),
        Step::KillSignal { .. } => "SIGKILL sent".to_owned(),
        Step::Exited(_) => "exited; waiting for the last requests".to_owned(),
    }
}

/// A hook that ends the server or outlasts the grace period does so in Kubernetes too: worth knowing.
fn warning_of_hook(timings: &Timings) -> Option<String> {
    let run = timings.pre_stop.as_ref()?.as_ref().ok()?;
    if timings.stop_signal_mono_ns.is_none() {
        let status = timings.exit.status;
        return Some(format!(
            "the server ended during its preStop hook ({status}), so no stop signal was sent"
        ));
    }
    run.exit.is_none().then(|| {
        "the preStop hook was still running at the end of the grace period, which it used up; shorten it or raise --grace".to_owned()
    })
}

/// A hook that does not do its work stops nothing, as in Kubernetes; but then the verdict is not that
/// of the termination that was meant.
fn failure_of_hook(timings: &Timings) -> Option<String> {
    let run = match timings.pre_stop.as_ref()? {
        Err(error) => return Some(format!("the preStop hook did not run: {error}")),
        Ok(run) => run,
    };
    let status = run.exit.filter(|_| timings.stop_signal_mono_ns.is_some())?.status;
    let printed = if run.output.is_empty() {
        "it printed nothing".to_owned()
    } else {
        format!("it printed: {}", run.output.trim_end())
    };
    (!status.success()).then(|| format!("the preStop hook failed ({status}); {printed}"))
}
