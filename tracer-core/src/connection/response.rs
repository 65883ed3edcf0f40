//! Whether an answer was under way when the pod closed, where its length is not known: by how long it had
//! run and had been silent.

use super::close::{Close, FAREWELL};
use crate::{
    event::{Answer, Mono},
    words::{ClosedBy, Confidence},
};

/// An answer that ran for this long in several writes was hardly complete by chance when the process
/// exited; in nanoseconds.
const LONG_RESPONSE: Mono = 50_000_000;
/// Farewells on all connections of a process take a while, and then it exits; in nanoseconds.
const PARTING: Mono = 100_000_000;
/// A first piece of an answer this long ago may be followed by another small one; in nanoseconds.
const RECENT: Mono = 1_000_000_000;

/// An application that closes after an answer of several writes that ran for less than this had
/// written it at once; in nanoseconds.
const DOUBTED_RESPONSE: Mono = 10_000_000;

impl Close {
    /// Whether an answer of several writes was under way: silent for less time than it had run. An
    /// answer that ran for long by then was hardly complete by chance. Applications close right after
    /// an answer as a rule, so that theirs must have run for some time to be doubted at all. On a
    /// connection that was `found` an answer may have begun before.
    pub(super) fn response_under_way(&self, found: bool) -> Option<Confidence> {
        let ended = match self.answer() {
            Answer::Whole => true,
            Answer::UntilClose => self.by == ClosedBy::Application,
            Answer::Unknown | Answer::UnderWay => false,
        };
        if ended {
            return None;
        }
        let (ran, silent) = self.ran_and_was_silent()?;
        // Of what went out before it was traced nothing is known but when: it may have been an answer's
        // beginning.
        if found && self.socket.exchange.is_none() && silent < RECENT {
            return Some(Confidence::Possible);
        }
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

    /// For how long the last answer had run, and then been silent.
    fn ran_and_was_silent(&self) -> Option<(Mono, Mono)> {
        match &self.socket.exchange {
            Some(exchange) if exchange.first_write_at == 0 => None,
            Some(exchange) => Some((
                exchange.last_write_at.saturating_sub(exchange.first_write_at),
                self.time.saturating_sub(exchange.last_write_at),
            )),
            // By the kernel's own time stamps it began when the request came; only of exits.
            None if self.by == ClosedBy::Exit => Some((
                ticks(self.socket.last_receive, self.socket.last_send),
                ticks(self.socket.last_send, self.socket.jiffies),
            )),
            None => None,
        }
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
            orderly: self.by == ClosedBy::Application && exchange.farewell > 0,
        })
    }
}

/// How long an answer had run and was silent before what may have been a farewell.
struct BeforeParting {
    ran: Mono,
    silent: Mono,
    /// The application closed, and the protocol's own farewell followed.
    orderly: bool,
}

impl BeforeParting {
    /// An answer that had been complete for long was not under way, and of one that was complete a moment
    /// ago that is only possible.
    fn at_most(&self, under_way: Confidence) -> Option<Confidence> {
        match self {
            Self { ran, silent, .. } if silent < ran => Some(under_way),
            Self { silent, orderly: false, .. } if *silent < RECENT => Some(Confidence::Possible),
            _ => None,
        }
    }
}

/// From one time in jiffies to another, in nanoseconds of the commonest tick (HZ=250): only compared
/// with one another and with [`LONG_RESPONSE`]. 0 if the second is the earlier.
fn ticks(from: u32, to: u32) -> Mono {
    Mono::from(to.wrapping_sub(from).cast_signed().max(0).unsigned_abs()) * 4_000_000
}
