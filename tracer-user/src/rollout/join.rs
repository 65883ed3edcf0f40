//! Joins what the agents saw with the rollout's own progress: a row for every pod that ends. Pure: it is
//! told what happened and when.

mod state;

use std::{collections::BTreeMap, time::Instant};

use tracer_core::output::{Body, Line, Timestamp};

use super::{
    agents::Agents,
    input::{Input, Patience, Place, Pod},
    row::Row,
    total::{End, Total},
    workload::{Name, Status},
};

/// Where the rollout is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing is known of the workload.
    Unknown,
    /// It is complete; the next rollout is waited for.
    Waiting,
    /// A rollout is under way.
    UnderWay,
    /// It is complete since then.
    Complete(Instant),
    /// It will not be, since then.
    Failed(Instant, String),
}

/// What there is to tell.
#[derive(Debug)]
pub enum News {
    /// What an agent said of a pod of the workload, or of itself: each line once, those of a run in order.
    Line(Box<Line>),
    /// A pod has ended, or did not in time.
    Row(Box<Row>),
}

/// What is known of a pod.
#[derive(Debug)]
struct Known {
    pod: Pod,
    gone: Option<Instant>,
    /// It has a row, and nothing was started in it since.
    told: bool,
    /// A verdict that came while no rollout was known, with its node: the news of the rollout may come by
    /// a slower way.
    held: Option<(Instant, String, Line)>,
}

/// See the module.
#[derive(Debug)]
pub struct Join {
    name: Name,
    namespace: String,
    patience: Patience,
    began: Instant,
    stage: Stage,
    status: Status,
    joined: bool,
    complete_pods: bool,
    complete_agents: bool,
    agents: Agents,
    pods: BTreeMap<String, Known>,
    /// Verdicts of pods that the API has not told (yet).
    early: BTreeMap<String, (String, Line)>,
    total: Total,
}

impl Join {
    /// Nothing is known before `now`.
    #[must_use]
    pub fn new(name: Name, namespace: String, patience: Patience, now: Instant) -> Self {
        let total = Total::new(&name, &namespace);
        Self {
            name,
            namespace,
            patience,
            began: now,
            stage: Stage::Unknown,
            status: Status::default(),
            joined: false,
            complete_pods: false,
            complete_agents: false,
            agents: Agents::default(),
            pods: BTreeMap::new(),
            early: BTreeMap::new(),
            total,
        }
    }

    /// Takes what happened; what there is to tell of it.
    pub fn step(&mut self, input: Input, now: Instant) -> Vec<News> {
        let (mut heard, mut rows, was_watched) = (None, Vec::new(), self.is_watched());
        match input {
            Input::Workload(status) => self.workload(*status, now),
            Input::WorkloadGone => self.fail("it was deleted", now),
            Input::Pod(pod) => self.pod(pod, now, &mut rows),
            Input::PodGone { uid } => {
                if let Some(known) = self.pods.get_mut(&uid) {
                    known.pod.deleted = true;
                    known.gone.get_or_insert(now);
                }
            }
            Input::PodsComplete => self.complete_pods = true,
            Input::AgentCame { node, pod } => self.agents.came(&node, &pod),
            Input::AgentLeft { node, pod } => self.agents.left(&node, &pod),
            Input::AgentsComplete => self.complete_agents = true,
            Input::AgentTrouble { node, reason } => self.agents.trouble(&node, reason),
            Input::Garbage { node } => self.agents.garbage(&node),
            Input::Newer { node, place } => drop(self.agents.take(&node, &place)),
            Input::Line { node, line } => {
                if self.agents.take(&node, &Place::from(&*line)) {
                    self.line(&node, &line, now, &mut rows);
                    heard = self.is_wanted(&line).then_some(line);
                }
            }
            Input::Tick => {}
        }
        if !was_watched && self.is_watched() {
            self.release(now, &mut rows);
        }
        self.give_up_on_gone(now, &mut rows);
        for row in &rows {
            self.total.add(row);
        }
        let rows = rows.into_iter().map(|row| News::Row(Box::new(row)));
        heard.map(News::Line).into_iter().chain(rows).collect()
    }

    /// Whether a line tells of the workload's pods, or of the agent itself.
    fn is_wanted(&mut self, line: &Line) -> bool {
        let Some(subject) = &line.subject else { return true };
        let Some(k8s) = &subject.k8s else { return false };
        self.name.owns(&self.namespace, k8s) || self.of_node(&k8s.pod.uid).is_some()
    }

