//! The clock that the kernel stamps records with.

/// Nanoseconds of `CLOCK_MONOTONIC`, comparable with `bpf_ktime_get_ns`.
#[must_use]
pub fn mono_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid, writable timespec; the call has no other effect.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}
