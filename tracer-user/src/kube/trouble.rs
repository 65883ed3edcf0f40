//! What can go wrong with a request to the API, in words, and how long to wait before the next.

use std::time::Duration;

use kube::Error;
use tokio::time::Instant;

use crate::clock;

const NOT_UNDERSTOOD: &str = "an answer that is not understood";

/// Why a request was of no use.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The version asked for is too old (410): list again.
    Gone,
    /// Anything else, in words.
    Other(String),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        match error {
            Error::Api(status) if status.code == 410 => Self::Gone,
            Error::Api(status) if status.code == 403 => Self::Other(format!(
                "forbidden: {}; `lastpacket check` tells which permissions are missing",
                status.message
            )),
            // What kube makes of an object that is none.
            Error::Api(status) if status.code == 0 => Self::Other(NOT_UNDERSTOOD.to_owned()),
            Error::Api(status) => Self::Other(format!("{} ({})", status.message, status.code)),
            Error::SerdeError(error) => Self::Other(format!("{NOT_UNDERSTOOD}: {error}")),
            error => Self::Other(causes(&error)),
        }
    }
}

/// The error and what caused it. Many of these repeat what their cause says.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// Waits that double with every failure, until there was none for a while.
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
    last: Option<Instant>,
}

impl Backoff {
    pub(super) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0, last: None }
    }

    /// How long to wait now: at random between half the time and all of it, or the agents of all
    /// nodes would come back in step.
    pub(super) fn next(&mut self) -> Duration {
        if self.last.is_some_and(|last| last.elapsed() > 2 * self.longest) {
            self.failures = 0;
        }
        self.last = Some(Instant::now());
        let doubled = self.first.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        let wait = doubled.min(self.longest);
        let random = f64::from((clock::mono_ns() % 1024) as u16) / 1024.0;
        wait.mul_f64(0.5 + random / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_double_up_to_the_longest_and_start_over_after_a_while() {
        let (first, longest) = (Duration::from_secs(1), Duration::from_secs(8));
        let mut backoff = Backoff::new(first, longest);
        for full in [1, 2, 4, 8, 8, 8] {
            let (wait, full) = (backoff.next(), Duration::from_secs(full));
            assert!(wait >= full / 2 && wait <= full, "{wait:?} of {full:?}");
        }
        tokio::time::advance(3 * longest).await;
        assert!(backoff.next() <= first);
    }

    #[test]
    fn what_is_forbidden_says_where_to_look() {
        let status = kube::core::Status::failure("pods is forbidden", "Forbidden").with_code(403);
        let Trouble::Other(reason) = Trouble::from(Error::Api(status.boxed())) else { panic!("not gone") };
        assert!(reason.contains("pods is forbidden") && reason.contains("lastpacket check"), "{reason}");
    }
}
