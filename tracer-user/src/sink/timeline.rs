//! Text for people: phases, resets and losses in order, the verdict with its reasons.

use std::fmt::Write;

use tracer_core::{
    event::Mono,
    output::{
        Body, ConnectionEnd, ConnectionEvent, ExitEvent, HookRunEvent, Line, Network, PhaseEvent,
        RehearsalEvent, ResetEvent, SignalEvent, Status,
    },
    verdict::{ContainerSummary, LossCount, PhaseSummary, Verdict},
    words::{Cause, Confidence, Direction, Ending, Phase},
};

use super::Render;

/// A line of text for what people want to know; opens and harmless ends are left out.
#[derive(Default)]
pub struct Timeline {
    start: Option<Mono>,
}

impl Render for Timeline {
    fn line(&mut self, line: &Line, bytes: &mut Vec<u8>) {
        let target = line.subject.as_ref().map_or("", |subject| &subject.target.name);
        let text = match &line.body {
            Body::AgentStarted(_) | Body::TargetStarted(_) => None,
            Body::Phase(event) => Some(phase(event)),
            Body::Signal(event) => event.inside.then(|| inside_signal(event)),
            Body::Exit(event) => event.init.then(|| init_exit(event)),
            Body::HookRun(event) => Some(hook_run(event)),
            Body::Reset(event) => Some(reset(event)),
            Body::ConnectionOpened(_) => None,
            Body::ConnectionClosed(event) => event.end.as_ref().and_then(|end| silent_loss(event, end)),
            Body::Lost(event) => Some(format!("{} lost ({}): {}", event.count, event.stage, event.reason)),
            Body::Verdict(event) => {
                bytes.extend(verdict(target, event).into_bytes());
                return;
            }
            Body::Rehearsal(event) => {
                bytes.extend(rehearsal(event).into_bytes());
                return;
            }
        };
        if let Some(text) = text {
            let start = *self.start.get_or_insert(line.mono_ns);
            let seconds = (line.mono_ns.cast_signed() - start.cast_signed()) as f64 / 1e9;
            bytes.extend(format!("{seconds:>+9.3}s  {target}  {text}\n").into_bytes());
        }
    }
}

/// The name that people know a phase by: the signal's own, preStop.
fn phase_name(phase: Phase, signal: Option<&str>) -> &str {
    match (phase, signal) {
        (Phase::PreStop, _) => "preStop",
        (Phase::StopSignal, Some(signal)) => signal,
        (Phase::StopSignal, None) => "stop signal",
        (Phase::KillSignal, _) => "SIGKILL",
        (Phase::Running, _) => "running",
        (Phase::Exiting, _) => "exiting",
        (Phase::AfterExit, _) => "after exit",
    }
}

fn cause_name(cause: Cause) -> &'static str {
    match cause {
        Cause::StopSignal => "by the stop signal",
        Cause::KillSignal => "by SIGKILL",
        Cause::Oom => "by the out-of-memory killer",
        Cause::Itself => "by itself",
    }
}

fn phase(event: &PhaseEvent) -> String {
    let signal = event.signal.as_ref().map(|signal| signal.name.as_str());
    let ignored = if event.ignored { "  ignored: the init has no handler for it" } else { "" };
    let cause = event.cause.map_or(String::new(), |cause| format!("  {}", cause_name(cause)));
    format!("{}  --- {}{ignored}{cause}", event.container.name, phase_name(event.phase, signal))
}

fn inside_signal(event: &SignalEvent) -> String {
    format!("{}  {} from inside, by {}", event.container.name, event.signal.name, event.sender.command)
}

fn init_exit(event: &ExitEvent) -> String {
    let name = event.container.as_ref().map_or("", |container| &container.name);
    format!("{name}  exited: {}", status(&event.status))
}

fn hook_run(event: &HookRunEvent) -> String {
    let seconds = event.ended_mono_ns.saturating_sub(event.started_mono_ns) as f64 / 1e9;
    format!(
        "{}  {} from outside ended after {seconds:.3} s: {}",
        event.container.name,
        event.process.command,
        status(&event.status)
    )
}

fn status(status: &Status) -> String {
    match (&status.exit_code, &status.killed_by) {
        (Some(code), _) => format!("code {code}"),
        (_, Some(signal)) => format!("killed by {}", signal.name),
        _ => "unknown".to_owned(),
    }
}

fn reset(event: &ResetEvent) -> String {
    let what = match event.direction {
        Direction::Sent => "RST sent to",
        Direction::Received => "RST received from",
    };
    let mut text = format!("{}  {what} {}", event.container.name, peer(&event.network));
    let _ = write!(text, " (port {})", event.network.local.port);
    if let Some(ending) = event.ending {
        let _ = write!(text, "  {}", judgement(ending, event.confidence));
    }
    if let Some(reason) = &event.reason {
        let _ = write!(text, "  [{reason}]");
    }
    text
}

