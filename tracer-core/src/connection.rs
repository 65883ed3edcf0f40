//! One connection: what is known of it while it lives, and how it ended.

use crate::{
    event::{Exchange, Mono, ResetSent, SegmentClass, Socket, StateChange, TcpState, Tuple},
    words::{Cause, ClosedBy, Confidence, Ending, Hop, Judgement, Origin, Phase, Role},
};

/// A send of at most this many bytes just before a close is a farewell (TLS close_notify, GOAWAY), no
/// answer; a request of at most this many bytes may be one too.
const FAREWELL: u64 = 64;
/// An answer that ran for this long in several writes was hardly complete by chance when the process
/// exited; in nanoseconds.
const LONG_RESPONSE: Mono = 50_000_000;

/// A farewell is part of the close: within a jiffy of a kernel with HZ=250, in nanoseconds.
const FAREWELL_AGE: Mono = 4_000_000;
/// Farewells on all connections of a process take a while, and then it exits; in nanoseconds.
const PARTING: Mono = 100_000_000;
/// A first piece of an answer this long ago may be followed by another small one; in nanoseconds.
const RECENT: Mono = 1_000_000_000;

/// An application that closes after an answer of several writes that ran for less than this had
/// written it at once; in nanoseconds.
const DOUBTED_RESPONSE: Mono = 10_000_000;

/// Where the container was when something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Moment {
    /// Number of the container.
    pub container: u32,
    /// Its phase.
    pub phase: Phase,
    /// What made it exit, in the phases exiting and after_exit.
    pub cause: Option<Cause>,
}

/// The pod's own close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    /// When.
    pub time: Mono,
    /// Who.
    pub by: ClosedBy,
    /// Where the container was.
    pub moment: Moment,
    /// The peer had sent its FIN before.
    pub peer_had_closed: bool,
    /// The last write came before the peer's FIN: an answer, whatever its size.
    pub answered_before: bool,
    /// Straight to CLOSE, without a FIN.
    pub abort: bool,
    /// What the socket knew then.
    pub socket: Socket,
}

impl Close {
    /// The close that a state change makes, if it is one: only there does the current task tell who
    /// closed (elsewhere it is a bystander of the softirq).
    /// `at_peer_fin` is what the socket knew when the peer's FIN came, if it had come.
    fn of(time: Mono, change: &StateChange, moment: Moment, at_peer_fin: Option<&Socket>) -> Option<Self> {
        use TcpState::{Close as Closed, CloseWait, Established, FinWait1, LastAck, SynRecv};
        let (peer_had_closed, abort) = match (change.old, change.new) {
            (Established | SynRecv, FinWait1) => (false, false),
            (CloseWait, LastAck) => (true, false),
            (Established, Closed) => (false, true),
            (CloseWait, Closed) => (true, true),
            _ => return None,
        };
        let by = match (change.task.exiting, change.task.kernel_thread) {
            (true, _) => ClosedBy::Exit,
            (_, true) if moment.phase >= Phase::Exiting => ClosedBy::Exit,
            (_, true) => ClosedBy::Kernel,
            _ => ClosedBy::Application,
        };
        let last_write = |socket: &Socket| socket.exchange.as_ref().map(|exchange| exchange.last_write_at);
        let answered_before = at_peer_fin.is_some_and(|then| last_write(then) == last_write(&change.socket));
        Some(Self { time, by, moment, peer_had_closed, answered_before, abort, socket: change.socket })
    }

    /// Bytes of payload that had been received; the peer's FIN counts 1 in the kernel's number.
    fn received(&self) -> u64 {
        self.socket.bytes_received.saturating_sub(u64::from(self.peer_had_closed))
    }

    /// Bytes of payload that the application had not read.
    fn unread(&self) -> u32 {
        self.socket.unread.saturating_sub(u32::from(self.peer_had_closed))
    }

    /// Bytes of the last request if it had got no answer; 0 if it had. Few bytes before the peer's own
    /// FIN are its farewell.
    fn unanswered(&self) -> u64 {
        let bytes = self.without_answer();
        if self.peer_had_closed && bytes <= FAREWELL { 0 } else { bytes }
    }

    fn without_answer(&self) -> u64 {
        match &self.socket.exchange {
            Some(exchange) if exchange.unanswered > 0 => exchange.unanswered.into(),
            Some(exchange) if self.was_farewell(exchange) => exchange.before_answer.into(),
            Some(_) => 0,
            None if self.received() > 0 && self.last_data_was_received() => self.received(),
            None => 0,
        }
    }

