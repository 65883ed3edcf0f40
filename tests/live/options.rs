//! Socket options that no crate wraps.

use std::os::fd::AsRawFd;

use anyhow::{Result, ensure};
use socket2::Socket;

/// Lets clients send data in their SYN, up to `queue` of them at once (`TCP_FASTOPEN`).
pub fn enable_fast_open(listener: &Socket, queue: i32) -> Result<()> {
    set(listener, libc::TCP_FASTOPEN, queue, "TCP_FASTOPEN")
}

/// Lets the kernel put accepting off until there is data, for so many seconds (`TCP_DEFER_ACCEPT`).
pub fn defer_accept(listener: &Socket, seconds: i32) -> Result<()> {
    set(listener, libc::TCP_DEFER_ACCEPT, seconds, "TCP_DEFER_ACCEPT")
}

fn set(socket: &Socket, option: i32, value: i32, name: &str) -> Result<()> {
    let length = libc::socklen_t::try_from(size_of::<i32>())?;
    let pointer = (&raw const value).cast();
    // SAFETY: the pointer is to an integer that outlives the call, and the length is its own.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, option, pointer, length) };
    ensure!(result == 0, "{name}: {}", std::io::Error::last_os_error());
    Ok(())
}
