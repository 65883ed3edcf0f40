//! A kubelet as far as a kernel can tell: a process of that name that connects where it is told to.

use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use lastpacket_tests::netns::Namespace;
use nix::sys::prctl;
use socket2::{Domain, Protocol, Socket, Type};

/// Such a process, as the test sees it.
pub struct Prober {
    child: Child,
    tell: ChildStdin,
    told: BufReader<ChildStdout>,
}

impl Prober {
    /// Starts one.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        let mut child = namespace.enter(|| {
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["child", "probe"]).stdin(Stdio::piped()).stdout(Stdio::piped());
            command.spawn().context("cannot start itself")
        })?;
        let (tell, told) =
            (child.stdin.take().context("no stdin")?, child.stdout.take().context("no stdout")?);
        let mut prober = Self { child, tell, told: BufReader::new(told) };
        prober.read()?;
        Ok(prober)
    }

    /// Lets it connect, and say something if it can: the port that it had, and whether it could.
    pub fn probe(&mut self, to: SocketAddr) -> Result<(u16, bool)> {
        writeln!(self.tell, "{to}")?;
        let answer = self.read()?;
        let (port, connected) = answer.split_once(' ').context("no answer")?;
        Ok((port.parse()?, connected == "true"))
    }

    fn read(&mut self) -> Result<String> {
        let mut line = String::new();
        self.told.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Connects until nobody tells it to any more; keeps what is open.
pub fn probe() -> Result<()> {
    prctl::set_name(c"kubelet")?;
    let (mut out, mut kept) = (std::io::stdout(), Vec::new());
    writeln!(out, "ready")?;
    for line in std::io::stdin().lines() {
        let to: SocketAddr = line?.parse()?;
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        let connected = socket.connect_timeout(&to.into(), Duration::from_secs(5)).is_ok();
        if connected {
            socket.send(&[b'?'; 100])?;
        }
        let port = socket.local_addr()?.as_socket().context("no address")?.port();
        writeln!(out, "{port} {connected}")?;
        kept.push(socket);
    }
    Ok(())
}
