//! A pod of the rollout that has ended, as it is told. Pure.

use std::{ops::RangeInclusive, sync::Arc};

use serde::Serialize;
use tracer_core::{
    event::Mono,
    output::{Line, SignalName, Timestamp},
    verdict::{ContainerSummary, Verdict},
    words::{Phase, Result},
};

use super::input::Pod;

/// A pod that has ended, or did not in time.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Its uid.
    pub uid: String,
    /// Where it ran; absent if it never did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The answer. `unproven` also where the agent's differs: see `reasons`.
    pub result: Result,
    /// Why, in words.
    pub reasons: Vec<String>,
    /// Certain and likely losses.
    pub lost: u64,
    /// Possible losses.
    pub doubts: u64,
    /// From the last arrival to the exit, in seconds; negative if traffic arrived after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quiet_seconds: Option<f64>,
    /// Its containers' phases.
    pub phases: Vec<PhaseTime>,
    /// When the agent gave its verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
    /// The agent's verdict, as in its events; absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Box<Verdict>>,
}

impl Row {
    /// Of a pod with a verdict, which stands in this line of its node's agent. The lines in these gaps are
    /// missing of what the verdict rests on.
    #[must_use]
    pub fn judged(
        namespace: String,
        name: Option<String>,
        node: &str,
        line: &Line,
        verdict: &Verdict,
        gaps: &[RangeInclusive<u64>],
    ) -> Self {
        let uid = line.subject.as_ref().and_then(|subject| subject.k8s.as_ref());
        let uid = uid.map_or(String::new(), |k8s| k8s.pod.uid.clone());
        let mut row = Self {
            namespace,
            pod: name.unwrap_or_else(|| uid.clone()),
            uid,
            node: Some(node.to_owned()),
            result: verdict.result,
            reasons: verdict.reasons.clone(),
            lost: verdict.lost,
            doubts: verdict.doubts,
            quiet_seconds: verdict.traffic.quiet_ns.map(|ns| ns as f64 / 1e9),
            phases: phases(verdict),
            time: Some(line.time),
            verdict: Some(Box::new(verdict.clone())),
        };
        if let (Some(first), Some(last)) = (gaps.first(), gaps.last()) {
            row.doubt(
                node,
                gaps.iter().map(|gap| gap.end() - gap.start() + 1).sum(),
                first.start(),
                last.end(),
            );
        }
        row
    }

    fn doubt(&mut self, node: &str, missing: u64, first: &u64, last: &u64) {
        let said = self.result;
        let reason = format!(
            "{missing} lines that the verdict rests on are missing in the log of the agent on node {node} \
             (seq {first} to {last}): it said {said}"
        );
        self.reasons.insert(0, reason);
        // What was lost was lost, whatever else there was.
        if self.result != Result::Cut {
            self.result = Result::Unproven;
        }
    }

    /// Of a pod without a verdict.
    #[must_use]
    pub fn unproven(namespace: String, pod: &Pod, reason: String) -> Self {
        Self {
            namespace,
            pod: pod.name.clone(),
            uid: pod.uid.clone(),
            node: pod.node.clone(),
            result: Result::Unproven,
            reasons: vec![reason],
            lost: 0,
            doubts: 0,
            quiet_seconds: None,
            phases: Vec::new(),
            time: None,
            verdict: None,
        }
    }
}

/// When a container entered a phase.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PhaseTime {
    /// Which container.
    pub container: Arc<str>,
    /// Which phase.
    pub phase: Phase,
    /// The signal that began it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<SignalName>,
    /// Seconds since the pod's termination began.
    pub seconds: f64,
}

/// When a termination began: the first container left the phase running.
#[must_use]
pub fn began(verdict: &Verdict) -> Option<Mono> {
    let phases = verdict.containers.iter().flat_map(|container| &container.phases);
    phases.filter(|start| start.phase != Phase::Running).map(|start| start.mono_ns).min()
}

/// Nanoseconds as seconds.
#[must_use]
pub fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// The phases of all containers, since the termination began.
#[must_use]
pub fn phases(verdict: &Verdict) -> Vec<PhaseTime> {
    let Some(began) = began(verdict) else { return Vec::new() };
    let of_container = |container: &ContainerSummary| {
        let ways = container.phases.iter().filter(|start| start.phase != Phase::Running);
        let times = ways.map(|start| PhaseTime {
            container: container.name.clone(),
            phase: start.phase,
            signal: start.signal.clone(),
            seconds: seconds(start.mono_ns.saturating_sub(began)),
        });
        times.collect::<Vec<_>>()
    };
    verdict.containers.iter().flat_map(of_container).collect()
}
