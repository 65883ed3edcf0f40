//! One target: its containers, its ledger, its books, and what each event means to them.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
};

use crate::{
    books::{Reading, Received, balance},
    connection::{Connection, Moment},
    event::{
        Exit, ExitStatus, Gone, Mono, Oom, ResetReceived, ResetSent, Signal, StateChange, TcpState, Tuple,
    },
    findings::{Case, Exhibits, Finding, Suspect, find},
    input::{Network, NewContainer, NewTarget},
    jiffies::Jiffies,
    ledger::{Ledger, Newcomer, SETTLE, Told},
    lifecycle::{Lifecycle, PhaseStart, Source},
    output::{
        Body, ConnectionEnd, ConnectionEvent, Container as ContainerName, ExitEvent, Network as NetworkEvent,
        PhaseEvent, Process, ResetEvent, SignalEvent, SignalName, Status, Subject,
    },
    verdict::{
        Connections, ContainerSummary, Evidence, Gap, PhaseSummary, TrafficSummary, Verdict, decide,
        list_losses, list_peers, totals,
    },
    words::{Direction, Hop, Judgement, Origin, Phase, Role},
};

/// What the whole run has in common.
#[derive(Clone, Debug)]
pub struct Rules {
    /// How long traffic must have stopped before the exit, in nanoseconds.
    pub quiet: Mono,
    /// Names of the kernel's reset reasons.
    pub reset_reasons: HashMap<i32, Arc<str>>,
}

/// A container of a target.
#[derive(Debug)]
struct Container {
    name: Arc<str>,
    pid: u32,
    pidns: Option<u32>,
    cgroup: Option<u64>,
    lifecycle: Lifecycle,
    /// The last process exit seen in it: by then its sockets are not all closed.
    gone: bool,
}

/// See the module. Bodies of events go to `out` with their times.
#[derive(Debug)]
pub struct Target {
    /// How it is named in events.
    pub subject: Arc<Subject>,
    addresses: Vec<IpAddr>,
    checkers: Vec<Network>,
    one_way: Vec<u16>,
    late: bool,
    shared_network: bool,
    containers: Vec<Container>,
    /// Which container listened last on a port.
    listeners: HashMap<u16, u32>,
    ledger: Ledger,
    first: Option<Reading>,
    last: Option<Reading>,
    decoded: u64,
    exhibits: Exhibits,
    /// Resets to SYNs, until it is known whether the kubelet sent them.
    refused: VecDeque<(Mono, ResetSent, Moment)>,
    /// Number of the first line about it.
    pub first_seq: Option<u64>,
}

/// Writes an event, by its time and body; tells the number of its line.
pub type Emit<'a> = dyn FnMut(Mono, Body) -> u64 + 'a;

impl Target {
    /// A target that comes into scope.
    #[must_use]
    pub fn new(target: NewTarget) -> Self {
        Self {
            subject: target.subject,
            addresses: target.addresses,
            checkers: target.checkers,
            one_way: target.one_way,
            late: target.late,
            shared_network: target.shared_network,
            containers: Vec::new(),
            listeners: HashMap::new(),
            ledger: Ledger::default(),
            first: None,
            last: None,
            decoded: 0,
            exhibits: Exhibits::default(),
            refused: VecDeque::new(),
            first_seq: None,
        }
    }

    /// A container of it starts or is found.
    pub fn add_container(&mut self, new: NewContainer, emit: &mut Emit<'_>) {
        let lifecycle = Lifecycle::new(new.time, Source::Host);
        let running = lifecycle.starts().first().copied();
        self.containers.push(Container {
            name: new.name,
            pid: new.pid,
            pidns: new.pidns,
            cgroup: new.cgroup,
            lifecycle,
            gone: false,
        });
        let index = (self.containers.len() - 1) as u32;
        self.tell_phase(index, running, emit);
    }

    /// The books' two sides.
    pub fn read_counters(&mut self, reading: Reading) {
        self.first.get_or_insert(reading);
        self.last = Some(reading);
    }

    /// A record of it was decoded.
    pub fn count_record(&mut self) {
        self.decoded += 1;
    }

    // ---- phases ----

    /// Deletion is known, or a preStop hook starts: of one container, or of all.
    pub fn pre_stop(&mut self, container: Option<u32>, time: Mono, source: Source, emit: &mut Emit<'_>) {
        for index in 0..self.containers.len() as u32 {
            if container.is_none_or(|only| only == index) {
                let start = self.containers[index as usize].lifecycle.pre_stop(time, source);
                self.tell_phase(index, start, emit);
            }
        }
    }

