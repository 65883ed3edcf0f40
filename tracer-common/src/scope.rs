//! Which namespaces, cgroups and processes the programs care about.

use crate::Pod;

/// Targets that can be in scope at the same time. Bounds the per-CPU counters.
pub const MAX_TARGETS: u32 = 1024;

/// Container inits that can be registered at the same time.
pub const MAX_INITS: u32 = 4 * MAX_TARGETS;

/// Processes whose connections are probes: one kubelet a node, a few where nodes are nested.
pub const MAX_PROBERS: u32 = 64;

/// Programs of a hook, and copies of the counters per CPU, at most: a program that may interrupt another
/// that counts the same has a copy of its own, because neither adds atomically.
pub const LANES: u32 = 4;

/// The slot that stands for the node itself: records without a target, and host-network sockets
/// whose cgroup is unknown.
pub const NODE: u32 = 0;

/// Size in bytes of an entry of the table of conversations (`EXCHANGES`). User space reads the first word only,
/// which is the target's slot, in order to remove what a target leaves.
pub const CONVERSATION: usize = 128;

/// What the programs do for a target.
pub struct Mode;

impl Mode {
    /// Count, send nothing: a pod that is not terminating.
    pub const KNOWN: u32 = 1;
    /// Count and send records.
    pub const ARMED: u32 = 2;
    /// A network namespace that several targets share: look at the socket's cgroup.
    pub const BY_CGROUP: u32 = 3;
}

/// Value of the scope maps. The key is a network namespace (its cookie, or its inode where the
/// kernel has no cookie) or a cgroup id.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScopeEntry {
    /// Slot of the target in the counters; given by user space, from 1.
    pub target: u32,
    /// One of [`Mode`].
    pub mode: u32,
}

// SAFETY: repr(C), u32 only.
unsafe impl Pod for ScopeEntry {}

/// Value of the map of container inits; the key is the process id in the initial pid namespace.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InitEntry {
    /// The network namespace to arm when a stop signal comes, as in the scope map; 0 for none.
    pub netns: u64,
    /// The cgroup to arm when a stop signal comes (host-network targets); 0 for none.
    pub cgroup: u64,
    /// Slot of the target.
    pub target: u32,
    /// Number of the container within the target, from 0.
    pub container: u32,
    /// The signal that its runtime sends first, if it is declared: it arms, whichever it is; 0 for none.
    pub stop_signal: u32,
    /// Always 0.
    pub reserved: u32,
}

// SAFETY: repr(C), integers only, no padding.
unsafe impl Pod for InitEntry {}
const _: () = assert!(size_of::<InitEntry>() == 32);
