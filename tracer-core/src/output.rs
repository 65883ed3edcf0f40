//! Events as tooling reads them: one JSON object a line, `docs/events.md`.
//!
//! The JSON Schema is made from these types. Changes are additive within `lastpacket.dev/v1`. Names
//! follow the OpenTelemetry semantic conventions, nested.

use std::{net::IpAddr, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    event::{Mono, SegmentClass, Tuple},
    lifecycle::Source,
    verdict::Verdict,
    words::{Cause, ClosedBy, Confidence, Direction, Ending, Hop, Origin, Phase, Role},
};

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

/// Wall time in nanoseconds since 1970; RFC 3339 in events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub i64);

/// One run of lastpacket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Agent {
    /// Different for every run.
    pub run_id: Arc<str>,
}

/// Whose event it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Subject {
    /// The target, as the user named it.
    pub target: Target,
    /// What Kubernetes knows of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub k8s: Option<K8s>,
}

/// A target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Target {
    /// Its name.
    pub name: String,
    /// Inode of its network namespace.
    pub netns: u64,
}

/// Names of Kubernetes, as in the OpenTelemetry semantic conventions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct K8s {
    /// The namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Named>,
    /// The pod.
    pub pod: Pod,
    /// The Deployment that owns it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployment: Option<Named>,
    /// The StatefulSet that owns it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statefulset: Option<Named>,
    /// The DaemonSet that owns it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub daemonset: Option<Named>,
    /// The Job that owns it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<Named>,
}

/// Something with a name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Named {
    /// Its name.
    pub name: String,
}

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pod {
    /// Its name, once the API told it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its uid.
    pub uid: String,
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
    /// CLOCK_MONOTONIC of its end in nanoseconds.
    pub ended_mono_ns: Mono,
    /// How it ended.
    #[serde(flatten)]
    pub status: Status,
}

/// How a process ended: one of the two.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// Its exit code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
    /// The signal that killed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub killed_by: Option<SignalName>,
}

/// Both ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Network {
    /// IPv4 or IPv6; an IPv4 client of an IPv6 listener is IPv4.
    #[serde(rename = "type")]
    pub kind: NetworkType,
    /// The pod's end.
    pub local: Endpoint,
    /// The other end; a listener's reset by its own act has none (0.0.0.0:0).
    pub peer: Endpoint,
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NetworkType {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Endpoint {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
}

impl From<&Tuple> for Network {
    fn from(tuple: &Tuple) -> Self {
        let (local, peer) = (tuple.local_ip(), tuple.peer_ip());
        Self {
            kind: if peer.is_ipv4() { NetworkType::Ipv4 } else { NetworkType::Ipv6 },
            local: Endpoint { address: local, port: tuple.local_port },
            peer: Endpoint { address: peer, port: tuple.peer_port },
        }
    }
}

/// A connection was opened or ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConnectionEvent {
    /// Which container.
    pub container: Container,
    /// Where it was, when the connection was opened or the pod closed it.
    pub phase: Phase,
    /// What made the container exit, from the phase exiting on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// Both ends.
    pub network: Network,
    /// Which side opened it.
    pub role: Role,
    /// Who the peer is.
    pub origin: Origin,
    /// How far it goes.
    pub hop: Hop,
    /// CLOCK_MONOTONIC of its opening in nanoseconds; absent if it was found open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opened_mono_ns: Option<Mono>,
    /// How it ended; absent while it is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<ConnectionEnd>,
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConnectionEnd {
    /// How.
    pub ending: Ending,
    /// How sure it is that a client lost something; absent if nobody did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence: Option<Confidence>,
    /// Who closed the pod's side; absent if it did not close.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed_by: Option<ClosedBy>,
    /// All that the pod sent was acknowledged.
    pub delivered: bool,
    /// `tcp_sock.bytes_received`: payload, and 1 for a FIN.
    pub bytes_received: u64,
    /// `tcp_sock.bytes_acked`: payload, and 1 each for SYN and FIN.
    pub bytes_acked: u64,
}

/// A reset was sent or received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResetEvent {
    /// Which container.
    pub container: Container,
    /// Where it was.
    pub phase: Phase,
    /// What made the container exit, from the phase exiting on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// Who sent it.
    pub direction: Direction,
    /// The kernel's reason (`enum sk_rst_reason`), where it has one (from 6.10 on).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Arc<str>>,
    /// What the segment that drew it looked like; absent if it was our own act.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment: Option<SegmentClass>,
    /// Both ends.
    pub network: Network,
    /// Which side opened the connection.
    pub role: Role,
    /// Who the peer is.
    pub origin: Origin,
    /// How far it goes.
    pub hop: Hop,
    /// How the connection ended by it; absent while that is not known (the connection is live).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
    /// How sure it is that a client lost something; absent if nobody did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence: Option<Confidence>,
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
    /// How many records or lines.
    pub count: u64,
}

/// What the clients of a rehearsal saw, beside what was traced. Only in rehearsals.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RehearsalEvent {
    /// Requests with a complete answer, of whatever status.
    pub answered: u64,
    /// Requests with a transport error or a truncated answer.
    pub failed: u64,
    /// Requests in flight when the load ended.
    pub aborted: u64,
    /// Failed requests on whose connection a loss was traced, of whatever confidence.
    pub explained: u64,
    /// Failed requests one by one; the first 10,000.
    pub failures: Vec<FailedRequest>,
    /// Certain and likely losses on connections whose client saw no failure.
    pub unseen_losses: Vec<UnseenLoss>,
}

/// A request that failed for its client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FailedRequest {
    /// What kind of client sent it.
    pub kind: String,
    /// The client's end of the connection, `address:port`.
    pub local: String,
    /// CLOCK_MONOTONIC in nanoseconds when the client began.
    pub start_mono_ns: Mono,
    /// CLOCK_MONOTONIC in nanoseconds when the client saw the failure.
    pub end_mono_ns: Mono,
    /// What the client saw.
    pub cause: String,
    /// How far the request had come.
    pub phase: String,
    /// The loss on its connection; absent if none was traced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explained_by: Option<Ending>,
    /// How sure that loss is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence: Option<Confidence>,
    /// Where the container was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_phase: Option<Phase>,
}

/// A loss that no client saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UnseenLoss {
    /// The client's end of the connection, `address:port`.
    pub peer: String,
    /// How the connection ended.
    pub ending: Ending,
    /// How sure it is.
    pub confidence: Confidence,
}

impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        let time: jiff::Timestamp = text.parse().map_err(D::Error::custom)?;
        i64::try_from(time.as_nanosecond()).map(Self).map_err(D::Error::custom)
    }
}

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Every i64 of nanoseconds lies within jiff's range.
        let time = jiff::Timestamp::from_nanosecond(self.0.into()).unwrap_or_default();
        write!(f, "{time:.9}")
    }
}

impl JsonSchema for Timestamp {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Timestamp".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "date-time" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_has_nine_digits_and_reads_back() {
        let time = Timestamp(1_795_248_106_309_448_160);
        assert_eq!(time.to_string(), "2026-11-21T08:01:46.309448160Z");
        let json = serde_json::to_string(&time).unwrap();
        assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap(), time);
    }
}
