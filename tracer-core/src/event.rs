//! Decoded records: what the kernel programs saw, in Rust types.

mod exchange;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

pub use exchange::{Answer, Exchange, Protocol};

/// Slot of a target, given by user space when the target comes into scope.
pub type TargetId = u32;

/// CLOCK_MONOTONIC in nanoseconds, as the kernel stamps records (`bpf_ktime_get_ns`).
pub type Mono = u64;

/// A decoded record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When the kernel saw it.
    pub time: Mono,
    /// Whose it is.
    pub target: TargetId,
    /// What it is.
    pub kind: EventKind,
}

/// The kinds of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A socket changed its state.
    State(StateChange),
    /// A reset was sent.
    ResetSent(ResetSent),
    /// A reset was received and accepted.
    ResetReceived(ResetReceived),
    /// A signal to a container's init.
    Signal(Signal),
    /// A process in scope runs a new program.
    Exec(Exec),
    /// A process in scope exited.
    Exit(Exit),
    /// A container's init is gone with all that depended on it.
    Gone(Gone),
    /// The out-of-memory killer chose a container's init.
    Oom(Oom),
}

/// TCP states, numbered as in `include/net/tcp_states.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TcpState {
    /// Data flows.
    Established = 1,
    /// We asked for a connection.
    SynSent = 2,
    /// The peer asked for a connection.
    SynRecv = 3,
    /// We closed; our FIN is not acknowledged.
    FinWait1 = 4,
    /// We closed; our FIN is acknowledged.
    FinWait2 = 5,
    /// Both closed; waiting for stray segments.
    TimeWait = 6,
    /// No connection.
    Close = 7,
    /// The peer closed.
    CloseWait = 8,
    /// The peer closed, then we did.
    LastAck = 9,
    /// Waiting for connections.
    Listen = 10,
    /// Both closed at the same time.
    Closing = 11,
    /// A request socket.
    NewSynRecv = 12,
}

impl TcpState {
    /// The state with this number, if there is one.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        use TcpState::*;
        [
            Established,
            SynSent,
            SynRecv,
            FinWait1,
            FinWait2,
            TimeWait,
            Close,
            CloseWait,
            LastAck,
            Listen,
            Closing,
            NewSynRecv,
        ]
        .into_iter()
        .find(|state| *state as u8 == number)
    }
}

/// Both ends of a connection, as IPv6 writes them, from the pod's view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tuple {
    /// The pod's address, IPv4 mapped.
    pub local: [u8; 16],
    /// The peer's address, IPv4 mapped.
    pub peer: [u8; 16],
    /// The pod's port.
    pub local_port: u16,
    /// The peer's port.
    pub peer_port: u16,
}

impl Tuple {
    /// The tuple of two socket addresses.
    #[must_use]
    pub fn new(local: SocketAddr, peer: SocketAddr) -> Self {
        Self {
            local: octets(local.ip()),
            peer: octets(peer.ip()),
            local_port: local.port(),
            peer_port: peer.port(),
        }
    }

    /// The same connection as the other side sees it.
    #[must_use]
    pub fn mirrored(&self) -> Self {
        Self { local: self.peer, peer: self.local, local_port: self.peer_port, peer_port: self.local_port }
    }

    /// The pod's address, IPv4 where it is one.
    #[must_use]
    pub fn local_ip(&self) -> IpAddr {
        Ipv6Addr::from(self.local).to_canonical()
    }

    /// The peer's address, IPv4 where it is one.
    #[must_use]
    pub fn peer_ip(&self) -> IpAddr {
        Ipv6Addr::from(self.peer).to_canonical()
    }
}

fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// A name of at most 16 bytes, as the kernel keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Comm(pub [u8; 16]);

impl std::fmt::Display for Comm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(self.0.len());
        f.write_str(&String::from_utf8_lossy(&self.0[..end]))
    }
}

/// A task: the one that acted, or in softirq a bystander.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Task {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// cgroup v2 id.
    pub cgroup: u64,
    /// Inode of its pid namespace.
    pub pidns: u32,
    /// It is exiting.
    pub exiting: bool,
    /// It is a kernel thread.
    pub kernel_thread: bool,
    /// Command name.
    pub comm: Comm,
}

