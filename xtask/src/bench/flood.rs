//! SYNs to a closed port, made without a socket each, at a given rate: each draws a reset.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{
    link::{CLIENT, SERVER, enter_verb},
    pod::Pod,
};
use crate::shell;

/// A port that nobody listens on.
const CLOSED: u16 = 1;
/// SYNs between two looks at the clock.
const BURST: u32 = 20;
/// A TCP header without options.
const LENGTH: usize = 20;

/// The verb is hidden, and `cargo xtask bench` calls it in a network namespace.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// SYNs a second
    #[arg(long)]
    rate: u32,
    /// How long
    #[arg(long)]
    seconds: u32,
}

/// Sends them and prints how many in how long as JSON.
pub(crate) fn run(args: &Args) -> Result<()> {
    let socket = raw_socket().context("cannot make a raw socket")?;
    let (began, total) = (Instant::now(), u64::from(args.rate) * u64::from(args.seconds));
    for number in 0..total {
        if number % u64::from(BURST) == 0 {
            let due = Duration::from_secs_f64(number as f64 / f64::from(args.rate));
            while began.elapsed() < due {
                std::hint::spin_loop();
            }
        }
        send(&socket, &syn(number)).with_context(|| format!("SYN {number} was not sent"))?;
    }
    println!("{}", json!({"sent": total, "seconds": began.elapsed().as_secs_f64()}));
    Ok(())
}

/// A SYN (RFC 9293) from one client port after the other.
fn syn(number: u64) -> [u8; LENGTH] {
    let mut header = [0; LENGTH];
    let port = 1024 + (number % 60_000) as u16;
    header[..2].copy_from_slice(&port.to_be_bytes());
    header[2..4].copy_from_slice(&CLOSED.to_be_bytes());
    header[4..8].copy_from_slice(&(number as u32).to_be_bytes());
    header[12] = (LENGTH as u8 / 4) << 4;
    header[13] = 2;
    header[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
    let sum = checksum(&header);
    header[16..18].copy_from_slice(&sum.to_be_bytes());
    header
}

/// Over the pseudo header (addresses, protocol, length) and the header.
fn checksum(header: &[u8; LENGTH]) -> u16 {
    let words = |bytes: &[u8]| -> u32 {
        bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum()
    };
    let pseudo = libc::IPPROTO_TCP as u32 + LENGTH as u32;
    let mut sum = pseudo + words(&CLIENT.octets()) + words(&SERVER.octets()) + words(header);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn raw_socket() -> io::Result<OwnedFd> {
    // SAFETY: it takes numbers and gives a descriptor or -1.
    let descriptor = unsafe { libc::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_TCP) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn send(socket: &OwnedFd, bytes: &[u8; LENGTH]) -> io::Result<()> {
    let to = address(SocketAddrV4::new(SERVER, 0));
    // SAFETY: both pointers are to values that live during the call, and their sizes are given.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            bytes.as_ptr().cast(),
            LENGTH,
            0,
            std::ptr::from_ref(&to).cast(),
            size_of::<libc::sockaddr_in>() as u32,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn address(address: SocketAddrV4) -> libc::sockaddr_in {
    let ip: Ipv4Addr = *address.ip();
    libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) },
        sin_zero: [0; 8],
    }
}

/// Sends SYNs from a pod: how many, and how many a second.
pub(crate) fn from_pod(pod: &Pod, rate: u32, seconds: u32) -> Result<(f64, f64)> {
    let mut command = enter_verb(pod, "flood")?;
    command.args(["--rate", &rate.to_string(), "--seconds", &seconds.to_string()]);
    let said = shell::capture(&mut command)?;
    let result: Value = serde_json::from_str(&said).with_context(|| format!("the flood said {said}"))?;
    let number = |key: &str| result[key].as_f64().with_context(|| format!("the flood told no {key}"));
    let sent = number("sent")?;
    Ok((sent, sent / number("seconds")?))
}
