//! What a report knows: runs, and the way out of each pod with its connections.

use std::{net::IpAddr, sync::Arc};

use tracer_core::{
    event::Mono,
    output::{HookRunEvent, Status, Timestamp},
    verdict::Verdict,
    words::{Cause, Confidence, Direction, Ending, Phase, Result},
};

use super::read::Counts;

/// All that was read, ready to be shown.
#[derive(Debug, Default)]
pub struct Report {
    /// What it is about, in a few words.
    pub title: String,
    /// Sentences that stand above everything else, such as agents that are missing.
    pub notes: Vec<String>,
    /// What was read.
    pub counts: Counts,
    /// Why it is not the whole of what it is about, if it is not: nothing is proven then.
    pub incomplete: Option<String>,
    /// What else is known, such as what the clients of rehearsals saw, one sentence each.
    pub facts: Vec<String>,
    /// Runs of lastpacket: agents, traces, rehearsals.
    pub runs: Vec<Run>,
    /// Pods, or other targets, as their tracing began. One that is terminated again is told again.
    pub pods: Vec<Pod>,
}

/// One run of lastpacket.
#[derive(Debug)]
pub struct Run {
    /// Its id.
    pub id: Arc<str>,
    /// The machine.
    pub node: Arc<str>,
    /// Version of lastpacket, and of the kernel.
    pub version: Option<(String, String)>,
    /// What it lost, in words.
    pub lost: Vec<String>,
    /// Wall time of its first event.
    pub began: Timestamp,
}

/// One termination of a pod, or of another target.
#[derive(Debug)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: Option<String>,
    /// Its namespace.
    pub namespace: Option<String>,
    /// What owns it, as `deployment/web`.
    pub workload: Option<String>,
    /// Its machine.
    pub node: Arc<str>,
    /// The answer; `None` if it was not terminated, or its end was not to be judged.
    pub result: Option<Result>,
    /// Why.
    pub reasons: Vec<String>,
    /// The verdict that it comes from.
    pub verdict: Option<Verdict>,
    /// One per container; one that runs again has a new one.
    pub lanes: Vec<Lane>,
    /// Processes that entered containers from outside: hooks.
    pub hooks: Vec<HookRunEvent>,
    /// Addresses of peers; connections and marks name them by their place here.
    pub peers: Vec<IpAddr>,
    /// Connections in the order of their opening.
    pub connections: Vec<Connection>,
    /// Resets in their order.
    pub marks: Vec<Mark>,
    /// Endpoint changes.
    pub endpoints: Vec<Endpoints>,
    /// First and last event, CLOCK_MONOTONIC in nanoseconds.
    pub span: (Mono, Mono),
    /// When its termination began, CLOCK_MONOTONIC in nanoseconds.
    pub began: Option<Mono>,
    /// When its last container had exited, CLOCK_MONOTONIC in nanoseconds.
    pub exited: Option<Mono>,
    /// Wall time of the first event, and its CLOCK_MONOTONIC in nanoseconds.
    pub time: Timestamp,
    /// See `time`.
    pub mono_ns: Mono,
}

/// A container's way through its phases.
#[derive(Debug)]
pub struct Lane {
    /// The container.
    pub name: String,
    /// Its phases: which, when, by which name.
    pub phases: Vec<(Phase, Mono, String)>,
    /// How its init ended.
    pub status: Option<Status>,
    /// What made it exit.
    pub cause: Option<Cause>,
}

/// A loss, or a doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// How it ended.
    pub ending: Ending,
    /// How sure it is; `None` if nobody lost anything.
    pub confidence: Option<Confidence>,
}

/// One connection.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    /// Which peer.
    pub peer: u32,
    /// The peer's port.
    pub peer_port: u16,
    /// The pod's port.
    pub port: u16,
    /// From when to when; it was found open, or is still open, where that is not known.
    pub from: Mono,
    /// See `from`.
    pub to: Option<Mono>,
    /// How it ended.
    pub end: Option<Loss>,
    /// Who opened it.
    pub whose: Whose,
    /// It was found open when tracing began.
    pub found: bool,
    /// Payload that came in, and that was sent and acknowledged.
    pub bytes: (u64, u64),
}

/// Who opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// A client from outside the pod.
    Client,
    /// A health checker.
    Checker,
    /// The pod itself.
    Own,
    /// A container of the pod, to another one.
    Inside,
}

