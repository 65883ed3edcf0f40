//! Connections that ended: when they are judged, how long they are remembered, and resets that come after.

use std::collections::hash_map::Entry;

use super::{Ledger, Newcomer, Place, ResetMeaning, Told, is_of_client, is_traffic};
use crate::{
    connection::{Connection, Moment, after_close, worse},
    event::{Mono, ResetReceived, ResetSent, SegmentClass, SocketKind},
    losses::End,
    words::{Confidence, Ending, Hop, Judgement, Origin, Role},
};

/// A reset by our own act follows its state change within the same system call, and the kubelet's side
/// of a refused probe its reset; this long after it a connection is judged without.
pub const SETTLE: Mono = 20_000_000;
/// TIME_WAIT (`TCP_TIMEWAIT_LEN`): how long a reset may still belong to a closed connection.
const REMEMBER: Mono = 60_000_000_000;
/// Closed connections remembered at most; beyond, the oldest are forgotten first.
const MAX_REMEMBERED: usize = 1 << 16;

/// A connection that ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ended {
    /// It may still get the reset that belongs to its end.
    Settling(Place),
    /// It was judged.
    Judged { judgement: Judgement, moment: Moment, role: Role, origin: Origin, hop: Hop },
}

impl Ledger {
    pub(super) fn end(&mut self, time: Mono, place: Place, tell: &mut impl FnMut(&Connection, Told)) {
        self.census.ended += 1;
        if self.is_rival(place) {
            self.end_rival(place, tell);
            return;
        }
        let connection = &mut self.places[place];
        let is_check = matches!(connection.origin, Origin::Checker | Origin::KubeletProbe);
        self.told_drops += u64::from(is_check && connection.given_up_in_handshake);
        let peer = connection.tuple.peer_ip();
        if is_traffic(connection.role, connection.origin, connection.hop) {
            if self.peers.is_suspected_checker(peer) && !connection.carried_payload() {
                connection.origin = Origin::SuspectedChecker;
            }
            self.peers.ended(peer, connection.carried_payload(), connection.moment_of_end().phase);
        }
        let tuple = connection.tuple;
        // A reset that is told as received after our close may be the one that is sent next.
        let reset_by_peer = connection.reset_received && connection.close.is_none();
        let has_reset = connection.reset_sent.is_some() || reset_by_peer;
        // A client's port is used again: what ended on the same addresses before is judged now.
        if let Some((_, Ended::Settling(earlier))) = self.ended.insert(tuple, (time, Ended::Settling(place)))
        {
            self.settle(earlier, Connection::judge, tell);
        }
        if has_reset {
            let judged = self.settle(place, Connection::judge, tell);
            self.ended.insert(tuple, (time, judged));
            self.to_forget.push_back((time, tuple));
        } else {
            self.to_settle.push_back((time, tuple));
        }
    }

    /// Two segments that complete one handshake on two CPUs at once make a socket each. Only one gets the
    /// connection; the other is given up ("another child took ownership of the request",
    /// `inet_csk_complete_hashdance`).
    fn is_rival(&self, place: Place) -> bool {
        let connection = &self.places[place];
        connection.role == Role::Server
            && connection.given_up_in_handshake
            && self.places.all_live().any(|live| live.tuple == connection.tuple)
    }

    /// The client made one connection.
    fn end_rival(&mut self, place: Place, tell: &mut impl FnMut(&Connection, Told)) {
        let Connection { role, origin, hop, tuple, .. } = self.places[place];
        if is_of_client(role, origin) {
            self.traffic_over(hop).connections -= 1;
        }
        if is_traffic(role, origin, hop) {
            self.census.from_peers -= 1;
            self.peers.counted_twice(tuple.peer_ip());
        }
        self.settle(place, Connection::judge, tell);
    }

