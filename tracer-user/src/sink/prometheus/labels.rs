//! The label sets: whose it is, and the words of the events.

use std::fmt::Error;

use prometheus_client::encoding::{EncodeLabel, EncodeLabelSet, LabelSetEncoder};
use tracer_core::{
    output::{K8s, LostEvent, Named, ResetEvent, Subject},
    verdict::LossCount,
    words::{Phase, Result},
};

use super::bounded::Fold;

/// Stands for all beyond the bound.
const OTHER: &str = "other";
/// Stands for what is not known.
const UNKNOWN: &str = "unknown";
/// Digits of the time stamp that a CronJob appends to its Jobs' names.
const CRON_DIGITS: usize = 8;

/// Whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Whose {
    namespace: String,
    workload: String,
    /// Only where the user asked for it.
    pod: Option<String>,
}

impl Whose {
    /// A target outside Kubernetes is a workload in no namespace.
    pub(super) fn of(subject: Option<&Subject>, with_pod: bool) -> Self {
        let (namespace, workload, pod) = match subject.map(|subject| (subject, &subject.k8s)) {
            Some((_, Some(k8s))) => {
                let namespace = k8s.namespace.as_ref().map_or(UNKNOWN, |namespace| &namespace.name);
                let pod = k8s.pod.name.as_ref().unwrap_or(&k8s.pod.uid).as_str();
                (namespace, workload(k8s), pod)
            }
            Some((subject, None)) => ("", subject.target.name.as_str(), subject.target.name.as_str()),
            None => ("", UNKNOWN, UNKNOWN),
        };
        Self {
            namespace: namespace.to_owned(),
            workload: workload.to_owned(),
            pod: with_pod.then(|| pod.to_owned()),
        }
    }
}

/// The owner's name; without an owner the pod's own.
fn workload(k8s: &K8s) -> &str {
    let owner = [&k8s.deployment, &k8s.statefulset, &k8s.daemonset].into_iter().flatten().next();
    let job = k8s.job.as_ref().map(|job| cron_job(&job.name));
    let owner = owner.map(|Named { name }| name.as_str()).or(job);
    owner.or(k8s.pod.name.as_deref()).unwrap_or(UNKNOWN)
}

/// Jobs of a CronJob share its name, followed by the time that they were due.
fn cron_job(job: &str) -> &str {
    match job.rsplit_once('-') {
        Some((name, time)) if time.len() == CRON_DIGITS && time.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => job,
    }
}

impl Fold for Whose {
    fn folded(&self) -> Self {
        let pod = self.pod.is_some().then(|| OTHER.to_owned());
        Self { namespace: OTHER.to_owned(), workload: OTHER.to_owned(), pod }
    }
}

impl EncodeLabelSet for Whose {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> std::result::Result<(), Error> {
        ("namespace", self.namespace.as_str()).encode(encoder.encode_label())?;
        ("workload", self.workload.as_str()).encode(encoder.encode_label())?;
        match &self.pod {
            Some(pod) => ("pod", pod.as_str()).encode(encoder.encode_label()),
            None => Ok(()),
        }
    }
}

/// Whose it is, and the words about it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Of<Words> {
    pub(super) whose: Whose,
    pub(super) words: Words,
}

impl<Words: Clone> Fold for Of<Words> {
    fn folded(&self) -> Self {
        Self { whose: self.whose.folded(), words: self.words.clone() }
    }
}

impl<Words: EncodeLabelSet> EncodeLabelSet for Of<Words> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> std::result::Result<(), Error> {
        self.whose.encode(encoder)?;
        self.words.encode(encoder)
    }
}

/// Of a verdict.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Termination {
    verdict: &'static str,
}

/// Of losses.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Loss {
    ending: &'static str,
    phase: &'static str,
}

/// Of a reset; its reason is the running kernel's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Reset {
    direction: &'static str,
    phase: &'static str,
    reason: String,
}

impl Termination {
    pub(super) fn new(result: Result) -> Self {
        Self { verdict: result.word() }
    }
}

impl Loss {
    pub(super) fn new(loss: &LossCount) -> Self {
        Self { ending: loss.ending.word(), phase: loss.phase.word() }
    }
}

impl Reset {
    pub(super) fn new(reset: &ResetEvent) -> Self {
        let reason = reset.reason.as_deref().unwrap_or(UNKNOWN).to_owned();
        Self { direction: reset.direction.word(), phase: reset.phase.word(), reason }
    }
}

/// Of what was lost.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Lost {
    stage: String,
    reason: String,
}

/// Of what could be given to nobody.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Unattributed {
    reason: String,
}

/// Of a phase's duration.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct PhaseOnly {
    phase: &'static str,
}

impl Lost {
    pub(super) fn new(lost: &LostEvent) -> Self {
        Self { stage: lost.stage.clone(), reason: lost.reason.clone() }
    }
}

impl Unattributed {
    pub(super) fn new(lost: &LostEvent) -> Self {
        Self { reason: lost.reason.clone() }
    }
}

impl PhaseOnly {
    pub(super) fn new(phase: Phase) -> Self {
        Self { phase: phase.word() }
    }
}

impl Fold for Lost {
    fn folded(&self) -> Self {
        Self { stage: self.stage.clone(), reason: OTHER.to_owned() }
    }
}

impl Fold for Unattributed {
    fn folded(&self) -> Self {
        Self { reason: OTHER.to_owned() }
    }
}
