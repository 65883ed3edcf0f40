//! The tables that the programs share with user space.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, PerCpuArray, RingBuf},
};
use tracer_common::{
    Counters, InitEntry, LANES, MAX_INITS, MAX_PROBERS, MAX_TARGETS, NOTES as NOTES_COUNT,
    RELAYS as RELAYS_COUNT, RelayState, ScopeEntry,
};

use crate::{exchange::Conversation, http1::Head, units::Walk};

/// Network namespaces in scope. Entries are made and removed by user space; the mode is raised to
/// armed by user space or by [`crate::scope::arm`].
#[map]
pub static SCOPE: HashMap<u64, ScopeEntry> = HashMap::with_max_entries(MAX_TARGETS, 0);

/// cgroups in scope, for targets that share their network namespace. Made, removed and armed as
/// [`SCOPE`]; looked at only when the namespace's mode says so.
#[map]
pub static SCOPE_CGROUPS: HashMap<u64, ScopeEntry> = HashMap::with_max_entries(MAX_TARGETS, 0);

/// 1 while a target may be armed. All applications' reads and writes pass [`crate::exchange`]: as long as
/// nothing on the machine is terminating, they cost this one look.
#[map]
pub static ANY_ARMED: Array<u32> = Array::with_max_entries(1, 0);

/// Container inits by process id. Made and removed by user space, read on signals and exits.
#[map]
pub static INITS: HashMap<u32, InitEntry> = HashMap::with_max_entries(MAX_INITS, 0);

/// Processes whose connections are probes, by process id. Made and removed by user space.
#[map]
pub static PROBERS: HashMap<u32, u32> = HashMap::with_max_entries(MAX_PROBERS, 0);

/// Sockets of probers from SYN_SENT until their next change of state, by address.
#[map]
pub static PROBES: HashMap<u64, u32> = HashMap::with_max_entries(1 << 12, BPF_F_NO_PREALLOC);

/// Counters by the target's slot, once per lane; how many lanes is set at load. Zeroed by nobody: user
/// space takes differences.
#[map]
pub static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(MAX_TARGETS * LANES, 0);

/// What the programs of a hook tell each other on this CPU, by number of the hook ([`crate::relay`]).
#[map]
pub static RELAYS: PerCpuArray<RelayState> = PerCpuArray::with_max_entries(RELAYS_COUNT, 0);

/// Events that a program dealt with, where tasks are preempted in programs and change CPUs; one entry where they
/// are not.
#[map]
pub static NOTES: Array<u64> = Array::with_max_entries(NOTES_COUNT, 0);

/// What applications read and wrote last, by address of the socket. Born at the first call on a
/// connection of an armed target, removed when the socket closes, or by user space when the target is traced
/// no more. When it is full, connections are judged by the kernel's own time stamps.
#[map]
pub static EXCHANGES: HashMap<u64, Conversation> = HashMap::with_max_entries(1 << 17, BPF_F_NO_PREALLOC);

/// Where the head of an answer is looked at. A program does not interrupt itself on one CPU, and only one
/// uses this.
#[map]
pub static HEADS: PerCpuArray<Head> = PerCpuArray::with_max_entries(1, 0);

/// Where the units of one call are gone through: an entry for each way ([`crate::units::Way`]), since either
/// program may interrupt the other.
#[map]
pub static WALKS: PerCpuArray<Walk> = PerCpuArray::with_max_entries(2, 0);

/// Cgroups that were made or entered, on their way to user space.
#[map]
pub static CGROUPS: RingBuf = RingBuf::with_byte_size(64 << 10, 0);

/// Records on their way to user space. The size is set at load.
#[map]
pub static RECORDS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);
