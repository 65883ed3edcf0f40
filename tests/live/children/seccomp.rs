//! A filter that denies one system call (`Documentation/userspace-api/seccomp_filter.rst`).

use anyhow::{Result, ensure};
use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter, sock_fprog};

/// From now on the system call fails with EPERM, in this process and all that it starts.
pub fn deny(call: libc::c_long) -> Result<()> {
    let step = |code: u32, jt, k| sock_filter { code: code as u16, jt, jf: 0, k };
    let mut program = [
        // The number of the call is the first word of the data.
        step(BPF_LD | BPF_W | BPF_ABS, 0, 0),
        sock_filter { jf: 1, ..step(BPF_JMP | BPF_JEQ | BPF_K, 0, u32::try_from(call)?) },
        step(BPF_RET | BPF_K, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned()),
        step(BPF_RET | BPF_K, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = sock_fprog { len: u16::try_from(program.len())?, filter: program.as_mut_ptr() };
    // SAFETY: the pointer is to a filter that outlives the call; the kernel copies it.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    ensure!(result == 0, "PR_SET_SECCOMP: {}", std::io::Error::last_os_error());
    Ok(())
}
