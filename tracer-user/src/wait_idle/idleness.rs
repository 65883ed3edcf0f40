//! Whether ports are idle. Pure: it is told what was seen and when.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use serde::Serialize;
use tracer_core::{event::Tuple, input::Network};

use crate::host::sockets::Destroyed;

/// Peers that an answer names; the others are counted.
const NAMED: usize = 10;

/// What to wait for.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The pod's own ports.
    pub ports: Vec<u16>,
    /// How long there must have been no connection.
    pub quiet: Duration,
    /// How long to wait at most.
    pub timeout: Duration,
    /// Peers whose connections do not count: health checkers.
    pub ignored: Vec<Network>,
}

/// How the wait ended, as it is written in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// The ports were idle.
    pub idle: bool,
    /// Which ports.
    pub ports: Vec<u16>,
    /// How long it waited, in milliseconds.
    pub waited_ms: u64,
    /// For how long there had been no connection, in milliseconds.
    pub quiet_ms: u64,
    /// Connections that are open.
    pub open: u64,
    /// Whose they are: those with most first, at most 10.
    pub peers: Vec<Peer>,
    /// Connections that ended meanwhile.
    pub ended: u64,
    /// Connections of ignored peers that ended meanwhile.
    pub ignored: u64,
    /// So many ended at once that the kernel could not tell of all.
    pub missed: bool,
    /// Ports that nothing listens on (any more).
    pub not_listening: Vec<u16>,
}

/// A peer with open connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Peer {
    /// Its address.
    pub address: IpAddr,
    /// How many.
    pub open: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Idleness {
    settings: Settings,
    began: Instant,
    /// When there was a connection for the last time; the beginning, before which nothing is known.
    last: Instant,
    open: BTreeMap<IpAddr, u64>,
    ended: u64,
    ignored: u64,
    missed: bool,
}

impl Idleness {
    /// Nothing is known of the time before `now`.
    #[must_use]
    pub fn new(settings: Settings, now: Instant) -> Self {
        let open = BTreeMap::new();
        Self { settings, began: now, last: now, open, ended: 0, ignored: 0, missed: false }
    }

    /// Connections whose sockets were destroyed by `now`.
    pub fn ended(&mut self, destroyed: &Destroyed, now: Instant) {
        for tuple in &destroyed.connections {
            if !self.settings.ports.contains(&tuple.local_port) {
                continue;
            }
            if self.is_ignored(tuple) {
                self.ignored += 1;
            } else {
                self.ended += 1;
                self.last = now;
            }
        }
        if destroyed.missed {
            // One of them may have been a peer's.
            self.missed = true;
            self.last = now;
        }
    }

    /// All connections that are open at `now`.
    pub fn looked(&mut self, open: &[Tuple], now: Instant) {
        self.open.clear();
        for tuple in open {
            if self.settings.ports.contains(&tuple.local_port) && !self.is_ignored(tuple) {
                *self.open.entry(tuple.peer_ip()).or_default() += 1;
                self.last = now;
            }
        }
    }

    fn is_ignored(&self, tuple: &Tuple) -> bool {
        self.settings.ignored.iter().any(|network| network.contains(tuple.peer_ip()))
    }

    /// Connections that are open, and when there was one for the last time.
    #[must_use]
    pub fn open(&self) -> (u64, Instant) {
        (self.open.values().sum(), self.last)
    }

    /// The earliest time after `now` at which the wait can end.
    #[must_use]
    pub fn earliest_answer(&self, now: Instant) -> Instant {
        let idle =
            if self.open.is_empty() { self.last + self.settings.quiet } else { now + self.settings.quiet };
        idle.min(self.began + self.settings.timeout)
    }

    /// How the wait ended; `None` while it goes on.
    #[must_use]
    pub fn answer(&self, now: Instant) -> Option<Answer> {
        let (quiet, waited) = (now - self.last, now - self.began);
        let idle = self.open.is_empty() && quiet >= self.settings.quiet;
        if !idle && waited < self.settings.timeout {
            return None;
        }
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Some(Answer {
            idle,
            ports: self.settings.ports.clone(),
            waited_ms: milliseconds(waited),
            quiet_ms: milliseconds(quiet),
            open: self.open.values().sum(),
            peers: self.peers(),
            ended: self.ended,
            ignored: self.ignored,
            missed: self.missed,
            not_listening: self.settings.ports.clone(),
        })
    }

