//! Ends of processes.

use aya_ebpf::programs::RawTracePointContext;
use aya_log_ebpf::debug;
use tracer_common::{ExecRecord, ExitRecord, InitEntry, Kind, Mode, OomRecord, ScopeEntry};

use crate::{
    emit,
    maps::INITS,
    offsets::{Probed, field, settings},
    scope::{self, Lane},
    task,
};

/// A task exits. Only a process's last thread counts (`signal->live` is 0): the leader may have gone
/// before. An init that exits arms its target: its sockets close after this.
#[inline(always)]
pub fn exited(ctx: &RawTracePointContext, lane: Lane, task: u64) {
    let signal: u64 = field!(task, task_signal);
    if field!(signal, signal_live: u32) != 0 {
        return;
    }
    let pid: u32 = field!(task, task_tgid);
    let init = init(pid);
    if let Some(init) = &init {
        scope::arm(init);
    }
    let Some(entry) = target(task, init.as_ref()) else { return };
    if entry.mode != Mode::ARMED {
        return;
    }
    emit::send::<ExitRecord>(lane, Kind::EXIT, entry, |record, header| {
        record.header = header;
        record.task = task::describe(task);
        // A group exit keeps its status there; a single thread's is its own.
        let group: u32 = field!(signal, signal_group_exit_code);
        record.status = if group != 0 { group } else { field!(task, task_exit_code) };
        record.is_init = u32::from(init.is_some());
        record.container = init.map_or(0, |init| init.container);
        record.reserved = 0;
    });
    debug!(ctx, "exit of {}", pid);
}

#[inline(always)]
fn target(task: u64, init: Option<&InitEntry>) -> Option<ScopeEntry> {
    match init {
        Some(init) => Some(ScopeEntry { target: init.target, mode: Mode::ARMED }),
        None => scope::find::<Probed>(task::net(task), || task::cgroup(task)),
    }
}

/// A process in scope runs a new program.
#[inline(always)]
pub fn executed(task: u64) {
    let Some(entry) = target(task, None) else { return };
    if entry.mode != Mode::ARMED {
        return;
    }
    emit::send::<ExecRecord>(Lane::FIRST, Kind::EXEC, entry, |record, header| {
        record.header = header;
        record.task = task::describe(task);
        record.parent = task::describe(field!(task, task_real_parent));
    });
}

/// The out-of-memory killer chose a victim; its SIGKILL comes in the victim's own context.
#[inline(always)]
pub fn chosen_by_oom(ctx: &RawTracePointContext, victim: u64) {
    let pid: u32 = if settings!(victim_is_task) == 1 { field!(victim, task_tgid) } else { victim as u32 };
    let Some(init) = init(pid) else { return };
    scope::arm(&init);
    let entry = ScopeEntry { target: init.target, mode: Mode::ARMED };
    emit::send::<OomRecord>(Lane::FIRST, Kind::OOM, entry, |record, header| {
        record.header = header;
        record.pid = pid;
        record.container = init.container;
    });
    debug!(ctx, "out of memory: {}", pid);
}

#[inline(always)]
fn init(pid: u32) -> Option<InitEntry> {
    // SAFETY: user space only inserts and removes entries; the value is copied at once.
    unsafe { INITS.get(pid) }.copied()
}