    /// Judges a connection, and frees its place.
    pub(super) fn settle(
        &mut self,
        place: Place,
        judge: fn(&Connection) -> Judgement,
        tell: &mut impl FnMut(&Connection, Told),
    ) -> Ended {
        let connection = self.places.take(place);
        let judgement = judge(&connection);
        let moment = connection.moment_of_end();
        let time = connection
            .close
            .as_ref()
            .map_or_else(|| connection.opened.unwrap_or_default(), |close| close.time);
        self.count(&End { time, tuple: connection.tuple, hop: connection.hop, moment, judgement });
        tell(&connection, Told::Closed(judgement));
        let Connection { role, origin, hop, close, .. } = connection;
        if let Some(close) = close {
            self.spare.give_back(close);
        }
        Ended::Judged { judgement, moment, role, origin, hop }
    }

    /// Judges what has settled and forgets what is old.
    pub fn tick(&mut self, now: Mono, tell: &mut impl FnMut(&Connection, Told)) {
        while let Some((time, tuple)) = self.to_settle.front().copied()
            && now >= time + SETTLE
        {
            self.to_settle.pop_front();
            if let Some((at, Ended::Settling(place))) = self.ended.get(&tuple).copied()
                && at == time
            {
                let judged = self.settle(place, Connection::judge, tell);
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
            if let Entry::Occupied(remembered) = self.ended.entry(tuple)
                && remembered.get().0 <= time
            {
                remembered.remove();
            }
        }
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
            self.adopt(time, reset.socket.key, &reset.tuple, tell);
        }
        if reset.socket_kind == SocketKind::Full
            && let Some(place) = self.places.live(reset.socket.key)
        {
            // MPTCP sends the reset before the change to CLOSE.
            let live = &mut self.places[place];
            live.reset_sent = Some(reset.segment);
            return ResetMeaning { judgement: None, moment, role: live.role, origin: live.origin };
        }
        if !to_syn && let Some((ended_at, ended)) = self.ended.remove(&reset.tuple) {
            let (judged, meaning) = self.reset_after_end(time, reset, moment, ended, tell);
            self.ended.insert(reset.tuple, (ended_at, judged));
            return meaning;
        }
        // A client's port is used again, as above.
        if let Some((_, Ended::Settling(earlier))) = self.ended.remove(&reset.tuple) {
            self.settle(earlier, Connection::judge, tell);
        }
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
            Ended::Settling(place) => {
                let connection = &mut self.places[place];
                connection.reset_sent = Some(reset.segment);
                // What came too late, came now; what we did ourselves belongs to our close.
                let moment = if reset.segment.is_some() { now } else { connection.moment_of_end() };
                let (role, origin, judgement) = (connection.role, connection.origin, connection.judge());
                let lost = judgement.confidence >= Some(Confidence::Likely);
                self.told_drops += u64::from(connection.given_up_in_handshake && lost);
                self.to_forget.push_back((time, reset.tuple));
                let judged = self.settle(place, Connection::judge, tell);
                (judged, ResetMeaning { judgement: Some(judgement), moment, role, origin })
            }
            Ended::Judged { judgement, moment, role, origin, hop } => {
                let nobody = role == Role::Client || matches!(origin, Origin::Checker | Origin::KubeletProbe);
                let later = after_close(reset.segment);
                let later = if nobody { Judgement::harmless(later.ending) } else { later };
                let result = worse(judgement, later);
                let mut at = moment;
                let given_up = judgement.ending == Ending::NeverEstablished;
                self.told_drops += u64::from(given_up && result.confidence >= Some(Confidence::Likely));
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
    pub fn reset_received(
        &mut self,
        time: Mono,
        reset: &ResetReceived,
        tell: &mut impl FnMut(&Connection, Told),
    ) -> Option<(Role, Origin)> {
        self.adopt(time, reset.socket.key, &reset.tuple, tell);
        let place = self.places.live(reset.socket.key)?;
        let connection = &mut self.places[place];
        connection.reset_received = true;
        Some((connection.role, connection.origin))
    }
}