/// A reset.
#[derive(Clone, Debug)]
pub struct Mark {
    /// When.
    pub time: Mono,
    /// Which peer.
    pub peer: u32,
    /// The peer's port.
    pub peer_port: u16,
    /// The pod's port.
    pub port: u16,
    /// Who sent it.
    pub direction: Direction,
    /// Where the container was.
    pub phase: Phase,
    /// How the connection ended by it, if that is known.
    pub end: Option<Loss>,
    /// The kernel's reason.
    pub reason: Option<Arc<str>>,
}

/// What the API told of a Service's endpoint.
#[derive(Clone, Debug)]
pub struct Endpoints {
    /// When.
    pub time: Mono,
    /// In words.
    pub text: String,
}

/// Verdicts in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Pods by verdict.
    pub drained: usize,
    /// See [`Result`].
    pub late: usize,
    /// See [`Result`].
    pub cut: usize,
    /// See [`Result`].
    pub idle: usize,
    /// See [`Result`].
    pub unproven: usize,
    /// Without a verdict: not terminated.
    pub none: usize,
    /// Certain and likely losses of all.
    pub lost: u64,
    /// Possible losses of all.
    pub doubts: u64,
}

impl Report {
    /// Verdicts in numbers.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for pod in &self.pods {
            *match pod.result {
                Some(Result::Drained) => &mut tally.drained,
                Some(Result::Late) => &mut tally.late,
                Some(Result::Cut) => &mut tally.cut,
                Some(Result::Idle) => &mut tally.idle,
                Some(Result::Unproven) => &mut tally.unproven,
                None => &mut tally.none,
            } += 1;
            tally.lost += pod.verdict.as_ref().map_or(0, |verdict| verdict.lost);
            tally.doubts += pod.verdict.as_ref().map_or(0, |verdict| verdict.doubts);
        }
        tally
    }

    /// The answer for all of it: the worst. `None` if there is no verdict.
    #[must_use]
    pub fn result(&self) -> Option<Result> {
        let order = [Result::Cut, Result::Unproven, Result::Late, Result::Drained, Result::Idle];
        let is_there = |result: Result| {
            let incomplete = result == Result::Unproven && self.incomplete.is_some();
            incomplete || self.pods.iter().any(|pod| pod.result == Some(result))
        };
        order.into_iter().find(|result| is_there(*result))
    }
}

impl Pod {
    /// A pod of which nothing was heard but its name.
    #[must_use]
    pub fn unheard(name: String, node: Arc<str>) -> Self {
        Self {
            name,
            uid: None,
            namespace: None,
            workload: None,
            node,
            result: None,
            reasons: Vec::new(),
            verdict: None,
            lanes: Vec::new(),
            hooks: Vec::new(),
            peers: Vec::new(),
            connections: Vec::new(),
            marks: Vec::new(),
            endpoints: Vec::new(),
            span: (Mono::MAX, 0),
            began: None,
            exited: None,
            time: Timestamp(0),
            mono_ns: 0,
        }
    }

    /// Certain and likely losses.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.verdict.as_ref().map_or(0, |verdict| verdict.lost)
    }

    /// Possible losses.
    #[must_use]
    pub fn doubts(&self) -> u64 {
        self.verdict.as_ref().map_or(0, |verdict| verdict.doubts)
    }

    /// From the termination's begin to the exit, in nanoseconds.
    #[must_use]
    pub fn took(&self) -> Option<Mono> {
        Some(self.exited?.saturating_sub(self.began?))
    }

    /// What the termination began with, and when.
    #[must_use]
    pub fn first_phase(&self) -> Option<(&str, Mono)> {
        let began = self.began?;
        let phases = self.lanes.iter().flat_map(|lane| &lane.phases);
        let mut at = phases.filter(|(phase, time, _)| *phase != Phase::Running && *time == began);
        at.next().map(|(_, time, name)| (name.as_str(), *time))
    }

    /// Wall time of a moment.
    #[must_use]
    pub fn wall(&self, time: Mono) -> Timestamp {
        let since = time.cast_signed().saturating_sub(self.mono_ns.cast_signed());
        Timestamp(self.time.0.saturating_add(since))
    }

    /// From the last arrival to the exit, in nanoseconds; negative if traffic came after it.
    #[must_use]
    pub fn quiet_ns(&self) -> Option<i64> {
        self.verdict.as_ref().and_then(|verdict| verdict.traffic.quiet_ns)
    }
}

impl Lane {
    /// A container of which nothing was heard but its name.
    pub(super) fn unheard(name: String) -> Self {
        Self { name, phases: Vec::new(), status: None, cause: None }
    }
}

impl Loss {
    /// Certain or likely.
    #[must_use]
    pub fn is_sure(self) -> bool {
        self.confidence >= Some(Confidence::Likely)
    }
}
