//! What only a protocol says at its end (a TLS close_notify, GOAWAY), told from requests and answers.

use super::*;

#[test]
fn a_close_notify_is_no_answer_but_a_short_answer_of_an_exiting_process_is() {
    let farewell = Exchange {
        answered: 24,
        last_write: 24,
        before_answer: 200,
        first_write_at: CLOSED_AT - 1000,
        last_write_at: CLOSED_AT - 1000,
        ..Exchange::default()
    };
    let judge = |by| by_fin(by, farewell).judge();
    assert_eq!(judge(ClosedBy::Application), loss(Ending::Unanswered, Confidence::Possible));
    assert_eq!(judge(ClosedBy::Exit), harmless(Ending::IdleClosed));
}

#[test]
fn a_farewell_answered_by_a_farewell_is_the_end() {
    let farewells = Exchange {
        answered: 24,
        last_write: 24,
        before_answer: 24,
        first_write_at: CLOSED_AT - 1000,
        last_write_at: CLOSED_AT - 1000,
        ..Exchange::default()
    };
    assert_eq!(by_fin(ClosedBy::Application, farewells).judge(), harmless(Ending::IdleClosed));
    let mut goaway = by_fin(ClosedBy::Application, asked(39));
    goaway.close.as_mut().unwrap().peer_had_closed = true;
    assert_eq!(goaway.judge(), harmless(Ending::PeerClosed));
}

#[test]
fn a_farewell_to_an_idle_connection_is_no_answer_under_way() {
    let (second, ms) = (1_000_000_000, 1_000_000);
    let parted = |ran: Mono, silent: Mono| Exchange {
        answered: 524,
        last_write: 24,
        first_write_at: CLOSED_AT - silent - ran,
        previous_write_at: CLOSED_AT - silent,
        last_write_at: CLOSED_AT - ms,
        ..Exchange::default()
    };
    let judge = |by, ran, silent| by_fin(by, parted(ran, silent)).judge();
    assert_eq!(judge(ClosedBy::Exit, 0, 5 * second), harmless(Ending::IdleClosed));
    assert_eq!(judge(ClosedBy::Application, 0, 5 * second), harmless(Ending::IdleClosed));
    assert_eq!(judge(ClosedBy::Exit, 0, second / 2), loss(Ending::MidResponse, Confidence::Possible));
    assert_eq!(judge(ClosedBy::Exit, second, 10 * ms), loss(Ending::MidResponse, Confidence::Likely));
}

#[test]
fn an_answer_before_the_peers_fin_is_no_farewell() {
    let small = Exchange {
        answered: 10,
        last_write: 10,
        before_answer: 200,
        first_write_at: CLOSED_AT - 1000,
        last_write_at: CLOSED_AT - 1000,
        ..Exchange::default()
    };
    let judge = |answered_before| {
        let connection = closed(false, ClosedBy::Application, |close| {
            close.peer_had_closed = true;
            close.answered_before = answered_before;
            close.socket.exchange = Some(small);
        });
        connection.judge()
    };
    assert_eq!(judge(true), harmless(Ending::PeerClosed));
    assert_eq!(judge(false), loss(Ending::Unanswered, Confidence::Possible));
}

#[test]
fn a_peer_may_close_before_the_call_that_answered_it_is_told() {
    let moment = Moment { container: 0, phase: Phase::Running, cause: None };
    let unread = Exchange { unanswered: 200, ..Exchange::default() };
    let at_peer_fin = Socket { bytes_acked: 10, exchange: Some(unread), ..Socket::default() };
    let close = |bytes_acked, unacked| {
        let change = StateChange {
            task: Task::default(),
            socket: Socket { bytes_acked, unacked, ..Socket::default() },
            tuple: Tuple { local: [1; 16], peer: [2; 16], local_port: 80, peer_port: 1000 },
            old: TcpState::CloseWait,
            new: TcpState::LastAck,
        };
        Close::of(CLOSED_AT, &change, moment, Some(&at_peer_fin)).unwrap()
    };
    assert!(close(10, 0).answered_before, "its ten bytes had been sent by then");
    assert!(!close(10, 24).answered_before, "these were written after the FIN");
}

#[test]
fn a_small_answer_that_is_whole_is_no_farewell() {
    let small = Exchange {
        answered: 38,
        last_write: 38,
        before_answer: 200,
        first_write_at: CLOSED_AT - 1000,
        last_write_at: CLOSED_AT - 1000,
        answer: Answer::Whole,
        ..Exchange::default()
    };
    assert_eq!(by_fin(ClosedBy::Application, small).judge(), harmless(Ending::IdleClosed));
}

#[test]
fn a_farewell_left_unread_is_no_request() {
    let abort = |unread: u32, exchange: Exchange| {
        let connection = closed(true, ClosedBy::Application, |close| {
            close.socket.unread = unread;
            close.socket.exchange = Some(exchange);
        });
        reset(connection, None).judge()
    };
    assert_eq!(abort(24, tls(answered())), harmless(Ending::ResetUnread));
    assert_eq!(abort(31, tls(answered())), loss(Ending::ResetUnread, Confidence::Possible));
    assert_eq!(abort(65, tls(answered())), loss(Ending::ResetUnread, Confidence::Certain));
    assert_eq!(abort(24, answered()), loss(Ending::ResetUnread, Confidence::Certain), "not over TLS");
    let crossed = abort(24, tls(asked(110)));
    assert_eq!(crossed, loss(Ending::ResetUnread, Confidence::Possible), "a request was read before it");
}

#[test]
fn a_farewell_that_was_never_acknowledged_is_no_answer() {
    let judge = |unacked: u32, exchange: Exchange| {
        let mut connection = by_fin(ClosedBy::Application, exchange);
        connection.socket.exchange = Some(exchange);
        connection.socket.unacked = unacked + 1;
        connection
    };
    let parted = tls(Exchange { farewell: 24, answer: Answer::Unknown, ..answered() });
    assert_eq!(judge(24, parted).judge(), harmless(Ending::IdleClosed));
    assert_eq!(judge(63, parted).judge(), loss(Ending::MidResponse, Confidence::Possible), "GOAWAY?");
    assert_eq!(judge(200, parted).judge(), loss(Ending::MidResponse, Confidence::Certain));
    let drawn = reset(judge(200, parted), Some(SegmentClass::TlsAlert));
    assert_eq!(drawn.judge(), loss(Ending::MidResponse, Confidence::Possible), "all of it was sent");
    let mut unsent = drawn;
    unsent.socket.unsent = 100;
    assert_eq!(unsent.judge(), loss(Ending::MidResponse, Confidence::Certain));
}
