//! What a record says of a socket.

use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_skc_to_tcp_sock};
use tracer_common::{ABSENT, SockKind, Socket, Tuple};

use crate::{
    offsets::{Access, Loaded, Probed, field, offset},
    task,
};

const AF_INET6: u16 = 10;
const IPPROTO_TCP: u16 = 6;
const TCP_TIME_WAIT: u8 = 6;
const TCP_NEW_SYN_RECV: u8 = 12;
const MAPPED_PREFIX: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// What kind of socket this is. `skc_state` must be read before anything else: TIME_WAIT and request
/// sockets are not full sockets, only their `__sk_common` is valid.
#[inline(always)]
pub fn kind(sk: u64) -> u8 {
    if sk == 0 {
        return SockKind::NONE;
    }
    match field!(sk, skc_state: u8) {
        TCP_TIME_WAIT => SockKind::TIME_WAIT,
        TCP_NEW_SYN_RECV => SockKind::REQUEST,
        _ => SockKind::FULL,
    }
}

/// Whether a full socket is one of TCP.
#[inline(always)]
pub fn is_tcp(sk: u64) -> bool {
    field!(sk, sk_protocol: u16, by Loaded) == IPPROTO_TCP
}

/// The same socket as a `struct tcp_sock *` for the verifier, of a socket whose type it knows; `None` if it is no full
/// socket of TCP.
#[inline(always)]
pub fn as_tcp(sk: u64) -> Option<u64> {
    // SAFETY: the verifier checks the argument; the helper looks at the socket itself.
    let tcp = unsafe { bpf_skc_to_tcp_sock(sk as *mut _) } as u64;
    (tcp != 0).then_some(tcp)
}

/// Network namespace (`struct net *`) of a socket of any kind.
#[inline(always)]
pub fn net<A: Access>(sk: u64) -> u64 {
    field!(sk, skc_net, by A)
}

/// cgroup v2 id of a full socket's owner; 0 if the kernel does not say.
#[inline(always)]
pub fn cgroup<A: Access>(sk: u64) -> u64 {
    if offset!(sk_cgroup) != ABSENT {
        return task::cgroup_id::<A>(field!(sk, sk_cgroup, by A));
    }
    // Before 5.15 the pointer shares its place with data of net_prio and net_cls, marked by bit 0, and
    // bit 1 says that there is none (`sock_cgroup_ptr`).
    let cgroup: u64 = field!(sk, sk_cgrp_data);
    if cgroup & 3 != 0 { 0 } else { task::cgroup_id::<Probed>(cgroup) }
}

/// Both ends of a full socket. The local port is `inet_sport`: `skc_num` is 0 at CLOSE.
#[inline(always)]
pub fn tuple<A: Access>(sk: u64) -> Tuple {
    let v6 = field!(sk, skc_family: u16, by A) == AF_INET6 && offset!(skc_v6_daddr) != ABSENT;
    let (local, peer) = if v6 {
        (field!(sk, skc_v6_rcv_saddr, by A), field!(sk, skc_v6_daddr, by A))
    } else {
        (mapped(field!(sk, skc_rcv_saddr, by A)), mapped(field!(sk, skc_daddr, by A)))
    };
    Tuple {
        local,
        peer,
        local_port: u16::from_be(field!(sk, inet_sport, by A)),
        peer_port: u16::from_be(field!(sk, skc_dport: u16, by A)),
    }
}

/// An IPv4 address as IPv6 writes it.
#[inline(always)]
pub fn mapped(v4: [u8; 4]) -> [u8; 16] {
    let mut address = [0; 16];
    address[..12].copy_from_slice(&MAPPED_PREFIX);
    address[12..].copy_from_slice(&v4);
    address
}

/// What a full socket knows of its connection.
#[inline(always)]
pub fn describe<A: Access>(sk: u64) -> Socket {
    let sequence = |offset| A::at::<u32>(sk, offset);
    Socket {
        sk,
        cgroup: cgroup::<A>(sk),
        bytes_received: field!(sk, bytes_received, by A),
        bytes_acked: field!(sk, bytes_acked, by A),
        unread: unread::<A>(sk),
        unacked: sequence(offset!(write_seq)).wrapping_sub(sequence(offset!(snd_una))),
        last_send: field!(sk, lsndtime, by A),
        last_receive: field!(sk, icsk_lrcvtime, by A),
        // SAFETY: the helper takes nothing and is allowed in every tracing program.
        jiffies: unsafe { bpf_jiffies64() } as u32,
        unsent: sequence(offset!(write_seq)).wrapping_sub(sequence(offset!(snd_nxt))),
        state: field!(sk, skc_state, by A),
        shutdown: field!(sk, sk_shutdown, by A),
        reserved: 0,
        orphan: u32::from(is_orphan::<A>(sk)),
    }
}

/// What was received and not read yet; a FIN counts as 1.
#[inline(always)]
pub fn unread<A: Access>(sk: u64) -> u32 {
    let received: u32 = field!(sk, rcv_nxt, by A);
    received.wrapping_sub(field!(sk, copied_seq, by A))
}

/// Whether nobody has the socket: not yet accepted, or closed. MPTCP takes a subflow from its owner before
/// it resets it, whose upper protocol (ULP) it still is.
#[inline(always)]
pub fn is_orphan<A: Access>(sk: u64) -> bool {
    field!(sk, sk_socket: u64, by A) == 0 && field!(sk, icsk_ulp_ops: u64, by A) == 0
}

/// What is valid of a socket that is not a full one.
#[inline(always)]
pub fn describe_common(sk: u64) -> Socket {
    Socket { sk, state: field!(sk, skc_state), ..Socket::default() }
}