    fn workload(&mut self, status: Status, now: Instant) {
        let changed = status.template != self.status.template;
        self.stage = match (std::mem::replace(&mut self.stage, Stage::Unknown), status.complete) {
            (Stage::Unknown, true) => Stage::Waiting,
            (Stage::Unknown, false) => {
                self.joined = true;
                Stage::UnderWay
            }
            (Stage::Waiting, false) if changed => Stage::UnderWay,
            (Stage::Waiting, true) if changed => Stage::Complete(now),
            (Stage::UnderWay, true) => Stage::Complete(now),
            // A pod may become unavailable again before all have ended.
            (Stage::Complete(_), false) => Stage::UnderWay,
            (stage, _) => stage,
        };
        if let (Stage::UnderWay, Some(reason)) = (&self.stage, &status.failed) {
            self.stage = Stage::Failed(now, reason.clone());
        }
        self.status = status;
    }

    fn fail(&mut self, reason: &str, now: Instant) {
        if !matches!(self.stage, Stage::Failed(..)) {
            self.stage = Stage::Failed(now, reason.to_owned());
        }
    }

    /// It is known whether a rollout is under way, and since when.
    #[must_use]
    pub fn knows_rollout(&self) -> bool {
        self.stage != Stage::Unknown && self.complete_pods
    }

