//! What the joining of a rollout is told.

use std::time::Duration;

use serde::Deserialize;
use tracer_core::output::{Agent, Line};

use super::workload::Status;

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// The workload is as this.
    Workload(Box<Status>),
    /// It was deleted.
    WorkloadGone,
    /// A pod of the workload is there.
    Pod(Pod),
    /// A pod is not in the API any more.
    PodGone {
        /// Which, by its uid.
        uid: String,
    },
    /// The pods that were told are all that there are.
    PodsComplete,
    /// An agent's pod is on a node.
    AgentCame {
        /// Which node.
        node: String,
        /// Which pod.
        pod: String,
    },
    /// An agent's pod is gone.
    AgentLeft {
        /// Which node.
        node: String,
        /// Which pod.
        pod: String,
    },
    /// The agents that were told are all that there are.
    AgentsComplete,
    /// An agent's log cannot be read, for this reason; or can be again.
    AgentTrouble {
        /// Of which node.
        node: String,
        /// Why.
        reason: Option<String>,
    },
    /// A line of an agent's log.
    Line {
        /// Of which node.
        node: String,
        /// What it says.
        line: Box<Line>,
    },
    /// A line that a newer agent wrote, of a type that is not known: it counts, and says nothing.
    Newer {
        /// Of which node.
        node: String,
        /// Where it stands.
        place: Place,
    },
    /// A line of an agent's log that is no event.
    Garbage {
        /// Of which node.
        node: String,
    },
    /// Time passed.
    Tick,
}

/// Where a line stands among those of its agent.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Place {
    /// Who wrote it.
    pub agent: Agent,
    /// Its number.
    pub seq: u64,
}

impl From<&Line> for Place {
    fn from(line: &Line) -> Self {
        Self { agent: line.agent.clone(), seq: line.seq }
    }
}

/// A pod of the workload, as the API tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Its uid.
    pub uid: String,
    /// The uid by which its node knows it.
    pub cgroup_uid: String,
    /// Its name.
    pub name: String,
    /// Where it runs.
    pub node: Option<String>,
    /// When it was created, in nanoseconds since 1970.
    pub created: i64,
    /// Which template it was made by.
    pub revision: Option<String>,
    /// It is being deleted.
    pub deleted: bool,
    /// All of its containers have ended.
    pub ended: bool,
}

/// How long to wait for what.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a verdict, after the pod is gone from the API: an agent observes a pod for 30 s after its last
    /// container, if its interface stays.
    pub verdict: Duration,
    /// For news of other pods, after the workload says that it is complete: its status and its pods come
    /// by different watches.
    pub settle: Duration,
    /// For everything.
    pub all: Duration,
}

impl Patience {
    /// Watches of one API server are hardly ever further apart.
    pub const SETTLE: Duration = Duration::from_secs(2);
}