    /// A signal reached the init of a container.
    pub fn signal(&mut self, time: Mono, signal: &Signal, emit: &mut Emit<'_>) {
        let Some(container) = self.containers.get_mut(signal.container as usize) else { return };
        let inside = container.is_inside(signal);
        let start = if inside { None } else { container.lifecycle.signal(time, signal) };
        self.tell_phase(signal.container, start, emit);
        let container = &self.containers[signal.container as usize];
        emit(
            time,
            Body::Signal(SignalEvent {
                container: container.named(),
                phase: container.lifecycle.phase(),
                signal: SignalName::new(signal.signal),
                sender: process(signal.sender.pid, signal.sender.comm),
                inside,
                ignored: signal.ignored,
            }),
        );
    }

    /// The out-of-memory killer chose the init of a container.
    pub fn oom(&mut self, time: Mono, oom: &Oom, emit: &mut Emit<'_>) {
        let Some(container) = self.containers.get_mut(oom.container as usize) else { return };
        let start = container.lifecycle.oom(time);
        self.tell_phase(oom.container, start, emit);
    }

    /// A process exited.
    pub fn exit(&mut self, time: Mono, exit: &Exit, emit: &mut Emit<'_>) {
        let container = exit.init_of.or_else(|| self.container_of_cgroup(exit.task.cgroup));
        if let Some(index) = exit.init_of
            && let Some(container) = self.containers.get_mut(index as usize)
        {
            let start = container.lifecycle.exiting(time, exit.status);
            self.tell_phase(index, start, emit);
        }
        emit(
            time,
            Body::Exit(ExitEvent {
                container: container
                    .and_then(|index| self.containers.get(index as usize))
                    .map(Container::named),
                process: process(exit.task.pid, exit.task.comm),
                init: exit.init_of.is_some(),
                status: status(exit.status),
            }),
        );
    }

    /// The init of a container told its parent of its end. Alone in its pid namespace it took all
    /// else with it; without one, others may live on until the host finds that they are gone.
    pub fn init_gone(&mut self, time: Mono, gone: &Gone, emit: &mut Emit<'_>) {
        let Some(container) = self.containers.get(gone.container as usize) else { return };
        if container.pidns.is_some() || container.cgroup.is_none() {
            self.container_gone(gone.container, time, Source::Kernel, emit);
        }
    }

    /// Nothing of a container is left.
    pub fn container_gone(&mut self, index: u32, time: Mono, source: Source, emit: &mut Emit<'_>) {
        let Some(container) = self.containers.get_mut(index as usize) else { return };
        container.gone = true;
        let start = container.lifecycle.gone(time, source);
        self.tell_phase(index, start, emit);
    }

    fn tell_phase(&mut self, index: u32, start: Option<PhaseStart>, emit: &mut Emit<'_>) {
        let (Some(start), Some(container)) = (start, self.containers.get(index as usize)) else { return };
        let seq = emit(
            start.time,
            Body::Phase(PhaseEvent {
                container: container.named(),
                phase: start.phase,
                source: start.source,
                signal: start.signal.map(SignalName::new),
                ignored: start.ignored,
                cause: container.lifecycle.cause(),
            }),
        );
        self.exhibits.phase(index, start.phase, seq);
    }

    // ---- connections ----

    /// A socket changed its state.
    pub fn state(&mut self, time: Mono, change: &StateChange, jiffies: &Jiffies, emit: &mut Emit<'_>) {
        let container = self.container_of(change.socket.cgroup, change.tuple.local_port);
        if change.old == TcpState::Listen && change.new == TcpState::Close {
            return;
        }
        if change.new == TcpState::Listen {
            self.listeners.insert(change.tuple.local_port, container);
            return;
        }
        let moment = self.moment(container);
        let origin = self.origin(&change.tuple);
        let newcomer = |change: &StateChange| Newcomer {
            role: role(change, &self.listeners),
            origin,
            hop: hop(&self.addresses, &change.tuple),
            one_way: self.one_way.contains(&change.tuple.local_port),
        };
        let last_receive = jiffies.time_of(time, change.socket.jiffies, change.socket.last_receive);
        let mut teller =
            Teller { containers: &self.containers, exhibits: &mut self.exhibits, now: time, emit };
        self.ledger.change(time, change, moment, last_receive, newcomer, &mut |connection, told| {
            teller.tell(connection, told);
        });
    }

