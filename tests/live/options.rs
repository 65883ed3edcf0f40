//! Socket options that no crate wraps.

use std::os::fd::AsRawFd;

use anyhow::{Result, ensure};
use socket2::Socket;

/// Lets clients send data in their SYN, up to `queue` of them at once (`TCP_FASTOPEN`).
pub fn enable_fast_open(listener: &Socket, queue: i32) -> Result<()> {
    let length = libc::socklen_t::try_from(size_of::<i32>())?;
    let value = (&raw const queue).cast();
    // SAFETY: the pointer is to an integer that outlives the call, and the length is its own.
    let result = unsafe {
        libc::setsockopt(listener.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_FASTOPEN, value, length)
    };
    ensure!(result == 0, "TCP_FASTOPEN: {}", std::io::Error::last_os_error());
    Ok(())
}
