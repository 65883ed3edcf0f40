//! What a record says of a task.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid,
    generated::{
        bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_task, bpf_get_current_task_btf,
    },
};
use tracer_common::Task;

use crate::offsets::{Access, Loaded, Probed, field, offset, settings};

/// The task that runs now.
#[inline(always)]
pub fn current() -> u64 {
    // SAFETY: the helper takes nothing and is allowed in every tracing program.
    unsafe { bpf_get_current_task() }
}

/// Describes the task that runs now, as it is told of connections: helpers know most of it, and its pid namespace says
/// nothing there.
#[inline(always)]
pub fn describe_current() -> Task {
    let [tid, pid] = {
        let both = bpf_get_current_pid_tgid();
        [both as u32, (both >> 32) as u32]
    };
    Task {
        // SAFETY: the helper takes nothing and is allowed in every tracing program.
        cgroup: unsafe { bpf_get_current_cgroup_id() },
        pid,
        tid,
        flags: current_flags(),
        pidns: 0,
        comm: current_comm(),
    }
}

#[inline(always)]
fn current_comm() -> [u8; 16] {
    let mut comm = MaybeUninit::<[u8; 16]>::uninit();
    // SAFETY: the destination is as large as said; the helper is allowed in every tracing program.
    unsafe { bpf_get_current_comm(comm.as_mut_ptr().cast(), size_of_val(&comm) as u32) };
    // SAFETY: the helper writes all of it, whatever comes of it.
    unsafe { comm.assume_init() }
}

#[inline(always)]
fn current_flags() -> u32 {
    if settings!(task_is_typed) == 1 {
        // SAFETY: the helper takes nothing and is allowed in every tracing program.
        let task = unsafe { bpf_get_current_task_btf() };
        field!(task as u64, task_flags, by Loaded)
    } else {
        field!(current(), task_flags)
    }
}

/// Describes a `struct task_struct *`.
#[inline(always)]
pub fn describe(task: u64) -> Task {
    Task {
        cgroup: cgroup(task),
        pid: field!(task, task_tgid),
        tid: field!(task, task_pid),
        flags: field!(task, task_flags),
        pidns: pidns(task),
        comm: field!(task, task_comm),
    }
}

/// cgroup v2 id of a task; 0 if the kernel has no cgroups.
#[inline(always)]
pub fn cgroup(task: u64) -> u64 {
    let css_set: u64 = field!(task, task_cgroups);
    cgroup_id::<Probed>(field!(css_set, css_set_dfl_cgrp))
}

/// Id of a `struct cgroup *`: the inode number of its directory.
#[inline(always)]
pub fn cgroup_id<A: Access>(cgroup: u64) -> u64 {
    let node: u64 = field!(cgroup, cgroup_kn, by A);
    field!(node, kernfs_node_id, by A)
}

/// Network namespace (`struct net *`) of a task; 0 once it has let go of its namespaces.
#[inline(always)]
pub fn net(task: u64) -> u64 {
    let nsproxy: u64 = field!(task, task_nsproxy);
    field!(nsproxy, nsproxy_net)
}

/// Inode of the pid namespace that a task lives in (`task_active_pid_ns`).
#[inline(always)]
pub fn pidns(task: u64) -> u32 {
    let pid: u64 = field!(task, task_thread_pid);
    if pid == 0 {
        return 0;
    }
    let level: u32 = field!(pid, pid_level);
    let upid =
        pid + u64::from(offset!(pid_numbers)) + u64::from(level & 0x1f) * u64::from(settings!(upid_size));
    let ns: u64 = field!(upid, upid_ns);
    field!(ns, pidns_inum)
}