    /// The kubelet made a connection, as the pod sees it.
    pub fn probe(&mut self, time: Mono, tuple: Tuple) {
        self.ledger.probe(time, tuple);
    }

    /// A reset was sent.
    pub fn reset_sent(&mut self, time: Mono, reset: &ResetSent, rules: &Rules, emit: &mut Emit<'_>) {
        let container = self.container_of(reset.socket.cgroup, reset.tuple.local_port);
        let moment = self.moment(container);
        if reset.segment.is_some_and(|segment| segment.is_syn()) {
            self.refused.push_back((time, *reset, moment));
        } else {
            self.judge_reset(time, reset, moment, rules, emit);
        }
    }

    fn judge_reset(
        &mut self,
        time: Mono,
        reset: &ResetSent,
        moment: Moment,
        rules: &Rules,
        emit: &mut Emit<'_>,
    ) {
        let stranger = Newcomer {
            role: Role::Server,
            origin: self.origin(&reset.tuple),
            hop: hop(&self.addresses, &reset.tuple),
            one_way: false,
        };
        let mut teller =
            Teller { containers: &self.containers, exhibits: &mut self.exhibits, now: time, emit };
        let meaning = self.ledger.reset_sent(time, reset, moment, stranger, &mut |connection, told| {
            teller.tell(connection, told);
        });
        let body = ResetEvent {
            container: named(&self.containers, meaning.moment.container),
            phase: meaning.moment.phase,
            cause: meaning.moment.cause,
            direction: Direction::Sent,
            reason: reset.reason.and_then(|reason| rules.reset_reasons.get(&reason).cloned()),
            segment: reset.segment.map(|segment| segment.class),
            network: NetworkEvent::from(&reset.tuple),
            role: meaning.role,
            origin: meaning.origin,
            hop: stranger.hop,
            ending: meaning.judgement.map(|judgement| judgement.ending),
            confidence: meaning.judgement.and_then(|judgement| judgement.confidence),
        };
        let seq = emit(time, Body::Reset(body));
        if let Some(Judgement { ending, confidence: Some(_) }) = meaning.judgement {
            self.exhibits.loss(meaning.moment.container, ending, seq);
        }
    }

    /// A reset was received.
    pub fn reset_received(&mut self, time: Mono, reset: &ResetReceived, emit: &mut Emit<'_>) {
        let container = self.container_of(reset.socket.cgroup, reset.tuple.local_port);
        let moment = self.moment(container);
        let (role, origin) = self.ledger.reset_received(reset).unwrap_or((Role::Unknown, Origin::Peer));
        let body = ResetEvent {
            container: named(&self.containers, container),
            phase: moment.phase,
            cause: moment.cause,
            direction: Direction::Received,
            reason: None,
            segment: None,
            network: NetworkEvent::from(&reset.tuple),
            role,
            origin,
            hop: hop(&self.addresses, &reset.tuple),
            ending: None,
            confidence: None,
        };
        emit(time, Body::Reset(body));
    }

    fn origin(&self, tuple: &Tuple) -> Origin {
        if self.ledger.is_probe(tuple) {
            Origin::KubeletProbe
        } else if self.checkers.iter().any(|network| network.contains(tuple.peer_ip())) {
            Origin::Checker
        } else {
            Origin::Peer
        }
    }

    fn judge_refused(&mut self, until: Mono, rules: &Rules, emit: &mut Emit<'_>) {
        while let Some((time, reset, moment)) = self.refused.pop_front_if(|(time, ..)| *time <= until) {
            self.judge_reset(time, &reset, moment, rules, emit);
        }
    }

    /// Judges what has settled.
    pub fn tick(&mut self, now: Mono, rules: &Rules, emit: &mut Emit<'_>) {
        self.judge_refused(now.saturating_sub(SETTLE), rules, emit);
        let mut teller = Teller { containers: &self.containers, exhibits: &mut self.exhibits, now, emit };
        self.ledger.tick(now, &mut |connection, told| teller.tell(connection, told));
    }

    /// The container whose cgroup it is; else the one that listened last on the port; else the first.
    fn container_of(&self, cgroup: u64, port: u16) -> u32 {
        self.container_of_cgroup(cgroup).or_else(|| self.listeners.get(&port).copied()).unwrap_or(0)
    }

    fn container_of_cgroup(&self, cgroup: u64) -> Option<u32> {
        let is_it = |container: &Container| cgroup != 0 && container.cgroup == Some(cgroup);
        self.containers.iter().rposition(is_it).map(|index| index as u32)
    }

