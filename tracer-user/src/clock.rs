//! The clocks: the one that the kernel stamps records with, and the wall's.

use tracer_core::input::Clock;

/// Nanoseconds of `CLOCK_MONOTONIC`, comparable with `bpf_ktime_get_ns`.
#[must_use]
pub fn mono_ns() -> u64 {
    read(libc::CLOCK_MONOTONIC).cast_unsigned()
}

/// Both clocks at the same instant.
#[must_use]
pub fn now() -> Clock {
    Clock { mono: mono_ns(), wall: read(libc::CLOCK_REALTIME) }
}

/// Nanoseconds of a clock.
fn read(clock: libc::clockid_t) -> i64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid, writable timespec; the call has no other effect.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}