    /// By the kernel's own time stamps, where the calls were not seen. Within one jiffy it counts as
    /// answered.
    fn last_data_was_received(&self) -> bool {
        let nothing_sent = self.socket.bytes_acked == 0 && self.socket.unacked == 0;
        nothing_sent || self.socket.last_receive.wrapping_sub(self.socket.last_send).cast_signed() > 0
    }

    /// The last write was small, alone, and part of the close itself: a TLS close_notify, no answer. To
    /// few bytes it is the reply: to the peer's own close_notify.
    fn was_farewell(&self, exchange: &Exchange) -> bool {
        self.by == ClosedBy::Application
            && !self.answered_before
            && u64::from(exchange.before_answer) > FAREWELL
            && exchange.answered == exchange.last_write
            && u64::from(exchange.last_write) <= FAREWELL
            && self.time.saturating_sub(exchange.last_write_at) <= FAREWELL_AGE
    }

    /// Whether an answer of several writes was under way: silent for less time than it had run. An
    /// answer that ran for long by then was hardly complete by chance. Applications close right after
    /// an answer as a rule, so that theirs must have run for some time to be doubted at all.
    fn response_under_way(&self) -> Option<Confidence> {
        let (ran, silent) = match &self.socket.exchange {
            Some(exchange) if exchange.first_write_at == 0 => return None,
            Some(exchange) => (
                exchange.last_write_at.saturating_sub(exchange.first_write_at),
                self.time.saturating_sub(exchange.last_write_at),
            ),
            // By the kernel's own time stamps it began when the request came; only of exits.
            None if self.by == ClosedBy::Exit => (
                ticks(self.socket.last_receive, self.socket.last_send),
                ticks(self.socket.last_send, self.socket.jiffies),
            ),
            None => return None,
        };
        // Without the calls it is not known when the answer began: until then the application may have
        // thought about it, so that it may be complete.
        let known = self.socket.exchange.is_some();
        let long = known && self.by == ClosedBy::Exit && ran >= LONG_RESPONSE;
        let doubted = self.by == ClosedBy::Exit || ran >= DOUBTED_RESPONSE;
        let under_way = (silent < ran && doubted).then_some(if long {
            Confidence::Likely
        } else {
            Confidence::Possible
        })?;
        self.without_parting().map_or(Some(under_way), |before| before.at_most(under_way))
    }

    /// The answer without its last write, if that may have been a farewell: small, and near the close.
    fn without_parting(&self) -> Option<BeforeParting> {
        let exchange = self.socket.exchange.as_ref()?;
        let is_farewell = exchange.previous_write_at != 0
            && u64::from(exchange.last_write) <= FAREWELL
            && self.time.saturating_sub(exchange.last_write_at) <= PARTING;
        is_farewell.then(|| BeforeParting {
            ran: exchange.previous_write_at.saturating_sub(exchange.first_write_at),
            silent: self.time.saturating_sub(exchange.previous_write_at),
        })
    }
}

/// How long an answer had run and was silent before what may have been a farewell.
struct BeforeParting {
    ran: Mono,
    silent: Mono,
}

impl BeforeParting {
    /// An answer that had been complete for long was not under way, and of one that was complete a moment
    /// ago that is only possible.
    fn at_most(&self, under_way: Confidence) -> Option<Confidence> {
        match self {
            Self { ran, silent } if silent < ran => Some(under_way),
            Self { silent, .. } if *silent < RECENT => Some(Confidence::Possible),
            _ => None,
        }
    }
}

/// A connection from its opening, or from when it was found, to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Both ends.
    pub tuple: Tuple,
    /// Which side opened it.
    pub role: Role,
    /// Who the peer is.
    pub origin: Origin,
    /// How far it goes.
    pub hop: Hop,
    /// Its protocol never answers.
    pub one_way: bool,
    /// When it was opened; `None` if it was found open.
    pub opened: Option<Mono>,
    /// Where the container was when it was opened, found, or changed last.
    pub moment: Moment,
    /// Its state.
    pub state: TcpState,
    /// The pod's close, if it closed.
    pub close: Option<Close>,
    /// What the socket knew last.
    pub socket: Socket,
    /// The peer sent a reset.
    pub reset_received: bool,
    /// A reset was sent, by our own act or drawn by a segment.
    pub reset_sent: Option<ResetSent>,
    /// The kernel made a second socket of the same handshake, and took it back (`inet_ehash_nolisten`).
    pub given_up_in_handshake: bool,
}

