//! Two programs on one hook, so that an event is seen even if it interrupts a program on the same CPU.
//!
//! The kernel skips a program that is running already on the CPU (`__bpf_trace_run`): a segment that
//! is received while a system call is in the program, or, on preemptible kernels, another task's system
//! call. Its twin is not running then, so that the kernel runs that, and it takes the event over. Else
//! the twin finds the first program at rest and does nothing.

use crate::{maps::TWINS, scope::Lane};

/// Numbers of the hooks that have two programs.
pub const STATE: u32 = 0;
/// See [`STATE`].
pub const RESET_SENT: u32 = 1;

/// Which of a hook's two programs runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Twin {
    /// The one that does the work.
    First,
    /// The one that does it while the first is interrupted.
    Second,
}

/// Runs `work` if it is this program's.
#[inline(always)]
pub fn run(hook: u32, twin: Twin, work: impl FnOnce(Lane)) {
    let Some(state) = TWINS.get_ptr_mut(hook) else { return };
    // Volatile: what interrupts this program reads it.
    match twin {
        Twin::First => {
            // SAFETY: the entry is this CPU's own, and only this program, which never interrupts
            // itself, writes this word.
            unsafe { (&raw mut (*state).running).write_volatile(1) };
            work(Lane::First);
            // SAFETY: as above.
            unsafe { (&raw mut (*state).running).write_volatile(0) };
        }
        Twin::Second => {
            // SAFETY: the entry is this CPU's own.
            if unsafe { (&raw const (*state).running).read_volatile() } == 0 {
                return;
            }
            // SAFETY: only this program, which never interrupts itself, writes this word.
            unsafe { (*state).taken_over += 1 };
            work(Lane::Second);
        }
    }
}
