//! What records of sockets add up to.

use super::*;
use crate::{
    event::Task,
    words::{Cause, Phase},
};

const TUPLE: Tuple = Tuple { local: [1; 16], peer: [2; 16], local_port: 80, peer_port: 1000 };

fn change(ledger: &mut Ledger, key: u64, old: TcpState, new: TcpState) {
    change_of(Origin::Peer, ledger, key, old, new);
}

fn change_of(origin: Origin, ledger: &mut Ledger, key: u64, old: TcpState, new: TcpState) {
    let socket = Socket { key, ..Socket::default() };
    let change = StateChange { task: Task::default(), socket, tuple: TUPLE, old, new };
    let moment = Moment { container: 0, phase: Phase::Exiting, cause: Some(Cause::StopSignal) };
    let newcomer = |_: &Ledger, _: &StateChange| Newcomer {
        role: Role::Server,
        origin,
        hop: Hop::External,
        one_way: false,
    };
    ledger.change(1, &change, moment, LastData { received: None, sent: 0 }, newcomer, &mut |_, _| ());
}

#[test]
fn two_sockets_that_a_handshake_made_are_one_connection() {
    let mut ledger = Ledger::default();
    change(&mut ledger, 1, TcpState::Listen, TcpState::SynRecv);
    change(&mut ledger, 2, TcpState::Listen, TcpState::SynRecv);
    change(&mut ledger, 1, TcpState::SynRecv, TcpState::Established);
    change(&mut ledger, 2, TcpState::SynRecv, TcpState::Close);
    assert_eq!((ledger.census().opened, ledger.census().ended, ledger.open()), (2, 1, 1));
    assert_eq!((ledger.census().from_peers, ledger.traffic().connections), (1, 1));
    assert_eq!(ledger.peers().list().0[0].1.connections, 1);
}

#[test]
fn a_handshake_that_was_given_up_is_a_connection_of_its_own() {
    let mut ledger = Ledger::default();
    change(&mut ledger, 1, TcpState::Listen, TcpState::SynRecv);
    change(&mut ledger, 1, TcpState::SynRecv, TcpState::Close);
    change(&mut ledger, 2, TcpState::Listen, TcpState::SynRecv);
    assert_eq!((ledger.census().from_peers, ledger.traffic().connections), (2, 2));
}

#[test]
fn checks_that_are_dropped_are_counted_once() {
    let mut ledger = Ledger::default();
    for (key, origin) in [(1, Origin::Checker), (2, Origin::Peer), (3, Origin::KubeletProbe)] {
        change_of(origin, &mut ledger, key, TcpState::Listen, TcpState::SynRecv);
        change_of(origin, &mut ledger, key, TcpState::SynRecv, TcpState::Close);
    }
    assert_eq!(ledger.take_dropped_checks(), 2);
    assert_eq!(ledger.take_dropped_checks(), 0);
}
