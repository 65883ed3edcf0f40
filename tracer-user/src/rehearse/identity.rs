//! What identifies the server's netns, and its counters' files.

use std::{
    fs::{self, File},
    net::UdpSocket,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
};

use anyhow::{Context, Result};

use super::sandbox::Namespaces;

/// The kernel's names for a netns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetIdentity {
    /// Never reused, unlike the inode; none before Linux 5.14.
    pub cookie: Option<u64>,
    /// The inode of `/proc/PID/ns/net`.
    pub inode: u64,
}

/// The netns' own totals. Open descriptors read right even after its last process is gone.
#[derive(Debug)]
pub struct NetFiles {
    /// `net/snmp`.
    pub snmp: File,
    /// `net/netstat`.
    pub netstat: File,
    /// `net/dev`.
    pub dev: File,
}

impl Namespaces {
    /// Identifies the server's netns. Errors: /proc is not mounted.
    pub async fn net_identity(&self) -> Result<NetIdentity> {
        self.run_inside(|| {
            let inode = fs::metadata("/proc/thread-self/ns/net").context("cannot stat the netns")?.ino();
            Ok(NetIdentity { cookie: netns_cookie(), inode })
        })
        .await?
    }

    /// Opens the counters of the server's netns. Errors: /proc is not mounted.
    pub async fn net_files(&self) -> Result<NetFiles> {
        self.run_inside(|| Ok(NetFiles { snmp: open("snmp")?, netstat: open("netstat")?, dev: open("dev")? }))
            .await?
    }
}

fn open(name: &str) -> Result<File> {
    let path = format!("/proc/thread-self/net/{name}");
    File::open(&path).with_context(|| format!("cannot open {path} inside the sandbox"))
}

fn netns_cookie() -> Option<u64> {
    let socket = UdpSocket::bind("127.0.0.1:0").ok()?;
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).ok()?;
    // SAFETY: `cookie` and `length` are writable, and `length` says how long `cookie` is.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    (result == 0).then_some(cookie)
}