/// What a full socket knows of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Socket {
    /// Its address: the key of a live connection.
    pub key: u64,
    /// cgroup v2 id of the owner; 0 if unknown.
    pub cgroup: u64,
    /// Bytes received; a FIN counts 1.
    pub bytes_received: u64,
    /// Bytes that the peer acknowledged; SYN (on the connecting side) and FIN count 1.
    pub bytes_acked: u64,
    /// `rcv_nxt - copied_seq`; a FIN counts 1.
    pub unread: u32,
    /// `write_seq - snd_una`; a FIN counts 1.
    pub unacked: u32,
    /// `write_seq - snd_nxt`: what was never sent.
    pub unsent: u32,
    /// When data was last sent, in jiffies.
    pub last_send: u32,
    /// When data was last received, in jiffies.
    pub last_receive: u32,
    /// Now, in jiffies.
    pub jiffies: u32,
    /// Not yet accepted, or closed by the application.
    pub orphan: bool,
    /// What the application read and wrote last, where the kernel can show it.
    pub exchange: Option<Exchange>,
}

/// `inet_sock_set_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateChange {
    /// Who ran.
    pub task: Task,
    /// The socket.
    pub socket: Socket,
    /// Its ends.
    pub tuple: Tuple,
    /// Before.
    pub old: TcpState,
    /// After.
    pub new: TcpState,
}

/// What kind of socket a reset was sent for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketKind {
    /// None had the segment's addresses.
    None,
    /// A full socket.
    Full,
    /// A TIME_WAIT socket.
    TimeWait,
    /// A request socket.
    Request,
}

/// What the payload of a segment looked like; decided in the kernel.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum SegmentClass {
    /// No payload.
    None,
    /// A TLS alert, as a client sends when it answers a close.
    TlsAlert,
    /// HTTP/2 frames that carry no request.
    H2Control,
    /// At most 64 bytes.
    Small,
    /// More than 64 bytes.
    Data,
}

/// The segment that drew a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Bytes of payload.
    pub payload: u32,
    /// TCP flags.
    pub flags: u8,
    /// What it looked like.
    pub class: SegmentClass,
}

impl Segment {
    /// Whether it asks for a new connection: SYN without ACK.
    #[must_use]
    pub fn is_syn(&self) -> bool {
        self.flags & 0x12 == 0x02
    }
}

/// `tcp_send_reset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResetSent {
    /// Who ran.
    pub task: Task,
    /// What it was sent for.
    pub socket_kind: SocketKind,
    /// The socket; meaningful for a full one only.
    pub socket: Socket,
    /// Its ends.
    pub tuple: Tuple,
    /// What drew it; `None` if it was our own act.
    pub segment: Option<Segment>,
    /// `enum sk_rst_reason` of the running kernel.
    pub reason: Option<i32>,
}

/// `tcp_receive_reset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResetReceived {
    /// The socket.
    pub socket: Socket,
    /// Its ends.
    pub tuple: Tuple,
}

/// `signal_generate` for a container's init.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    /// Who sent it.
    pub sender: Task,
    /// Process id of the target.
    pub pid: u32,
    /// cgroup v2 id of the target.
    pub cgroup: u64,
    /// Inode of the target's pid namespace.
    pub pidns: u32,
    /// Which container.
    pub container: u32,
    /// Signal number.
    pub signal: u32,
    /// The kernel sent it (`SI_KERNEL`).
    pub by_kernel: bool,
    /// The target has no handler and as a PID 1 does not get it, or it is pending already.
    pub ignored: bool,
    /// The target was already exiting.
    pub target_exiting: bool,
}

/// `sched_process_exec`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exec {
    /// Who.
    pub task: Task,
    /// Its parent.
    pub parent: Task,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExitStatus {
    /// By itself, with this code.
    Code(u8),
    /// By this signal.
    Signal(u8),
}

/// `sched_process_exit` of the last thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Who.
    pub task: Task,
    /// How.
    pub status: ExitStatus,
    /// Which container's init it is, if it is one.
    pub init_of: Option<u32>,
}

/// The parent of a container's init was told of its end: by then all processes of its pid namespace
/// are gone (`exit_notify` after `zap_pid_ns_processes`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone {
    /// Which container.
    pub container: u32,
    /// Process id of the init.
    pub pid: u32,
}

/// `mark_victim`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Oom {
    /// The victim.
    pub pid: u32,
    /// Which container.
    pub container: u32,
}
