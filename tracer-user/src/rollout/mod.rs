//! `lastpacket rollout`: the verdicts of all pods that a rollout ends, from the agents of all nodes.
//!
//! `join`, `agents`, `workload`, `row`, `total` and `gathered` are pure. `watch`, `follow` and `logs` are
//! the edge to the Kubernetes API.

pub mod agents;
mod follow;
pub mod gathered;
pub mod input;
pub mod join;
mod logs;
pub mod permissions;
pub mod row;
pub mod text;
pub mod total;
mod watch;
pub mod workload;

pub use watch::{Settings, watch};
