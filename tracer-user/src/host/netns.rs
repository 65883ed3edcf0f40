//! Network namespaces: entering them on a thread of their own, and telling them apart.

use std::{
    fs::File,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd},
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};

use super::{counters::TotalsReader, sockets::SocketDiag};

/// `SO_NETNS_COOKIE` of `asm-generic/socket.h`; from Linux 5.14 on.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// What tells a network namespace from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Inode number, as `ls -l /proc/PID/ns/net` shows it; used again when the namespace is gone.
    pub inode: u64,
    /// Cookie (`net->net_cookie`), never used again; `None` before Linux 5.14.
    pub cookie: Option<u64>,
}

/// Whether this kernel tells a namespace's cookie.
#[must_use]
pub fn has_cookies() -> bool {
    cookie().is_ok()
}

/// Cookie of the calling thread's network namespace.
fn cookie() -> Result<u64> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")
        .or_else(|_| std::net::UdpSocket::bind("[::]:0"))
        .context("cannot open a socket")?;
    let mut cookie = 0u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>())?;
    // SAFETY: the pointers are to a u64 and its length, valid during the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(std::io::Error::last_os_error()).context("SO_NETNS_COOKIE");
    }
    Ok(cookie)
}

/// A network namespace that can be entered while this value lives, and no longer: holding it open
/// would keep the namespace, and with it the pod's interface, alive.
pub struct Netns {
    file: File,
    path: PathBuf,
}

impl Netns {
    /// Opens the namespace at a path: `/proc/PID/ns/net` or a bind mount of it.
    ///
    /// # Errors
    /// If the path does not exist or may not be read.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self { file, path })
    }

    /// Runs a function on a thread of its own inside the namespace.
    ///
    /// # Errors
    /// If the namespace cannot be entered (CAP_SYS_ADMIN), or the function fails.
    pub fn run<T: Send>(&self, function: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET).with_context(|| {
                        format!("{} cannot be entered as a network namespace", self.path.display())
                    })?;
                    function()
                })
                .join()
                .map_err(|_| anyhow!("a thread in {} panicked", self.path.display()))?
        })
    }

    /// Looks at this namespace from inside.
    ///
    /// # Errors
    /// If it cannot be entered.
    pub fn look(&self) -> Result<Inside> {
        self.run(Inside::of_this_thread)
    }
}

/// A network namespace as it is seen from inside.
pub struct Inside {
    /// What tells it from others.
    pub identity: Identity,
    /// Its own addresses.
    pub addresses: Vec<IpAddr>,
    /// Its counters; `None` if they cannot be read: then no verdict can be proven.
    pub totals: Option<TotalsReader>,
    /// Its sockets; `None` if they cannot be listed: then no verdict can be proven.
    pub sockets: Option<SocketDiag>,
}

impl Inside {
    /// Looks at the network namespace of the calling thread.
    ///
    /// # Errors
    /// If procfs is not mounted.
    pub fn of_this_thread() -> Result<Self> {
        let identity =
            Identity { inode: inode(Path::new("/proc/thread-self/ns/net"))?, cookie: cookie().ok() };
        let addresses = nix::ifaddrs::getifaddrs()
            .context("cannot list the namespace's addresses")?
            .filter_map(|interface| {
                let address = interface.address?;
                let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
                v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
            })
            .collect();
        Ok(Self {
            identity,
            addresses,
            totals: or_warn(TotalsReader::open(Path::new("/proc/thread-self/net"))),
            sockets: or_warn(SocketDiag::of_this_thread()),
        })
    }
}

/// Without it there is less to prove a verdict by, but enough to see losses.
fn or_warn<T>(result: Result<T>) -> Option<T> {
    result.inspect_err(|error| log::warn!("{error:#}: verdicts will be unproven")).ok()
}

/// The machine's own network namespace.
#[must_use]
pub fn machine_path() -> PathBuf {
    machine("net")
}

/// A namespace of the machine's first process, so that it is right in a container too (`hostPID`). Where
/// that process may not be looked at, because it has capabilities that we lack, we are on the machine
/// itself, and ours is the machine's.
#[must_use]
pub fn machine(kind: &str) -> PathBuf {
    let first = PathBuf::from(format!("/proc/1/ns/{kind}"));
    if first.metadata().is_ok() { first } else { PathBuf::from(format!("/proc/self/ns/{kind}")) }
}

/// Inode of the machine's own network namespace.
///
/// # Errors
/// If procfs cannot be read.
pub fn machine_inode() -> Result<u64> {
    inode(&machine_path())
}

/// Inode that a namespace path leads to.
///
/// # Errors
/// If the path does not exist or may not be read.
pub fn inode(path: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(path.metadata().with_context(|| format!("cannot read {}", path.display()))?.ino())
}