    fn moment(&self, container: u32) -> Moment {
        let lifecycle = self.containers.get(container as usize).map(|container| &container.lifecycle);
        let phase = lifecycle.map_or(Phase::Running, Lifecycle::phase);
        Moment { container, phase, cause: lifecycle.and_then(Lifecycle::cause) }
    }

    // ---- the end ----

    /// Whether nothing is left of any container.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        !self.containers.is_empty() && self.containers.iter().all(|container| container.gone)
    }

    /// Judges all that is left, and decides.
    pub fn finish(&mut self, now: Mono, interface_gone: bool, rules: &Rules, emit: &mut Emit<'_>) {
        self.judge_refused(Mono::MAX, rules, emit);
        let mut teller = Teller { containers: &self.containers, exhibits: &mut self.exhibits, now, emit };
        self.ledger.finish(now, interface_gone, &mut |connection, told| teller.tell(connection, told));
    }

    /// The verdict, after [`finish`](Self::finish). `last_seq` is the last line before it.
    #[must_use]
    pub fn verdict(&self, rules: &Rules, last_seq: u64) -> Verdict {
        let books = self.balance();
        let gaps = self.gaps(&books);
        let traffic = self.traffic();
        let (result, reasons) = decide(&self.ledger, &gaps, traffic.quiet_ns, rules.quiet);
        let (lost, doubts) = totals(&self.ledger);
        Verdict {
            result,
            reasons,
            doubts,
            lost,
            losses: list_losses(&self.ledger, |container| named(&self.containers, container).name),
            connections: Connections::of(self.ledger.census(), self.ledger.open() as u64),
            traffic,
            containers: self.containers.iter().map(Container::summary).collect(),
            findings: self.findings(),
            peers: list_peers(&self.ledger),
            books,
            evidence: Evidence { first_seq: self.first_seq.unwrap_or(last_seq), last_seq },
        }
    }

    fn findings(&self) -> Vec<Finding> {
        let containers = self.containers.iter().enumerate().map(|(index, container)| Suspect {
            index: index as u32,
            name: &container.name,
            lifecycle: &container.lifecycle,
        });
        find(&Case { containers: containers.collect(), ledger: &self.ledger, exhibits: &self.exhibits })
    }

    fn balance(&self) -> Vec<crate::books::Book> {
        let (Some(first), Some(last)) = (&self.first, &self.last) else { return Vec::new() };
        let census = self.ledger.census();
        let received = Received {
            decoded: self.decoded,
            connections_begun: census.opened + census.found,
            connections_ended: census.ended,
            connections_open: self.ledger.open() as u64,
        };
        balance(first, last, &received)
    }

    fn gaps(&self, books: &[crate::books::Book]) -> Vec<Gap> {
        let mut gaps = Vec::new();
        if self.shared_network {
            gaps.push(Gap::SharedNetwork);
        }
        let (first, last) = (self.first.unwrap_or_default(), self.last.unwrap_or_default());
        if !self.shared_network && (first.totals.is_none() || last.totals.is_none()) {
            gaps.push(Gap::NoTotals);
        }
        gaps.extend(books.iter().filter(|book| !book.balanced).map(|book| Gap::Unbalanced {
            book: book.name.clone(),
            kernel: book.kernel,
            events: book.events,
        }));
        let lost: u64 = last.counters.since(first.counters).records_lost.iter().sum();
        if lost > 0 {
            gaps.push(Gap::RecordsLost(lost));
        }
        let missed = last.missed.saturating_sub(first.missed);
        if missed > 0 && gaps.iter().any(|gap| matches!(gap, Gap::Unbalanced { .. })) {
            gaps.push(Gap::Missed(missed));
        }
        if self.late {
            gaps.push(Gap::Late);
        }
        if !self.containers.is_empty() && self.exited_at().is_none() {
            gaps.push(Gap::NoExit);
        }
        gaps
    }

    /// The exit of the last container to exit, if all did.
    fn exited_at(&self) -> Option<Mono> {
        let mut exits =
            self.containers.iter().map(|container| container.lifecycle.exit().map(|(time, _)| time));
        exits.try_fold(0, |latest, exit| Some(latest.max(exit?))).filter(|_| !self.containers.is_empty())
    }

    fn traffic(&self) -> TrafficSummary {
        let traffic = self.ledger.traffic();
        let quiet =
            |exit: Mono| traffic.last_arrival().map(|arrival| exit.cast_signed() - arrival.cast_signed());
        TrafficSummary {
            last_connection_mono_ns: traffic.last_connection,
            last_data_mono_ns: traffic.last_data,
            quiet_ns: self.exited_at().and_then(quiet),
        }
    }

    /// Whether a verdict would be `cut`.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        totals(&self.ledger).0 > 0
    }
}

