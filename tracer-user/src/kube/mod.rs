//! The edge to the Kubernetes API: facts about this node's pods and their endpoints, as they change.

pub mod client;
pub mod facts;
mod known;
pub mod list_watch;
pub mod lookup;
pub mod permissions;
mod trouble;
pub mod warning;
pub mod watch;
