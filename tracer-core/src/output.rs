//! Events as tooling reads them: one JSON object a line, `docs/events.md`.
//!
//! The JSON Schema is made from these types. Changes are additive within `lastpacket.dev/v1`. Names
//! follow the OpenTelemetry semantic conventions, nested.

mod connection;
mod process;
mod rehearsal;
mod subject;
mod timestamp;

use std::{net::IpAddr, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::{
    connection::{ConnectionEnd, ConnectionEvent, Endpoint, Network, NetworkType, ResetEvent},
    process::{Container, ExitEvent, HookRunEvent, PhaseEvent, Process, SignalEvent, SignalName, Status},
    rehearsal::{FailedRequest, RehearsalEvent, UnseenLoss},
    subject::{K8s, Named, Pod, Subject, Target},
    timestamp::Timestamp,
};
use crate::{event::Mono, verdict::Verdict};

/// Name and version of the format.
pub const SCHEMA: &str = "lastpacket.dev/v1";

/// One line.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Line {
    /// Name and version of the format: `lastpacket.dev/v1`.
    pub schema: Arc<str>,
    /// Wall time, RFC 3339 in UTC.
    pub time: Timestamp,
    /// CLOCK_MONOTONIC of the machine in nanoseconds, as the kernel stamped it.
    pub mono_ns: Mono,
    /// Name of the machine.
    pub node: Arc<str>,
    /// Who wrote the line.
    pub agent: Agent,
    /// Number of the line within its run, from 1, without gaps.
    pub seq: u64,
    /// Whose event it is.
    #[serde(flatten)]
    pub subject: Option<Arc<Subject>>,
    /// What happened.
    #[serde(flatten)]
    pub body: Body,
}

/// One run of lastpacket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Agent {
    /// Different for every run.
    pub run_id: Arc<str>,
}

/// What happened.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Body {
    /// lastpacket started.
    AgentStarted(AgentStarted),
    /// Tracing of a target began.
    TargetStarted(TargetStarted),
    /// Tracing of a target ended without a verdict.
    TargetEnded(TargetEnded),
    /// A container entered a phase.
    Phase(PhaseEvent),
    /// A signal reached a container's init.
    Signal(SignalEvent),
    /// A process of a target exited.
    Exit(ExitEvent),
    /// A process that had entered a container from outside, such as a preStop hook, ended.
    HookRun(HookRunEvent),
    /// A connection was opened, or found open.
    ConnectionOpened(ConnectionEvent),
    /// A connection ended.
    ConnectionClosed(ConnectionEvent),
    /// A reset was sent or received.
    Reset(ResetEvent),
    /// An endpoint of a Service that leads to the pod changed.
    Endpoint(EndpointEvent),
    /// Something that should be here was lost.
    Lost(LostEvent),
    /// The answer for a target.
    Verdict(Box<Verdict>),
    /// What the clients of a rehearsal saw, beside what was traced.
    Rehearsal(Box<RehearsalEvent>),
}

/// lastpacket started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AgentStarted {
    /// Version of lastpacket.
    pub version: String,
    /// Version of the kernel.
    pub kernel: String,
    /// Hooks that are attached.
    pub hooks: Vec<String>,
    /// What this kernel cannot show, in words.
    pub cannot_show: Vec<String>,
}

/// Tracing of a target began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TargetStarted {
    /// Its termination had begun before.
    pub late: bool,
}

/// Tracing of a target ended without a verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TargetEnded {
    /// Why there is none.
    pub reason: String,
}

/// An endpoint of a Service that leads to the pod changed, as the API tells it (EndpointSlice): when
/// load balancers could know. `time` is when it was received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EndpointEvent {
    /// Name of the Service.
    pub service: String,
    /// The pod's address in it.
    pub address: IpAddr,
    /// It is in the list.
    pub present: bool,
    /// New connections are to come.
    pub ready: bool,
    /// It still answers, whether or not it is terminating.
    pub serving: bool,
    /// The pod is being deleted.
    pub terminating: bool,
}

/// Something that should be here was lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LostEvent {
    /// Where: `kernel` (a program was skipped), `ring_buffer`, `decode`, `attribute`, `sink`.
    pub stage: String,
    /// Why: `skipped` (a program was running already on the same CPU), `full` (the ring buffer, see
    /// `--ring-buffer`), `slow_reader` (of the output), `short`, `unknown_kind`, `unknown_state`
    /// (records of another version).
    pub reason: String,
    /// The hook whose program was skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hook: Option<String>,
    /// How many records or lines.
    pub count: u64,
}
