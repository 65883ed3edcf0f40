//! Events added up to a report.
//!
//! Connections are kept in a few words each, so that a million of them find room.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use tracer_core::{
    event::Mono,
    output::{
        Body, ConnectionEvent, Endpoint, EndpointEvent, ExitEvent, K8s, Line, LostEvent, Network, PhaseEvent,
        RehearsalEvent, ResetEvent, SignalName, Subject,
    },
    verdict::{PhaseSummary, Verdict},
    words::{Ending, Hop, Origin, Phase, Result, Role},
};

use super::{
    model::{Connection, Endpoints, Lane, Loss, Mark, Pod, Report, Run, Whose},
    read::Counts,
};
use crate::sink::names;

/// Makes a report of events.
#[derive(Debug, Default)]
pub struct Fold {
    report: Report,
    runs: HashMap<Arc<str>, usize>,
    /// Pods whose lines still come.
    open: HashMap<Key, Open>,
}

/// The run, the network namespace, and the pod's uid or the target's name: a pod's name may be learned later.
type Key = (Arc<str>, u64, String);

/// A pod, and where to find its peers and connections.
#[derive(Debug, Default)]
struct Open {
    at: usize,
    peers: HashMap<IpAddr, u32>,
    connections: HashMap<Tuple, usize>,
    /// Connections that the pod was opening before the kernel had chosen their own port: by the peer's place
    /// and port, and the time.
    unbound: HashMap<(u32, u16, Mono), usize>,
}

/// Both addresses by their place, both ports.
type Tuple = (u32, u32, u16, u16);

impl Fold {
    /// Takes an event. Those of a run must come in their order.
    pub fn take(&mut self, line: &Line) {
        let run = self.run(line);
        match (&line.body, line.subject.as_deref()) {
            (Body::AgentStarted(started), _) => {
                run.version = Some((started.version.clone(), started.kernel.clone()));
            }
            (Body::Lost(lost), None) => run.lost.push(lost_text(lost)),
            (Body::Rehearsal(event), _) => self.report.facts.push(clients_text(event)),
            (_, None) => {}
            (body, Some(subject)) => self.of_pod(line, subject, body),
        }
    }

    /// All that was taken; `counts` tells what could not be.
    #[must_use]
    pub fn finish(mut self, title: String, counts: Counts) -> Report {
        // Of a recording that breaks off nobody knows what came then.
        let broken = !counts.broken.is_empty();
        for pod in &mut self.report.pods {
            if pod.result.is_none() && pod.reasons.is_empty() && (pod.began.is_some() || broken) {
                pod.result = Some(Result::Unproven);
                pod.reasons.push("its verdict is not in the recording".to_owned());
            }
        }
        Report { title, counts, ..self.report }
    }

    fn run(&mut self, line: &Line) -> &mut Run {
        let report = &mut self.report;
        let at = *self.runs.entry(Arc::clone(&line.agent.run_id)).or_insert_with(|| {
            report.runs.push(Run {
                id: Arc::clone(&line.agent.run_id),
                node: Arc::clone(&line.node),
                version: None,
                lost: Vec::new(),
                began: line.time,
            });
            report.runs.len() - 1
        });
        &mut self.report.runs[at]
    }

    fn of_pod(&mut self, line: &Line, subject: &Subject, body: &Body) {
        let name_or_uid = subject.k8s.as_ref().map_or(&subject.target.name, |k8s| &k8s.pod.uid);
        let key = (Arc::clone(&line.agent.run_id), subject.target.netns, name_or_uid.clone());
        let report = &mut self.report;
        let open = self.open.entry(key.clone()).or_insert_with(|| {
            let mut pod = Pod::unheard(subject.target.name.clone(), Arc::clone(&line.node));
            (pod.time, pod.mono_ns) = (line.time, line.mono_ns);
            report.pods.push(pod);
            Open { at: report.pods.len() - 1, ..Open::default() }
        });
        let pod = &mut report.pods[open.at];
        if let Some(k8s) = &subject.k8s {
            name(pod, k8s);
        }
        open.take(pod, line.mono_ns, body);
        if matches!(body, Body::Verdict(_) | Body::TargetEnded(_)) {
            self.open.remove(&key);
        }
    }
}

