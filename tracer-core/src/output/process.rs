//! Phases, signals and ends of a target's processes.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    event::Mono,
    lifecycle::Source,
    words::{Cause, Phase},
};

/// The container of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Container {
    /// Its name.
    pub name: Arc<str>,
}

/// A container entered a phase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PhaseEvent {
    /// Which container.
    pub container: Container,
    /// Which phase.
    pub phase: Phase,
    /// How that is known.
    pub source: Source,
    /// The signal that began it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<SignalName>,
    /// The signal had no effect, because the init has no handler for it.
    pub ignored: bool,
    /// What made it exit, from the phase exiting on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
}

/// A signal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SignalName {
    /// Its number.
    pub number: u32,
    /// Its name.
    pub name: String,
}

impl SignalName {
    /// The signal with this number.
    #[must_use]
    pub fn new(number: u32) -> Self {
        Self { number, name: crate::signals::name(number).into_owned() }
    }
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Process {
    /// Its id in the initial pid namespace.
    pub pid: u32,
    /// Its command name.
    pub command: String,
}

/// A signal reached a container's init.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SignalEvent {
    /// Which container.
    pub container: Container,
    /// Where it was.
    pub phase: Phase,
    /// Which signal.
    pub signal: SignalName,
    /// Who sent it.
    pub sender: Process,
    /// The sender is inside the container: no act of the runtime.
    pub inside: bool,
    /// The init has no handler for it, or it was pending already.
    pub ignored: bool,
}

/// A process of a target exited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExitEvent {
    /// Which container, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// Who.
    pub process: Process,
    /// It is the container's init.
    pub init: bool,
    /// How it ended.
    #[serde(flatten)]
    pub status: Status,
}

/// A process that had entered a container from outside ended: a hook, a probe that runs a command, or
/// somebody's exec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HookRunEvent {
    /// Which container.
    pub container: Container,
    /// Where the container was when it started: a preStop hook starts in `pre_stop`.
    pub phase: Phase,
    /// Who.
    pub process: Process,
    /// CLOCK_MONOTONIC of its start in nanoseconds.
    pub started_mono_ns: Mono,
    /// CLOCK_MONOTONIC of its end in nanoseconds; absent if it was still there when tracing ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_mono_ns: Option<Mono>,
    /// How it ended.
    #[serde(flatten)]
    pub status: Status,
}

/// How a process ended: one of the two; none if it has not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// Its exit code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
    /// The signal that killed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub killed_by: Option<SignalName>,
}