    /// All is known that a rollout is told from: one can be started.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.knows_rollout() && self.complete_agents
    }

    /// Whether an agent was ever seen.
    #[must_use]
    pub fn has_agents(&self) -> bool {
        self.agents.were_seen()
    }

    /// When the rollout that is under way began, by the oldest pod of the newest revision, less the time
    /// that the pod before it may have taken to end; `None` if none is.
    #[must_use]
    pub fn since(&self) -> Option<Timestamp> {
        if !self.joined {
            return None;
        }
        let pods = || self.pods.values().map(|known| &known.pod);
        let newest = pods().max_by_key(|pod| pod.created)?;
        let first = pods().filter(|pod| pod.revision == newest.revision).map(|pod| pod.created).min()?;
        let spec = self.status.template.spec.as_ref();
        let grace = spec.and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
        Some(Timestamp(first.saturating_sub(grace.saturating_mul(1_000_000_000))))
    }

    fn is_watched(&self) -> bool {
        matches!(self.stage, Stage::UnderWay | Stage::Complete(_) | Stage::Failed(..))
    }

    fn pod(&mut self, pod: Pod, now: Instant, rows: &mut Vec<Row>) {
        let early = self.early.remove(&pod.cgroup_uid);
        match self.pods.get_mut(&pod.uid) {
            Some(known) => known.pod = pod,
            None => {
                drop(self.pods.insert(pod.uid.clone(), Known { pod, gone: None, told: false, held: None }));
            }
        }
        if let Some((node, line)) = early {
            self.line(&node, &line, now, rows);
        }
    }

    fn line(&mut self, node: &str, line: &Line, now: Instant, rows: &mut Vec<Row>) {
        // All others are most of an agent's lines.
        if !matches!(line.body, Body::TargetStarted(_) | Body::TargetEnded(_) | Body::Verdict(_)) {
            return;
        }
        let Some(k8s) = line.subject.as_ref().and_then(|subject| subject.k8s.clone()) else { return };
        let uid = k8s.pod.uid.clone();
        match &line.body {
            Body::TargetStarted(_) => {
                if let Some(known) = self.of_node(&uid) {
                    known.told = false;
                }
            }
            Body::Verdict(_) => {
                let ours = self.name.owns(&self.namespace, &k8s);
                if self.of_node(&uid).is_some() || (self.joined && ours) {
                    self.verdict(node, line, now, rows);
                } else if ours {
                    self.early.insert(uid, (node.to_owned(), line.clone()));
                }
            }
            Body::TargetEnded(ended) => {
                let reason = format!("the agent gave no verdict: {}", ended.reason);
                if self.is_watched()
                    && let Some(known) = self.of_node(&uid)
                    && known.pod.deleted
                    && !known.told
                {
                    known.told = true;
                    let pod = known.pod.clone();
                    rows.push(self.unproven(&pod, reason));
                }
            }
            _ => {}
        }
    }

    fn of_node(&mut self, cgroup_uid: &str) -> Option<&mut Known> {
        self.pods.values_mut().find(|known| known.pod.cgroup_uid == cgroup_uid)
    }

    fn verdict(&mut self, node: &str, line: &Line, now: Instant, rows: &mut Vec<Row>) {
        let (Some(k8s), Body::Verdict(verdict)) =
            (line.subject.as_ref().and_then(|subject| subject.k8s.as_ref()), &line.body)
        else {
            return;
        };
        let (watched, mut name) = (self.is_watched(), k8s.pod.name.clone());
        if let Some(known) = self.of_node(&k8s.pod.uid) {
            known.told = true;
            name = Some(known.pod.name.clone());
            if !watched {
                known.held = Some((now, node.to_owned(), line.clone()));
                return;
            }
        }
        // Pods that ended before the rollout, or while there is none, are nobody's question.
        if !watched || self.since().is_some_and(|since| line.time < since) {
            return;
        }
        let gaps = self.agents.gaps(node, verdict.evidence.first_seq, line.seq);
        rows.push(Row::judged(self.namespace.clone(), name, node, line, verdict, &gaps));
    }

    /// A rollout is known now: pods that ended a moment ago are its.
    fn release(&mut self, now: Instant, rows: &mut Vec<Row>) {
        let held: Vec<_> = self.pods.values_mut().filter_map(|known| known.held.take()).collect();
        let patience = self.patience.verdict;
        for (_, node, line) in held.into_iter().filter(|(at, ..)| now < *at + patience) {
            self.verdict(&node, &line, now, rows);
        }
    }

    fn unproven(&self, pod: &Pod, reason: String) -> Row {
        Row::unproven(self.namespace.clone(), pod, reason)
    }

    /// Pods that ended without a verdict: soon where there is no agent, else after more patience.
    fn give_up_on_gone(&mut self, now: Instant, rows: &mut Vec<Row>) {
        if !self.complete_agents {
            return;
        }
        let watched = self.is_watched();
        let mut missing = Vec::new();
        for known in self.pods.values_mut().filter(|known| !known.told) {
            let Some(gone) = known.gone else { continue };
            let never_ran = known.pod.node.is_none();
            let is_late = now >= gone + self.patience.verdict;
            let alone = watched
                && known.pod.node.as_ref().is_some_and(|node| !self.agents.is_on(node))
                && now >= gone + self.patience.settle;
            if never_ran || is_late || alone {
                known.told = true;
                if let Some(node) = known.pod.node.as_ref().filter(|_| watched) {
                    missing.push((known.pod.clone(), self.agents.why_none(node)));
                }
            }
        }
        rows.extend(missing.into_iter().map(|(pod, reason)| self.unproven(&pod, reason)));
        let patience = self.patience.verdict;
        self.pods.retain(|_, known| {
            let is_held = known.held.as_ref().is_some_and(|(at, ..)| now < *at + patience);
            known.gone.is_none() || !known.told || is_held
        });
    }

    /// Pods of the workload that are ending, and those that are neither ending nor ended.
    fn count(&self) -> (usize, usize) {
        let ending = self.pods.values().filter(|known| known.pod.deleted && !known.told).count();
        let staying = self.pods.values().filter(|known| !known.pod.deleted && !known.pod.ended).count();
        (ending, staying)
    }

    /// Whether the watch ends now, and why.
    #[must_use]
    pub fn end(&self, now: Instant) -> Option<End> {
        let (ending, staying) = self.count();
        let settled = |since: Instant| ending == 0 && now >= since + self.patience.settle;
        let all_seen = self.complete_pods && staying <= usize::try_from(self.status.desired).unwrap_or(0);
        match &self.stage {
            Stage::Complete(since) if settled(*since) && all_seen => Some(End::Complete),
            Stage::Failed(since, reason) if settled(*since) => Some(End::Failed(reason.clone())),
            _ if now < self.began + self.patience.all => None,
            Stage::Unknown | Stage::Waiting => Some(End::NeverBegan),
            _ => Some(End::TimedOut),
        }
    }

    /// The total. Pods that have not ended, but were to, are unproven: they come first.
    #[must_use]
    pub fn finish(mut self, end: &End) -> (Vec<Row>, Total) {
        let mut rows = Vec::new();
        if *end != End::NeverBegan {
            let left: Vec<Pod> = self
                .pods
                .values()
                .filter(|known| known.pod.deleted && !known.told)
                .map(|known| known.pod.clone())
                .collect();
            for pod in left {
                rows.push(self.unproven(&pod, "it had not ended when the watch did".to_owned()));
            }
        }
        for row in &rows {
            self.total.add(row);
        }
        let mut notes = self.agents.notes();
        if self.joined {
            notes.push(
                "the rollout was under way already: of pods that had ended before, only those are here that the agents' logs still told of"
                    .to_owned(),
            );
        }
        self.total.end(end, notes);
        (rows, self.total)
    }
}

#[cfg(test)]
mod tests;
