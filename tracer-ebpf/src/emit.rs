//! Sending records: every attempt is counted, every refusal too.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, BPF_RB_RING_SIZE},
    helpers::generated::bpf_ktime_get_ns,
};
use tracer_common::{Header, KINDS, Kind, Pod, ScopeEntry};

use crate::{
    maps::RECORDS,
    scope::{self, Lane},
};

/// One in so many bytes of the ring buffer that may wait for the reader's tick.
const MANY: u64 = 32;

/// Reserves space for a record, lets `fill` write it behind its header, and sends it. Counts the attempt and, if there
/// was no space, the loss.
#[inline(always)]
pub fn send<R: Pod>(lane: Lane, kind: u32, entry: ScopeEntry, fill: impl FnOnce(&mut R, Header)) {
    scope::count(lane, entry.target, |counters| counters.records[kind as usize % KINDS] += 1);
    let Some(mut slot) = RECORDS.reserve::<R>(0) else {
        scope::count(lane, entry.target, |counters| counters.records_lost[kind as usize % KINDS] += 1);
        return;
    };
    // SAFETY: the helper takes nothing and is allowed in every tracing program.
    let header = Header { time_ns: unsafe { bpf_ktime_get_ns() }, kind, target: entry.target };
    // SAFETY: the slot is as large as a record and aligned for it, and any bytes are a record.
    fill(unsafe { slot.assume_init_mut() }, header);
    slot.submit(wakeup(kind, size_of::<R>() as u64));
}

/// Records of connections come in crowds, and waking the reader for each costs more than all else: they wait
/// for the reader's next tick, unless many do. What tells of a container's life is told at once: the reader
/// has to find what exists before it is gone. Asked for no more than the default, the kernel would not wake a
/// reader that has records waiting (`bpf_ringbuf_commit`).
#[inline(always)]
fn wakeup(kind: u32, size: u64) -> u64 {
    let is_of_connection = matches!(kind, Kind::STATE | Kind::RESET_SENT | Kind::RESET_RECEIVED);
    if !is_of_connection {
        return BPF_RB_FORCE_WAKEUP.into();
    }
    let waiting = RECORDS.query(BPF_RB_AVAIL_DATA.into());
    let many = RECORDS.query(BPF_RB_RING_SIZE.into()) / MANY;
    // Only the one that makes them many: in a storm the reader is awake already, and each wakeup is an
    // interrupt.
    let makes_many = waiting >= many && waiting.wrapping_sub(size) < many;
    if makes_many { BPF_RB_FORCE_WAKEUP.into() } else { BPF_RB_NO_WAKEUP.into() }
}
