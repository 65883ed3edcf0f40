//! Connections that are opened and held, in two processes: one for each end, since a process may have but so
//! many descriptors.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, ChildStdin, ChildStdout, Stdio},
};

use anyhow::{Context, Result};

use super::{
    link::{SERVER, enter_verb},
    pod::Pod,
};

const PORT: u16 = 8080;

/// One end; the verb is hidden. Each number on its input is how many more connections it opens or accepts;
/// then it writes a line.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Accept them here
    #[arg(long, conflicts_with = "connect")]
    listen: Option<SocketAddr>,
    /// Open them to there
    #[arg(long, required_unless_present = "listen")]
    connect: Option<SocketAddr>,
}

/// Holds until the input ends.
pub(crate) fn run(args: &Args) -> Result<()> {
    let listener = args.listen.map(TcpListener::bind).transpose().context("cannot listen")?;
    let server: Vec<SocketAddr> = args.connect.into_iter().collect();
    println!("ready");
    let mut held = Vec::new();
    for line in std::io::stdin().lines() {
        let more: u32 = line?.trim().parse().context("the input is no number")?;
        for _ in 0..more {
            held.push(match &listener {
                Some(listener) => listener.accept().context("cannot accept")?.0,
                None => TcpStream::connect(server.as_slice()).context("cannot connect")?,
            });
        }
        println!("{}", held.len());
    }
    Ok(())
}

/// Connections from one pod to another; they are closed when this is dropped.
pub(crate) struct Held {
    server: End,
    client: End,
}

impl Held {
    /// None yet.
    pub(crate) fn start(server: &Pod, client: &Pod) -> Result<Self> {
        let address = SocketAddr::from((SERVER, PORT)).to_string();
        let server = End::start(server, "--listen", &address)?;
        Ok(Self { server, client: End::start(client, "--connect", &address)? })
    }

    /// Opens more.
    pub(crate) fn more(&mut self, count: u32) -> Result<()> {
        self.server.tell(count)?;
        self.client.tell(count)?;
        self.server.wait()?;
        self.client.wait()
    }
}

struct End {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl End {
    fn start(pod: &Pod, option: &str, address: &str) -> Result<Self> {
        let mut command = enter_verb(pod, "hold")?;
        command.args([option, address]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot run nsenter")?;
        let input = child.stdin.take().context("it has no input")?;
        let output = BufReader::new(child.stdout.take().context("it has no output")?);
        let mut end = Self { child, input, output };
        end.wait()?;
        Ok(end)
    }

    fn tell(&mut self, count: u32) -> Result<()> {
        writeln!(self.input, "{count}").context("the holder of connections ended")
    }

    fn wait(&mut self) -> Result<()> {
        let read = self.output.read_line(&mut String::new()).context("cannot read from the holder")?;
        anyhow::ensure!(read > 0, "the holder of connections ended");
        Ok(())
    }
}

impl Drop for End {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
