//! What the clients saw beside what was traced: failures and losses matched by their connection.

use std::{collections::BTreeMap, net::SocketAddr};

use tracer_core::{
    output::{Body, Endpoint, FailedRequest, Line, RehearsalEvent, UnseenLoss},
    words::{Confidence, Ending, Phase},
};

use super::{
    load::{Outcome, RequestResult, Summary},
    sandbox::CLIENT,
};

/// Losses kept at most; a rehearsal's clients make fewer connections than that.
const MAX_LOSSES: usize = 100_000;

/// The losses of a rehearsal, by the client's end of the connection. A client's port is used once:
/// it is bound anew for every connection.
#[derive(Debug, Default)]
pub struct LossLog(BTreeMap<SocketAddr, Loss>);

#[derive(Clone, Copy, Debug)]
struct Loss {
    ending: Ending,
    confidence: Confidence,
    phase: Phase,
}

impl LossLog {
    /// Takes a line; keeps the surest loss of each connection.
    pub fn add(&mut self, line: &Line) {
        let (peer, ending, confidence, phase) = match &line.body {
            Body::Reset(reset) => (reset.network.peer, reset.ending, reset.confidence, reset.phase),
            Body::ConnectionClosed(event) => {
                let Some(end) = &event.end else { return };
                (event.network.peer, Some(end.ending), end.confidence, event.phase)
            }
            _ => return,
        };
        let (Some(ending), Some(confidence)) = (ending, confidence) else { return };
        // Between containers (a proxy and its application) nobody of ours is the client.
        if CLIENT.matching(peer.address) != peer.address {
            return;
        }
        let known = self.0.get(&address(peer)).is_some_and(|known| known.confidence >= confidence);
        if !known && self.0.len() < MAX_LOSSES {
            self.0.insert(address(peer), Loss { ending, confidence, phase });
        }
    }

    /// Matches the clients' failures with the losses, both ways.
    #[must_use]
    pub fn compare(&self, clients: &Summary) -> RehearsalEvent {
        let total = clients.total();
        let failures: Vec<FailedRequest> =
            clients.failures.iter().filter_map(|failure| self.explain(failure)).collect();
        let explained = failures.iter().filter(|failure| failure.explained_by.is_some()).count() as u64;
        let failed_ends: Vec<SocketAddr> = clients.failures.iter().map(|failure| failure.local).collect();
        let unseen = self
            .0
            .iter()
            .filter(|(peer, loss)| loss.confidence >= Confidence::Likely && !failed_ends.contains(peer));
        RehearsalEvent {
            answered: total.ok,
            failed: total.failed,
            aborted: total.aborted,
            explained,
            failures,
            unseen_losses: unseen
                .map(|(peer, loss)| UnseenLoss {
                    peer: peer.to_string(),
                    ending: loss.ending,
                    confidence: loss.confidence,
                })
                .collect(),
        }
    }

    fn explain(&self, failure: &RequestResult) -> Option<FailedRequest> {
        let Outcome::Failed { cause, phase } = &failure.outcome else { return None };
        let loss = self.0.get(&failure.local);
        Some(FailedRequest {
            kind: failure.kind.to_string(),
            local: failure.local.to_string(),
            start_mono_ns: failure.start_mono_ns,
            end_mono_ns: failure.end_mono_ns,
            cause: cause.to_string(),
            phase: phase.to_string(),
            explained_by: loss.map(|loss| loss.ending),
            confidence: loss.map(|loss| loss.confidence),
            pod_phase: loss.map(|loss| loss.phase),
        })
    }
}

fn address(endpoint: Endpoint) -> SocketAddr {
    SocketAddr::new(endpoint.address, endpoint.port)
}
