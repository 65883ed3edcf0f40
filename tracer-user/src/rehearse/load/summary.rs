//! The load's results, added up.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    outcome::{Outcome, RequestResult},
    plan::Kind,
};

const KEPT_FAILURES: usize = 10_000;

/// How one kind of client fared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Complete answers, of whatever status.
    pub ok: u64,
    /// Those among them with a 4xx status.
    pub client_errors: u64,
    /// Those among them with a 5xx status.
    pub server_errors: u64,
    /// Transport errors and truncated answers.
    pub failed: u64,
    /// Requests that were in flight when the load ended.
    pub aborted: u64,
    /// Bytes of complete answers' bodies.
    pub bytes: u64,
}

/// All that the clients saw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// By kind of client.
    pub counts: BTreeMap<Kind, Counts>,
    /// The first 10,000 failures, as they came.
    pub failures: Vec<RequestResult>,
    /// How many failures came after those.
    pub failures_not_kept: u64,
}

impl Summary {
    /// The counts of all kinds together.
    #[must_use]
    pub fn total(&self) -> Counts {
        self.counts.values().fold(Counts::default(), |sum, counts| Counts {
            ok: sum.ok + counts.ok,
            client_errors: sum.client_errors + counts.client_errors,
            server_errors: sum.server_errors + counts.server_errors,
            failed: sum.failed + counts.failed,
            aborted: sum.aborted + counts.aborted,
            bytes: sum.bytes + counts.bytes,
        })
    }

    fn add(&mut self, result: RequestResult) {
        let counts = self.counts.entry(result.kind).or_default();
        match result.outcome {
            Outcome::Ok { status, bytes } => {
                counts.ok += 1;
                counts.bytes += bytes;
                counts.client_errors += u64::from(status / 100 == 4);
                counts.server_errors += u64::from(status / 100 == 5);
            }
            Outcome::Aborted => counts.aborted += 1,
            Outcome::Failed { .. } => {
                counts.failed += 1;
                if self.failures.len() < KEPT_FAILURES {
                    self.failures.push(result);
                } else {
                    self.failures_not_kept += 1;
                }
            }
        }
    }
}

/// Where the clients put their results.
#[derive(Clone, Default)]
pub(super) struct Recorder(Arc<Mutex<Summary>>);

impl Recorder {
    pub(super) fn record(&self, result: RequestResult) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).add(result);
    }

    pub(super) fn summary(&self) -> Summary {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rehearse::load::outcome::{Cause, Phase};

    fn result(outcome: Outcome) -> RequestResult {
        let (local, peer) = ("10.99.0.1:40000".parse().unwrap(), "10.99.0.2:80".parse().unwrap());
        RequestResult {
            kind: Kind::Fresh,
            local,
            peer,
            reused: false,
            start_mono_ns: 1,
            end_mono_ns: 2,
            outcome,
        }
    }

    #[test]
    fn a_complete_5xx_is_no_failure() {
        let mut summary = Summary::default();
        summary.add(result(Outcome::Ok { status: 200, bytes: 5 }));
        summary.add(result(Outcome::Ok { status: 503, bytes: 0 }));
        summary.add(result(Outcome::Aborted));
        let expected = Counts { ok: 2, server_errors: 1, aborted: 1, bytes: 5, ..Counts::default() };
        assert_eq!(summary.total(), expected);
        assert_eq!(summary.failures, []);
    }

    #[test]
    fn failures_are_bounded_and_counted() {
        let mut summary = Summary::default();
        for _ in 0..=KEPT_FAILURES {
            summary.add(result(Outcome::Failed { cause: Cause::Reset, phase: Phase::Headers }));
        }
        assert_eq!((summary.failures.len(), summary.failures_not_kept), (KEPT_FAILURES, 1));
        assert_eq!(summary.total().failed, 10_001);
    }
}
