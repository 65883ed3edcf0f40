//! Lines as things happen: phases, signals from inside, exits of inits, losses.

use tracer_core::{
    event::Mono,
    output::{EndpointEvent, ExitEvent, HookRunEvent, LostEvent, PhaseEvent, SignalEvent, Status},
    words::{Confidence, Ending, Phase},
};

use super::{
    condense::More,
    history::Loss,
    names,
    style::{BAD, DOUBT, FAINT, Look, STRONG, columns},
};

/// What floods of losses are told by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    /// The target and the container, as they stand at the line's begin.
    pub(super) who: String,
    pub(super) ending: Ending,
    pub(super) confidence: Confidence,
}

/// What stands before the text: seconds since the first line, and who.
pub(super) fn begin(look: Look, first: Mono, time: Mono, who: &str) -> String {
    let time = format!("{:>10}", names::since(first, time));
    let gap = if who.is_empty() { "" } else { "  " };
    format!("{}{gap}{who}  ", look.paint(FAINT, &time))
}

/// A container entered a phase.
pub(super) fn phase(look: Look, event: &PhaseEvent) -> String {
    let signal = event.signal.as_ref().map(|signal| names::clean(&signal.name));
    let name = look.paint(STRONG, names::phase(event.phase, signal.as_deref()));
    let cause = event.cause.map_or(String::new(), |cause| format!(", {}", names::cause(cause)));
    let ignored = if event.ignored { ", ignored: its init has no handler for it" } else { "" };
    format!("── {name}{cause}{}", look.paint(BAD, ignored))
}

/// Signals that processes draw in their daily work; nobody asks for an end with them.
const DAILY: [&str; 6] = ["SIGCHLD", "SIGCONT", "SIGWINCH", "SIGURG", "SIGALRM", "SIGPIPE"];

/// A signal to the init from inside its container, unless it is of no interest: while the init dies,
/// the kernel sends some in its name.
pub(super) fn inside_signal(event: &SignalEvent) -> Option<String> {
    if !event.inside || event.phase >= Phase::Exiting || DAILY.contains(&event.signal.name.as_str()) {
        return None;
    }
    let (signal, sender) = (names::clean(&event.signal.name), names::clean(&event.sender.command));
    let ignored = if event.ignored { ", ignored" } else { "" };
    Some(format!("{signal} from inside, by {sender}{ignored}"))
}

/// The exit of an init.
pub(super) fn init_exit(look: Look, event: &ExitEvent) -> String {
    let fine = event.status == Status { exit_code: Some(0), killed_by: None };
    let text = names::status(&event.status);
    if fine { text } else { look.paint(DOUBT, &text) }
}

/// The end of a process that had entered the container, such as a preStop hook.
pub(super) fn hook_run(look: Look, event: &HookRunEvent) -> String {
    let command = names::clean(&event.process.command);
    let Some(ended) = event.ended_mono_ns else { return format!("{command} from outside was still there") };
    let took = names::seconds(ended.cast_signed() - event.started_mono_ns.cast_signed());
    let fine = event.status == Status { exit_code: Some(0), killed_by: None };
    let status = names::status(&event.status);
    let status = if fine { status } else { look.paint(DOUBT, &status) };
    format!("{command} from outside ended after {took:.3} s: {status}")
}

/// An endpoint of a Service changed.
pub(super) fn endpoint(event: &EndpointEvent) -> String {
    let state = match (event.present, event.ready, event.terminating) {
        (false, ..) => "is gone",
        (_, true, _) => "is ready",
        (_, _, true) => "is terminating, not ready",
        _ => "is not ready",
    };
    format!("endpoint {} of {} {state}", event.address, names::clean(&event.service))
}

/// A loss. The kernel's reason is left out where there is no room.
pub(super) fn loss(look: Look, loss: &Loss, room: usize) -> String {
    let mark = names::mark(loss.confidence).to_string();
    let style = if loss.confidence == Confidence::Possible { DOUBT } else { BAD };
    let (peer, port) = (names::endpoint(loss.network.peer), loss.network.local.port);
    let text = format!("{} {peer} → port {port}, {} loss", loss.ending, loss.confidence);
    let reason = loss.reason.as_ref().map(|reason| format!(" ({})", names::clean(reason)));
    let fits = |reason: &String| 2 + columns(&text) + columns(reason) <= room;
    let reason = reason.filter(fits).unwrap_or_default();
    format!("{} {text}{}", look.paint(style, &mark), look.paint(FAINT, &reason))
}

/// Losses that were not told one by one.
pub(super) fn more(look: Look, first: Mono, more: &More<Kind>) -> String {
    let Kind { ending, confidence, .. } = more.kind;
    let mark = names::mark(confidence).to_string();
    let style = if confidence == Confidence::Possible { DOUBT } else { BAD };
    let until = names::since(first, more.until);
    format!(
        "{} … and {} more {ending} until {until}, {confidence} loss",
        look.paint(style, &mark),
        more.count
    )
}

/// Something that should be here was lost.
pub(super) fn lost(look: Look, event: &LostEvent) -> String {
    let (stage, reason) = (names::clean(&event.stage), names::clean(&event.reason));
    let hook = event.hook.as_deref().map(|hook| format!(" at {}", names::clean(hook))).unwrap_or_default();
    let text = format!(
        "{} lost ({stage}): {reason}{hook}",
        names::count(event.count, "record or line", "records or lines")
    );
    look.paint(BAD, &text)
}
