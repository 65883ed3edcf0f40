//! Records: what the programs put into the ring buffer.

use crate::Pod;

/// Numbers of the record types, in [`Header::kind`].
pub struct Kind;

impl Kind {
    /// [`StateRecord`](crate::StateRecord).
    pub const STATE: u32 = 1;
    /// [`ResetRecord`](crate::ResetRecord) of a reset that was sent.
    pub const RESET_SENT: u32 = 2;
    /// [`ResetRecord`](crate::ResetRecord) of a reset that was received and accepted.
    pub const RESET_RECEIVED: u32 = 3;
    /// [`SignalRecord`](crate::SignalRecord).
    pub const SIGNAL: u32 = 4;
    /// [`ExitRecord`](crate::ExitRecord).
    pub const EXIT: u32 = 5;
    /// [`OomRecord`](crate::OomRecord).
    pub const OOM: u32 = 6;
    /// [`GoneRecord`](crate::GoneRecord).
    pub const GONE: u32 = 7;
    /// [`ExecRecord`](crate::ExecRecord).
    pub const EXEC: u32 = 8;
}

/// What kind of socket a reset was sent for, in [`ResetRecord::sock_kind`].
pub struct SockKind;

impl SockKind {
    /// No socket had the segment's addresses.
    pub const NONE: u8 = 0;
    /// A full socket: all of [`Socket`] is valid.
    pub const FULL: u8 = 1;
    /// A TIME_WAIT socket: only `__sk_common` is valid there.
    pub const TIME_WAIT: u8 = 2;
    /// A request socket (NEW_SYN_RECV): only `__sk_common` is valid there.
    pub const REQUEST: u8 = 3;
}

/// What the payload of the segment that drew a reset looked like, in [`Segment::class`]. Decided in
/// the kernel from the first bytes; no payload leaves it.
pub struct SegmentClass;

impl SegmentClass {
    /// No payload.
    pub const NONE: u8 = 0;
    /// A TLS record of type alert, or of the size that an encrypted TLS 1.3 alert has.
    pub const TLS_ALERT: u8 = 1;
    /// HTTP/2 frames that carry no request: SETTINGS, PING, GOAWAY, WINDOW_UPDATE, RST_STREAM, PRIORITY.
    pub const H2_CONTROL: u8 = 2;
    /// At most 64 bytes.
    pub const SMALL: u8 = 3;
    /// More.
    pub const DATA: u8 = 4;
}

/// How far the last answer on a connection has come, in [`Exchange::answer`]. Decided in the kernel from
/// what the application wrote: the length that an HTTP/1 answer announces, the streams of HTTP/2 that were
/// opened and ended. No payload leaves it.
pub struct Answer;

impl Answer {
    /// Nothing tells.
    pub const UNKNOWN: u8 = 0;
    /// Some of it is still to be written.
    pub const UNDER_WAY: u8 = 1;
    /// All of it was written, and so was every one before.
    pub const WHOLE: u8 = 2;
    /// It has no length: the close is its end (HTTP/1 without Content-Length and chunks).
    pub const UNTIL_CLOSE: u8 = 3;
}

/// What is spoken on a connection, in [`Exchange::protocol`].
pub struct Protocol;

impl Protocol {
    /// Nothing was seen yet.
    pub const UNKNOWN: u8 = 0;
    /// HTTP/1.
    pub const HTTP1: u8 = 1;
    /// TLS, whatever within.
    pub const TLS: u8 = 2;
    /// HTTP/2 in clear text.
    pub const HTTP2: u8 = 3;
    /// Something else, or its units were lost track of.
    pub const OTHER: u8 = 4;
}

/// Bits of [`Task::flags`], from `include/linux/sched.h`.
pub mod task_flags {
    /// The task is exiting.
    pub const PF_EXITING: u32 = 0x4;
    /// The task is a kernel thread.
    pub const PF_KTHREAD: u32 = 0x0020_0000;
}

/// Begins every record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// CLOCK_MONOTONIC in ns (`bpf_ktime_get_ns`).
    pub time_ns: u64,
    /// One of [`Kind`].
    pub kind: u32,
    /// Slot of the target.
    pub target: u32,
}

