//! The kernel programs: entry points only, one hook family a module.
//!
//! What every connection passes is a BTF tracepoint, whose programs load a socket's fields without a call. The others
//! are raw tracepoints that read kernel memory with `bpf_probe_read_kernel`: on many kernels the verifier
//! believes that the arguments of `tcp_send_reset` are never NULL and removes the checks.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod call;
#[cfg(target_arch = "bpf")]
mod cgroup;
#[cfg(target_arch = "bpf")]
mod emit;
#[cfg(target_arch = "bpf")]
mod exchange;
#[cfg(target_arch = "bpf")]
mod http1;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod offsets;
#[cfg(target_arch = "bpf")]
mod probe;
#[cfg(target_arch = "bpf")]
mod process;
#[cfg(target_arch = "bpf")]
mod relay;
#[cfg(target_arch = "bpf")]
mod reset;
#[cfg(target_arch = "bpf")]
mod scope;
#[cfg(target_arch = "bpf")]
mod segment;
#[cfg(target_arch = "bpf")]
mod signal;
#[cfg(target_arch = "bpf")]
mod sock;
#[cfg(target_arch = "bpf")]
mod state;
#[cfg(target_arch = "bpf")]
mod task;
#[cfg(target_arch = "bpf")]
mod units;

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::{
        helpers::bpf_get_current_pid_tgid,
        macros::{btf_tracepoint, kprobe, raw_tracepoint},
        programs::{BtfTracePointContext, ProbeContext, RawTracePointContext},
    };
    use tracer_common::{RELAY_EXIT, RELAY_RESET_SENT, RELAY_STATE};

    use crate::{
        cgroup, exchange,
        offsets::settings,
        process,
        relay::{self, Event},
        reset,
        scope::Lane,
        signal, state,
    };

    /// The programs of one hook: each does the work in its lane, see [`relay`].
    macro_rules! relay {
        ($place:meta, $context:ty, $hook:expr, $event:ident, $work:ident, $($name:ident: $lane:literal),+) => {$(
            #[$place]
            pub fn $name(ctx: $context) -> i32 {
                relay::run::<$lane>($hook, $event(&ctx), |lane| $work(&ctx, lane));
                0
            }
        )+};
    }

    relay!(
        btf_tracepoint(function = "inet_sock_set_state"), BtfTracePointContext, RELAY_STATE, change, state_changed,
        inet_sock_set_state: 0, inet_sock_set_state_2: 1, inet_sock_set_state_3: 2, inet_sock_set_state_4: 3
    );

    relay!(
        raw_tracepoint(tracepoint = "tcp_send_reset"), RawTracePointContext, RELAY_RESET_SENT, segment, reset_sent,
        tcp_send_reset: 0, tcp_send_reset_2: 1, tcp_send_reset_3: 2, tcp_send_reset_4: 3
    );

    relay!(
        raw_tracepoint(tracepoint = "sched_process_exit"), RawTracePointContext, RELAY_EXIT, task, exited,
        sched_process_exit: 0, sched_process_exit_2: 1, sched_process_exit_3: 2, sched_process_exit_4: 3
    );

    /// A socket makes one change at a time, and never the same twice in succession.
    #[inline(always)]
    fn change(ctx: &BtfTracePointContext) -> Event {
        let (old, new): (i32, i32) = (ctx.arg(1), ctx.arg(2));
        Event { subject: ctx.arg(0), change: (old << 4 | new) as u16 }
    }

    /// A reset answers a segment, or is a socket's own. The next may have the same places in memory: if it finds a note
    /// that was left behind, it is told as lost.
    #[inline(always)]
    fn segment(ctx: &RawTracePointContext) -> Event {
        Event { subject: ctx.arg::<u64>(0) ^ ctx.arg::<u64>(1), change: 0 }
    }

    /// A task exits once, and the next that has its place in memory has another number.
    #[inline(always)]
    fn task(ctx: &RawTracePointContext) -> Event {
        Event { subject: ctx.arg(0), change: bpf_get_current_pid_tgid() as u16 }
    }

    /// `TP_PROTO(const struct sock *sk, const int oldstate, const int newstate)`
    #[inline(always)]
    fn state_changed(ctx: &BtfTracePointContext, lane: Lane) {
        state::changed(ctx, lane, ctx.arg(0), ctx.arg(1), ctx.arg(2));
    }

    /// `TP_PROTO(const struct sock *sk, const struct sk_buff *skb, const enum sk_rst_reason reason)`;
    /// the reason from 6.10 on: the verifier prunes the branch that is not this kernel's.
    #[inline(always)]
    fn reset_sent(ctx: &RawTracePointContext, lane: Lane) {
        reset::sent(ctx, lane, ctx.arg(0), ctx.arg(1), reason(ctx));
    }

    /// `TP_PROTO(struct task_struct *task)`, with `bool group_dead` behind it on newer kernels. Fires
    /// before the task's sockets close (`do_exit`).
    #[inline(always)]
    fn exited(ctx: &RawTracePointContext, lane: Lane) {
        process::exited(ctx, lane, ctx.arg(0));
    }

    #[inline(always)]
    fn reason(ctx: &RawTracePointContext) -> i32 {
        if settings!(reset_has_reason) == 1 { ctx.arg(2) } else { -1 }
    }

    /// `tcp_v4_send_reset(const struct sock *sk, struct sk_buff *skb)`, with the reason behind it from
    /// 6.10 on; attached before that only.
    #[kprobe]
    pub fn tcp_v4_send_reset(ctx: ProbeContext) -> u32 {
        reset::asked(&ctx, ctx.arg(0).unwrap_or(0), ctx.arg(1).unwrap_or(0));
        0
    }

    /// As `tcp_v4_send_reset`.
    #[kprobe]
    pub fn tcp_v6_send_reset(ctx: ProbeContext) -> u32 {
        reset::asked(&ctx, ctx.arg(0).unwrap_or(0), ctx.arg(1).unwrap_or(0));
        0
    }

    /// `TP_PROTO(struct sock *sk)`
    #[btf_tracepoint(function = "tcp_receive_reset")]
    pub fn tcp_receive_reset(ctx: BtfTracePointContext) -> i32 {
        reset::received(ctx.arg(0));
        0
    }

    /// `TP_PROTO(int sig, struct kernel_siginfo *info, struct task_struct *task, int group, int result)`
    #[raw_tracepoint(tracepoint = "signal_generate")]
    pub fn signal_generate(ctx: RawTracePointContext) -> i32 {
        signal::generated(&ctx, ctx.arg(0), ctx.arg(1), ctx.arg(2), ctx.arg(4));
        0
    }

    /// `TP_PROTO(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`. Fires when the new
    /// program has its name.
    #[raw_tracepoint(tracepoint = "sched_process_exec")]
    pub fn sched_process_exec(ctx: RawTracePointContext) -> i32 {
        process::executed(ctx.arg(0));
        0
    }

    /// `TP_PROTO(struct sock *sk, int ret, int flags)`; from 6.3 on.
    #[btf_tracepoint(function = "sock_recv_length")]
    pub fn sock_recv_length(ctx: BtfTracePointContext) -> i32 {
        exchange::read(ctx.arg(0), ctx.arg(1), ctx.arg(2));
        0
    }

    /// `TP_PROTO(struct sock *sk, int ret, int flags)`; from 6.3 on.
    #[btf_tracepoint(function = "sock_send_length")]
    pub fn sock_send_length(ctx: BtfTracePointContext) -> i32 {
        exchange::written(ctx.arg(0), ctx.arg(1));
        0
    }

    /// `TP_PROTO(struct cgroup *cgrp, const char *path)`
    #[raw_tracepoint(tracepoint = "cgroup_mkdir")]
    pub fn cgroup_mkdir(ctx: RawTracePointContext) -> i32 {
        cgroup::changed(ctx.arg(1));
        0
    }

    /// `TP_PROTO(struct cgroup *dst_cgrp, const char *path, struct task_struct *task, bool threadgroup)`
    #[raw_tracepoint(tracepoint = "cgroup_attach_task")]
    pub fn cgroup_attach_task(ctx: RawTracePointContext) -> i32 {
        cgroup::changed(ctx.arg(1));
        0
    }

    /// `TP_PROTO(struct task_struct *task, uid_t uid)`; before 6.9 `TP_PROTO(int pid)`.
    #[raw_tracepoint(tracepoint = "mark_victim")]
    pub fn mark_victim(ctx: RawTracePointContext) -> i32 {
        process::chosen_by_oom(&ctx, ctx.arg(0));
        0
    }
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The licence that lets the programs call GPL-only helpers (`bpf_probe_read_kernel`).
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Host builds of the whole workspace (check, clippy, test) need something to link.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
