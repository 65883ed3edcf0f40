//! How things are called in text for people: real names of signals, plain words for the rest.

use std::net::SocketAddr;

use tracer_core::{
    event::Mono,
    output::{Endpoint, Status},
    words::{Cause, Confidence, Phase, Result},
};

/// The name that people know a phase by: the signal's own, preStop.
pub(crate) fn phase(phase: Phase, signal: Option<&str>) -> &str {
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

/// What made it exit.
pub(crate) fn cause(cause: Cause) -> &'static str {
    match cause {
        Cause::StopSignal => "by the stop signal",
        Cause::KillSignal => "by SIGKILL",
        Cause::Oom => "by the out-of-memory killer",
        Cause::Itself => "by itself",
    }
}

/// How a process ended.
pub(crate) fn status(status: &Status) -> String {
    match (&status.exit_code, &status.killed_by) {
        (Some(code), _) => format!("exit code {code}"),
        (_, Some(signal)) => format!("killed by {}", clean(&signal.name)),
        _ => "ended in an unknown way".to_owned(),
    }
}

/// How a container's init ended, and what made it.
pub(crate) fn way_out(status: &Status, cause: Option<Cause>) -> String {
    let killed = status.killed_by.is_some();
    match cause.filter(|cause| !(killed && *cause == Cause::KillSignal)) {
        Some(cause) => format!("{} {}", self::status(status), self::cause(cause)),
        None => self::status(status),
    }
}

/// What a verdict says, in half a sentence.
pub(crate) fn meaning(result: Result) -> &'static str {
    match result {
        Result::Drained => "traffic had stopped, and nothing was lost",
        Result::Late => "nothing was lost, by luck: traffic had not stopped",
        Result::Cut => "clients lost requests or responses",
        Result::Idle => "there was no traffic to judge",
        Result::Unproven => "no loss was seen, but the proof is incomplete",
    }
}

/// The mark of a loss.
pub(crate) fn mark(confidence: Confidence) -> char {
    if confidence == Confidence::Possible { '?' } else { '×' }
}

/// `address:port`.
pub(crate) fn endpoint(endpoint: Endpoint) -> String {
    SocketAddr::new(endpoint.address, endpoint.port).to_string()
}

/// Seconds from one time to another, with sign.
pub(crate) fn since(from: Mono, time: Mono) -> String {
    format!("{:+.3}s", seconds(time.cast_signed().saturating_sub(from.cast_signed())))
}

/// Nanoseconds as seconds.
pub(crate) fn seconds(ns: i64) -> f64 {
    ns as f64 / 1e9
}

/// A name without characters that would steer a terminal: names come from processes and files.
pub(crate) fn clean(name: &str) -> String {
    name.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

/// A count with its word.
pub(crate) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_steer_a_terminal() {
        assert_eq!(clean("a\x1b[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
    }

    #[test]
    fn seconds_have_a_sign() {
        assert_eq!(since(2_000_000_000, 1_500_000_000), "-0.500s");
        assert_eq!(since(0, 1_500_000_000), "+1.500s");
    }
}