/// The task in whose context a program ran. In softirq it is a bystander.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Task {
    /// cgroup v2 id.
    pub cgroup: u64,
    /// Process id (tgid) in the initial pid namespace.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// `task_struct.flags`, see [`task_flags`].
    pub flags: u32,
    /// Inode of its pid namespace; 0 in records of connections.
    pub pidns: u32,
    /// Command name, padded with zeros.
    pub comm: [u8; 16],
}

/// Both ends of a connection. IPv4 addresses are mapped (`::ffff:a.b.c.d`); ports in host order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tuple {
    /// Our address.
    pub local: [u8; 16],
    /// The other side's.
    pub peer: [u8; 16],
    /// Our port.
    pub local_port: u16,
    /// The other side's port.
    pub peer_port: u16,
}

/// What a full socket knows of its connection. SYN and FIN count in the sequence numbers.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Socket {
    /// Address of the `struct sock`: the key of a live connection.
    pub sk: u64,
    /// cgroup v2 id of the socket's owner; 0 if the kernel does not say.
    pub cgroup: u64,
    /// `tcp_sock.bytes_received`.
    pub bytes_received: u64,
    /// `tcp_sock.bytes_acked`.
    pub bytes_acked: u64,
    /// `rcv_nxt - copied_seq`.
    pub unread: u32,
    /// `write_seq - snd_una`.
    pub unacked: u32,
    /// Time of the last segment with data that was sent, in jiffies (low 32 bits).
    pub last_send: u32,
    /// Time of the last segment with data that was received, in jiffies (low 32 bits).
    pub last_receive: u32,
    /// Now, in jiffies (low 32 bits).
    pub jiffies: u32,
    /// `write_seq - snd_nxt`: what was never sent.
    pub unsent: u32,
    /// `skc_state`.
    pub state: u8,
    /// `sk_shutdown`: 1 receive, 2 send.
    pub shutdown: u8,
    /// Always 0.
    pub reserved: u16,
    /// 1 if `sk_socket` is NULL: not yet accepted, or closed by the application.
    pub orphan: u32,
}

/// What an application read from a connection and wrote to it last, at its own calls
/// (`sock_recv_length`, `sock_send_length`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exchange {
    /// Bytes read since the last write.
    pub unanswered: u32,
    /// Bytes written since the last read.
    pub answered: u32,
    /// Size of the last write in bytes.
    pub last_write: u32,
    /// Bytes that had been read without an answer when the last answer began: what is unanswered if
    /// that answer turns out to be a farewell (a TLS close_notify).
    pub before_answer: u32,
    /// Bytes written since that no answer is made of: a TLS alert, HTTP/2's own frames.
    pub farewell: u32,
    /// 1 if anything is known of the connection; else all else is 0.
    pub known: u8,
    /// One of [`Answer`].
    pub answer: u8,
    /// One of [`Protocol`].
    pub protocol: u8,
    /// Over TLS: 1 if what is unanswered may be no request, or if so little was written since that it may
    /// be an answer or not.
    pub doubtful: u8,
    /// 1 if what is unanswered begins as an HTTP/1 request does.
    pub asks: u8,
    /// Always 0.
    pub reserved: [u8; 7],
    /// CLOCK_MONOTONIC in ns of the first write since the last read; 0 for none.
    pub first_write_at: u64,
    /// CLOCK_MONOTONIC in ns of the last write; 0 for none.
    pub last_write_at: u64,
    /// CLOCK_MONOTONIC in ns of the write before that one, since the last read; 0 for none.
    pub previous_write_at: u64,
    /// CLOCK_MONOTONIC in ns of the last read of a request; 0 for none.
    pub last_read_at: u64,
}

/// The segment that drew a reset.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Bytes of payload.
    pub payload: u32,
    /// 1 if there was a segment, 0 for a reset by our own act.
    pub present: u8,
    /// TCP flags: 1 FIN, 2 SYN, 4 RST, 8 PSH, 16 ACK.
    pub flags: u8,
    /// One of [`SegmentClass`].
    pub class: u8,
    /// Always 0.
    pub reserved: u8,
}

/// `inet_sock_set_state`: a socket changes its state.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateRecord {
    /// Header.
    pub header: Header,
    /// Context.
    pub task: Task,
    /// The socket.
    pub socket: Socket,
    /// What its application did.
    pub exchange: Exchange,
    /// Its ends.
    pub tuple: Tuple,
    /// State before, as in `include/net/tcp_states.h`.
    pub old: u8,
    /// State after.
    pub new: u8,
    /// Always 0.
    pub reserved: [u8; 2],
}

