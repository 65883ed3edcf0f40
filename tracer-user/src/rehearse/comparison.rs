//! What the clients saw beside what was traced: failures and losses matched by their connection.

use std::{collections::BTreeMap, net::SocketAddr};

use tracer_core::{
    output::{Body, Endpoint, FailedRequest, Line, RehearsalEvent, UnseenLoss},
    verdict::Verdict,
    words::{Confidence, Ending, Phase},
};

use super::{
    load::{Cause, Outcome, RequestResult, Summary},
    sandbox::CLIENT,
};

/// Losses kept at most; a rehearsal's clients make fewer connections than that.
const MAX_LOSSES: usize = 100_000;

/// The losses of a rehearsal, by the client's end of the connection. A client's port is used once:
/// it is bound anew for every connection.
#[derive(Debug, Default)]
pub struct LossLog {
    losses: BTreeMap<SocketAddr, Loss>,
    /// What a listener dropped without a word, and how often: the kernel counts it without addresses.
    dropped: Option<(Loss, u64)>,
}

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
            Body::Verdict(verdict) => return self.take_dropped(verdict),
            _ => return,
        };
        let (Some(ending), Some(confidence)) = (ending, confidence) else { return };
        // Between containers (a proxy and its application) nobody of ours is the client.
        if CLIENT.matching(peer.address) != peer.address {
            return;
        }
        let known = self.losses.get(&address(peer)).is_some_and(|known| known.confidence >= confidence);
        if !known && self.losses.len() < MAX_LOSSES {
            self.losses.insert(address(peer), Loss { ending, confidence, phase });
        }
    }

    fn take_dropped(&mut self, verdict: &Verdict) {
        let dropped = || verdict.losses.iter().filter(|loss| loss.ending == Ending::Dropped);
        self.dropped = dropped().next().map(|first| {
            let loss = Loss { ending: first.ending, confidence: first.confidence, phase: first.phase };
            (loss, dropped().map(|loss| loss.count).sum())
        });
    }

    /// Matches the clients' failures with the losses, both ways.
    #[must_use]
    pub fn compare(&self, clients: &Summary) -> RehearsalEvent {
        let total = clients.total();
        let mut dropped = self.dropped;
        let failures: Vec<FailedRequest> =
            clients.failures.iter().filter_map(|failure| self.explain(failure, &mut dropped)).collect();
        let explained = failures.iter().filter(|failure| failure.explained_by.is_some()).count() as u64;
        let failed_ends: Vec<SocketAddr> = clients.failures.iter().map(|failure| failure.local).collect();
        let unseen = self
            .losses
            .iter()
            .filter(|(peer, loss)| loss.confidence >= Confidence::Likely && !failed_ends.contains(peer));
        RehearsalEvent {
            answered: total.ok,
            server_errors: total.server_errors,
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

    /// A loss explains the failure on its own connection; a drop, one connection that never came about.
    fn explain(&self, failure: &RequestResult, dropped: &mut Option<(Loss, u64)>) -> Option<FailedRequest> {
        let Outcome::Failed { cause, phase } = &failure.outcome else { return None };
        let loss = self.losses.get(&failure.local).copied().or_else(|| {
            let (loss, left) = dropped.as_mut().filter(|_| *cause == Cause::ConnectTimeout)?;
            *left = left.checked_sub(1)?;
            Some(*loss)
        });
        Some(FailedRequest {
            kind: failure.kind.to_string(),
            local: failure.local.to_string(),
            start_mono_ns: failure.start_mono_ns,
            end_mono_ns: failure.end_mono_ns,
            cause: cause.to_string(),
            server_error: matches!(cause, Cause::ServerError(_)),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rehearse::load::{Kind, Phase as ClientPhase};

    fn timed_out(port: u16) -> RequestResult {
        RequestResult {
            kind: Kind::Fresh,
            local: SocketAddr::new(CLIENT.v4.into(), port),
            peer: "10.99.0.2:80".parse().unwrap(),
            reused: false,
            start_mono_ns: 1,
            end_mono_ns: 2,
            outcome: Outcome::Failed { cause: Cause::ConnectTimeout, phase: ClientPhase::Connect },
        }
    }

    #[test]
    fn a_drop_explains_one_connection_that_never_came_about() {
        let loss = Loss { ending: Ending::Dropped, confidence: Confidence::Likely, phase: Phase::StopSignal };
        let log = LossLog { dropped: Some((loss, 1)), ..LossLog::default() };
        let clients = Summary { failures: vec![timed_out(1), timed_out(2)], ..Summary::default() };
        let compared = log.compare(&clients);
        assert_eq!(compared.explained, 1);
        let explained: Vec<_> = compared.failures.iter().map(|failure| failure.explained_by).collect();
        assert_eq!(explained, [Some(Ending::Dropped), None]);
    }
}
