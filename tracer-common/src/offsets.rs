//! Where the running kernel keeps its fields, and what it can do.

use crate::Pod;

/// Offset of a field that the running kernel does not have.
pub const ABSENT: u32 = u32::MAX;

/// Declares [`Offsets`] and the table of what each field stands for, from one list.
macro_rules! offsets {
    ($($(#[$doc:meta])* $field:ident = $ty:literal . $path:literal $need:ident;)*) => {
        /// Byte offsets of kernel structure members, resolved from BTF at load.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Offsets { $(
            #[doc = concat!("`", $ty, ".", $path, "`")] $(#[$doc])* pub $field: u32,
        )* }

        impl Offsets {
            /// No field known.
            pub const NONE: Self = Self { $($field: ABSENT,)* };

            /// Name of the structure, path of the member, whether tracing is impossible without
            /// it, and the field that takes the offset.
            #[must_use]
            pub fn table(&mut self) -> [(&'static str, &'static str, bool, &mut u32); Self::COUNT] {
                [$(($ty, $path, offsets!(@need $need), &mut self.$field),)*]
            }

            const COUNT: usize = [$(stringify!($field)),*].len();
        }
    };
    (@need required) => { true };
    (@need optional) => { false };
}

offsets! {
    skc_state = "sock_common"."skc_state" required;
    skc_family = "sock_common"."skc_family" required;
    skc_net = "sock_common"."skc_net" required;
    skc_num = "sock_common"."skc_num" required;
    skc_dport = "sock_common"."skc_dport" required;
    skc_daddr = "sock_common"."skc_daddr" required;
    skc_rcv_saddr = "sock_common"."skc_rcv_saddr" required;
    skc_v6_daddr = "sock_common"."skc_v6_daddr" optional;
    skc_v6_rcv_saddr = "sock_common"."skc_v6_rcv_saddr" optional;
    sk_protocol = "sock"."sk_protocol" required;
    sk_socket = "sock"."sk_socket" required;
    sk_shutdown = "sock"."sk_shutdown" required;
    /// From 5.15 on a pointer and nothing else.
    sk_cgroup = "sock"."sk_cgrp_data.cgroup" optional;
    /// Before, the pointer shares its place with other data.
    sk_cgrp_data = "sock"."sk_cgrp_data" optional;
    inet_sport = "inet_sock"."inet_sport" required;
    icsk_lrcvtime = "inet_connection_sock"."icsk_ack.lrcvtime" required;
    icsk_ulp_ops = "inet_connection_sock"."icsk_ulp_ops" optional;
    bytes_received = "tcp_sock"."bytes_received" required;
    bytes_acked = "tcp_sock"."bytes_acked" required;
    rcv_nxt = "tcp_sock"."rcv_nxt" required;
    copied_seq = "tcp_sock"."copied_seq" required;
    write_seq = "tcp_sock"."write_seq" required;
    snd_una = "tcp_sock"."snd_una" required;
    snd_nxt = "tcp_sock"."snd_nxt" required;
    segs_out = "tcp_sock"."segs_out" required;
    lsndtime = "tcp_sock"."lsndtime" required;
    net_inum = "net"."ns.inum" required;
    net_cookie = "net"."net_cookie" optional;
    skb_head = "sk_buff"."head" required;
    skb_data = "sk_buff"."data" required;
    skb_len = "sk_buff"."len" required;
    skb_data_len = "sk_buff"."data_len" required;
    skb_end = "sk_buff"."end" required;
    skb_transport_header = "sk_buff"."transport_header" required;
    skb_network_header = "sk_buff"."network_header" required;
    skb_dev = "sk_buff"."dev" required;
    /// Pointer to the route, with marks in its low bits.
    skb_route = "sk_buff"."_skb_refdst" optional;
    route_type = "rtable"."rt_type" optional;
    route6_flags = "rt6_info"."rt6i_flags" optional;
    dev_net = "net_device"."nd_net" required;
    shinfo_nr_frags = "skb_shared_info"."nr_frags" optional;
    shinfo_frags = "skb_shared_info"."frags" optional;
    /// From 6.10 on; `bio_vec.bv_page` before.
    frag_page = "skb_frag"."netmem" optional;
    frag_offset = "skb_frag"."offset" optional;
    /// Before 6.10.
    bvec_page = "bio_vec"."bv_page" optional;
    bvec_offset = "bio_vec"."bv_offset" optional;
    task_flags = "task_struct"."flags" required;
    task_tgid = "task_struct"."tgid" required;
    task_pid = "task_struct"."pid" required;
    task_comm = "task_struct"."comm" required;
    task_signal = "task_struct"."signal" required;
    task_exit_code = "task_struct"."exit_code" required;
    task_nsproxy = "task_struct"."nsproxy" required;
    task_cgroups = "task_struct"."cgroups" optional;
    task_real_parent = "task_struct"."real_parent" required;
    task_thread_pid = "task_struct"."thread_pid" required;
    signal_live = "signal_struct"."live" required;
    signal_group_exit_code = "signal_struct"."group_exit_code" required;
    nsproxy_net = "nsproxy"."net_ns" required;
    css_set_dfl_cgrp = "css_set"."dfl_cgrp" optional;
    cgroup_kn = "cgroup"."kn" optional;
    kernfs_node_id = "kernfs_node"."id" optional;
    pid_level = "pid"."level" required;
    pid_numbers = "pid"."numbers" required;
    upid_ns = "upid"."ns" required;
    pidns_inum = "pid_namespace"."ns.inum" required;
    siginfo_code = "kernel_siginfo"."si_code" required;
}

