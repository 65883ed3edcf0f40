//! What the ledger is told of connections, and what it tells of them.

use crate::{
    connection::Moment,
    event::Mono,
    words::{Hop, Judgement, Origin, Role},
};

/// A connection that was opened, found or closed, as told to the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It was opened, or found open.
    Opened,
    /// It ended.
    Closed(Judgement),
}

/// What a reset meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResetMeaning {
    /// What it means to the client; `None` while that is not yet known (the connection is live).
    pub judgement: Option<Judgement>,
    /// Where the container was.
    pub moment: Moment,
    /// Which side had opened the connection.
    pub role: Role,
    /// Who the peer is.
    pub origin: Origin,
}

/// Connections in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Opened while traced.
    pub opened: u64,
    /// Found open.
    pub found: u64,
    /// Ended.
    pub ended: u64,
    /// Of these, opened by peers that are no health checkers, from outside the pod.
    pub from_peers: u64,
}

/// Traffic of clients that are no health checkers, over one kind of hop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Connections that clients opened, also those that were refused, and those found open.
    pub connections: u64,
    /// The last new connection.
    pub last_connection: Option<Mono>,
    /// When data was last received.
    pub last_data: Option<Mono>,
    /// When data was last sent.
    pub last_sent: Option<Mono>,
}

/// When data last moved on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastData {
    /// When it was last received, if it was.
    pub received: Option<Mono>,
    /// When it was last sent, by the kernel's time stamp.
    pub sent: Mono,
}

impl Traffic {
    /// The last arrival of either kind.
    #[must_use]
    pub fn last_arrival(&self) -> Option<Mono> {
        self.last_connection.max(self.last_data)
    }
}

/// What the ledger is told of a connection that it does not know yet.
#[derive(Clone, Copy, Debug)]
pub struct Newcomer {
    /// Which side opened it.
    pub role: Role,
    /// Who the peer is.
    pub origin: Origin,
    /// How far it goes.
    pub hop: Hop,
    /// Its protocol never answers.
    pub one_way: bool,
}
