//! The verdict: whether a target's traffic had stopped before it exited, and what was lost if not.

mod gap;

use std::{net::IpAddr, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::gap::Gap;
use crate::{
    books::Book,
    event::Mono,
    findings::Finding,
    ledger::{Census, Ledger, Traffic},
    lifecycle::Source,
    losses::LossKey,
    output::{Endpoint, HookRunEvent, SignalName, Status},
    peers::Peer,
    words::{Cause, Confidence, Ending, Hop, Phase, Result},
};

/// Tuples of each kind of loss that a verdict carries.
const EXAMPLES: usize = 5;

/// The answer for one target, with all that it rests on.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    /// The answer.
    pub result: Result,
    /// Why, in words.
    pub reasons: Vec<String>,
    /// Possible losses: none of them could be told from harmless.
    pub doubts: u64,
    /// Certain and likely losses.
    pub lost: u64,
    /// Losses by ending, phase and confidence.
    pub losses: Vec<LossCount>,
    /// Connections in numbers.
    pub connections: Connections,
    /// When traffic stopped.
    pub traffic: TrafficSummary,
    /// UDP sockets that were open when tracing began: what they carry is not judged.
    #[serde(default)]
    pub udp_not_judged: u64,
    /// The containers and their ways out.
    pub containers: Vec<ContainerSummary>,
    /// Causes and remedies.
    #[serde(default)]
    pub findings: Vec<Finding>,
    /// Who the clients were; behind source NAT a peer is a node.
    #[serde(default)]
    pub peers: PeerList,
    /// The equations.
    pub books: Vec<Book>,
    /// What this kernel cannot show, in words. Where it is a class of resets, the book OutRsts tells
    /// whether there were any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cannot_show: Vec<String>,
    /// The lines that it rests on.
    pub evidence: Evidence,
}

/// Losses of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LossCount {
    /// How the connections ended.
    pub ending: Ending,
    /// Where the container was.
    pub phase: Phase,
    /// What made the container exit, from the phase exiting on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// Which container.
    pub container: Arc<str>,
    /// How far the connections went: loopback ones are another container's of the pod, not a client's.
    #[serde(default = "external")]
    pub hop: Hop,
    /// How sure it is.
    pub confidence: Confidence,
    /// How many.
    pub count: u64,
    /// Some of the peers that lost.
    pub peers: Vec<Endpoint>,
}

/// Lines that were written before there was the field.
fn external() -> Hop {
    Hop::External
}

/// Connections in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Connections {
    /// Opened while traced, by either side.
    pub opened: u64,
    /// Found open.
    pub found: u64,
    /// Ended.
    pub ended: u64,
    /// Still open at the end.
    pub open: u64,
    /// Opened by peers from outside the pod that are no health checkers.
    pub from_peers: u64,
}

/// Who the clients were. Connections within the pod and of health checkers are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PeerList {
    /// One by one: at most 1,000.
    pub each: Vec<PeerSummary>,
    /// The sum of those beyond; absent if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub others: Option<PeerSummary>,
}

/// One peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PeerSummary {
    /// Its address; absent for the sum of several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Connections that it opened, also those that were refused.
    pub connections: u64,
    /// CLOCK_MONOTONIC in nanoseconds of its first new connection after the termination began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_after_mono_ns: Option<Mono>,
    /// CLOCK_MONOTONIC in nanoseconds of its last one: how long the load balancer took to let go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_after_mono_ns: Option<Mono>,
    /// Its certain and likely losses.
    pub lost: u64,
    /// Its possible losses.
    pub doubts: u64,
}

/// When traffic stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TrafficSummary {
    /// CLOCK_MONOTONIC of the last new connection in nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_connection_mono_ns: Option<Mono>,
    /// CLOCK_MONOTONIC of the last data from a peer in nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_data_mono_ns: Option<Mono>,
    /// CLOCK_MONOTONIC of the last data to a peer in nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sent_mono_ns: Option<Mono>,
    /// From the last arrival to the exit, in nanoseconds; negative if traffic arrived after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quiet_ns: Option<i64>,
    /// Traffic within the pod, as between a sidecar and the application; absent if there was none. It
    /// counts in none of the numbers above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loopback: Option<LoopbackTraffic>,
}

/// Traffic within the pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LoopbackTraffic {
    /// Connections, those that were found and those that were refused too.
    pub connections: u64,
    /// CLOCK_MONOTONIC of the last new connection in nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_connection_mono_ns: Option<Mono>,
    /// CLOCK_MONOTONIC of the last data to a server in nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_data_mono_ns: Option<Mono>,
    /// CLOCK_MONOTONIC of the last data from a server in nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_sent_mono_ns: Option<Mono>,
}

impl LoopbackTraffic {
    /// What a ledger knows of it.
    #[must_use]
    pub fn of(traffic: Traffic) -> Option<Self> {
        (traffic.connections > 0).then_some(Self {
            connections: traffic.connections,
            last_connection_mono_ns: traffic.last_connection,
            last_data_mono_ns: traffic.last_data,
            last_sent_mono_ns: traffic.last_sent,
        })
    }
}

