//! Several programs on one hook, so that an event is seen even if it interrupts a program on the same CPU.
//!
//! The kernel skips a program that is running already on the CPU (`__bpf_trace_run`): a segment that
//! is received while a system call is in the program, or, where tracepoints are preemptible, another
//! task's call. The hook's next program is not running then, so that the kernel runs that. Each program
//! notes which event it dealt with; the next one finds the note and does nothing, or takes the event over.
//!
//! The last program removes the note, but may be skipped itself. A subject has one place for its notes, so that its
//! next change overwrites what was left behind, before a like change can be mistaken for it.
//!
//! Two subjects may have the same place. Then an event is counted twice, and the books say so.

use tracer_common::{CPU_NOTES, LANES, NOTES as NOTES_COUNT, RelayState};

use crate::{
    maps::{NOTES, RELAYS},
    offsets::settings,
    scope::Lane,
};

/// Spreads addresses over all places (2^64 divided by the golden ratio).
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// What tells an event from others under way.
#[derive(Clone, Copy)]
pub struct Event {
    /// An address in the kernel.
    pub subject: u64,
    /// What becomes of it.
    pub change: u16,
}

/// Runs `work` if it is this program's: each has a lane. Events of no use pass here, too: what a program skips of them
/// would be counted as lost.
#[inline(always)]
pub fn run<const LANE: u32>(hook: u32, event: Event, work: impl FnOnce(Lane)) {
    let Some(state) = RELAYS.get_ptr_mut(hook) else { return };
    let subject = number::<LANE>(state, event.subject);
    let Some(note) = note(state, subject) else { return };
    // The first two bytes of kernel addresses tell nothing.
    let event = subject << 16 | u64::from(event.change);
    // SAFETY: the note is in a map. Volatile: what interrupts this program writes it.
    if LANE == 0 || unsafe { note.read_volatile() } != event {
        if LANE > 0 {
            // SAFETY: only this program, which never interrupts itself, writes this word of this CPU's entry.
            unsafe { (*state).taken_over[LANE as usize] += 1 };
        }
        work(Lane(LANE));
    }
    // The last one has nobody to tell, and the same subject's like change to come must not find the note.
    let told = if LANE + 1 < settings!(lanes) { event } else { 0 };
    // SAFETY: as above.
    unsafe { note.write_volatile(told) };
}

/// An address as a number: the verifier lets nobody calculate with pointers whose type it knows, and forgets the type of
/// what was in a map.
#[inline(always)]
fn number<const LANE: u32>(state: *mut RelayState, address: u64) -> u64 {
    // SAFETY: the entry is this CPU's own, and only this program, which never interrupts itself, uses this word.
    // Volatile: it has to go through memory.
    unsafe {
        let word = &raw mut (*state).subjects[LANE as usize];
        word.write_volatile(address);
        word.read_volatile()
    }
}

/// Where a subject's events are noted: with this CPU, which deals with an event to its end unless tasks can be
/// preempted meanwhile.
#[inline(always)]
fn note(state: *mut RelayState, subject: u64) -> Option<*mut u64> {
    let place = subject.wrapping_mul(SPREAD) >> 32;
    if settings!(lanes) == LANES {
        NOTES.get_ptr_mut(place as u32 % NOTES_COUNT)
    } else {
        // SAFETY: the entry is this CPU's own, and the place is one of its notes.
        Some(unsafe { &raw mut (*state).notes[place as usize % CPU_NOTES] })
    }
}
