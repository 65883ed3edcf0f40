//! TCP state changes: opens, accepts, closes.

use aya_ebpf::programs::RawTracePointContext;
use aya_log_ebpf::debug;
use tracer_common::{Counters, Kind, Mode, StateRecord};

use crate::{
    emit, exchange,
    offsets::field,
    probe,
    scope::{self, Lane},
    sock, task,
};

const IPPROTO_TCP: u16 = 6;

const ESTABLISHED: i32 = 1;
const SYN_SENT: i32 = 2;
const SYN_RECV: i32 = 3;
const CLOSE: i32 = 7;
const CLOSE_WAIT: i32 = 8;
const LISTEN: i32 = 10;

/// A socket went from one state to another.
#[inline(always)]
pub fn changed(ctx: &RawTracePointContext, lane: Lane, sk: u64, old: i32, new: i32) {
    let probe = probe::told(sk, old, new);
    let Some(entry) = probe.or_else(|| scope::find(sock::net(sk), || sock::cgroup(sk))) else { return };
    // MPTCP sockets fire it too (protocol 262); their subflows are counted as what they are.
    if field!(sk, sk_protocol: u16) != IPPROTO_TCP {
        return;
    }
    let unsent = old == SYN_SENT && new == CLOSE && field!(sk, segs_out: u32) == 0;
    scope::count(lane, entry.target, |counters| count(counters, old, new, unsent));
    // Who listens where must be known before anything ends: it is told of known targets too.
    if entry.mode != Mode::ARMED && new != LISTEN {
        return;
    }
    emit::send::<StateRecord>(lane, Kind::STATE, entry, |record, header| {
        record.header = header;
        record.task = task::describe(task::current());
        record.socket = sock::describe(sk);
        record.exchange = exchange::of(sk);
        record.tuple = sock::tuple(sk);
        record.old = old as u8;
        record.new = new as u8;
        record.reserved = [0; 2];
    });
    if new == CLOSE {
        exchange::forget(sk);
    }
    debug!(ctx, "state {} to {}", old, new);
}

/// The kernel's own rules: `tcp_set_state`, `tcp_create_openreq_child`, `tcp_connect`.
#[inline(always)]
fn count(counters: &mut Counters, old: i32, new: i32, unsent: bool) {
    match (old, new) {
        (LISTEN, SYN_RECV) => counters.passive_opens += 1,
        (CLOSE, SYN_SENT) => counters.active_opens += 1,
        (ESTABLISHED | CLOSE_WAIT, CLOSE) => counters.estab_resets += 1,
        _ => {}
    }
    if unsent {
        counters.active_unsent += 1;
    }
    if new == ESTABLISHED {
        counters.established += 1;
    }
    if old == ESTABLISHED {
        if new == CLOSE_WAIT { counters.close_waits += 1 } else { counters.unestablished += 1 }
    }
    if old == CLOSE_WAIT {
        counters.close_waits_left += 1;
    }
}
