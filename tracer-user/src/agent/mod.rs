//! The DaemonSet's job: follow all pods of a node.

mod cuts;
pub mod follow;
pub mod inventory;
mod look;
pub mod meta;
mod on_node;
mod run;

pub use run::{Settings, run};
