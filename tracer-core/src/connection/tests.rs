//! What each way to end means, by the facts that the kernel gives.

mod farewells;

use super::*;
use crate::event::{Exchange, Segment, Task};

const CLOSED_AT: Mono = 10_000_000_000;

/// A server connection that the pod closed; the closure says how.
fn closed(abort: bool, by: ClosedBy, set: impl FnOnce(&mut Close)) -> Connection {
    let moment = Moment { container: 0, phase: Phase::Exiting, cause: Some(Cause::StopSignal) };
    let socket = Socket { key: 1, bytes_received: 100, bytes_acked: 100, ..Socket::default() };
    let mut close =
        Close { time: CLOSED_AT, by, moment, peer_had_closed: false, answered_before: false, abort, socket };
    set(&mut close);
    Connection {
        tuple: Tuple { local: [1; 16], peer: [2; 16], local_port: 80, peer_port: 1000 },
        role: Role::Server,
        origin: Origin::Peer,
        hop: Hop::External,
        one_way: false,
        opened: Some(1),
        moment,
        state: TcpState::Close,
        close: Some(Box::new(close)),
        socket: Socket { unacked: 0, ..close.socket },
        reset_received: false,
        reset_sent: None,
        given_up_in_handshake: false,
    }
}

fn by_fin(by: ClosedBy, exchange: Exchange) -> Connection {
    closed(false, by, |close| close.socket.exchange = Some(exchange))
}

fn reset(mut connection: Connection, class: Option<SegmentClass>) -> Connection {
    connection.reset_sent = Some(class.map(|class| Segment { payload: 1, flags: 24, class }));
    connection
}

fn answered() -> Exchange {
    Exchange { answered: 500, last_write: 500, first_write_at: 5, last_write_at: 5, ..Exchange::default() }
}

fn asked(bytes: u32) -> Exchange {
    Exchange { unanswered: bytes, ..Exchange::default() }
}

fn harmless(ending: Ending) -> Judgement {
    Judgement::harmless(ending)
}

fn loss(ending: Ending, confidence: Confidence) -> Judgement {
    Judgement::loss(ending, confidence)
}

#[test]
fn an_answered_request_is_no_loss_whoever_closes() {
    for by in [ClosedBy::Application, ClosedBy::Exit] {
        assert_eq!(by_fin(by, answered()).judge(), harmless(Ending::IdleClosed));
    }
}

#[test]
fn a_request_without_an_answer_is_lost_though_no_reset_shows_it() {
    let judge = |by, bytes| by_fin(by, asked(bytes)).judge();
    assert_eq!(judge(ClosedBy::Exit, 100), loss(Ending::Unanswered, Confidence::Likely));
    assert_eq!(judge(ClosedBy::Exit, 64), loss(Ending::Unanswered, Confidence::Possible));
    assert_eq!(judge(ClosedBy::Application, 100), loss(Ending::Unanswered, Confidence::Possible));
}

#[test]
fn a_one_way_protocol_never_answers() {
    let one_way = Connection { one_way: true, ..by_fin(ClosedBy::Exit, asked(100)) };
    assert_eq!(one_way.judge(), harmless(Ending::IdleClosed));
}

#[test]
fn an_answer_that_had_run_longer_than_it_was_silent_was_under_way() {
    let stream = |ran: Mono, silent: Mono| Exchange {
        answered: 5000,
        last_write: 500,
        first_write_at: CLOSED_AT - silent - ran,
        last_write_at: CLOSED_AT - silent,
        ..Exchange::default()
    };
    let judge = |by, ran, silent| by_fin(by, stream(ran, silent)).judge();
    let (second, ms) = (1_000_000_000, 1_000_000);
    assert_eq!(judge(ClosedBy::Exit, second, ms), loss(Ending::MidResponse, Confidence::Likely));
    assert_eq!(judge(ClosedBy::Exit, 2 * ms, ms), loss(Ending::MidResponse, Confidence::Possible));
    assert_eq!(judge(ClosedBy::Application, second, ms), loss(Ending::MidResponse, Confidence::Possible));
    assert_eq!(judge(ClosedBy::Exit, ms, second), harmless(Ending::IdleClosed));
    assert_eq!(judge(ClosedBy::Application, 2 * ms, ms), harmless(Ending::IdleClosed));
}

#[test]
fn what_was_never_acknowledged_died_with_the_socket() {
    let mut connection = by_fin(ClosedBy::Exit, answered());
    connection.socket.unacked = 1000;
    assert_eq!(connection.judge(), loss(Ending::MidResponse, Confidence::Certain));
    connection.socket.unacked = 1;
    assert_eq!(connection.judge(), harmless(Ending::IdleClosed), "our own FIN is no data");
}

