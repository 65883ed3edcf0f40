//! What all pods of a rollout add up to. Pure.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;
use tracer_core::{
    event::Mono,
    verdict::{ContainerSummary, Verdict},
    words::{Phase, Result},
};

use super::{
    row::{Row, began, seconds},
    workload::Name,
};

/// What is added to measured times, as findings do (`tracer_core::findings`).
const MARGIN_SECONDS: f64 = 1.0;

/// Why the watch ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The rollout is complete, and every pod that ended has its row.
    Complete,
    /// The rollout will not be complete.
    Failed(String),
    /// The time was up.
    TimedOut,
    /// The time was up, and no rollout had begun.
    NeverBegan,
    /// The user ended it.
    Interrupted,
}

impl End {
    fn words(&self) -> (&'static str, Option<String>) {
        match self {
            Self::Complete => ("complete", None),
            Self::Failed(reason) => ("failed", Some(reason.clone())),
            Self::TimedOut => ("timed_out", Some("it was not complete within --timeout".to_owned())),
            Self::NeverBegan => ("never_began", Some("no rollout began within --timeout".to_owned())),
            Self::Interrupted => ("interrupted", Some("the watch was interrupted".to_owned())),
        }
    }
}

/// The sum of a rollout.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Total {
    /// Which workload, as `deployment/web`.
    pub workload: String,
    /// Its namespace.
    pub namespace: String,
    /// `complete`, `failed`, `timed_out`, `never_began` or `interrupted`.
    pub rollout: &'static str,
    /// Why it is not complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Pods that ended, or were to.
    pub pods: u64,
    /// Of these by verdict.
    pub verdicts: BTreeMap<Result, u64>,
    /// Certain and likely losses.
    pub lost: u64,
    /// Possible losses.
    pub doubts: u64,
    /// Findings, each once.
    pub findings: Vec<Finding>,
    /// How long load balancers took to let go; absent if no new connection came after a termination
    /// began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub propagation_lag: Option<Lag>,
    /// What follows for the pods' settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<Advice>,
    /// What is wrong with the agents' streams, in words.
    pub notes: Vec<String>,
    #[serde(skip)]
    lags: Vec<Mono>,
    #[serde(skip)]
    longest_stop: Option<Mono>,
}

/// A finding of one pod or more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which, as in `docs/findings.md`.
    pub id: String,
    /// Which container.
    pub container: String,
    /// What was seen in the first pod, in words.
    pub text: String,
    /// What to do, with numbers from that pod.
    pub remedy: String,
    /// The pods.
    pub pods: Vec<String>,
}

/// From the begin of a pod's termination to the last new connection of each peer, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Lag {
    /// How many were measured: pods times peers.
    pub peers: usize,
    /// Half of them are at most this.
    pub p50: f64,
    /// 99 of 100 are.
    pub p99: f64,
    /// All are.
    pub max: f64,
}

/// Settings that fit what was measured, with a margin.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Advice {
    /// For a preStop `sleep`.
    pub pre_stop_seconds: u64,
    /// For `terminationGracePeriodSeconds`; absent if no container's way from its stop signal to its exit
    /// was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_seconds: Option<u64>,
}

impl Total {
    /// Of nothing yet.
    #[must_use]
    pub fn new(workload: &Name, namespace: &str) -> Self {
        Self { workload: workload.to_string(), namespace: namespace.to_owned(), ..Self::default() }
    }

    /// Takes a pod.
    pub fn add(&mut self, row: &Row) {
        self.pods += 1;
        *self.verdicts.entry(row.result).or_default() += 1;
        self.lost += row.lost;
        self.doubts += row.doubts;
        if let Some(verdict) = &row.verdict {
            self.findings(&row.pod, verdict);
            self.measure(verdict);
        }
    }

    fn findings(&mut self, pod: &str, verdict: &Verdict) {
        for finding in &verdict.findings {
            let same =
                |known: &&mut Finding| (&known.id, &known.container) == (&finding.id, &finding.container);
            match self.findings.iter_mut().find(same) {
                Some(known) => known.pods.push(pod.to_owned()),
                None => self.findings.push(Finding {
                    id: finding.id.clone(),
                    container: finding.container.clone(),
                    text: finding.text.clone(),
                    remedy: finding.remedy.clone(),
                    pods: vec![pod.to_owned()],
                }),
            }
        }
    }

    fn measure(&mut self, verdict: &Verdict) {
        let peers = verdict.peers.each.iter().chain(&verdict.peers.others);
        if let Some(began) = began(verdict) {
            let last = peers.filter_map(|peer| peer.last_after_mono_ns);
            self.lags.extend(last.map(|last| last.saturating_sub(began)));
        }
        let stops = verdict.containers.iter().filter_map(stop);
        self.longest_stop = self.longest_stop.max(stops.max());
    }

    /// All pods were taken.
    pub(super) fn end(&mut self, end: &End, notes: Vec<String>) {
        (self.rollout, self.reason) = end.words();
        self.notes = notes;
        self.lags.sort_unstable();
        let Some(max) = self.lags.last().map(|max| seconds(*max)) else { return };
        let quantile = |share: f64| {
            // The nearest rank.
            let rank = (share * self.lags.len() as f64).ceil() as usize;
            seconds(self.lags[rank.clamp(1, self.lags.len()) - 1])
        };
        self.propagation_lag =
            Some(Lag { peers: self.lags.len(), p50: quantile(0.5), p99: quantile(0.99), max });
        let pre_stop = (max + MARGIN_SECONDS).ceil();
        let grace = self.longest_stop.map(|stop| (pre_stop + seconds(stop) + MARGIN_SECONDS).ceil() as u64);
        self.advice = Some(Advice { pre_stop_seconds: pre_stop as u64, grace_seconds: grace });
    }

    /// Why the rollout as a whole is not proven, if it is not.
    #[must_use]
    pub fn incomplete(&self) -> Option<String> {
        let reason = self.reason.as_ref()?;
        Some(format!("the rollout {}: {reason}", self.rollout.replace('_', " ")))
    }

    /// How many pods had this verdict.
    #[must_use]
    pub fn count(&self, result: Result) -> u64 {
        self.verdicts.get(&result).copied().unwrap_or(0)
    }
}

impl fmt::Display for Lag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { peers, p50, p99, max } = self;
        write!(f, "within {p50:.1} s (p50), {p99:.1} s (p99), {max:.1} s (longest) of {peers} measured")
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "for new connections a preStop of {} s", self.pre_stop_seconds)?;
        match self.grace_seconds {
            Some(grace) => write!(f, " and a grace period of {grace} s are enough"),
            None => write!(f, " is enough"),
        }
    }
}

/// How long a container took from its stop signal to its exit.
fn stop(container: &ContainerSummary) -> Option<Mono> {
    let at =
        |phase: Phase| container.phases.iter().find(|start| start.phase == phase).map(|start| start.mono_ns);
    at(Phase::AfterExit).or(at(Phase::Exiting))?.checked_sub(at(Phase::StopSignal)?)
}
