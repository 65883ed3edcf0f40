//! Sending records: every attempt is counted, every refusal too.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use tracer_common::{Header, KINDS, Pod, ScopeEntry};

use crate::{
    maps::RECORDS,
    scope::{self, Lane},
};

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
    slot.submit(0);
}
