//! Facts of this machine from procfs, cgroupfs and network namespaces.

pub mod cgroup;
pub mod counters;
pub mod limits;
pub mod netns;
pub mod pods;
pub mod probers;
pub mod process;
pub mod sockets;
