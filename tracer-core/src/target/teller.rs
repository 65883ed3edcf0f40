//! Writes what the ledger tells of connections as events.

use super::{
    Emit,
    container::{Container, named},
};
use crate::{
    connection::{Connection, Moment},
    event::Mono,
    findings::Exhibits,
    ledger::Told,
    losses::LossKey,
    output::{Body, ConnectionEnd, ConnectionEvent, Network as NetworkEvent},
};

/// Writes what the ledger tells of connections.
pub(super) struct Teller<'a, 'b> {
    pub(super) containers: &'a [Container],
    pub(super) exhibits: &'a mut Exhibits,
    pub(super) now: Mono,
    pub(super) emit: &'a mut Emit<'b>,
}

impl Teller<'_, '_> {
    pub(super) fn tell(&mut self, connection: &Connection, told: Told) {
        match told {
            Told::Opened => {
                let event = self.event(connection, connection.moment, None);
                (self.emit)(self.now, Body::ConnectionOpened(event));
            }
            Told::Closed(judgement) => {
                let end = ConnectionEnd {
                    ending: judgement.ending,
                    confidence: judgement.confidence,
                    closed_by: connection.close.as_ref().map(|close| close.by),
                    delivered: connection.delivered(),
                    bytes_received: connection.socket.bytes_received,
                    bytes_acked: connection.socket.bytes_acked,
                };
                let moment = connection.moment_of_end();
                let time = connection.close.as_ref().map_or(self.now, |close| close.time);
                let event = self.event(connection, moment, Some(end));
                let seq = (self.emit)(time, Body::ConnectionClosed(event));
                if let Some(confidence) = judgement.confidence {
                    let key = LossKey { ending: judgement.ending, moment, hop: connection.hop, confidence };
                    self.exhibits.loss(key, seq);
                }
            }
        }
    }

    fn event(&self, connection: &Connection, moment: Moment, end: Option<ConnectionEnd>) -> ConnectionEvent {
        ConnectionEvent {
            container: named(self.containers, moment.container),
            phase: moment.phase,
            cause: moment.cause,
            network: NetworkEvent::from(&connection.tuple),
            role: connection.role,
            origin: connection.origin,
            hop: connection.hop,
            opened_mono_ns: connection.opened,
            end,
        }
    }
}
