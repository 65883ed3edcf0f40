//! What the kernel programs count per target, whether or not a record can be sent.

use crate::{LANES, Pod};

/// Number of the hook `inet_sock_set_state` among those that have several programs.
pub const RELAY_STATE: u32 = 0;
/// That of `tcp_send_reset`.
pub const RELAY_RESET_SENT: u32 = 1;
/// That of `sched_process_exit`.
pub const RELAY_EXIT: u32 = 2;
/// Hooks that have several programs.
pub const RELAYS: u32 = 3;

/// Places for notes, of a CPU; a power of two.
pub const CPU_NOTES: usize = 1 << 8;
/// Places for notes that all CPUs share, where tracepoints are preemptible; a power of two.
pub const NOTES: u32 = 1 << 16;

/// What the programs of a hook tell each other, per CPU; each program has a lane.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayState {
    /// Events that one of them dealt with.
    pub notes: [u64; CPU_NOTES],
    /// Events that each took over because those before it were running already. Only grows; the first takes
    /// over nothing.
    pub taken_over: [u64; LANES as usize],
    /// What the event is about that each is looking at.
    pub subjects: [u64; LANES as usize],
}

// SAFETY: repr(C), u64 only.
unsafe impl Pod for RelayState {}

/// Places for record types, more than there are.
pub const KINDS: usize = 16;

/// Counters of one target, kept per CPU; they only grow, and user space takes differences.
///
/// The first nine and the resets sent are one side of the books; the other is `/proc/net/snmp` of the target's network
/// namespace. State changes are numbered as in `include/net/tcp_states.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// LISTEN→SYN_RECV (`tcp_create_openreq_child`): PassiveOpens.
    pub passive_opens: u64,
    /// CLOSE→SYN_SENT (`tcp_v4_connect`).
    pub active_opens: u64,
    /// SYN_SENT→CLOSE before any segment was sent: the kernel does not count these in ActiveOpens.
    pub active_unsent: u64,
    /// ESTABLISHED→CLOSE and CLOSE_WAIT→CLOSE (`tcp_set_state`): EstabResets.
    pub estab_resets: u64,
    /// Changes into ESTABLISHED: CurrEstab rises.
    pub established: u64,
    /// Changes out of ESTABLISHED, except into CLOSE_WAIT: CurrEstab falls (kernels that count
    /// CLOSE_WAIT as current).
    pub unestablished: u64,
    /// Changes out of ESTABLISHED into CLOSE_WAIT.
    pub close_waits: u64,
    /// Changes out of CLOSE_WAIT.
    pub close_waits_left: u64,
    /// SYN_RECV→CLOSE_WAIT (a SYN with data and FIN, by TCP Fast Open): CurrEstab rises on kernels that
    /// count CLOSE_WAIT as current.
    pub close_waits_at_once: u64,
    /// `tcp_send_reset`: OutRsts.
    pub resets_sent: u64,
    /// `tcp_receive_reset`.
    pub resets_received: u64,
    /// Resets sent to a SYN: somebody was refused.
    pub resets_to_syn: u64,
    /// Resets sent to a segment with payload of class `data` after the socket had been closed.
    pub resets_to_data: u64,
    /// Resets sent for a connection that was established and had unread data or had not been accepted.
    pub resets_of_unread: u64,
    /// Records for which ring buffer space was asked, by [`Kind`](crate::Kind). By kind, because a
    /// program can be interrupted by another one on its CPU, but never by itself: so each field has
    /// one writer.
    pub records: [u64; KINDS],
    /// Records for which the ring buffer had no space, by kind.
    pub records_lost: [u64; KINDS],
}

// SAFETY: repr(C), u64 only.
unsafe impl Pod for Counters {}
const _: () = assert!(size_of::<Counters>() == (14 + 2 * KINDS) * 8);

mod state {
    pub(super) const ESTABLISHED: i32 = 1;
    pub(super) const SYN_SENT: i32 = 2;
    pub(super) const SYN_RECV: i32 = 3;
    pub(super) const CLOSE: i32 = 7;
    pub(super) const CLOSE_WAIT: i32 = 8;
    pub(super) const LISTEN: i32 = 10;
}

impl Counters {
    /// Counts a change of state by the kernel's own rules: `tcp_set_state`, `tcp_create_openreq_child`,
    /// `tcp_connect`. `segments_sent` is asked only of a connection that gives up opening.
    #[inline(always)]
    pub fn count_state(&mut self, old: i32, new: i32, segments_sent: impl FnOnce() -> u32) {
        use state::{CLOSE, CLOSE_WAIT, ESTABLISHED, LISTEN, SYN_RECV, SYN_SENT};
        match (old, new) {
            (LISTEN, SYN_RECV) => self.passive_opens += 1,
            (CLOSE, SYN_SENT) => self.active_opens += 1,
            (ESTABLISHED | CLOSE_WAIT, CLOSE) => self.estab_resets += 1,
            (SYN_RECV, CLOSE_WAIT) => self.close_waits_at_once += 1,
            (SYN_SENT, CLOSE) if segments_sent() == 0 => self.active_unsent += 1,
            _ => {}
        }
        if new == ESTABLISHED {
            self.established += 1;
        }
        if old == ESTABLISHED {
            if new == CLOSE_WAIT { self.close_waits += 1 } else { self.unestablished += 1 }
        }
        if old == CLOSE_WAIT {
            self.close_waits_left += 1;
        }
    }

    /// Combines two readings field by field.
    #[must_use]
    pub fn zip(self, other: Self, f: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            passive_opens: f(self.passive_opens, other.passive_opens),
            active_opens: f(self.active_opens, other.active_opens),
            active_unsent: f(self.active_unsent, other.active_unsent),
            estab_resets: f(self.estab_resets, other.estab_resets),
            established: f(self.established, other.established),
            unestablished: f(self.unestablished, other.unestablished),
            close_waits: f(self.close_waits, other.close_waits),
            close_waits_left: f(self.close_waits_left, other.close_waits_left),
            close_waits_at_once: f(self.close_waits_at_once, other.close_waits_at_once),
            resets_sent: f(self.resets_sent, other.resets_sent),
            resets_received: f(self.resets_received, other.resets_received),
            resets_to_syn: f(self.resets_to_syn, other.resets_to_syn),
            resets_to_data: f(self.resets_to_data, other.resets_to_data),
            resets_of_unread: f(self.resets_of_unread, other.resets_of_unread),
            records: core::array::from_fn(|kind| f(self.records[kind], other.records[kind])),
            records_lost: core::array::from_fn(|kind| f(self.records_lost[kind], other.records_lost[kind])),
        }
    }

    /// The sum of two readings, as for two CPUs.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.zip(other, u64::wrapping_add)
    }

    /// What was counted since an `earlier` reading.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        self.zip(earlier, u64::wrapping_sub)
    }
}
