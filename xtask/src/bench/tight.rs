//! The tight loop whose rate shows what tracing costs: open, 100 bytes each way, close, over loopback.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{link::enter_verb, pod::Pod};
use crate::shell;

/// Connections to one address of 127.0.0.0/8: fewer than there are ports, as each rests in TIME_WAIT.
const PER_ADDRESS: u32 = 20_000;

/// What the loop does; the verb is hidden, and `cargo xtask bench` calls it in a network namespace.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Connections
    #[arg(long)]
    count: u32,
    /// End them by RST (linger 0) instead of FIN
    #[arg(long)]
    reset: bool,
    /// So many a second, instead of as many as can be
    #[arg(long)]
    rate: Option<f64>,
}

/// Runs the loop and prints its rate as JSON.
pub(crate) fn run(args: &Args) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).context("cannot listen")?;
    let port = listener.local_addr().context("cannot read the own address")?.port();
    let began = Instant::now();
    for number in 0..args.count {
        if let Some(rate) = args.rate {
            let due = began + Duration::from_secs_f64(f64::from(number) / rate);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        let address = Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + number / PER_ADDRESS);
        once(&listener, (address, port).into(), args.reset)
            .with_context(|| format!("connection {number} failed"))?;
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("{}", json!({"connections_per_second": f64::from(args.count) / seconds}));
    Ok(())
}

fn once(listener: &TcpListener, to: SocketAddr, reset: bool) -> Result<()> {
    let mut client = TcpStream::connect(to)?;
    let (mut server, _) = listener.accept()?;
    let mut bytes = [0; 100];
    client.write_all(&bytes)?;
    server.read_exact(&mut bytes)?;
    server.write_all(&bytes)?;
    client.read_exact(&mut bytes)?;
    if reset {
        linger_0(&client)?;
    }
    Ok(())
}

/// Lets the close send a reset (RFC 9293, ABORT).
fn linger_0(stream: &TcpStream) -> Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: the pointer is to a `linger` that lives during the call, and its size is given.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            std::ptr::from_ref(&linger).cast(),
            size_of::<libc::linger>() as u32,
        )
    };
    if result != 0 {
        bail!("cannot set SO_LINGER: {}", std::io::Error::last_os_error());
    }
    Ok(())
}

/// What runs the loop in a pod's network namespace.
pub(crate) fn command(pod: &Pod, count: u32) -> Result<Command> {
    let mut command = enter_verb(pod, "tight")?;
    command.args(["--count", &count.to_string()]);
    Ok(command)
}

/// Runs the loop in a pod's network namespace: connections a second.
pub(crate) fn rate(pod: &Pod, count: u32, reset: bool) -> Result<f64> {
    let mut command = command(pod, count)?;
    let said = shell::capture(command.args(reset.then_some("--reset")))?;
    let result: Value = serde_json::from_str(&said).with_context(|| format!("the loop said {said}"))?;
    result["connections_per_second"].as_f64().context("the loop told no rate")
}
