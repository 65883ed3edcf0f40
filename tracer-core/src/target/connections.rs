//! A target's connections: state changes, resets, and what is told of them.

use std::net::IpAddr;

use super::{
    Emit, Rules, Target,
    container::{Container, named},
    teller::Teller,
};
use crate::{
    connection::{FAREWELL, Moment},
    event::{Mono, ResetReceived, ResetSent, StateChange, TcpState, Tuple},
    input::Network,
    jiffies::Jiffies,
    ledger::{LastData, Ledger, Newcomer, SETTLE},
    lifecycle::Lifecycle,
    losses::LossKey,
    output::{Body, Network as NetworkEvent, ResetEvent},
    tables::Table,
    words::{Direction, Hop, Judgement, Origin, Phase, Role},
};

impl Target {
    /// A socket changed its state.
    pub fn state(&mut self, time: Mono, change: &StateChange, jiffies: &Jiffies, emit: &mut Emit<'_>) {
        let container = self.container_of(change.socket.cgroup, change.tuple.local_port);
        if change.old == TcpState::Listen && change.new == TcpState::Close {
            self.listeners.entry(change.tuple.local_port).or_insert(container);
            return;
        }
        if change.new == TcpState::Listen {
            self.listeners.insert(change.tuple.local_port, container);
            return;
        }
        let moment = self.moment(container);
        let newcomer = |ledger: &Ledger, change: &StateChange| Newcomer {
            role: role(change, &self.listeners),
            origin: origin(ledger, &self.checkers, &change.tuple),
            hop: hop(&self.addresses, &change.tuple),
            one_way: self.one_way.contains(&change.tuple.local_port),
        };
        let last = LastData {
            received: last_data(time, change, jiffies),
            sent: jiffies.time_of(time, change.socket.jiffies, change.socket.last_send),
        };
        let mut teller =
            Teller { containers: &self.containers, exhibits: &mut self.exhibits, now: time, emit };
        self.ledger.change(time, change, moment, last, newcomer, &mut |connection, told| {
            teller.tell(connection, told);
        });
    }

    /// What existed when tracing began.
    pub fn existing(
        &mut self,
        time: Mono,
        listening: &[u16],
        connections: &[(Tuple, TcpState)],
        udp_sockets: u64,
        emit: &mut Emit<'_>,
    ) {
        self.udp_sockets = self.udp_sockets.max(udp_sockets);
        for port in listening {
            self.listeners.entry(*port).or_insert(0);
        }
        let known = self.ledger.known_tuples();
        for (tuple, state) in connections.iter().filter(|(tuple, _)| !known.contains(tuple)) {
            let newcomer = Newcomer {
                role: if self.listeners.contains_key(&tuple.local_port) {
                    Role::Server
                } else {
                    Role::Client
                },
                origin: self.origin(tuple),
                hop: hop(&self.addresses, tuple),
                one_way: self.one_way.contains(&tuple.local_port),
            };
            let moment = self.moment(self.container_of(0, tuple.local_port));
            let mut teller =
                Teller { containers: &self.containers, exhibits: &mut self.exhibits, now: time, emit };
            self.ledger.found(*tuple, *state, moment, newcomer, &mut |connection, told| {
                teller.tell(connection, told);
            });
        }
    }

