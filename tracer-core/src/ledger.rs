//! All that is known of one target's connections: the live ones, those that ended a while ago, and
//! what their endings add up to.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::{
    connection::{Connection, Moment, after_close, worse},
    event::{Mono, ResetReceived, ResetSent, SegmentClass, Socket, SocketKind, StateChange, TcpState, Tuple},
    losses::{End, Losses},
    peers::Peers,
    words::{Confidence, Ending, Hop, Judgement, Origin, Role},
};

/// A reset by our own act follows its state change within the same system call, and the kubelet's side
/// of a refused probe its reset; this long after it a connection is judged without.
pub const SETTLE: Mono = 20_000_000;
/// TIME_WAIT (`TCP_TIMEWAIT_LEN`): how long a reset may still belong to a closed connection.
const REMEMBER: Mono = 60_000_000_000;
/// Closed connections remembered at most; beyond, the oldest are forgotten first.
const MAX_REMEMBERED: usize = 1 << 16;
/// A connection that was opened, found or closed, as told to the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It was opened, or found open.
    Opened,
    /// It ended.
    Closed(Judgement),
}

/// What a reset meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResetMeaning {
    /// What it means to the client; `None` while that is not yet known (the connection is live).
    pub judgement: Option<Judgement>,
    /// Where the container was.
    pub moment: Moment,
    /// Which side had opened the connection.
    pub role: Role,
    /// Who the peer is.
    pub origin: Origin,
}

/// A connection that ended.
#[derive(Debug)]
enum Ended {
    /// It may still get the reset that belongs to its end.
    Settling(Box<Connection>),
    /// It was judged.
    Judged { judgement: Judgement, moment: Moment, role: Role, origin: Origin, hop: Hop },
}

/// Connections in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Opened while traced.
    pub opened: u64,
    /// Found open.
    pub found: u64,
    /// Ended.
    pub ended: u64,
    /// Of these, opened by peers that are no health checkers, from outside the pod.
    pub from_peers: u64,
}

/// Traffic of clients that are no health checkers, over one kind of hop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Connections that clients opened, also those that were refused, and those found open.
    pub connections: u64,
    /// The last new connection.
    pub last_connection: Option<Mono>,
    /// When data was last received.
    pub last_data: Option<Mono>,
    /// When data was last sent.
    pub last_sent: Option<Mono>,
}

/// When data last moved on a connection, by the kernel's time stamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastData {
    /// When it was last received.
    pub received: Mono,
    /// When it was last sent.
    pub sent: Mono,
}

