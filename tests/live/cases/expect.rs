//! What lastpacket must say of a case.

use tracer_core::{
    event::SegmentClass,
    words::{ClosedBy, Confidence, Direction, Ending, Result, Role},
};

/// See the module.
pub struct Expected {
    /// The verdict.
    pub result: Result,
    /// Connections in the order in which they ended.
    pub connections: Vec<Connection>,
    /// Resets in the order in which they were sent or received.
    pub resets: Vec<Reset>,
    /// Resets that are traced, but never left: there was no way to send them.
    pub unsent_resets: u64,
    /// SYNs that got no answer at all.
    pub dropped: u64,
    /// Connections of the server's own that failed before any segment was sent.
    pub unsent_opens: u64,
}

/// One connection.
#[derive(Debug, PartialEq, Eq)]
pub struct Connection {
    pub role: Role,
    pub ending: Ending,
    pub confidence: Option<Confidence>,
    pub closed_by: Option<ClosedBy>,
    pub delivered: bool,
}

/// One reset.
#[derive(Debug, PartialEq, Eq)]
pub struct Reset {
    pub direction: Direction,
    pub reason: Option<String>,
    pub segment: Option<SegmentClass>,
    pub role: Role,
    pub ending: Option<Ending>,
    pub confidence: Option<Confidence>,
}

impl Expected {
    /// Nothing at all.
    pub fn nothing() -> Self {
        Self {
            result: Result::Idle,
            connections: Vec::new(),
            resets: Vec::new(),
            unsent_resets: 0,
            dropped: 0,
            unsent_opens: 0,
        }
    }

    /// One connection of a client.
    pub fn one(connection: Connection) -> Self {
        Self::nothing().and(connection)
    }

    /// One more connection. It makes the verdict: losses cut, all else is drained.
    pub fn and(mut self, connection: Connection) -> Self {
        let served = connection.role == Role::Server;
        self = self.judged(served.then_some(connection.confidence));
        self.connections.push(connection);
        self
    }

    /// One more reset.
    pub fn with(mut self, reset: Reset) -> Self {
        let refused = matches!(reset.ending, Some(Ending::Refused | Ending::RefusedHandshake));
        self = self.judged(refused.then_some(reset.confidence));
        self.resets.push(reset);
        self
    }

    fn judged(mut self, served: Option<Option<Confidence>>) -> Self {
        match served {
            Some(confidence) if confidence >= Some(Confidence::Likely) => self.result = Result::Cut,
            Some(_) if self.result == Result::Idle => self.result = Result::Drained,
            _ => {}
        }
        self
    }
}

impl Connection {
    /// A client's connection that the application closed, with all delivered.
    pub fn served(ending: Ending) -> Self {
        Self {
            role: Role::Server,
            ending,
            confidence: None,
            closed_by: Some(ClosedBy::Application),
            delivered: true,
        }
    }

    /// A connection that the server itself opened.
    pub fn outbound(ending: Ending) -> Self {
        Self { role: Role::Client, ..Self::served(ending) }
    }

    /// That surely a client lost something.
    pub fn lost(self, confidence: Confidence) -> Self {
        Self { confidence: Some(confidence), ..self }
    }

    /// Who closed it.
    pub fn by(self, closed_by: ClosedBy) -> Self {
        Self { closed_by: Some(closed_by), ..self }
    }

    /// That the server did not close it.
    pub fn by_nobody(self) -> Self {
        Self { closed_by: None, ..self }
    }
}

impl Reset {
    /// A reset of a client's connection by the server's own act, which says how it ended.
    pub fn act(reason: &str, ending: Ending, confidence: Confidence) -> Self {
        Self {
            direction: Direction::Sent,
            reason: Some(reason.to_owned()),
            segment: None,
            role: Role::Server,
            ending: Some(ending),
            confidence: Some(confidence),
        }
    }

    /// That what it means is not known yet: the connection is not closed.
    pub fn of_live(self) -> Self {
        Self { ending: None, confidence: None, ..self }
    }

    /// A reset that a segment drew.
    pub fn drawn(
        reason: &str,
        segment: SegmentClass,
        ending: Ending,
        confidence: Option<Confidence>,
    ) -> Self {
        Self { segment: Some(segment), confidence, ..Self::act(reason, ending, Confidence::Possible) }
    }

    /// A reset that the other side sent on a connection that the server opened.
    pub fn received() -> Self {
        Self {
            direction: Direction::Received,
            reason: None,
            segment: None,
            role: Role::Client,
            ending: None,
            confidence: None,
        }
    }
}