/// What Kubernetes calls it, once the API told it.
fn name(pod: &mut Pod, k8s: &K8s) {
    if let Some(name) = k8s.pod.name.as_ref().filter(|name| **name != pod.name) {
        pod.name.clone_from(name);
    }
    if pod.uid.is_none() {
        pod.uid = Some(k8s.pod.uid.clone());
    }
    if pod.namespace.is_none() {
        pod.namespace = k8s.namespace.as_ref().map(|namespace| namespace.name.clone());
    }
    if pod.workload.is_none() {
        let owners = [
            ("deployment", &k8s.deployment),
            ("statefulset", &k8s.statefulset),
            ("daemonset", &k8s.daemonset),
            ("job", &k8s.job),
        ];
        let mut owners = owners.into_iter().filter_map(|(kind, owner)| Some((kind, owner.as_ref()?)));
        pod.workload = owners.next().map(|(kind, owner)| format!("{kind}/{}", owner.name));
    }
}

impl Open {
    fn take(&mut self, pod: &mut Pod, time: Mono, body: &Body) {
        let drawn = match body {
            Body::Phase(_) | Body::Reset(_) => true,
            Body::ConnectionOpened(event) | Body::ConnectionClosed(event) => whose(event) == Whose::Client,
            _ => false,
        };
        pod.span = (pod.span.0.min(time), if drawn { pod.span.1.max(time) } else { pod.span.1 });
        match body {
            Body::Phase(event) => phase(pod, time, event),
            Body::Exit(event) => exit(pod, event),
            Body::HookRun(event) => pod.hooks.push(event.clone()),
            Body::ConnectionOpened(event) => self.opened(pod, time, event),
            Body::ConnectionClosed(event) => self.closed(pod, time, event),
            Body::Reset(event) => self.reset(pod, time, event),
            Body::Endpoint(event) => {
                pod.endpoints.push(Endpoints { time, text: endpoint_text(event) });
            }
            Body::Lost(event) => pod.reasons.push(lost_text(event)),
            Body::Verdict(verdict) => judged(pod, verdict),
            Body::TargetEnded(event) => pod.reasons.push(event.reason.clone()),
            Body::AgentStarted(_) | Body::TargetStarted(_) | Body::Signal(_) | Body::Rehearsal(_) => {}
        }
    }

    fn tuple(&mut self, pod: &mut Pod, network: &Network) -> Tuple {
        let mut place = |end: Endpoint| {
            *self.peers.entry(end.address).or_insert_with(|| {
                pod.peers.push(end.address);
                u32::try_from(pod.peers.len() - 1).unwrap_or(u32::MAX)
            })
        };
        (place(network.peer), place(network.local), network.peer.port, network.local.port)
    }

    fn opened(&mut self, pod: &mut Pod, time: Mono, event: &ConnectionEvent) {
        let tuple = self.tuple(pod, &event.network);
        let (peer, _, peer_port, port) = tuple;
        let (at, from) = (pod.connections.len(), event.opened_mono_ns.unwrap_or(time));
        if port == 0 {
            self.unbound.insert((peer, peer_port, from), at);
        } else {
            self.connections.insert(tuple, at);
        }
        pod.connections.push(Connection {
            peer,
            peer_port,
            port,
            from,
            to: None,
            end: None,
            whose: whose(event),
            found: event.opened_mono_ns.is_none(),
            bytes: (0, 0),
        });
    }

    fn closed(&mut self, pod: &mut Pod, time: Mono, event: &ConnectionEvent) {
        let tuple = self.tuple(pod, &event.network);
        let (peer, _, peer_port, port) = tuple;
        let from = event.opened_mono_ns.unwrap_or(time);
        let still_open = |at: &usize| pod.connections[*at].to.is_none();
        let known = self.connections.get(&tuple).copied().filter(still_open);
        let known = known.or_else(|| self.unbound.remove(&(peer, peer_port, from)));
        let at = known.unwrap_or_else(|| {
            self.opened(pod, from, event);
            pod.connections.len() - 1
        });
        self.connections.insert(tuple, at);
        let connection = &mut pod.connections[at];
        connection.port = port;
        if let Some(end) = &event.end {
            connection.to = Some(time);
            connection.end = Some(Loss { ending: end.ending, confidence: end.confidence });
            connection.bytes = (end.bytes_received, end.bytes_acked);
        }
    }

    fn reset(&mut self, pod: &mut Pod, time: Mono, event: &ResetEvent) {
        let tuple = self.tuple(pod, &event.network);
        let end = event.ending.map(|ending| Loss { ending, confidence: event.confidence });
        // A surer ending than the close had: a request met the closed connection.
        if let Some(connection) = self.connections.get(&tuple).and_then(|at| pod.connections.get_mut(*at))
            && let (Some(before), Some(now)) = (connection.end, end)
            && now.confidence > before.confidence
            && now.ending != Ending::Refused
        {
            connection.end = Some(now);
        }
        let (peer, _, peer_port, port) = tuple;
        pod.marks.push(Mark {
            time,
            peer,
            peer_port,
            port,
            direction: event.direction,
            phase: event.phase,
            end,
            reason: event.reason.clone(),
        });
    }
}