impl Traffic {
    /// The last arrival of either kind.
    #[must_use]
    pub fn last_arrival(&self) -> Option<Mono> {
        self.last_connection.max(self.last_data)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Ledger {
    live: HashMap<u64, Connection>,
    /// Accepted connections whose addresses are not known yet, and when they were opened.
    unaddressed: HashMap<u64, Mono>,
    /// Connections that existed when tracing began, until a record tells the address of their socket.
    found: HashMap<Tuple, Connection>,
    ended: HashMap<Tuple, (Mono, Ended)>,
    /// Ends in order of time, to judge and then to forget.
    to_settle: VecDeque<(Mono, Tuple)>,
    to_forget: VecDeque<(Mono, Tuple)>,
    losses: Losses,
    census: Census,
    /// From outside the pod.
    traffic: Traffic,
    /// Within the pod, over loopback.
    within: Traffic,
    peers: Peers,
    /// Connections of the kubelet's probes, as the pod sees them, and when they were made.
    probes: HashMap<Tuple, Mono>,
    probes_to_forget: VecDeque<(Mono, Tuple)>,
}

/// What the ledger is told of a connection that it does not know yet.
#[derive(Clone, Copy, Debug)]
pub struct Newcomer {
    /// Which side opened it.
    pub role: Role,
    /// Who the peer is.
    pub origin: Origin,
    /// How far it goes.
    pub hop: Hop,
    /// Its protocol never answers.
    pub one_way: bool,
}

impl Ledger {
    /// Takes a state change of a connection (not of a listener). `last` is when data last
    /// moved on it; `newcomer` says what is known of it if it is new. Tells
    /// what became of it.
    pub fn change(
        &mut self,
        time: Mono,
        change: &StateChange,
        moment: Moment,
        last: LastData,
        newcomer: impl FnOnce(&StateChange) -> Newcomer,
        tell: &mut impl FnMut(&Connection, Told),
    ) {
        let key = change.socket.key;
        let opens = matches!(
            (change.old, change.new),
            (TcpState::Listen | TcpState::Close, TcpState::SynRecv) | (TcpState::Close, TcpState::SynSent)
        );
        if opens {
            // The address of a socket is used again: its last owner ended unseen.
            if let Some(orphan) = self.live.remove(&key) {
                self.end(time, orphan, tell);
            }
        }
        // Older kernels make an accepted socket's state before they copy its addresses
        // (`inet_csk_clone_lock` before `tcp_v4_syn_recv_sock`): the next change, within the same
        // segment's receipt, has them.
        if opens && change.tuple.peer_ip().is_unspecified() {
            self.unaddressed.insert(key, time);
            return;
        }
        let began = self.unaddressed.remove(&key).or(opens.then_some(time));
        if began.is_none() {
            self.adopt(key, &change.tuple);
        } else if let Some(found) = self.found.remove(&change.tuple) {
            // A client's port is used again: the connection that was found ended unseen.
            self.end(time, found, tell);
        }
        let known = self.live.contains_key(&key);
        let connection = self
            .live
            .entry(key)
            .or_insert_with(|| new_connection(change.tuple, change.old, began, moment, newcomer(change)));
        connection.change(time, change, moment);
        if !known {
            let count = if began.is_some() { &mut self.census.opened } else { &mut self.census.found };
            *count += 1;
            let (peer, hop) = (connection.tuple.peer_ip(), connection.hop);
            if is_of_client(connection.role, connection.origin) {
                let traffic = if hop == Hop::External { &mut self.traffic } else { &mut self.within };
                traffic.connections += 1;
                if began.is_some() {
                    traffic.last_connection = traffic.last_connection.max(Some(time));
                }
            }
            if is_traffic(connection.role, connection.origin, hop) {
                self.census.from_peers += 1;
                self.peers.connected(peer, began.map(|_| (time, moment.phase)));
            }
            tell(connection, Told::Opened);
        }
        if is_of_client(connection.role, connection.origin) {
            let traffic = if connection.hop == Hop::External { &mut self.traffic } else { &mut self.within };
            if connection.carried_payload() {
                traffic.last_data = traffic.last_data.max(Some(last.received));
            }
            if connection.sent_payload() {
                traffic.last_sent = traffic.last_sent.max(Some(last.sent));
            }
        }
        if change.new == TcpState::Close
            && let Some(connection) = self.live.remove(&key)
        {
            self.end(time, connection, tell);
        }
    }

    /// Tuples of connections that records have told of already.
    #[must_use]
    pub fn known_tuples(&self) -> HashSet<Tuple> {
        self.live.values().map(|connection| connection.tuple).chain(self.ended.keys().copied()).collect()
    }

    /// A connection that existed when tracing began.
    pub fn found(
        &mut self,
        tuple: Tuple,
        state: TcpState,
        moment: Moment,
        newcomer: Newcomer,
        tell: &mut impl FnMut(&Connection, Told),
    ) {
        if self.found.contains_key(&tuple) {
            return;
        }
        let connection = new_connection(tuple, state, None, moment, newcomer);
        if is_of_client(connection.role, connection.origin) {
            self.traffic_over(connection.hop).connections += 1;
        }
        if is_traffic(connection.role, connection.origin, connection.hop) {
            self.census.from_peers += 1;
            self.peers.connected(tuple.peer_ip(), None);
        }
        tell(&connection, Told::Opened);
        self.census.found += 1;
        self.found.insert(tuple, connection);
    }

    /// A record tells the address of the socket of a connection that was found.
    fn adopt(&mut self, key: u64, tuple: &Tuple) {
        if let Some(found) = self.found.remove(tuple) {
            self.live.insert(key, found);
        }
    }

    fn end(&mut self, time: Mono, mut connection: Connection, tell: &mut impl FnMut(&Connection, Told)) {
        self.census.ended += 1;
        let peer = connection.tuple.peer_ip();
        if is_traffic(connection.role, connection.origin, connection.hop) {
            if self.peers.is_suspected_checker(peer) && !connection.carried_payload() {
                connection.origin = Origin::SuspectedChecker;
            }
            self.peers.ended(peer, connection.carried_payload(), connection.moment_of_end().phase);
        }
        let tuple = connection.tuple;
        self.settle_earlier(&tuple, tell);
        if connection.reset_sent.is_some() || connection.reset_received {
            let judged = self.judge(&connection, tell);
            self.ended.insert(tuple, (time, judged));
            self.to_forget.push_back((time, tuple));
        } else {
            self.ended.insert(tuple, (time, Ended::Settling(Box::new(connection))));
            self.to_settle.push_back((time, tuple));
        }
    }

    /// A client's port is used again: what ended on the same addresses before is judged now.
    fn settle_earlier(&mut self, tuple: &Tuple, tell: &mut impl FnMut(&Connection, Told)) {
        if let Some((_, Ended::Settling(earlier))) = self.ended.remove(tuple) {
            self.judge(&earlier, tell);
        }
    }

    fn judge(&mut self, connection: &Connection, tell: &mut impl FnMut(&Connection, Told)) -> Ended {
        let judgement = connection.judge();
        self.settle(connection, judgement, tell)
    }

    fn settle(
        &mut self,
        connection: &Connection,
        judgement: Judgement,
        tell: &mut impl FnMut(&Connection, Told),
    ) -> Ended {
        let moment = connection.moment_of_end();
        let time = connection.close.map_or_else(|| connection.opened.unwrap_or_default(), |close| close.time);
        self.count(&End { time, tuple: connection.tuple, hop: connection.hop, moment, judgement });
        tell(connection, Told::Closed(judgement));
        Ended::Judged {
            judgement,
            moment,
            role: connection.role,
            origin: connection.origin,
            hop: connection.hop,
        }
    }

    /// Takes a connection that the kubelet made. An accepted one is told before the pod's kernel
    /// accepts it: its socket is complete only at the last segment of the handshake.
    pub fn probe(&mut self, time: Mono, tuple: Tuple) {
        self.probes.insert(tuple, time);
        self.probes_to_forget.push_back((time, tuple));
    }

    /// Whether the kubelet made this connection.
    #[must_use]
    pub fn is_probe(&self, tuple: &Tuple) -> bool {
        self.probes.contains_key(tuple)
    }

    /// Takes a reset that was sent. `moment` is where the container is now; `stranger` says what is
    /// known of a peer that no connection is known of.
    pub fn reset_sent(
        &mut self,
        time: Mono,
        reset: &ResetSent,
        moment: Moment,
        stranger: Newcomer,
        tell: &mut impl FnMut(&Connection, Told),
    ) -> ResetMeaning {
        let to_syn = reset.segment.is_some_and(|segment| segment.is_syn());
        // What carries no request is no traffic: a client answers the close of a TLS connection.
        if reset.segment.is_some_and(|segment| segment.class >= SegmentClass::Small)
            && is_of_client(stranger.role, stranger.origin)
        {
            let traffic = self.traffic_over(stranger.hop);
            traffic.last_data = traffic.last_data.max(Some(time));
        }
        if reset.socket_kind == SocketKind::Full {
            self.adopt(reset.socket.key, &reset.tuple);
        }
        if reset.socket_kind == SocketKind::Full
            && let Some(live) = self.live.get_mut(&reset.socket.key)
        {
            // MPTCP sends the reset before the change to CLOSE.
            live.reset_sent = Some(*reset);
            return ResetMeaning { judgement: None, moment, role: live.role, origin: live.origin };
        }
        if !to_syn && let Some((ended_at, ended)) = self.ended.remove(&reset.tuple) {
            let (judged, meaning) = self.reset_after_end(time, reset, moment, ended, tell);
            self.ended.insert(reset.tuple, (ended_at, judged));
            return meaning;
        }
        self.settle_earlier(&reset.tuple, tell);
        self.reset_to_stranger(time, reset, moment, stranger)
    }

    /// A reset on a connection that ended: at its end, or later by a segment that came too late.
    fn reset_after_end(
        &mut self,
        time: Mono,
        reset: &ResetSent,
        now: Moment,
        ended: Ended,
        tell: &mut impl FnMut(&Connection, Told),
    ) -> (Ended, ResetMeaning) {
        match ended {
            Ended::Settling(mut connection) => {
                connection.reset_sent = Some(*reset);
                // What came too late, came now; what we did ourselves belongs to our close.
                let moment = if reset.segment.is_some() { now } else { connection.moment_of_end() };
                self.to_forget.push_back((time, reset.tuple));
                let judged = self.judge(&connection, tell);
                let judgement = Some(connection.judge());
                (judged, ResetMeaning { judgement, moment, role: connection.role, origin: connection.origin })
            }
            Ended::Judged { judgement, moment, role, origin, hop } => {
                let nobody = role == Role::Client || matches!(origin, Origin::Checker | Origin::KubeletProbe);
                let later = after_close(reset);
                let later = if nobody { Judgement::harmless(later.ending) } else { later };
                let result = worse(judgement, later);
                let mut at = moment;
                if result != judgement {
                    let end = End { time, tuple: reset.tuple, hop, moment, judgement };
                    self.take_back(&end);
                    at = now;
                    self.count(&End { moment: at, judgement: result, ..end });
                }
                let judged = Ended::Judged { judgement: result, moment: at, role, origin, hop };
                (judged, ResetMeaning { judgement: Some(result), moment: now, role, origin })
            }
        }
    }

    /// Counts an ending, for all and for its peer.
    fn count(&mut self, end: &End) {
        self.losses.add(end);
        self.count_for_peer(end, 1);
    }

    /// Takes an ending back: several resets on one connection are one loss.
    fn take_back(&mut self, end: &End) {
        self.losses.take_back(end);
        self.count_for_peer(end, -1);
    }

    fn count_for_peer(&mut self, end: &End, change: i64) {
        if let Some(confidence) = end.judgement.confidence.filter(|_| end.hop == Hop::External) {
            self.peers.lost(end.tuple.peer_ip(), confidence, change);
        }
    }

    /// A reset to a segment of no connection that is known: to a SYN, or to the end of a handshake.
    fn reset_to_stranger(
        &mut self,
        time: Mono,
        reset: &ResetSent,
        moment: Moment,
        stranger: Newcomer,
    ) -> ResetMeaning {
        let ending = match reset.segment {
            Some(segment) if segment.is_syn() => Ending::Refused,
            Some(_) => Ending::RefusedHandshake,
            None => Ending::ResetAbort,
        };
        let nobody = matches!(stranger.origin, Origin::Checker | Origin::KubeletProbe);
        let suspected = self.peers.is_suspected_checker(reset.tuple.peer_ip());
        let origin = if suspected && !nobody { Origin::SuspectedChecker } else { stranger.origin };
        let confidence = if suspected { Confidence::Possible } else { Confidence::Certain };
        let judgement =
            if nobody { Judgement::harmless(ending) } else { Judgement::loss(ending, confidence) };
        if is_of_client(stranger.role, origin) {
            let traffic = self.traffic_over(stranger.hop);
            traffic.connections += 1;
            traffic.last_connection = traffic.last_connection.max(Some(time));
        }
        if is_traffic(stranger.role, origin, stranger.hop) {
            self.peers.connected(reset.tuple.peer_ip(), Some((time, moment.phase)));
        }
        self.count(&End { time, tuple: reset.tuple, hop: stranger.hop, moment, judgement });
        // Nothing follows a refused SYN but another one, which is a loss of its own: in a storm of them
        // there is nothing to remember.
        if ending != Ending::Refused {
            let judged = Ended::Judged { judgement, moment, role: Role::Server, origin, hop: stranger.hop };
            self.ended.insert(reset.tuple, (time, judged));
            self.to_forget.push_back((time, reset.tuple));
        }
        ResetMeaning { judgement: Some(judgement), moment, role: Role::Server, origin }
    }

    /// Takes a reset that was received.
    pub fn reset_received(&mut self, reset: &ResetReceived) -> Option<(Role, Origin)> {
        self.adopt(reset.socket.key, &reset.tuple);
        let connection = self.live.get_mut(&reset.socket.key)?;
        connection.reset_received = true;
        Some((connection.role, connection.origin))
    }

    /// Judges what has settled and forgets what is old.
    pub fn tick(&mut self, now: Mono, tell: &mut impl FnMut(&Connection, Told)) {
        while let Some((time, tuple)) = self.to_settle.front().copied()
            && now >= time + SETTLE
        {
            self.to_settle.pop_front();
            if let Some((at, Ended::Settling(_))) = self.ended.get(&tuple)
                && *at == time
                && let Some((_, Ended::Settling(connection))) = self.ended.remove(&tuple)
            {
                let judged = self.judge(&connection, tell);
                self.ended.insert(tuple, (time, judged));
                self.to_forget.push_back((time, tuple));
            }
        }
        while let Some((time, tuple)) = self.probes_to_forget.front().copied()
            && now >= time + REMEMBER
        {
            self.probes_to_forget.pop_front();
            if self.probes.get(&tuple) == Some(&time) {
                self.probes.remove(&tuple);
            }
        }
        while let Some((time, tuple)) = self.to_forget.front().copied()
            && (now >= time + REMEMBER || self.to_forget.len() > MAX_REMEMBERED)
        {
            self.to_forget.pop_front();
            if self.ended.get(&tuple).is_some_and(|(at, _)| *at <= time) {
                self.ended.remove(&tuple);
            }
        }
    }

    /// Judges all that is left: what ended, what the pod closed and delivered (only the peer's FIN is
    /// missing), and, if the network interface went, what is still open.
    pub fn finish(&mut self, now: Mono, interface_gone: bool, tell: &mut impl FnMut(&Connection, Told)) {
        self.tick(now.saturating_add(SETTLE), tell);
        let delivered = |connection: &Connection| {
            connection.close.is_some_and(|close| !close.abort) && connection.delivered()
        };
        let over = |connection: &Connection| interface_gone || delivered(connection);
        let live = self.live.extract_if(|_, connection| over(connection)).map(|(_, connection)| connection);
        let found = self.found.extract_if(|_, connection| over(connection)).map(|(_, connection)| connection);
        let mut open: Vec<Connection> = live.chain(found).collect();
        open.sort_by_key(|connection| (connection.opened, connection.tuple));
        for connection in open {
            self.census.ended += 1;
            let judgement = connection.judge_at_teardown();
            self.settle(&connection, judgement, tell);
        }
    }

    /// Connections in numbers.
    #[must_use]
    pub fn census(&self) -> Census {
        self.census
    }

    /// Connections that are open.
    #[must_use]
    pub fn open(&self) -> u64 {
        (self.live.len() + self.found.len()) as u64
    }

    /// Traffic from outside the pod.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Traffic within the pod, over loopback: a sidecar and the application.
    #[must_use]
    pub fn traffic_within(&self) -> Traffic {
        self.within
    }

    fn traffic_over(&mut self, hop: Hop) -> &mut Traffic {
        if hop == Hop::External { &mut self.traffic } else { &mut self.within }
    }

    /// Who the clients are.
    #[must_use]
    pub fn peers(&self) -> &Peers {
        &self.peers
    }

    /// Counts losses that only the kernel's counters tell, see [`Losses::add_untold`].
    pub fn count_untold(&mut self, ending: Ending, moment: Moment, count: u64) {
        self.losses.add_untold(ending, moment, count);
    }

    /// Endings and losses.
    #[must_use]
    pub fn losses(&self) -> &Losses {
        &self.losses
    }
}

fn new_connection(
    tuple: Tuple,
    state: TcpState,
    opened: Option<Mono>,
    moment: Moment,
    Newcomer { role, origin, hop, one_way }: Newcomer,
) -> Connection {
    Connection {
        tuple,
        role,
        origin,
        hop,
        one_way,
        opened,
        moment,
        state,
        close: None,
        socket: Socket::default(),
        reset_received: false,
        reset_sent: None,
        given_up_in_handshake: false,
    }
}

/// Whether a connection is traffic of the target's clients: from peers, not from health checkers, not
/// of the pod's own, not within the pod.
fn is_traffic(role: Role, origin: Origin, hop: Hop) -> bool {
    is_of_client(role, origin) && hop == Hop::External
}

/// The same, wherever the client is.
fn is_of_client(role: Role, origin: Origin) -> bool {
    role == Role::Server && origin == Origin::Peer
}