/// Losses that no reset shows.
fn silent_loss(event: &ConnectionEvent, end: &ConnectionEnd) -> Option<String> {
    let silent = matches!(end.ending, Ending::Unanswered | Ending::MidResponse | Ending::OpenAtTeardown);
    (silent && end.confidence.is_some()).then(|| {
        let what = if end.ending == Ending::OpenAtTeardown { "open to" } else { "FIN sent to" };
        format!(
            "{}  {what} {} (port {})  {}",
            event.container.name,
            peer(&event.network),
            event.network.local.port,
            judgement(end.ending, end.confidence)
        )
    })
}

fn judgement(ending: Ending, confidence: Option<Confidence>) -> String {
    match confidence {
        Some(confidence) => format!("{ending}: {confidence} loss"),
        None => format!("{ending}: no loss"),
    }
}

fn peer(network: &Network) -> String {
    std::net::SocketAddr::new(network.peer.address, network.peer.port).to_string()
}

fn verdict(target: &str, verdict: &Verdict) -> String {
    let mut text = format!("\n{target}: {}", verdict.result.word().to_uppercase());
    if verdict.doubts > 0 && verdict.lost == 0 {
        let _ = write!(text, " ({} not provable)", verdict.doubts);
    }
    text.push('\n');
    for reason in &verdict.reasons {
        let _ = writeln!(text, "  {reason}");
    }
    for loss in &verdict.losses {
        let _ = writeln!(text, "  {}", loss_count(loss, &verdict.containers));
    }
    for container in &verdict.containers {
        let _ = writeln!(text, "  {}", way_out(container));
    }
    let connections = &verdict.connections;
    let _ = writeln!(
        text,
        "  connections: {} opened, {} found open, {} of clients, {} still open",
        connections.opened, connections.found, connections.from_peers, connections.open
    );
    let books: Vec<String> = verdict
        .books
        .iter()
        .map(|book| {
            format!("{} {}{}{}", book.name, book.kernel, if book.balanced { "=" } else { "≠" }, book.events)
        })
        .collect();
    let _ =
        writeln!(text, "  books: {}", if books.is_empty() { "none".to_owned() } else { books.join(", ") });
    if !verdict.cannot_show.is_empty() {
        let _ = writeln!(text, "  not shown by this kernel: {}", verdict.cannot_show.join("; "));
    }
    text
}

fn loss_count(loss: &LossCount, containers: &[ContainerSummary]) -> String {
    let signal = containers
        .iter()
        .find(|container| container.name == loss.container)
        .and_then(|container| container.phases.iter().find(|start| start.phase == loss.phase))
        .and_then(|start| start.signal.as_ref())
        .map(|signal| signal.name.as_str());
    let peers: Vec<String> = loss
        .peers
        .iter()
        .map(|peer| std::net::SocketAddr::new(peer.address, peer.port).to_string())
        .collect();
    let more = if (loss.peers.len() as u64) < loss.count { ", …" } else { "" };
    format!(
        "{:>5} × {} ({}) in {} of {}: {}{more}",
        loss.count,
        loss.ending,
        loss.confidence,
        phase_name(loss.phase, signal),
        loss.container,
        peers.join(", ")
    )
}

fn way_out(container: &ContainerSummary) -> String {
    let first = container.phases.get(1).map_or(0, |start| start.mono_ns);
    let step = |start: &PhaseSummary| {
        let signal = start.signal.as_ref().map(|signal| signal.name.as_str());
        let seconds = start.mono_ns.saturating_sub(first) as f64 / 1e9;
        let ignored = if start.ignored { " (ignored)" } else { "" };
        format!("{}{ignored} +{seconds:.3}s", phase_name(start.phase, signal))
    };
    let steps: Vec<String> = container.phases.iter().skip(1).map(step).collect();
    let end = container.status.as_ref().map_or(String::new(), |end| format!(", {}", status(end)));
    let cause = container.cause.map_or(String::new(), |cause| format!(" {}", cause_name(cause)));
    format!("{}: {}{end}{cause}", container.name, steps.join(", "))
}

fn rehearsal(event: &RehearsalEvent) -> String {
    let mut text = format!(
        "\nclients: {} requests answered, {} failed, {} still open when the load ended\n",
        event.answered, event.failed, event.aborted
    );
    let _ = writeln!(
        text,
        "  {} of {} failures are explained by a loss on the same connection",
        event.explained, event.failed
    );
    for request in event.failures.iter().filter(|request| request.explained_by.is_none()) {
        let _ = writeln!(
            text,
            "  NOT EXPLAINED: {} from {}: {} while {}",
            request.kind, request.local, request.cause, request.phase
        );
    }
    for loss in &event.unseen_losses {
        let _ = writeln!(text, "  NO CLIENT SAW: {}: {} ({})", loss.peer, loss.ending, loss.confidence);
    }
    text
}