fn phase(pod: &mut Pod, time: Mono, event: &PhaseEvent) {
    let name = phase_name(event.phase, event.signal.as_ref());
    if event.phase != Phase::Running {
        pod.began = Some(pod.began.map_or(time, |began| began.min(time)));
    }
    if event.phase == Phase::AfterExit {
        pod.exited = Some(time);
    }
    let begin = (event.phase, time, name);
    // One that runs again has a new lane: phases of a lane only go forward.
    let known = pod.lanes.iter().rposition(|lane| *lane.name == *event.container.name);
    match known.filter(|_| event.phase != Phase::Running) {
        Some(at) => pod.lanes[at].phases.push(begin),
        None => {
            pod.lanes.push(Lane { phases: vec![begin], ..Lane::unheard(event.container.name.to_string()) });
        }
    }
}

fn phase_name(phase: Phase, signal: Option<&SignalName>) -> String {
    names::phase(phase, signal.map(|signal| signal.name.as_str())).to_owned()
}

fn exit(pod: &mut Pod, event: &ExitEvent) {
    let Some(container) = event.container.as_ref().filter(|_| event.init) else { return };
    if let Some(lane) = pod.lanes.iter_mut().rev().find(|lane| *lane.name == *container.name) {
        lane.status = Some(event.status.clone());
    }
}

fn judged(pod: &mut Pod, verdict: &Verdict) {
    pod.result = Some(verdict.result);
    pod.reasons.splice(..0, verdict.reasons.iter().cloned());
    for container in &verdict.containers {
        let at = pod.lanes.iter().rposition(|lane| *lane.name == *container.name).unwrap_or_else(|| {
            pod.lanes.push(Lane::unheard(container.name.to_string()));
            pod.lanes.len() - 1
        });
        let lane = &mut pod.lanes[at];
        // A container runs for long, and a recording may begin after that.
        if lane.phases.len() < container.phases.len() {
            let begin = |start: &PhaseSummary| {
                (start.phase, start.mono_ns, phase_name(start.phase, start.signal.as_ref()))
            };
            lane.phases = container.phases.iter().map(begin).collect();
        }
        lane.status = lane.status.take().or_else(|| container.status.clone());
        lane.cause = container.cause;
    }
    let phases = || pod.lanes.iter().flat_map(|lane| &lane.phases);
    let ending = phases().filter(|(phase, ..)| *phase != Phase::Running);
    pod.began = pod.began.or(ending.map(|(_, time, _)| *time).min());
    let exits = phases().filter(|(phase, ..)| *phase == Phase::AfterExit);
    pod.exited = pod.exited.or(exits.map(|(_, time, _)| *time).max());
    pod.verdict = Some(verdict.clone());
}

fn whose(event: &ConnectionEvent) -> Whose {
    match (event.role, event.hop, event.origin) {
        (_, Hop::Loopback, _) => Whose::Inside,
        (_, _, Origin::Checker | Origin::KubeletProbe) => Whose::Checker,
        (Role::Server, ..) => Whose::Client,
        (Role::Client | Role::Unknown, ..) => Whose::Own,
    }
}

fn clients_text(event: &RehearsalEvent) -> String {
    let answered = names::count(event.answered, "request answered", "requests answered");
    let (failed, explained) = (event.failed, event.explained);
    let unseen = event.unseen_losses.len();
    format!(
        "The clients of the rehearsal saw {answered} and {failed} failed; {explained} of the failures have a loss on \
         their connection, and {unseen} losses were seen by no client."
    )
}

fn lost_text(event: &LostEvent) -> String {
    let what = if event.count == 1 { "record or line was" } else { "records or lines were" };
    let hook = event.hook.as_ref().map(|hook| format!(" at {hook}")).unwrap_or_default();
    format!("{} {what} lost ({}): {}{hook}", event.count, event.stage, event.reason)
}

fn endpoint_text(event: &EndpointEvent) -> String {
    let state = match (event.present, event.ready, event.terminating) {
        (false, ..) => "is gone",
        (_, true, _) => "is ready",
        (_, _, true) => "is terminating, not ready",
        _ => "is not ready",
    };
    format!("endpoint {} of {} {state}", event.address, event.service)
}
