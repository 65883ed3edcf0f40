//! A filter of system calls: no sock_diag for whoever has it.

use std::io::Error;

/// `offsetof(struct seccomp_data, …)`: the number of the call, and the low halves of its arguments.
const NUMBER: u32 = 0;
const DOMAIN: u32 = 16;
const PROTOCOL: u32 = 32;

/// From now on `socket(AF_NETLINK, …, NETLINK_SOCK_DIAG)` fails with EPERM in this process.
pub fn refuse_sock_diag() -> Result<(), Error> {
    let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let jump_if_equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let give = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, k, jf| libc::sock_filter { code, jt: 0, jf, k };
    let mut steps = [
        step(load, NUMBER, 0),
        step(jump_if_equal, libc::SYS_socket as u32, 5),
        step(load, DOMAIN, 0),
        step(jump_if_equal, libc::AF_NETLINK.cast_unsigned(), 3),
        step(load, PROTOCOL, 0),
        step(jump_if_equal, libc::NETLINK_SOCK_DIAG.cast_unsigned(), 1),
        step(give, libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned(), 0),
        step(give, libc::SECCOMP_RET_ALLOW, 0),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: the program and its steps outlive the calls; the filter binds this process only.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1_u64, 0_u64, 0_u64, 0_u64) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, u64::from(libc::SECCOMP_MODE_FILTER), &raw const program)
                == 0
    };
    if done { Ok(()) } else { Err(Error::last_os_error()) }
}
