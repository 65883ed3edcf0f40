//! Signals to container inits.

use aya_ebpf::programs::RawTracePointContext;
use aya_log_ebpf::debug;
use tracer_common::{GoneRecord, Kind, Mode, ScopeEntry, SignalRecord, task_flags::PF_EXITING};

use crate::{
    emit,
    maps::INITS,
    offsets::field,
    scope::{self, Lane},
    task,
};

const SIGURG: i32 = 23;
const SIGCHLD: i32 = 17;
/// `SEND_SIG_PRIV`: the kernel itself.
const SI_KERNEL: i32 = 0x80;

/// A signal was generated for a task. One that may end a container arms its target at once.
#[inline(always)]
pub fn generated(ctx: &RawTracePointContext, signal: i32, info: u64, target: u64, result: i32) {
    match signal {
        SIGCHLD => return parent_told(),
        SIGURG => return,
        _ => {}
    }
    let pid: u32 = field!(target, task_tgid);
    // SAFETY: user space only inserts and removes entries; the value is copied at once.
    let Some(init) = unsafe { INITS.get(pid) }.copied() else { return };
    if may_end(signal) || signal as u32 == init.stop_signal {
        scope::arm(&init);
    }
    let entry = ScopeEntry { target: init.target, mode: Mode::ARMED };
    emit::send::<SignalRecord>(Lane::FIRST, Kind::SIGNAL, entry, |record, header| {
        record.header = header;
        record.sender = task::describe(task::current());
        record.cgroup = task::cgroup(target);
        record.pid = pid;
        record.pidns = task::pidns(target);
        record.container = init.container;
        record.signal = signal as u32;
        record.code = code(info);
        record.result = result;
        record.target_exiting = u32::from(field!(target, task_flags: u32) & PF_EXITING != 0);
        record.reserved = 0;
    });
    debug!(ctx, "signal {} to {}", signal, pid);
}

/// A child's end is told to its parent by the child itself (`exit_notify`).
#[inline(always)]
fn parent_told() {
    let child = task::current();
    let pid: u32 = field!(child, task_tgid);
    // SAFETY: user space only inserts and removes entries; the value is copied at once.
    let Some(init) = unsafe { INITS.get(pid) }.copied() else { return };
    let signal: u64 = field!(child, task_signal);
    // A child that is stopped or traced sends SIGCHLD too.
    if field!(signal, signal_live: u32) != 0 {
        return;
    }
    let entry = ScopeEntry { target: init.target, mode: Mode::ARMED };
    emit::send::<GoneRecord>(Lane::FIRST, Kind::GONE, entry, |record, header| {
        record.header = header;
        record.pid = pid;
        record.container = init.container;
    });
}

/// INT, QUIT, KILL, USR1, USR2, TERM and the real-time signals: what runtimes send to stop.
#[inline(always)]
fn may_end(signal: i32) -> bool {
    matches!(signal, 2 | 3 | 9 | 10 | 12 | 15 | 34..)
}

/// `info` can be 0 (from a user) or 1 (from the kernel) instead of a pointer.
#[inline(always)]
fn code(info: u64) -> i32 {
    match info {
        0 => 0,
        1 => SI_KERNEL,
        _ => field!(info, siginfo_code),
    }
}
