//! The DaemonSet's job: follow all pods of a node.

pub mod inventory;
mod run;

pub use run::{Settings, meta, run};
