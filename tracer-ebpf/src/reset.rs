//! Resets, sent and received.

use aya_ebpf::EbpfContext;
use aya_log_ebpf::debug;
use tracer_common::{Counters, Kind, Mode, ResetRecord, ScopeEntry, Segment, SegmentClass, SockKind, Socket};

use crate::{
    emit,
    offsets::{Loaded, Probed},
    scope::{self, Lane},
    segment, sock, task,
};

const FLAG_SYN: u8 = 2;
const FLAG_RST: u8 = 4;
const FLAG_ACK: u8 = 16;

/// A reset is being sent: in answer to a segment (`skb`), or by our own act.
#[inline(always)]
pub fn sent<C: EbpfContext>(ctx: &C, lane: Lane, sk: u64, skb: u64, reason: i32) {
    let kind = sock::kind(sk);
    let Some(entry) = target(sk, skb, kind) else { return };
    let segment = segment::describe(skb);
    // What a socket that aborts leaves unread, or was never accepted.
    let unread = kind == SockKind::FULL
        && segment.present == 0
        && (sock::unread::<Probed>(sk) != 0 || sock::is_orphan::<Probed>(sk));
    scope::count(lane, entry.target, |counters| count_sent(counters, segment, unread));
    if entry.mode != Mode::ARMED {
        return;
    }
    emit::send::<ResetRecord>(lane, Kind::RESET_SENT, entry, |record, header| {
        record.header = header;
        record.task = task::describe_current();
        record.socket = describe(sk, kind);
        // With a segment its own addresses: a listener's socket has no peer.
        record.tuple = if skb != 0 { segment::tuple(skb) } else { sock::tuple::<Probed>(sk) };
        record.segment = segment;
        record.reason = reason;
        record.sock_kind = kind;
        record.reserved = [0; 7];
    });
    debug!(ctx, "reset sent, reason {}", reason);
}

/// `tcp_v4_send_reset` or `tcp_v6_send_reset` is called: a segment draws a reset. What the tracepoint
/// does not show before 6.10, and no more, so that nothing counts twice: no socket, or none that is a full
/// one. The function itself gives up on a reset that answers a reset, and, without a socket, on a segment
/// that is not for this machine: that must not count.
#[inline(always)]
pub fn asked<C: EbpfContext>(ctx: &C, sk: u64, skb: u64) {
    let kind = sock::kind(sk);
    let segment_flags = segment::flags(skb);
    if kind == SockKind::FULL || segment_flags & FLAG_RST != 0 {
        return;
    }
    if kind == SockKind::NONE && !segment::is_for_us(skb) {
        return;
    }
    sent(ctx, Lane::SECOND, sk, skb, -1);
}

/// A reset was received and accepted; the socket's state is still the one before.
#[inline(always)]
pub fn received(sk: u64) {
    let net = sock::net::<Loaded>(sk);
    let Some(entry) = scope::find::<Loaded>(net, || sock::cgroup::<Loaded>(sk)) else { return };
    scope::count(Lane::FIRST, entry.target, |counters| counters.resets_received += 1);
    if entry.mode != Mode::ARMED {
        return;
    }
    let Some(sk) = sock::as_tcp(sk) else { return };
    emit::send::<ResetRecord>(Lane::FIRST, Kind::RESET_RECEIVED, entry, |record, header| {
        record.header = header;
        record.task = task::describe_current();
        record.socket = sock::describe::<Loaded>(sk);
        record.tuple = sock::tuple::<Loaded>(sk);
        record.segment = Segment::default();
        record.reason = -1;
        record.sock_kind = SockKind::FULL;
        record.reserved = [0; 7];
    });
}

#[inline(always)]
fn target(sk: u64, skb: u64, kind: u8) -> Option<ScopeEntry> {
    match kind {
        SockKind::NONE => scope::find_by_netns(segment::net(skb)),
        SockKind::FULL => scope::find::<Probed>(sock::net::<Probed>(sk), || sock::cgroup::<Probed>(sk)),
        _ => scope::find_by_netns(sock::net::<Probed>(sk)),
    }
}

#[inline(always)]
fn describe(sk: u64, kind: u8) -> Socket {
    match kind {
        SockKind::NONE => Socket::default(),
        SockKind::FULL => sock::describe::<Probed>(sk),
        _ => sock::describe_common(sk),
    }
}

#[inline(always)]
fn count_sent(counters: &mut Counters, segment: Segment, unread: bool) {
    counters.resets_sent += 1;
    if segment.present == 1 && segment.flags & (FLAG_SYN | FLAG_ACK) == FLAG_SYN {
        counters.resets_to_syn += 1;
    }
    if segment.class == SegmentClass::DATA {
        counters.resets_to_data += 1;
    }
    if unread {
        counters.resets_of_unread += 1;
    }
}
