//! All that is known of one target's connections: the live ones, those that ended a while ago, and
//! what their endings add up to.

mod ended;
mod facts;
mod places;
#[cfg(test)]
mod tests;

use std::collections::{HashSet, VecDeque};

use self::{
    ended::Ended,
    places::{Place, Places},
};
pub use self::{
    ended::SETTLE,
    facts::{Census, LastData, Newcomer, ResetMeaning, Told, Traffic},
};
use crate::{
    connection::{Connection, Moment, Spare},
    event::{Mono, Socket, StateChange, TcpState, Tuple},
    losses::Losses,
    peers::Peers,
    tables::Table,
    words::{Ending, Hop, Origin, Role},
};

/// See the module.
#[derive(Debug, Default)]
pub struct Ledger {
    places: Places,
    spare: Spare,
    /// Accepted connections whose addresses are not known yet, and when they were opened.
    unaddressed: Table<u64, Mono>,
    /// Connections that existed when tracing began, until a record tells the address of their socket.
    found: Table<Tuple, Place>,
    ended: Table<Tuple, (Mono, Ended)>,
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
    /// See [`Ledger::take_told_drops`].
    told_drops: u64,
    /// Connections of the kubelet's probes, as the pod sees them, and when they were made.
    probes: Table<Tuple, Mono>,
    probes_to_forget: VecDeque<(Mono, Tuple)>,
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
        newcomer: impl FnOnce(&Self, &StateChange) -> Newcomer,
        tell: &mut impl FnMut(&Connection, Told),
    ) {
        let key = change.socket.key;
        let opens = matches!(
            (change.old, change.new),
            (TcpState::Listen | TcpState::Close, TcpState::SynRecv) | (TcpState::Close, TcpState::SynSent)
        );
        if opens {
            // The address of a socket is used again: its last owner ended unseen.
            if let Some(orphan) = self.places.end(key) {
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
            self.adopt(time, key, &change.tuple, tell);
        } else if let Some(found) = self.found.remove(&change.tuple) {
            // A client's port is used again: the connection that was found ended unseen.
            self.end(time, found, tell);
        }
        let known = self.places.live(key);
        let place = known.unwrap_or_else(|| {
            let newcomer = newcomer(self, change);
            let place = self.places.add(new_connection(change.tuple, change.old, began, moment, newcomer));
            self.places.enliven(place, key);
            place
        });
        let connection = &mut self.places[place];
        connection.change(time, change, moment, &mut self.spare);
        if known.is_none() {
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
                traffic.last_data = traffic.last_data.max(last.received);
            }
            if connection.sent_payload() {
                traffic.last_sent = traffic.last_sent.max(Some(last.sent));
            }
        }
        if change.new == TcpState::Close
            && let Some(place) = self.places.end(key)
        {
            self.end(time, place, tell);
        }
    }

    /// Tuples of connections that records have told of already.
    #[must_use]
    pub fn known_tuples(&self) -> HashSet<Tuple> {
        self.places.all_live().map(|connection| connection.tuple).chain(self.ended.keys().copied()).collect()
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
        self.found.insert(tuple, self.places.add(connection));
    }

    /// A record tells the address of the socket of a connection that was found.
    fn adopt(&mut self, time: Mono, key: u64, tuple: &Tuple, tell: &mut impl FnMut(&Connection, Told)) {
        if let Some(found) = self.found.remove(tuple) {
            // The address of a socket is used again: its last owner ended unseen.
            if let Some(orphan) = self.places.end(key) {
                self.end(time, orphan, tell);
            }
            self.places.enliven(found, key);
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

    /// Judges all that is left: what ended, what the pod closed and delivered (only the peer's FIN is
    /// missing), and, if the network interface went, what is still open.
    pub fn finish(&mut self, now: Mono, interface_gone: bool, tell: &mut impl FnMut(&Connection, Told)) {
        self.tick(now.saturating_add(SETTLE), tell);
        let delivered = |connection: &Connection| {
            connection.close.as_ref().is_some_and(|close| !close.abort) && connection.delivered()
        };
        let over = |connection: &Connection| interface_gone || delivered(connection);
        let mut left = self.places.end_all(over);
        left.extend(self.found.extract_if(|_, place| over(&self.places[*place])).map(|(_, place)| place));
        left.sort_by_key(|place| {
            let connection = &self.places[*place];
            (connection.opened, connection.tuple)
        });
        for place in left {
            self.census.ended += 1;
            self.settle(place, Connection::judge_at_teardown, tell);
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
        (self.places.all_live().len() + self.found.len()) as u64
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

    /// Takes such losses back, see [`Losses::take_back_untold`].
    pub fn take_back_untold(&mut self, ending: Ending, count: u64) {
        self.losses.take_back_untold(ending, count);
    }

    /// Connections that the kernel gave up within the handshake, and which are no losses (of checkers and
    /// probes) or were told as such when their request was reset, since this was asked: where the listener
    /// went meanwhile the kernel counts them in ListenDrops (`tcp_v4_syn_recv_sock`, when
    /// `__inet_inherit_port` fails).
    pub fn take_told_drops(&mut self) -> u64 {
        std::mem::take(&mut self.told_drops)
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