impl Connection {
    /// Takes a state change.
    pub fn change(&mut self, time: Mono, change: &StateChange, moment: Moment) {
        if self.close.is_none() && !self.reset_received {
            let at_peer_fin = (self.state == TcpState::CloseWait).then_some(&self.socket);
            self.close = Close::of(time, change, moment, at_peer_fin);
        }
        self.given_up_in_handshake = (change.old, change.new) == (TcpState::SynRecv, TcpState::Close)
            && change.socket.bytes_received == 0;
        self.state = change.new;
        self.socket = change.socket;
        self.moment = moment;
        self.tuple = change.tuple;
    }

    /// Whether the peer ever sent payload.
    #[must_use]
    pub fn carried_payload(&self) -> bool {
        let fin = matches!(
            self.state,
            TcpState::CloseWait | TcpState::LastAck | TcpState::Closing | TcpState::Close
        );
        self.socket.bytes_received > u64::from(fin)
    }

    /// Whether the pod ever sent payload; its own FIN counts 1 in the kernel's numbers.
    #[must_use]
    pub fn sent_payload(&self) -> bool {
        let fin = self.close.is_some_and(|close| !close.abort);
        self.socket.bytes_acked + u64::from(self.socket.unacked) > u64::from(fin)
    }

    /// All that the pod sent was acknowledged; judged when the socket ends, not at the FIN: an orphan
    /// goes on sending.
    #[must_use]
    pub fn delivered(&self) -> bool {
        let fin = self.close.is_some_and(|close| !close.abort);
        // Each takes a sequence number, as the opener's SYN does until the peer answers it.
        let syn = self.role == Role::Client && self.socket.bytes_acked == 0;
        self.socket.unacked <= u32::from(fin) + u32::from(syn)
    }

    /// Where the container was when the pod closed; else when the connection changed last.
    #[must_use]
    pub fn moment_of_end(&self) -> Moment {
        self.close.map_or(self.moment, |close| close.moment)
    }

    /// How it ended: once it is at CLOSE and it is known whether a reset followed.
    #[must_use]
    pub fn judge(&self) -> Judgement {
        self.by_role(self.judge_closed())
    }

    /// How it ended if the network interface went while the socket was still there.
    #[must_use]
    pub fn judge_at_teardown(&self) -> Judgement {
        self.by_role(match &self.close {
            Some(close) if !close.abort => self.judge_fin(close),
            _ => Judgement::loss(Ending::OpenAtTeardown, Confidence::Certain),
        })
    }

    /// Only what clients lost is a loss; of a connection whose opener is unknown it is possible.
    fn by_role(&self, judgement: Judgement) -> Judgement {
        let nobody =
            self.role == Role::Client || matches!(self.origin, Origin::Checker | Origin::KubeletProbe);
        match judgement.confidence {
            Some(_) if nobody => Judgement::harmless(judgement.ending),
            Some(_) if self.role == Role::Unknown || self.origin == Origin::SuspectedChecker => {
                Judgement::loss(judgement.ending, Confidence::Possible)
            }
            _ => judgement,
        }
    }

    fn judge_closed(&self) -> Judgement {
        let Some(close) = &self.close else { return Judgement::harmless(self.ending_without_close()) };
        if close.abort {
            return self.judge_abort(close);
        }
        let closed = self.judge_fin(close);
        self.reset_sent.as_ref().map_or(closed, |reset| worse(closed, after_close(reset)))
    }

    fn ending_without_close(&self) -> Ending {
        if self.reset_received {
            Ending::PeerReset
        } else if self.given_up_in_handshake {
            Ending::NeverEstablished
        } else {
            Ending::TimedOut
        }
    }

    fn judge_abort(&self, close: &Close) -> Judgement {
        let certain_unless = |doubt| if doubt { Confidence::Possible } else { Confidence::Certain };
        if self.reset_sent.is_none() {
            Judgement::harmless(Ending::TimedOut)
        } else if close.socket.orphan {
            // Established and without a file: nobody accepted it.
            Judgement::loss(
                Ending::ResetBacklog,
                certain_unless(close.received() == 0 || close.peer_had_closed),
            )
        } else if close.unread() > 0 {
            Judgement::loss(Ending::ResetUnread, certain_unless(close.peer_had_closed))
        } else {
            let idle = close.unanswered() == 0 && close.socket.unacked == 0;
            Judgement::loss(Ending::ResetAbort, certain_unless(idle))
        }
    }