// SAFETY: repr(C), u32 only.
unsafe impl Pod for Offsets {}

/// What the running kernel can do, decided once at load.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Address of the direct map's base, or of the variable that holds it; 0 if unknown, and then
    /// the payload of paged segments is judged by its length only.
    pub page_offset: u64,
    /// Address of the page array's base, or of the variable that holds it.
    pub vmemmap: u64,
    /// 1 if the two above are addresses of variables (`CONFIG_RANDOMIZE_MEMORY`).
    pub bases_are_variables: u32,
    /// Size of `struct page` in bytes.
    pub page_struct_size: u32,
    /// Size of a page as a power of two.
    pub page_shift: u32,
    /// Size of `struct upid` in bytes.
    pub upid_size: u32,
    /// 1 if network namespaces are told apart by cookie, 0 if by inode.
    pub scope_by_cookie: u32,
    /// 1 if `tcp_send_reset` has a third argument, the reason (from 6.10 on).
    pub reset_has_reason: u32,
    /// 1 if `mark_victim` is given the task (from 6.9 on), 0 if the process id.
    pub victim_is_task: u32,
    /// Programs of a hook, and copies of the counters per CPU.
    pub lanes: u32,
    /// 1 if a program can have the current task with its type (`bpf_get_current_task_btf`, from 5.11 on).
    pub task_is_typed: u32,
    /// System calls whose buffers can be looked into.
    pub calls: Calls,
    /// Offset of the system call's number in `struct pt_regs`; [`ABSENT`] if buffers cannot be found.
    pub call_number: u32,
    /// Offset of its second argument: the buffer, the vector or the message.
    pub call_second: u32,
    /// Keeps the size a multiple of 8.
    pub reserved: u32,
}

/// Numbers of system calls that read from and write to sockets.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// `read(2)`.
    pub read: u32,
    /// `write(2)`.
    pub write: u32,
    /// `recvfrom(2)`.
    pub recvfrom: u32,
    /// `sendto(2)`.
    pub sendto: u32,
    /// `readv(2)`.
    pub readv: u32,
    /// `writev(2)`.
    pub writev: u32,
    /// `recvmsg(2)`.
    pub recvmsg: u32,
    /// `sendmsg(2)`.
    pub sendmsg: u32,
}

// SAFETY: repr(C), integers only, no padding.
unsafe impl Pod for Settings {}
const _: () = assert!(size_of::<Settings>() == 96);
