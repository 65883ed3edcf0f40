//! Whether a socket or a task is in scope, and arming.

use aya_ebpf::maps::HashMap;
use tracer_common::{Counters, InitEntry, MAX_TARGETS, Mode, ScopeEntry};

use crate::{
    maps::{ANY_ARMED, COUNTERS, SCOPE, SCOPE_CGROUPS},
    offsets::{Access, Probed, field, settings},
};

/// The key of a network namespace (`struct net *`) in the scope map.
#[inline(always)]
pub fn netns_key<A: Access>(net: u64) -> u64 {
    if settings!(scope_by_cookie) == 1 {
        field!(net, net_cookie, by A)
    } else {
        u64::from(field!(net, net_inum: u32, by A))
    }
}

/// Finds the target of a network namespace. `cgroup` is asked only where several targets share it.
#[inline(always)]
pub fn find<A: Access>(net: u64, cgroup: impl FnOnce() -> u64) -> Option<ScopeEntry> {
    find_unless::<A>(net, cgroup, || None)
}

/// As [`find`]; outside of namespaces that a target has for itself `other` is asked first.
#[inline(always)]
pub fn find_unless<A: Access>(
    net: u64,
    cgroup: impl FnOnce() -> u64,
    other: impl FnOnce() -> Option<ScopeEntry>,
) -> Option<ScopeEntry> {
    let entry = look_up(&SCOPE, netns_key::<A>(net));
    if entry.is_some_and(|entry| entry.mode != Mode::BY_CGROUP) {
        return entry;
    }
    let other = other();
    if other.is_some() || entry.is_none() {
        return other;
    }
    look_up(&SCOPE_CGROUPS, cgroup())
}

/// Whether any target may be armed.
#[inline(always)]
pub fn is_any_armed() -> bool {
    ANY_ARMED.get(0).is_some_and(|any| *any == 1)
}

/// Finds the target of a segment that met no socket: only the network namespace is known.
#[inline(always)]
pub fn find_by_netns(net: u64) -> Option<ScopeEntry> {
    let entry = look_up(&SCOPE, netns_key::<Probed>(net))?;
    let mode = if entry.mode == Mode::BY_CGROUP { Mode::ARMED } else { entry.mode };
    Some(ScopeEntry { target: entry.target, mode })
}

#[inline(always)]
fn look_up(map: &HashMap<u64, ScopeEntry>, key: u64) -> Option<ScopeEntry> {
    // SAFETY: user space only inserts and removes entries; two aligned words are copied at once.
    unsafe { map.get(key) }.copied()
}

/// Raises a known target to armed, inside the kernel: what follows within the same millisecond must
/// not be lost.
#[inline(always)]
pub fn arm(init: &InitEntry) {
    if init.netns != 0 {
        arm_in(&SCOPE, init.netns);
    }
    if init.cgroup != 0 {
        arm_in(&SCOPE_CGROUPS, init.cgroup);
    }
    // After the entry: user space clears this before it looks whether an entry is armed.
    if let Some(any) = ANY_ARMED.get_ptr_mut(0) {
        // SAFETY: the entry of an array is always there; programs write but this one value.
        unsafe { any.write_volatile(1) };
    }
}

#[inline(always)]
fn arm_in(map: &HashMap<u64, ScopeEntry>, key: u64) {
    if let Some(entry) = map.get_ptr_mut(key) {
        // SAFETY: the pointer is to the map's value, which stays readable under RCU while the
        // program runs; only this word is written, by programs always with the same value.
        unsafe {
            if (*entry).mode == Mode::KNOWN {
                (*entry).mode = Mode::ARMED;
            }
        }
    }
}

/// Which copy of the counters a program writes to. What may interrupt a program, and counts the same, has
/// another lane.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Lane(pub u32);

impl Lane {
    /// That of programs that nothing of their kind interrupts.
    pub const FIRST: Self = Self(0);
    /// That of programs that may interrupt one of the first lane.
    pub const SECOND: Self = Self(1);
}

/// Counts for a target on this CPU.
#[inline(always)]
pub fn count(lane: Lane, target: u32, add: impl FnOnce(&mut Counters)) {
    if let Some(counters) = COUNTERS.get_ptr_mut(target + lane.0 * MAX_TARGETS) {
        // SAFETY: the entry is this CPU's own. A program that interrupts another on the same CPU
        // (softirq) runs to its end in between, and never is the same program (the BPF core
        // skips it); different programs write different fields, or are in different lanes.
        add(unsafe { &mut *counters });
    }
}