    fn judge_fin(&self, close: &Close) -> Judgement {
        let unanswered = if self.one_way { 0 } else { close.unanswered() };
        if self.reset_received {
            Judgement::harmless(Ending::PeerReset)
        } else if !self.delivered() {
            Judgement::loss(Ending::MidResponse, Confidence::Certain)
        } else if unanswered > 0 {
            let likely = close.by == ClosedBy::Exit && unanswered > FAREWELL && !close.peer_had_closed;
            Judgement::loss(
                Ending::Unanswered,
                if likely { Confidence::Likely } else { Confidence::Possible },
            )
        } else if close.peer_had_closed {
            Judgement::harmless(Ending::PeerClosed)
        } else if let Some(confidence) = close.response_under_way().filter(|_| !self.one_way) {
            Judgement::loss(Ending::MidResponse, confidence)
        } else {
            Judgement::harmless(Ending::IdleClosed)
        }
    }
}

/// From one time in jiffies to another, in nanoseconds of the commonest tick (HZ=250): only compared
/// with one another and with [`LONG_RESPONSE`]. 0 if the second is the earlier.
fn ticks(from: u32, to: u32) -> Mono {
    Mono::from(to.wrapping_sub(from).cast_signed().max(0).unsigned_abs()) * 4_000_000
}

/// What a reset after the pod's close means: by what drew it.
#[must_use]
pub fn after_close(reset: &ResetSent) -> Judgement {
    match reset.segment.map(|segment| segment.class) {
        Some(SegmentClass::Data) => Judgement::loss(Ending::LateData, Confidence::Certain),
        Some(SegmentClass::Small) => Judgement::loss(Ending::LateData, Confidence::Possible),
        _ => Judgement::harmless(Ending::LateClose),
    }
}

/// Of two judgements on one connection the surer loss; of equals the later.
#[must_use]
pub fn worse(earlier: Judgement, later: Judgement) -> Judgement {
    if earlier.confidence > later.confidence { earlier } else { later }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Segment, SocketKind, Task};

    const CLOSED_AT: Mono = 10_000_000_000;

    /// A server connection that the pod closed; the closure says how.
    fn closed(abort: bool, by: ClosedBy, set: impl FnOnce(&mut Close)) -> Connection {
        let moment = Moment { container: 0, phase: Phase::Exiting, cause: Some(Cause::StopSignal) };
        let socket = Socket { key: 1, bytes_received: 100, bytes_acked: 100, ..Socket::default() };
        let mut close = Close {
            time: CLOSED_AT,
            by,
            moment,
            peer_had_closed: false,
            answered_before: false,
            abort,
            socket,
        };
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
            close: Some(close),
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
        let segment = class.map(|class| Segment { payload: 1, flags: 24, class });
        connection.reset_sent = Some(ResetSent {
            task: Task::default(),
            socket_kind: SocketKind::Full,
            socket: Socket::default(),
            tuple: connection.tuple,
            segment,
            reason: None,
        });
        connection
    }

    fn answered() -> Exchange {
        Exchange {
            answered: 500,
            last_write: 500,
            first_write_at: 5,
            last_write_at: 5,
            ..Exchange::default()
        }
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
    fn what_was_never_acknowledged_died_with_the_socket() {
        let mut connection = by_fin(ClosedBy::Exit, answered());
        connection.socket.unacked = 1000;
        assert_eq!(connection.judge(), loss(Ending::MidResponse, Confidence::Certain));
        connection.socket.unacked = 1;
        assert_eq!(connection.judge(), harmless(Ending::IdleClosed), "our own FIN is no data");
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
        assert_eq!(abort(|close| close.socket.unread = 10), loss(Ending::ResetUnread, Confidence::Certain));
        assert_eq!(
            abort(|close| close.socket.orphan = true),
            loss(Ending::ResetBacklog, Confidence::Certain)
        );
        assert_eq!(abort(|close| close.socket.unacked = 10), loss(Ending::ResetAbort, Confidence::Certain));
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
    fn a_second_socket_of_a_handshake_is_no_peer_that_does_not_answer() {
        let mut connection = Connection { close: None, ..closed(true, ClosedBy::Kernel, |_| {}) };
        let (tuple, moment) = (connection.tuple, connection.moment);
        let change = |bytes_received| StateChange {
            task: Task::default(),
            socket: Socket { bytes_received, ..Socket::default() },
            tuple,
            old: TcpState::SynRecv,
            new: TcpState::Close,
        };
        connection.change(1, &change(0), moment);
        assert_eq!(connection.judge(), harmless(Ending::NeverEstablished));
        connection.change(1, &change(10), moment);
        assert_eq!(connection.judge(), harmless(Ending::TimedOut));
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
        let open =
            Connection { close: None, state: TcpState::Established, ..by_fin(ClosedBy::Exit, answered()) };
        assert_eq!(open.judge_at_teardown(), loss(Ending::OpenAtTeardown, Confidence::Certain));
        assert_eq!(by_fin(ClosedBy::Exit, answered()).judge_at_teardown(), harmless(Ending::IdleClosed));
    }
}
