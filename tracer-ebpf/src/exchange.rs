//! What applications read from a connection and write to it: the size of a request without an
//! answer, and the age of an answer that is under way. Per call, not per packet.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use tracer_common::{Exchange, Mode};

use crate::{maps::EXCHANGES, offsets::field, scope, sock};

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const IPPROTO_TCP: u16 = 6;
const MSG_PEEK: i32 = 2;

/// An application read `length` bytes.
#[inline(always)]
pub fn read(sk: u64, length: i32, flags: i32) {
    if length <= 0 || flags & MSG_PEEK != 0 || !is_armed(sk) {
        return;
    }
    let mut exchange = of(sk);
    exchange.known = 1;
    exchange.unanswered = exchange.unanswered.saturating_add(length as u32);
    exchange.answered = 0;
    exchange.first_write_at = 0;
    exchange.previous_write_at = 0;
    // A full table loses the detail, not the connection.
    let _ = EXCHANGES.insert(sk, exchange, 0);
}

/// An application wrote `length` bytes.
#[inline(always)]
pub fn written(sk: u64, length: i32) {
    if length <= 0 || !is_armed(sk) {
        return;
    }
    let now = now();
    let mut exchange = of(sk);
    exchange.known = 1;
    if exchange.unanswered != 0 {
        exchange.before_answer = exchange.unanswered;
    }
    exchange.unanswered = 0;
    exchange.answered = exchange.answered.saturating_add(length as u32);
    exchange.last_write = length as u32;
    if exchange.first_write_at == 0 {
        exchange.first_write_at = now;
    } else {
        exchange.previous_write_at = exchange.last_write_at;
    }
    exchange.last_write_at = now;
    let _ = EXCHANGES.insert(sk, exchange, 0);
}

/// What is known of a socket's last exchange.
#[inline(always)]
pub fn of(sk: u64) -> Exchange {
    // SAFETY: the value is copied; two threads on one connection at the same moment may tear it,
    // which costs accuracy of that connection's ending only.
    unsafe { EXCHANGES.get(sk) }.copied().unwrap_or_default()
}

/// Forgets a socket that closed.
#[inline(always)]
pub fn forget(sk: u64) {
    let _ = EXCHANGES.remove(sk);
}

/// Sockets of all families pass here, so that the cheap test comes first.
#[inline(always)]
fn is_armed(sk: u64) -> bool {
    let family: u16 = field!(sk, skc_family);
    (family == AF_INET || family == AF_INET6)
        && scope::find(sock::net(sk), || sock::cgroup(sk)).is_some_and(|entry| entry.mode == Mode::ARMED)
        && field!(sk, sk_protocol: u16) == IPPROTO_TCP
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper takes nothing and is allowed in every tracing program.
    unsafe { bpf_ktime_get_ns() }
}