#[test]
fn an_answer_that_was_sent_may_be_read_before_the_reset_that_follows_it() {
    let judge = |unsent, answer| {
        let aborted = closed(true, ClosedBy::Application, |close| {
            close.socket.exchange = Some(Exchange { answer, ..answered() });
            close.socket.unacked = 89;
            close.socket.unsent = unsent;
        });
        reset(aborted, None).judge()
    };
    assert_eq!(judge(0, Answer::Whole), loss(Ending::ResetAbort, Confidence::Possible));
    assert_eq!(judge(0, Answer::UnderWay), loss(Ending::ResetAbort, Confidence::Certain));
    assert_eq!(judge(80, Answer::Whole), loss(Ending::ResetAbort, Confidence::Certain));
}

#[test]
fn an_answer_that_says_its_length_needs_no_guess() {
    let (second, ms) = (1_000_000_000, 1_000_000);
    let judge = |by, answer| {
        let exchange = Exchange {
            answered: 5000,
            last_write: 500,
            first_write_at: CLOSED_AT - second,
            last_write_at: CLOSED_AT - ms,
            answer,
            ..Exchange::default()
        };
        by_fin(by, exchange).judge()
    };
    for by in [ClosedBy::Application, ClosedBy::Exit] {
        assert_eq!(judge(by, Answer::Whole), harmless(Ending::IdleClosed));
        assert_eq!(judge(by, Answer::UnderWay), loss(Ending::MidResponse, Confidence::Certain));
    }
    assert_eq!(judge(ClosedBy::Application, Answer::UntilClose), harmless(Ending::IdleClosed));
    assert_eq!(judge(ClosedBy::Exit, Answer::UntilClose), loss(Ending::MidResponse, Confidence::Likely));
}

#[test]
fn what_may_be_an_answer_leaves_a_doubt_unless_the_client_has_closed() {
    let mut goaway = by_fin(ClosedBy::Exit, Exchange { doubtful: true, ..asked(120) });
    assert_eq!(goaway.judge(), loss(Ending::Unanswered, Confidence::Possible));
    goaway.close.as_mut().unwrap().peer_had_closed = true;
    assert_eq!(goaway.judge(), harmless(Ending::PeerClosed));
}

#[test]
fn a_client_that_half_closed_may_still_wait_for_the_rest() {
    let mut half = by_fin(ClosedBy::Exit, Exchange { answer: Answer::UnderWay, ..answered() });
    half.close.as_mut().unwrap().peer_had_closed = true;
    assert_eq!(half.judge(), loss(Ending::MidResponse, Confidence::Possible));
}

#[test]
fn a_late_segment_counts_by_what_it_carries() {
    let judge = |class| reset(by_fin(ClosedBy::Application, answered()), Some(class)).judge();
    for class in [SegmentClass::None, SegmentClass::TlsAlert, SegmentClass::H2Control] {
        assert_eq!(judge(class), harmless(Ending::LateClose));
    }
    assert_eq!(judge(SegmentClass::Small), loss(Ending::LateData, Confidence::Possible));
    assert_eq!(judge(SegmentClass::Data), loss(Ending::LateData, Confidence::Certain));
}

#[test]
fn a_surer_loss_is_not_weakened_by_a_later_reset() {
    let judge = |class| reset(by_fin(ClosedBy::Exit, asked(100)), Some(class)).judge();
    assert_eq!(judge(SegmentClass::None), loss(Ending::Unanswered, Confidence::Likely));
    assert_eq!(judge(SegmentClass::Small), loss(Ending::Unanswered, Confidence::Likely));
    assert_eq!(judge(SegmentClass::Data), loss(Ending::LateData, Confidence::Certain));
}

#[test]
fn aborts_are_told_apart_by_what_they_leave() {
    let abort = |set: fn(&mut Close)| reset(closed(true, ClosedBy::Application, set), None).judge();
    let first_words = |close: &mut Close| (close.socket.bytes_received, close.socket.unread) = (10, 10);
    assert_eq!(abort(first_words), loss(Ending::ResetUnread, Confidence::Certain));
    let a_request = |close: &mut Close| (close.socket.bytes_received, close.socket.unread) = (200, 100);
    assert_eq!(abort(a_request), loss(Ending::ResetUnread, Confidence::Certain));
    // Of as few bytes as a farewell has, where nobody saw what is spoken.
    let few = |close: &mut Close| (close.socket.bytes_received, close.socket.unread) = (110, 10);
    assert_eq!(abort(few), loss(Ending::ResetUnread, Confidence::Possible));
    assert_eq!(abort(|close| close.socket.orphan = true), loss(Ending::ResetBacklog, Confidence::Certain));
    assert_eq!(abort(|close| close.socket.unsent = 10), loss(Ending::ResetAbort, Confidence::Certain));
    assert_eq!(
        abort(|close| close.socket.exchange = Some(answered())),
        loss(Ending::ResetAbort, Confidence::Possible)
    );
    let empty = abort(|close| close.socket = Socket { key: 1, orphan: true, ..Socket::default() });
    assert_eq!(empty, loss(Ending::ResetBacklog, Confidence::Possible));
}

