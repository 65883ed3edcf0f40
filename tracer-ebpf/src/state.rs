//! TCP state changes: opens, accepts, closes.

use aya_ebpf::programs::BtfTracePointContext;
use aya_log_ebpf::debug;
use tracer_common::{Exchange, Kind, Mode, StateRecord};

use crate::{
    emit, exchange,
    offsets::{Loaded, field},
    probe,
    scope::{self, Lane},
    sock, task,
};

const ESTABLISHED: i32 = 1;
const SYN_SENT: i32 = 2;
const SYN_RECV: i32 = 3;
const FIN_WAIT1: i32 = 4;
const FIN_WAIT2: i32 = 5;
const CLOSE: i32 = 7;
const LAST_ACK: i32 = 9;
const LISTEN: i32 = 10;
const CLOSING: i32 = 11;

/// Whether a change is of use to anybody: of what is only known nobody counts these
/// ([`tracer_common::Counters::count_state`]).
#[inline(always)]
fn counts(old: i32) -> bool {
    !matches!(old, FIN_WAIT1 | FIN_WAIT2 | LAST_ACK | CLOSING) || scope::is_any_armed()
}

/// Whether a connection is being opened by a change: before that nobody reads or writes.
#[inline(always)]
fn opens(new: i32) -> bool {
    matches!(new, ESTABLISHED | SYN_SENT | SYN_RECV | LISTEN)
}

/// A socket went from one state to another.
#[inline(always)]
pub fn changed(ctx: &BtfTracePointContext, lane: Lane, sk: u64, old: i32, new: i32) {
    if !counts(old) {
        return;
    }
    // Kubelets connect from the machine's own namespace, which no target has for itself.
    let probe = || probe::told(sk, old, new);
    let net = sock::net::<Loaded>(sk);
    let Some(entry) = scope::find_unless::<Loaded>(net, || sock::cgroup::<Loaded>(sk), probe) else { return };
    // MPTCP sockets fire it too (protocol 262); their subflows are counted as what they are.
    if !sock::is_tcp(sk) {
        return;
    }
    let segments_sent = || sock::as_tcp(sk).map_or(0, |tcp| field!(tcp, segs_out: u32, by Loaded));
    scope::count(lane, entry.target, |counters| counters.count_state(old, new, segments_sent));
    // Who listens where must be known before anything ends: it is told of known targets too.
    if entry.mode != Mode::ARMED && new != LISTEN {
        return;
    }
    let Some(sk) = sock::as_tcp(sk) else { return };
    emit::send::<StateRecord>(lane, Kind::STATE, entry, |record, header| {
        record.header = header;
        record.task = task::describe_current();
        record.socket = sock::describe::<Loaded>(sk);
        record.exchange = if opens(new) { Exchange::default() } else { exchange::of(sk) };
        record.tuple = sock::tuple::<Loaded>(sk);
        record.old = old as u8;
        record.new = new as u8;
        record.reserved = [0; 2];
    });
    if new == CLOSE {
        exchange::forget(sk);
    }
    debug!(ctx, "state {} to {}", old, new);
}
