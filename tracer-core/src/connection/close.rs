//! The pod's own close: what the socket and the application's last calls tell of it.

use super::Moment;
use crate::{
    event::{Answer, Exchange, Mono, Protocol, Socket, StateChange, TcpState},
    words::{ClosedBy, Confidence, Phase},
};

/// A send of at most this many bytes just before a close is a farewell (TLS close_notify, GOAWAY), no
/// answer; a request of at most this many bytes may be one too.
pub const FAREWELL: u64 = 64;
/// A TLS 1.3 record with an alert: its header, two bytes, the inner type, the tag. Nobody asks in two bytes.
const TLS_ALERT: u32 = 24;

/// A farewell is part of the close: within a jiffy of a kernel with HZ=250, in nanoseconds.
const FAREWELL_AGE: Mono = 4_000_000;

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
    pub(super) fn of(
        time: Mono,
        change: &StateChange,
        moment: Moment,
        at_peer_fin: Option<&Socket>,
    ) -> Option<Self> {
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
        // By the kernel's own numbers: a peer that has its answer may close before the application's call is
        // told, which is when it returns.
        let written = |socket: &Socket| socket.bytes_acked + u64::from(socket.unacked);
        let answered_before = at_peer_fin.is_some_and(|then| written(then) == written(&change.socket));
        Some(Self { time, by, moment, peer_had_closed, answered_before, abort, socket: change.socket })
    }

    /// Bytes of payload that had been received; the peer's FIN counts 1 in the kernel's number.
    pub(super) fn received(&self) -> u64 {
        self.socket.bytes_received.saturating_sub(u64::from(self.peer_had_closed))
    }

    /// Bytes of payload that the application had not read.
    pub(super) fn unread(&self) -> u32 {
        self.socket.unread.saturating_sub(u32::from(self.peer_had_closed))
    }

    /// What the application had not read is the peer's farewell, who waits for nothing any more.
    pub(super) fn left_farewell(&self) -> bool {
        self.protocol() == Protocol::Tls && self.unread() == TLS_ALERT
    }

    /// What the application had not read may be that, or what else only the protocol needs. Where calls are not
    /// seen nobody knows what is spoken; but what a peer says first is no farewell.
    pub(super) fn may_have_left_farewell(&self) -> bool {
        let unread = u64::from(self.unread());
        let has_farewells = match &self.socket.exchange {
            Some(exchange) => matches!(exchange.protocol, Protocol::Tls | Protocol::Http2),
            None => self.received() > unread,
        };
        has_farewells && unread <= FAREWELL
    }

    fn protocol(&self) -> Protocol {
        self.socket.exchange.map_or(Protocol::Other, |exchange| exchange.protocol)
    }

    /// Whether a request came after our FIN: an application that reads on then (`shutdown`) swallows it, and
    /// no reset shows it. `end` is what the socket knew at its end. That the peer goes on with what it had
    /// begun, an upload that was answered early, is no loss: only a beginning proves a request.
    pub(super) fn late_request(&self, end: &Socket) -> Option<Confidence> {
        // The peer's FIN counts 1.
        let unread = u64::from(end.unread.saturating_sub(1));
        let (late, begins) = match (&self.socket.exchange, &end.exchange) {
            (Some(then), Some(now)) => {
                let read = u64::from(now.unanswered.saturating_sub(then.unanswered));
                (read + unread, read > 0 && then.unanswered == 0 && now.asks)
            }
            _ => (end.bytes_received.saturating_sub(self.socket.bytes_received + 1), false),
        };
        if begins && self.protocol() == Protocol::Http1 {
            Some(Confidence::Certain)
        } else {
            (late > FAREWELL).then_some(Confidence::Possible)
        }
    }

    /// Whether so little was written since the request was read that it may be an answer or not.
    pub(super) fn is_doubtful(&self) -> bool {
        self.socket.exchange.is_some_and(|exchange| exchange.doubtful)
    }

    /// Bytes of the last request if it had got no answer; 0 if it had. Few bytes before the peer's own
    /// FIN are its farewell.
    pub(super) fn unanswered(&self) -> u64 {
        let bytes = self.without_answer();
        let farewell = bytes <= FAREWELL || self.is_doubtful();
        if self.peer_had_closed && farewell { 0 } else { bytes }
    }

    /// How far the last answer had come.
    pub(super) fn answer(&self) -> Answer {
        self.socket.exchange.map_or(Answer::Unknown, |exchange| exchange.answer)
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
            && exchange.answer == Answer::Unknown
            && !self.answered_before
            && u64::from(exchange.before_answer) > FAREWELL
            && exchange.answered == exchange.last_write
            && u64::from(exchange.last_write) <= FAREWELL
            && self.time.saturating_sub(exchange.last_write_at) <= FAREWELL_AGE
    }
}
