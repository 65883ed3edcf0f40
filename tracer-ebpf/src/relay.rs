//! Several programs on one hook, so that an event is seen even if it interrupts a program on the same CPU.
//!
//! The kernel skips a program that is running already on the CPU (`__bpf_trace_run`): a segment that
//! is received while a system call is in the program, or, where tracepoints are preemptible, another
//! task's call. The hook's next program is not running then, so that the kernel runs that. Each program
//! notes which event it dealt with; the next one finds the note and does nothing, or takes the event over.
//!
//! Two events under way may have the same place for their notes. Then one is counted twice, and the books
//! say so.

use tracer_common::{CPU_NOTES, LANES, NOTES as NOTES_COUNT, RelayState};

use crate::{
    maps::{NOTES, RELAYS},
    offsets::settings,
    scope::Lane,
};

/// Spreads addresses over all places (2^64 divided by the golden ratio).
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Runs `work` if it is this program's: each has a lane. An event is told from others under way by its subject, an
/// address in the kernel, and what becomes of that.
#[inline(always)]
pub fn run<const LANE: u32>(hook: u32, subject: u64, change: u8, work: impl FnOnce(Lane)) {
    let Some(state) = RELAYS.get_ptr_mut(hook) else { return };
    // The first byte of kernel addresses tells nothing.
    let event = number::<LANE>(state, subject) << 8 | u64::from(change);
    let Some(note) = note(state, event) else { return };
    if LANE > 0 {
        // SAFETY: the note is in a map. Volatile: what interrupts this program writes it.
        if unsafe { note.read_volatile() } == event {
            if LANE + 1 == settings!(lanes) {
                // All have read it. The same socket's like change to come must not find it.
                // SAFETY: as above.
                unsafe { note.write_volatile(0) };
            }
            return;
        }
        // SAFETY: only this program, which never interrupts itself, writes this word of this CPU's entry.
        unsafe { (*state).taken_over[LANE as usize] += 1 };
    }
    work(Lane(LANE));
    if LANE + 1 < settings!(lanes) {
        // SAFETY: as above.
        unsafe { note.write_volatile(event) };
    }
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

/// Where an event is noted: with this CPU, which deals with an event to its end unless tasks can be preempted
/// meanwhile.
#[inline(always)]
fn note(state: *mut RelayState, event: u64) -> Option<*mut u64> {
    let place = event.wrapping_mul(SPREAD) >> 32;
    if settings!(lanes) == LANES {
        NOTES.get_ptr_mut(place as u32 % NOTES_COUNT)
    } else {
        // SAFETY: the entry is this CPU's own, and the place is one of its notes.
        Some(unsafe { &raw mut (*state).notes[place as usize % CPU_NOTES] })
    }
}