    fn peers(&self) -> Vec<Peer> {
        let mut peers: Vec<Peer> =
            self.open.iter().map(|(address, open)| Peer { address: *address, open: *open }).collect();
        peers.sort_by_key(|peer| std::cmp::Reverse(peer.open));
        peers.truncate(NAMED);
        peers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn idleness(now: Instant) -> Idleness {
        let ignored = vec!["10.0.0.9/32".parse().unwrap()];
        Idleness::new(Settings { ports: vec![8080], quiet: 2 * SECOND, timeout: 10 * SECOND, ignored }, now)
    }

    fn of(peer: &str, port: u16) -> Tuple {
        Tuple::new(([10, 0, 0, 1], port).into(), format!("{peer}:4000").parse().unwrap())
    }

    fn destroyed(connections: &[Tuple]) -> Destroyed {
        Destroyed { connections: connections.to_vec(), missed: false }
    }

    #[test]
    fn it_is_quiet_since_the_last_connection_and_not_before_the_wait_began() {
        let start = Instant::now();
        let mut idleness = idleness(start);
        idleness.looked(&[], start + SECOND);
        assert_eq!(idleness.answer(start + SECOND), None, "nobody looked for two seconds");
        idleness.looked(&[of("10.0.0.2", 8080)], start + 2 * SECOND);
        assert_eq!(idleness.answer(start + 2 * SECOND), None);
        idleness.looked(&[], start + 3 * SECOND);
        idleness.ended(&destroyed(&[of("10.0.0.2", 8080)]), start + 3 * SECOND);
        assert_eq!(idleness.answer(start + 4 * SECOND), None);
        let answer = idleness.answer(start + 5 * SECOND).unwrap();
        assert_eq!((answer.idle, answer.ended, answer.quiet_ms), (true, 1, 2000));
    }

    #[test]
    fn a_connection_between_two_looks_counts_as_well() {
        let start = Instant::now();
        let mut idleness = idleness(start);
        idleness.ended(&destroyed(&[of("10.0.0.2", 8080)]), start + SECOND);
        assert_eq!(idleness.answer(start + 2 * SECOND), None);
        idleness.ended(&Destroyed { missed: true, ..Destroyed::default() }, start + 2 * SECOND);
        assert_eq!(idleness.answer(start + 3 * SECOND), None, "who knows what was missed");
        assert_eq!(idleness.earliest_answer(start + 3 * SECOND), start + 4 * SECOND);
        assert!(idleness.answer(start + 4 * SECOND).unwrap().missed);
    }

    #[test]
    fn ignored_peers_and_other_ports_do_not_count() {
        let start = Instant::now();
        let mut idleness = idleness(start);
        let others = [of("10.0.0.9", 8080), of("10.0.0.2", 9090)];
        idleness.looked(&others, start + 2 * SECOND);
        idleness.ended(&destroyed(&others), start + 2 * SECOND);
        let answer = idleness.answer(start + 2 * SECOND).unwrap();
        assert_eq!((answer.idle, answer.open, answer.ended, answer.ignored), (true, 0, 0, 1));
    }

    #[test]
    fn when_the_time_is_up_it_says_who_is_connected() {
        let start = Instant::now();
        let mut idleness = idleness(start);
        let open = [of("10.0.0.2", 8080), of("10.0.0.3", 8080), of("10.0.0.3", 8080)];
        idleness.looked(&open, start + 9 * SECOND);
        assert_eq!(idleness.earliest_answer(start + 9 * SECOND), start + 10 * SECOND);
        let answer = idleness.answer(start + 10 * SECOND).unwrap();
        assert_eq!((answer.idle, answer.open), (false, 3));
        assert_eq!(answer.peers[0], Peer { address: "10.0.0.3".parse().unwrap(), open: 2 });
    }
}
