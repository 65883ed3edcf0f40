//! What records of sockets add up to.

use super::*;
use crate::{
    event::{ResetSent, Segment, SegmentClass, SocketKind, Task},
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
    assert_eq!(ledger.take_told_drops(), 2);
    assert_eq!(ledger.take_told_drops(), 0);
}

/// The client's handshake met the listener's close: it is counted in ListenDrops, and then its request
/// comes.
#[test]
fn a_dropped_handshake_whose_request_is_reset_is_one_loss() {
    let request = Segment { class: SegmentClass::Data, payload: 100, flags: 16 };
    let reset = ResetSent {
        task: Task::default(),
        socket: Socket::default(),
        tuple: TUPLE,
        socket_kind: SocketKind::None,
        reason: None,
        segment: Some(request),
    };
    let moment = Moment { container: 0, phase: Phase::Exiting, cause: Some(Cause::StopSignal) };
    let stranger = Newcomer { role: Role::Server, origin: Origin::Peer, hop: Hop::External, one_way: false };
    for judged_before in [false, true] {
        let mut ledger = Ledger::default();
        change(&mut ledger, 1, TcpState::Listen, TcpState::SynRecv);
        change(&mut ledger, 1, TcpState::SynRecv, TcpState::Close);
        if judged_before {
            ledger.tick(1 + SETTLE, &mut |_, _| ());
        }
        let meaning = ledger.reset_sent(2 + SETTLE, &reset, moment, stranger, &mut |_, _| ());
        assert_eq!(meaning.judgement.map(|judgement| judgement.ending), Some(Ending::LateData));
        assert_eq!((ledger.losses().totals(), ledger.take_told_drops()), ((1, 0), 1));
        ledger.count_untold(Ending::Dropped, moment, 2);
        ledger.take_back_untold(Ending::Dropped, 1);
        assert_eq!(ledger.losses().totals(), (2, 0));
    }
}
