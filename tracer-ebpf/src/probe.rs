//! The kubelet's own connections, seen from its side: only there they can be told from a client's whose
//! address is masqueraded to the same.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use tracer_common::{Mode, NODE, ScopeEntry};

use crate::maps::{PROBERS, PROBES};

const SYN_SENT: i32 = 2;

/// Whether this change is to be told as one of a probe: the first after SYN_SENT, when the connection
/// has its port (`tcp_v4_connect` takes it after that change) and before the pod's side is complete.
#[inline(always)]
pub fn told(sk: u64, old: i32, new: i32) -> Option<ScopeEntry> {
    if new == SYN_SENT {
        remember(sk);
        return None;
    }
    if old == SYN_SENT && PROBES.remove(sk).is_ok() {
        return Some(ScopeEntry { target: NODE, mode: Mode::ARMED });
    }
    None
}

/// The change to SYN_SENT is made by the task that connects.
#[inline(always)]
fn remember(sk: u64) {
    let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    // SAFETY: user space only inserts and removes entries; the value is not looked at.
    if unsafe { PROBERS.get(pid) }.is_some() {
        // Without room the probe looks like a peer's connection that carries nothing.
        let _ = PROBES.insert(sk, 0, 0);
    }
}