/// `tcp_send_reset` or `tcp_receive_reset`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResetRecord {
    /// Header.
    pub header: Header,
    /// Context.
    pub task: Task,
    /// The socket, as far as [`sock_kind`](Self::sock_kind) says that it is valid.
    pub socket: Socket,
    /// Its ends.
    pub tuple: Tuple,
    /// What drew it.
    pub segment: Segment,
    /// `enum sk_rst_reason` of the running kernel; -1 if it has none.
    pub reason: i32,
    /// One of [`SockKind`].
    pub sock_kind: u8,
    /// Always 0.
    pub reserved: [u8; 7],
}

/// `signal_generate` for a registered container init.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SignalRecord {
    /// Header.
    pub header: Header,
    /// Who sent it.
    pub sender: Task,
    /// cgroup v2 id of the target.
    pub cgroup: u64,
    /// Process id of the target.
    pub pid: u32,
    /// Inode of the target's pid namespace.
    pub pidns: u32,
    /// Number of the container within the target.
    pub container: u32,
    /// Signal number.
    pub signal: u32,
    /// `si_code`; 128 (`SI_KERNEL`) when the kernel sent it, 0 from a user.
    pub code: i32,
    /// `TRACE_SIGNAL_*`: 0 delivered, 1 ignored, 2 already pending, 3 overflow, 4 lost.
    pub result: i32,
    /// 1 if the target was already exiting.
    pub target_exiting: u32,
    /// Always 0.
    pub reserved: u32,
}

/// `sched_process_exit` of a process's last thread.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExitRecord {
    /// Header.
    pub header: Header,
    /// Who exits.
    pub task: Task,
    /// Wait status of the process: signal in the low 7 bits, exit code in the next 8.
    pub status: u32,
    /// 1 if it is a registered container init.
    pub is_init: u32,
    /// Number of the container within the target, if it is an init.
    pub container: u32,
    /// Always 0.
    pub reserved: u32,
}

/// `mark_victim`: the out-of-memory killer chose a registered container init or a process in scope.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OomRecord {
    /// Header.
    pub header: Header,
    /// Process id of the victim.
    pub pid: u32,
    /// Number of the container within the target.
    pub container: u32,
}

/// A registered container init told its parent of its end (SIGCHLD from `exit_notify`): by then all
/// other processes of its pid namespace are gone (`zap_pid_ns_processes`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GoneRecord {
    /// Header.
    pub header: Header,
    /// Process id of the init.
    pub pid: u32,
    /// Number of the container within the target.
    pub container: u32,
}

/// `sched_process_exec` of a process in scope.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExecRecord {
    /// Header.
    pub header: Header,
    /// Who runs a new program; its command name is the program's.
    pub task: Task,
    /// Its parent (`real_parent`): outside the container for a process that enters it.
    pub parent: Task,
}

/// `cgroup_mkdir` or `cgroup_attach_task`: a cgroup was made, or a process came into it. Has a ring
/// buffer of its own, without a [`Header`]: it belongs to no target.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CgroupRecord {
    /// Its path from the root of its hierarchy, ended by a zero; cut off where it is longer.
    pub path: [u8; Self::PATH],
}

impl CgroupRecord {
    /// Room for the path: two levels of a pod below the prefixes of a node in a container.
    pub const PATH: usize = 512;
}

macro_rules! pod {
    ($($ty:ty = $size:literal),* $(,)?) => { $(
        // SAFETY: repr(C), integers and byte arrays only; the size, asserted below, leaves no padding.
        unsafe impl Pod for $ty {}
        const _: () = assert!(size_of::<$ty>() == $size);
    )* };
}

pod!(
    Header = 16,
    Task = 40,
    Tuple = 36,
    Socket = 64,
    Segment = 8,
    Exchange = 64,
    StateRecord = 224,
    ResetRecord = 176,
    SignalRecord = 96,
    ExitRecord = 72,
    OomRecord = 24,
    GoneRecord = 24,
    ExecRecord = 96,
    CgroupRecord = 512,
);
