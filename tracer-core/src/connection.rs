//! One connection: what is known of it while it lives, and how it ended.

mod close;
mod response;
mod spare;
#[cfg(test)]
mod tests;

pub use self::{
    close::{Close, FAREWELL},
    spare::Spare,
};
use crate::{
    event::{Answer, Mono, Protocol, Segment, SegmentClass, Socket, StateChange, TcpState, Tuple},
    words::{Cause, ClosedBy, Confidence, Ending, Hop, Judgement, Origin, Phase, Role},
};

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
    pub close: Option<Box<Close>>,
    /// What the socket knew last.
    pub socket: Socket,
    /// The peer sent a reset.
    pub reset_received: bool,
    /// A reset was sent, drawn by this segment or by our own act.
    pub reset_sent: Option<Option<Segment>>,
    /// The kernel made a second socket of the same handshake, and took it back (`inet_ehash_nolisten`).
    pub given_up_in_handshake: bool,
}

impl Connection {
    /// Takes a state change.
    pub fn change(&mut self, time: Mono, change: &StateChange, moment: Moment, spare: &mut Spare) {
        if self.close.is_none() && !self.reset_received {
            let at_peer_fin = (self.state == TcpState::CloseWait).then_some(&self.socket);
            self.close = Close::of(time, change, moment, at_peer_fin).map(|close| spare.keep(close));
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
        let fin = self.close.as_ref().is_some_and(|close| !close.abort);
        self.socket.bytes_acked + u64::from(self.socket.unacked) > u64::from(fin)
    }

    /// All that the pod sent was acknowledged; judged when the socket ends, not at the FIN: an orphan
    /// goes on sending.
    #[must_use]
    pub fn delivered(&self) -> bool {
        self.undelivered() == 0
    }

    /// Bytes of payload that were never acknowledged.
    fn undelivered(&self) -> u32 {
        let fin = self.close.as_ref().is_some_and(|close| !close.abort);
        // Each takes a sequence number, as the opener's SYN does until the peer answers it.
        let syn = self.role == Role::Client && self.socket.bytes_acked == 0;
        self.socket.unacked.saturating_sub(u32::from(fin) + u32::from(syn))
    }

    /// Where the container was when the pod closed; else when the connection changed last.
    #[must_use]
    pub fn moment_of_end(&self) -> Moment {
        self.close.as_ref().map_or(self.moment, |close| close.moment)
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
            Some(close) if !close.abort => self.judge_half_closed(close),
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
        let Some(close) = &self.close else { return self.judge_without_close() };
        if close.abort {
            return self.judge_abort(close);
        }
        let closed = self.judge_half_closed(close);
        self.reset_sent.map_or(closed, |segment| worse(closed, after_close(segment)))
    }

    /// By the FIN, and by what came after it where the application read on and the kernel drew no reset.
    fn judge_half_closed(&self, close: &Close) -> Judgement {
        let at_fin = self.judge_fin(close);
        let late = close.late_request(&self.socket).filter(|_| !self.one_way);
        late.map_or(at_fin, |confidence| worse(at_fin, Judgement::loss(Ending::LateData, confidence)))
    }

    fn judge_without_close(&self) -> Judgement {
        if self.reset_received {
            Judgement::harmless(Ending::PeerReset)
        } else if self.given_up_in_handshake {
            // The client knows nothing of that, and sends its request.
            let given_up = Judgement::harmless(Ending::NeverEstablished);
            self.reset_sent.map_or(given_up, |segment| worse(given_up, after_close(segment)))
        } else {
            Judgement::harmless(Ending::TimedOut)
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
        } else if close.left_farewell() && close.unanswered() == 0 {
            Judgement::harmless(Ending::ResetUnread)
        } else if close.left_farewell() {
            // A request that crossed with our own farewell was read, and the peer's reply to that was not.
            Judgement::loss(Ending::ResetUnread, Confidence::Possible)
        } else if close.unread() > 0 {
            let doubt = close.peer_had_closed || close.may_have_left_farewell();
            Judgement::loss(Ending::ResetUnread, certain_unless(doubt))
        } else {
            // What was sent may be read before the reset that follows it; what was not died here.
            let idle =
                close.unanswered() == 0 && close.socket.unsent == 0 && close.answer() != Answer::UnderWay;
            Judgement::loss(Ending::ResetAbort, certain_unless(idle))
        }
    }

    /// Whether a part of the answer died with the socket. What only the protocol needs nobody waits for. What
    /// was sent before our reset may be read before it.
    fn died_with_socket(&self) -> Option<Confidence> {
        let exchange = self.socket.exchange.as_ref();
        let lost = self.undelivered().saturating_sub(exchange.map_or(0, |exchange| exchange.farewell));
        if lost == 0 {
            return None;
        }
        let encrypted = exchange.is_none_or(|exchange| exchange.protocol == Protocol::Tls);
        let may_be_farewell = encrypted && u64::from(lost) <= FAREWELL;
        let before_reset = self.reset_sent.is_some() && self.socket.unsent <= 1;
        Some(if may_be_farewell || before_reset { Confidence::Possible } else { Confidence::Certain })
    }

    /// Data that comes after the close ends the socket as if it were a reset (`tcp_rcv_state_process` calls
    /// `tcp_reset`, which is told as received), and draws one.
    fn drew_reset(&self) -> bool {
        matches!(self.reset_sent, Some(Some(_)))
    }

    fn judge_fin(&self, close: &Close) -> Judgement {
        if self.reset_received && !self.drew_reset() {
            return Judgement::harmless(Ending::PeerReset);
        }
        let said = self.judge_what_was_said(close);
        let died = self.died_with_socket();
        died.map_or(said, |confidence| worse(said, Judgement::loss(Ending::MidResponse, confidence)))
    }

    /// Whether what the application had read was answered, and whether the answer was whole.
    fn judge_what_was_said(&self, close: &Close) -> Judgement {
        let unanswered = if self.one_way { 0 } else { close.unanswered() };
        let under_way = close.answer() == Answer::UnderWay;
        if unanswered > 0 {
            let by_exit = close.by == ClosedBy::Exit && unanswered > FAREWELL && !close.is_doubtful();
            let likely = (by_exit || under_way) && !close.peer_had_closed;
            Judgement::loss(
                Ending::Unanswered,
                if likely { Confidence::Likely } else { Confidence::Possible },
            )
        } else if under_way && !close.peer_had_closed {
            Judgement::loss(Ending::MidResponse, Confidence::Certain)
        } else if under_way {
            // Who has sent its FIN may still read. Who is gone would have reset what it got.
            Judgement::loss(Ending::MidResponse, Confidence::Possible)
        } else if close.peer_had_closed {
            Judgement::harmless(Ending::PeerClosed)
        } else if let Some(confidence) =
            close.response_under_way(self.opened.is_none()).filter(|_| !self.one_way)
        {
            Judgement::loss(Ending::MidResponse, confidence)
        } else {
            Judgement::harmless(Ending::IdleClosed)
        }
    }
}

/// What a reset after the pod's close means: by what drew it.
#[must_use]
pub fn after_close(drawn_by: Option<Segment>) -> Judgement {
    match drawn_by.map(|segment| segment.class) {
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
