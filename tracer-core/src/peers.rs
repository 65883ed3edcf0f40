//! Who the clients are: per peer address its connections, when it learned of the termination, and
//! what it lost. The last new connection after the termination began is the load balancer's lag.

use std::net::IpAddr;

use crate::{
    event::Mono,
    tables::Table,
    words::{Confidence, Phase},
};

/// Peers kept one by one; what comes from others is summed.
const MAX_PEERS: usize = 1000;
/// A peer with this many connections while running, none of them with payload, is taken for a health
/// checker.
const SUSPICIOUS: u64 = 2;

/// One peer, or the sum of those beyond the limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Connections that it opened, also those that were refused.
    pub connections: u64,
    /// Connections while the pod ran that ended without payload.
    pub empty_while_running: u64,
    /// It sent payload on some connection.
    pub sent_payload: bool,
    /// Its first new connection after the termination began.
    pub first_after: Option<Mono>,
    /// Its last new connection after the termination began.
    pub last_after: Option<Mono>,
    /// Certain and likely losses.
    pub lost: u64,
    /// Possible losses.
    pub doubts: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Peers {
    each: Table<IpAddr, Peer>,
    others: Peer,
    others_seen: bool,
}

impl Peers {
    fn entry(&mut self, address: IpAddr) -> &mut Peer {
        if self.each.len() >= MAX_PEERS && !self.each.contains_key(&address) {
            self.others_seen = true;
            return &mut self.others;
        }
        self.each.entry(address).or_default()
    }

    /// It opened a connection, or tried to; or one of its connections was found open, and nobody knows
    /// since when.
    pub fn connected(&mut self, address: IpAddr, opened: Option<(Mono, Phase)>) {
        let peer = self.entry(address);
        peer.connections += 1;
        if let Some((time, _)) = opened.filter(|(_, phase)| *phase != Phase::Running) {
            peer.first_after = Some(peer.first_after.map_or(time, |first| first.min(time)));
            peer.last_after = peer.last_after.max(Some(time));
        }
    }

    /// What was counted as two connections is one.
    pub fn counted_twice(&mut self, address: IpAddr) {
        let peer = self.entry(address);
        peer.connections = peer.connections.saturating_sub(1);
    }

    /// One of its connections ended.
    pub fn ended(&mut self, address: IpAddr, with_payload: bool, phase: Phase) {
        let peer = self.entry(address);
        peer.sent_payload |= with_payload;
        peer.empty_while_running += u64::from(!with_payload && phase == Phase::Running);
    }

    /// A loss of it is counted (`1`) or taken back (`-1`).
    pub fn lost(&mut self, address: IpAddr, confidence: Confidence, change: i64) {
        let peer = self.entry(address);
        let count = if confidence == Confidence::Possible { &mut peer.doubts } else { &mut peer.lost };
        *count = count.saturating_add_signed(change);
    }

    /// Whether it looks like a health checker: connections, but never payload.
    #[must_use]
    pub fn is_suspected_checker(&self, address: IpAddr) -> bool {
        self.each
            .get(&address)
            .is_some_and(|peer| !peer.sent_payload && peer.empty_while_running >= SUSPICIOUS)
    }

    /// The peers, those with the most losses and connections first, and the sum of those beyond the
    /// limit.
    #[must_use]
    pub fn list(&self) -> (Vec<(IpAddr, Peer)>, Option<Peer>) {
        let mut peers: Vec<_> = self.each.iter().map(|(address, peer)| (*address, *peer)).collect();
        peers.sort_by_key(|(address, peer)| (std::cmp::Reverse((peer.lost, peer.connections)), *address));
        (peers, self.others_seen.then_some(self.others))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_never_sends_payload_is_suspected_until_it_does() {
        let checker: IpAddr = "10.0.0.1".parse().unwrap();
        let mut peers = Peers::default();
        peers.ended(checker, false, Phase::Running);
        assert!(!peers.is_suspected_checker(checker), "once may be chance");
        peers.ended(checker, false, Phase::Running);
        assert!(peers.is_suspected_checker(checker));
        peers.ended(checker, true, Phase::Running);
        assert!(!peers.is_suspected_checker(checker));
    }

    #[test]
    fn beyond_the_limit_peers_are_summed() {
        let mut peers = Peers::default();
        for number in 0..MAX_PEERS as u32 + 10 {
            peers.connected(IpAddr::V4(number.into()), Some((1, Phase::StopSignal)));
        }
        peers.lost(IpAddr::V4(u32::MAX.into()), Confidence::Certain, 1);
        let (each, others) = peers.list();
        assert_eq!(each.len(), MAX_PEERS);
        assert_eq!(others.map(|others| (others.connections, others.lost)), Some((10, 1)));
    }

    #[test]
    fn a_connection_that_was_found_open_is_no_late_arrival() {
        let peer: IpAddr = "10.0.0.1".parse().unwrap();
        let mut peers = Peers::default();
        peers.connected(peer, None);
        peers.connected(peer, Some((5, Phase::Running)));
        assert_eq!(peers.list().0[0].1, Peer { connections: 2, ..Peer::default() });
        peers.connected(peer, Some((9, Phase::PreStop)));
        peers.connected(peer, Some((7, Phase::PreStop)));
        let seen = peers.list().0[0].1;
        assert_eq!((seen.connections, seen.first_after, seen.last_after), (4, Some(7), Some(9)));
    }
}