    /// Whether it is reached by this address, as far as its addresses are known: a pod that was found
    /// before its network was set up has but its loopback's.
    #[must_use]
    pub fn has_address(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address) || self.addresses.iter().all(IpAddr::is_loopback)
    }

    /// Whether it shares its network namespace and listened on a port there.
    #[must_use]
    pub fn listened_in_shared(&self, port: u16) -> bool {
        self.shared_network && self.listeners.contains_key(&port)
    }

    /// The kubelet made a connection, as the pod sees it.
    pub fn probe(&mut self, time: Mono, tuple: Tuple) {
        self.ledger.probe(time, tuple);
    }

    /// A reset was sent.
    pub fn reset_sent(&mut self, time: Mono, reset: &ResetSent, rules: &Rules, emit: &mut Emit<'_>) {
        let container = self.container_of(reset.socket.cgroup, reset.tuple.local_port);
        let moment = self.moment(container);
        self.count_told(reset);
        self.answers_v6 += u64::from(reset.segment.is_some() && reset.tuple.peer_ip().is_ipv6());
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
        if let Some(Judgement { ending, confidence: Some(confidence) }) = meaning.judgement {
            self.exhibits
                .loss(LossKey { ending, moment: meaning.moment, hop: stranger.hop, confidence }, seq);
        }
    }

    /// A reset was received.
    pub fn reset_received(&mut self, time: Mono, reset: &ResetReceived, emit: &mut Emit<'_>) {
        let container = self.container_of(reset.socket.cgroup, reset.tuple.local_port);
        let moment = self.moment(container);
        let mut teller =
            Teller { containers: &self.containers, exhibits: &mut self.exhibits, now: time, emit };
        let known = self.ledger.reset_received(time, reset, &mut |connection, told| {
            teller.tell(connection, told);
        });
        let (role, origin) = known.unwrap_or((Role::Unknown, Origin::Peer));
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

    /// Judges all that is left, and decides.
    pub fn finish(&mut self, now: Mono, interface_gone: bool, rules: &Rules, emit: &mut Emit<'_>) {
        self.judge_refused(Mono::MAX, rules, emit);
        self.tell_guests_left(now, emit);
        let mut teller = Teller { containers: &self.containers, exhibits: &mut self.exhibits, now, emit };
        self.ledger.finish(now, interface_gone, &mut |connection, told| teller.tell(connection, told));
    }

    fn origin(&self, tuple: &Tuple) -> Origin {
        origin(&self.ledger, &self.checkers, tuple)
    }

    fn judge_refused(&mut self, until: Mono, rules: &Rules, emit: &mut Emit<'_>) {
        while let Some((time, reset, moment)) = self.refused.front().copied()
            && time <= until
        {
            self.refused.pop_front();
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
    pub(super) fn container_of(&self, cgroup: u64, port: u16) -> u32 {
        self.container_of_cgroup(cgroup).or_else(|| self.listeners.get(&port).copied()).unwrap_or(0)
    }

    pub(super) fn container_of_cgroup(&self, cgroup: u64) -> Option<u32> {
        let is_it = |container: &Container| cgroup != 0 && container.cgroup == Some(cgroup);
        self.containers.iter().rposition(is_it).map(|index| index as u32)
    }

    pub(super) fn moment(&self, container: u32) -> Moment {
        let lifecycle = self.containers.get(container as usize).map(|container| &container.lifecycle);
        let phase = lifecycle.map_or(Phase::Running, Lifecycle::phase);
        Moment { container, phase, cause: lifecycle.and_then(Lifecycle::cause) }
    }
}

fn origin(ledger: &Ledger, checkers: &[Network], tuple: &Tuple) -> Origin {
    if ledger.is_probe(tuple) {
        Origin::KubeletProbe
    } else if checkers.iter().any(|network| network.contains(tuple.peer_ip())) {
        Origin::Checker
    } else {
        Origin::Peer
    }
}

fn role(change: &StateChange, listeners: &Table<u16, u32>) -> Role {
    match (change.old, change.new) {
        (TcpState::Listen | TcpState::Close, TcpState::SynRecv) | (TcpState::SynRecv, _) => Role::Server,
        (TcpState::Close, TcpState::SynSent) | (TcpState::SynSent, _) => Role::Client,
        _ if listeners.contains_key(&change.tuple.local_port) => Role::Server,
        _ => Role::Unknown,
    }
}

/// When a request came last. What only the protocol needs, such as the farewell of a TLS client, is no
/// traffic, whether it was read by now or not; where the reads were not seen, or more was left unread, the
/// kernel's own time stamp tells.
fn last_data(time: Mono, change: &StateChange, jiffies: &Jiffies) -> Option<Mono> {
    // The peer's FIN counts 1.
    let all_read = u64::from(change.socket.unread) <= FAREWELL + 1;
    match &change.socket.exchange {
        Some(exchange) if all_read => Some(exchange.last_read_at).filter(|read| *read > 0),
        _ => Some(jiffies.time_of(time, change.socket.jiffies, change.socket.last_receive)),
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