/// One container's way out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ContainerSummary {
    /// Its name.
    pub name: Arc<str>,
    /// Its phases.
    pub phases: Vec<PhaseSummary>,
    /// How its init ended, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// What made it exit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// Processes that entered it from outside since its termination began: preStop hooks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<HookRunEvent>,
}

/// When a container entered a phase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PhaseSummary {
    /// Which.
    pub phase: Phase,
    /// CLOCK_MONOTONIC in nanoseconds.
    pub mono_ns: Mono,
    /// How that is known.
    pub source: Source,
    /// The signal that began it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<SignalName>,
    /// The signal had no effect.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ignored: bool,
}

/// The lines that a verdict rests on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// `seq` of the first line of the target.
    pub first_seq: u64,
    /// `seq` of the last one before the verdict.
    pub last_seq: u64,
}

/// Decides.
#[must_use]
pub fn decide(
    ledger: &Ledger,
    gaps: &[Gap],
    quiet_ns: Option<i64>,
    required_quiet: Mono,
) -> (Result, Vec<String>) {
    let (lost, doubts) = ledger.losses().totals();
    let had_traffic = ledger.census().from_peers > 0 || !ledger.losses().counts().is_empty();
    let gap_reasons = || gaps.iter().map(ToString::to_string).collect::<Vec<_>>();
    let doubtful = (doubts > 0)
        .then(|| format!("{doubts} {} cannot be told from a loss", plural(doubts, "ending", "endings")));
    if lost > 0 {
        let mut reasons = vec![format!("{lost} {} lost", plural(lost, "connection was", "connections were"))];
        reasons.extend(doubtful);
        reasons.extend(gap_reasons());
        (Result::Cut, reasons)
    } else if !gaps.is_empty() {
        (Result::Unproven, gap_reasons())
    } else if !had_traffic {
        (Result::Idle, vec!["there was no traffic to judge".to_owned()])
    } else if quiet_ns.is_none_or(|quiet| quiet >= required_quiet.cast_signed()) {
        let mut reasons = vec![quiet_reason(quiet_ns)];
        reasons.extend(doubtful);
        (Result::Drained, reasons)
    } else {
        let mut reasons =
            vec![quiet_reason(quiet_ns), "nothing was lost, but traffic had not stopped".to_owned()];
        reasons.extend(doubtful);
        (Result::Late, reasons)
    }
}

fn quiet_reason(quiet_ns: Option<i64>) -> String {
    let seconds = |ns: i64| ns as f64 / 1e9;
    match quiet_ns {
        Some(quiet) if quiet >= 0 => {
            format!("the last traffic arrived {:.3} s before the exit", seconds(quiet))
        }
        Some(quiet) => format!("traffic arrived until {:.3} s after the exit", seconds(-quiet)),
        None => "no traffic arrived while it was traced".to_owned(),
    }
}

fn plural<'a>(count: u64, one: &'a str, many: &'a str) -> &'a str {
    if count == 1 { one } else { many }
}

/// Losses as a verdict lists them: the surest first.
#[must_use]
pub fn list_losses(ledger: &Ledger, name: impl Fn(u32) -> Arc<str>) -> Vec<LossCount> {
    let mut losses: Vec<(&LossKey, &u64)> = ledger.losses().counts().iter().collect();
    losses.sort_by_key(|(key, count)| (std::cmp::Reverse((key.confidence, **count)), **key));
    losses
        .into_iter()
        .map(|(key, count)| LossCount {
            ending: key.ending,
            phase: key.moment.phase,
            cause: key.moment.cause,
            container: name(key.moment.container),
            hop: key.hop,
            confidence: key.confidence,
            count: *count,
            peers: ledger
                .losses()
                .evidence()
                .iter()
                .filter(|loss| loss.key == *key)
                .take(EXAMPLES)
                .map(|loss| Endpoint { address: loss.tuple.peer_ip(), port: loss.tuple.peer_port })
                .collect(),
        })
        .collect()
}

impl Connections {
    /// The numbers of a ledger.
    #[must_use]
    pub fn of(census: Census, open: u64) -> Self {
        Self {
            opened: census.opened,
            found: census.found,
            ended: census.ended,
            open,
            from_peers: census.from_peers,
        }
    }
}

/// The peers as a verdict lists them.
#[must_use]
pub fn list_peers(ledger: &Ledger) -> PeerList {
    let summary = |address, peer: Peer| PeerSummary {
        address,
        connections: peer.connections,
        first_after_mono_ns: peer.first_after,
        last_after_mono_ns: peer.last_after,
        lost: peer.lost,
        doubts: peer.doubts,
    };
    let (each, others) = ledger.peers().list();
    PeerList {
        each: each.into_iter().map(|(address, peer)| summary(Some(address), peer)).collect(),
        others: others.map(|peer| summary(None, peer)),
    }
}