impl Container {
    fn named(&self) -> ContainerName {
        ContainerName { name: self.name.clone() }
    }

    /// A signal from its own pid namespace or cgroup is no act of the runtime.
    fn is_inside(&self, signal: &Signal) -> bool {
        signal.sender.pid == self.pid
            || self.pidns.is_some_and(|pidns| pidns == signal.sender.pidns)
            || self.cgroup.is_some_and(|cgroup| cgroup == signal.sender.cgroup)
    }

    fn summary(&self) -> ContainerSummary {
        ContainerSummary {
            name: self.name.clone(),
            phases: self.lifecycle.starts().iter().map(phase_summary).collect(),
            status: self.lifecycle.exit().map(|(_, exit)| status(exit)),
            cause: self.lifecycle.cause(),
        }
    }
}

fn phase_summary(start: &PhaseStart) -> PhaseSummary {
    PhaseSummary {
        phase: start.phase,
        mono_ns: start.time,
        source: start.source,
        signal: start.signal.map(SignalName::new),
        ignored: start.ignored,
    }
}

fn named(containers: &[Container], index: u32) -> ContainerName {
    containers.get(index as usize).map_or_else(|| ContainerName { name: "".into() }, Container::named)
}

fn process(pid: u32, comm: crate::event::Comm) -> Process {
    Process { pid, command: comm.to_string() }
}

fn status(status: ExitStatus) -> Status {
    match status {
        ExitStatus::Code(code) => Status { exit_code: Some(code), killed_by: None },
        ExitStatus::Signal(signal) => {
            Status { exit_code: None, killed_by: Some(SignalName::new(signal.into())) }
        }
    }
}

fn role(change: &StateChange, listeners: &HashMap<u16, u32>) -> Role {
    match (change.old, change.new) {
        (TcpState::Listen | TcpState::Close, TcpState::SynRecv) | (TcpState::SynRecv, _) => Role::Server,
        (TcpState::Close, TcpState::SynSent) | (TcpState::SynSent, _) => Role::Client,
        _ if listeners.contains_key(&change.tuple.local_port) => Role::Server,
        _ => Role::Unknown,
    }
}

fn hop(addresses: &[IpAddr], tuple: &Tuple) -> Hop {
    let peer = tuple.peer_ip();
    if peer.is_loopback() || tuple.local == tuple.peer || addresses.contains(&peer) {
        Hop::Loopback
    } else {
        Hop::External
    }
}

/// Writes what the ledger tells of connections.
struct Teller<'a, 'b> {
    containers: &'a [Container],
    exhibits: &'a mut Exhibits,
    now: Mono,
    emit: &'a mut Emit<'b>,
}

impl Teller<'_, '_> {
    fn tell(&mut self, connection: &Connection, told: Told) {
        match told {
            Told::Opened => {
                let event = self.event(connection, connection.moment, None);
                (self.emit)(self.now, Body::ConnectionOpened(event));
            }
            Told::Closed(judgement) => {
                let end = ConnectionEnd {
                    ending: judgement.ending,
                    confidence: judgement.confidence,
                    closed_by: connection.close.map(|close| close.by),
                    delivered: connection.delivered(),
                    bytes_received: connection.socket.bytes_received,
                    bytes_acked: connection.socket.bytes_acked,
                };
                let moment = connection.moment_of_end();
                let time = connection.close.map_or(self.now, |close| close.time);
                let event = self.event(connection, moment, Some(end));
                let seq = (self.emit)(time, Body::ConnectionClosed(event));
                if judgement.confidence.is_some() {
                    self.exhibits.loss(moment.container, judgement.ending, seq);
                }
            }
        }
    }

    fn event(&self, connection: &Connection, moment: Moment, end: Option<ConnectionEnd>) -> ConnectionEvent {
        ConnectionEvent {
            container: named(self.containers, moment.container),
            phase: moment.phase,
            cause: moment.cause,
            network: NetworkEvent::from(&connection.tuple),
            role: connection.role,
            origin: connection.origin,
            hop: connection.hop,
            opened_mono_ns: connection.opened,
            end,
        }
    }
}