#[test]
fn a_peer_that_had_closed_may_not_care() {
    let abort = |unread: u32| {
        let connection = closed(true, ClosedBy::Application, |close| {
            close.peer_had_closed = true;
            close.socket.unread = unread;
        });
        reset(connection, None).judge()
    };
    assert_eq!(abort(26), loss(Ending::ResetUnread, Confidence::Possible));
    assert_eq!(abort(1).ending, Ending::ResetAbort, "the unread byte is the peer's FIN");
}

#[test]
fn an_abort_without_a_reset_is_the_kernel_giving_up() {
    assert_eq!(closed(true, ClosedBy::Kernel, |_| {}).judge(), harmless(Ending::TimedOut));
}

#[test]
fn only_what_peers_lost_is_a_loss() {
    let lost = || by_fin(ClosedBy::Exit, asked(100));
    assert_eq!(Connection { role: Role::Client, ..lost() }.judge(), harmless(Ending::Unanswered));
    for origin in [Origin::Checker, Origin::KubeletProbe] {
        assert_eq!(Connection { origin, ..lost() }.judge(), harmless(Ending::Unanswered));
    }
    for connection in [
        Connection { origin: Origin::SuspectedChecker, ..lost() },
        Connection { role: Role::Unknown, ..lost() },
    ] {
        assert_eq!(connection.judge(), loss(Ending::Unanswered, Confidence::Possible));
    }
}

#[test]
fn what_is_open_when_the_interface_goes_is_lost() {
    let open = Connection { close: None, state: TcpState::Established, ..by_fin(ClosedBy::Exit, answered()) };
    assert_eq!(open.judge_at_teardown(), loss(Ending::OpenAtTeardown, Confidence::Certain));
    assert_eq!(by_fin(ClosedBy::Exit, answered()).judge_at_teardown(), harmless(Ending::IdleClosed));
}

fn tls(exchange: Exchange) -> Exchange {
    Exchange { protocol: Protocol::Tls, ..exchange }
}

#[test]
fn a_request_after_the_fin_is_swallowed_where_the_application_reads_on() {
    let judge = |late: Exchange, unread| {
        let mut connection = by_fin(ClosedBy::Application, http1(answered()));
        connection.socket.exchange = Some(late);
        connection.socket.unread = unread;
        connection.judge()
    };
    let late = |unanswered, asks| http1(Exchange { unanswered, asks, ..answered() });
    assert_eq!(judge(late(80, true), 0), loss(Ending::LateData, Confidence::Certain));
    assert_eq!(
        judge(late(80, false), 0),
        loss(Ending::LateData, Confidence::Possible),
        "the rest of an upload"
    );
    assert_eq!(judge(late(0, true), 81), loss(Ending::LateData, Confidence::Possible), "was not read");
    assert_eq!(judge(late(0, true), 32), harmless(Ending::IdleClosed), "a farewell and the peer's FIN");
}

fn http1(exchange: Exchange) -> Exchange {
    Exchange { protocol: Protocol::Http1, ..exchange }
}

#[test]
fn what_a_found_connection_sent_just_before_an_exit_may_be_the_beginning_of_an_answer() {
    let judge = |opened, ticks: u32| {
        let connection = closed(false, ClosedBy::Exit, |close| {
            close.socket.last_receive = 1000;
            close.socket.last_send = 1000;
            close.socket.jiffies = 1000 + ticks;
        });
        Connection { opened, ..connection }.judge()
    };
    assert_eq!(judge(None, 100), loss(Ending::MidResponse, Confidence::Possible));
    assert_eq!(judge(None, 500), harmless(Ending::IdleClosed));
    assert_eq!(judge(Some(1), 100), harmless(Ending::IdleClosed), "all of it was seen");
}

#[test]
fn data_after_the_close_is_told_as_a_reset_that_was_received_and_hides_nothing() {
    let cut = by_fin(ClosedBy::Exit, Exchange { answer: Answer::UnderWay, ..answered() });
    let peer = Connection { reset_received: true, ..cut };
    assert_eq!(peer.judge(), harmless(Ending::PeerReset));
    let drawn = reset(peer, Some(SegmentClass::TlsAlert));
    assert_eq!(drawn.judge(), loss(Ending::MidResponse, Confidence::Certain));
}
