//! The pod's own close: what the socket and the application's last calls tell of it.

use super::Moment;
use crate::{
    event::{Answer, Exchange, Mono, Socket, StateChange, TcpState},
    words::{ClosedBy, Confidence, Phase},
};

/// A send of at most this many bytes just before a close is a farewell (TLS close_notify, GOAWAY), no
/// answer; a request of at most this many bytes may be one too.
pub(super) const FAREWELL: u64 = 64;
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
        let last_write = |socket: &Socket| socket.exchange.as_ref().map(|exchange| exchange.last_write_at);
        let answered_before = at_peer_fin.is_some_and(|then| last_write(then) == last_write(&change.socket));
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

    /// Whether an answer of several writes was under way: silent for less time than it had run. An
    /// answer that ran for long by then was hardly complete by chance. Applications close right after
    /// an answer as a rule, so that theirs must have run for some time to be doubted at all.
    pub(super) fn response_under_way(&self) -> Option<Confidence> {
        let ended = match self.answer() {
            Answer::Whole => true,
            Answer::UntilClose => self.by == ClosedBy::Application,
            Answer::Unknown | Answer::UnderWay => false,
        };
        if ended {
            return None;
        }
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

/// From one time in jiffies to another, in nanoseconds of the commonest tick (HZ=250): only compared
/// with one another and with [`LONG_RESPONSE`]. 0 if the second is the earlier.
fn ticks(from: u32, to: u32) -> Mono {
    Mono::from(to.wrapping_sub(from).cast_signed().max(0).unsigned_abs()) * 4_000_000
}
