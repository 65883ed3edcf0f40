//! Network namespaces without names: they are gone when the test and its processes are, even if it
//! panics or is killed.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    os::{
        fd::{AsFd, AsRawFd},
        unix::fs::MetadataExt,
    },
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace, kept by a descriptor.
#[derive(Debug)]
pub struct Namespace {
    file: File,
}

impl Namespace {
    /// A new one, with its loopback up.
    ///
    /// # Errors
    /// Without root.
    pub fn new() -> Result<Self> {
        let made = thread::spawn(|| -> Result<File> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Ok(File::open("/proc/thread-self/ns/net")?)
        });
        let file = made.join().map_err(|_| anyhow!("the thread panicked"))?.context("cannot make a netns")?;
        let namespace = Self { file };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Runs a function inside, on a thread of its own. Sockets and processes made there stay inside.
    ///
    /// # Errors
    /// What the function gives.
    pub fn enter<T: Send>(&self, function: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)?;
                function()
            });
            inside.join().map_err(|_| anyhow!("a thread inside the netns panicked"))?
        })
    }

    /// Runs `ip` inside, with one command a line.
    ///
    /// # Errors
    /// If `ip` is missing or refuses.
    pub fn ip(&self, commands: &str) -> Result<()> {
        self.enter(|| {
            let mut ip = Command::new("ip")
                .args(["-batch", "-"])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .context("cannot run ip")?;
            ip.stdin.take().context("no stdin")?.write_all(commands.as_bytes())?;
            let done = ip.wait_with_output()?;
            ensure!(done.status.success(), "ip {commands}: {}", String::from_utf8_lossy(&done.stderr));
            Ok(())
        })
    }

    /// Sets a sysctl of this namespace.
    ///
    /// # Errors
    /// If there is no such sysctl.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        self.enter(|| fs::write(&path, value).with_context(|| format!("cannot write {path}")))
    }

    /// Inode of the namespace, as events name it.
    ///
    /// # Errors
    /// If the descriptor cannot be read.
    pub fn inode(&self) -> Result<u64> {
        Ok(self.file.metadata()?.ino())
    }

    /// A path that leads here, as long as this value lives.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }
}

/// A client's and a server's namespace with a veth pair between them.
#[derive(Debug)]
pub struct Link {
    /// 10.99.0.1, fd99::1.
    pub client: Namespace,
    /// 10.99.0.2, fd99::2.
    pub server: Namespace,
}

/// Which protocol a test talks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The client's address.
    #[must_use]
    pub fn client(self) -> IpAddr {
        self.host(1)
    }

    /// The server's address.
    #[must_use]
    pub fn server(self) -> IpAddr {
        self.host(2)
    }

    /// An address of the link.
    #[must_use]
    pub fn host(self, last: u8) -> IpAddr {
        match self {
            Self::V4 => IpAddr::from([10, 99, 0, last]),
            Self::V6 => IpAddr::from([0xfd99, 0, 0, 0, 0, 0, 0, u16::from(last)]),
        }
    }
}

impl Link {
    /// A new one.
    ///
    /// # Errors
    /// Without root or `ip`.
    pub fn new() -> Result<Self> {
        let link = Self { client: Namespace::new()?, server: Namespace::new()? };
        // Without duplicate detection also link-local addresses can be used at once.
        for namespace in [&link.client, &link.server] {
            namespace.sysctl("net.ipv6.conf.default.accept_dad", "0")?;
        }
        // With equal numbers the kernel would put off bringing them up by as much as a second.
        let peer = format!("peer name vB index 11 netns {}", link.server.path());
        link.client.ip(&format!("link add vA index 10 type veth {peer}\n"))?;
        for (namespace, device, last) in [(&link.client, "vA", 1), (&link.server, "vB", 2)] {
            namespace.ip(&format!(
                "addr add 10.99.0.{last}/24 dev {device}\naddr add fd99::{last}/64 dev {device}\nlink set {device} up\n"
            ))?;
        }
        [Family::V4, Family::V6].into_iter().try_for_each(|family| link.wait_until_up(family))?;
        Ok(link)
    }

    /// A new link takes no packets for a while: waits until the server refuses a connection.
    fn wait_until_up(&self, family: Family) -> Result<()> {
        let closed = SocketAddr::new(family.server(), 1);
        for _ in 0..100 {
            let refused =
                self.client.enter(|| Ok(TcpStream::connect_timeout(&closed, Duration::from_millis(50))))?;
            match refused.map_err(|error| error.kind()) {
                Err(ErrorKind::ConnectionRefused) => return Ok(()),
                _ => thread::sleep(Duration::from_millis(10)),
            }
        }
        bail!("the link between the namespaces does not come up for {family:?}")
    }
}
