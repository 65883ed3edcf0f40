//! What the clients of a rehearsal saw.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    event::Mono,
    words::{Confidence, Ending, Phase},
};

/// What the clients of a rehearsal saw, beside what was traced. Only in rehearsals.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RehearsalEvent {
    /// Requests with a complete answer, of whatever status.
    pub answered: u64,
    /// Those among them with a 5xx status: no losses, since the connection gave a whole answer.
    #[serde(default)]
    pub server_errors: u64,
    /// Requests with a transport error or a truncated answer.
    pub failed: u64,
    /// Requests in flight when the load ended.
    pub aborted: u64,
    /// Failed requests on whose connection a loss was traced, of whatever confidence.
    pub explained: u64,
    /// Failed requests one by one; the first 10,000.
    pub failures: Vec<FailedRequest>,
    /// Certain and likely losses on connections whose client saw no failure.
    pub unseen_losses: Vec<UnseenLoss>,
}

/// A request that failed for its client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FailedRequest {
    /// What kind of client sent it.
    pub kind: String,
    /// The client's end of the connection, `address:port`.
    pub local: String,
    /// CLOCK_MONOTONIC in nanoseconds when the client began.
    pub start_mono_ns: Mono,
    /// CLOCK_MONOTONIC in nanoseconds when the client saw the failure.
    pub end_mono_ns: Mono,
    /// What the client saw.
    pub cause: String,
    /// The server itself said so within HTTP/2 (GOAWAY or RST_STREAM with an error code): as with a 5xx
    /// answer the connection carried what it said, so that no loss need be traced on it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub server_error: bool,
    /// How far the request had come.
    pub phase: String,
    /// The loss on its connection; absent if none was traced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explained_by: Option<Ending>,
    /// How sure that loss is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence: Option<Confidence>,
    /// Where the container was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_phase: Option<Phase>,
}

impl FailedRequest {
    /// Whether the connection should show why and does not: no loss was traced, and the server said nothing.
    #[must_use]
    pub fn is_unexplained(&self) -> bool {
        self.explained_by.is_none() && !self.server_error
    }

    /// Whether all that broke it is what the server said.
    #[must_use]
    pub fn is_by_word(&self) -> bool {
        self.explained_by.is_none() && self.server_error
    }
}

/// A loss that no client saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UnseenLoss {
    /// The client's end of the connection, `address:port`.
    pub peer: String,
    /// How the connection ended.
    pub ending: Ending,
    /// How sure it is.
    pub confidence: Confidence,
}
