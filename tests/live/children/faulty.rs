//! HTTP servers that do one thing wrong when they are told to stop.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};

use super::http;
use crate::scene::pause;

/// What the server does at SIGTERM.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Exits at once.
    Exit,
    /// Closes its listener, and lives on for a while.
    ClosesListener,
    /// Accepts no more, and lives on for a while with its listener open.
    Deaf,
    /// Serves on for a while.
    ServesOn,
}

/// How long a server lives on.
const LIVES_ON: u64 = 1200;

/// Serves a port until it is told to stop.
pub fn serve(port: u16, fault: Fault) -> Result<()> {
    stop_as_told(port, fault, http::answer_all)
}

/// Asks the server at port `behind` for each request, as a proxy in front of an application does.
pub fn proxy(port: u16, behind: u16) -> Result<()> {
    stop_as_told(port, Fault::ServesOn, move |connection| pass_on(connection, behind))
}

fn stop_as_told(
    port: u16,
    fault: Fault,
    answer: impl Fn(&TcpStream) -> Result<()> + Clone + Send + 'static,
) -> Result<()> {
    let stop = SigSet::from(Signal::SIGTERM);
    stop.thread_block()?;
    let listener = Arc::new(TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?);
    listener.set_nonblocking(true)?;
    let deaf = Arc::new(AtomicBool::new(false));
    let accepting = thread::spawn({
        let (listener, deaf) = (Arc::clone(&listener), Arc::clone(&deaf));
        move || accept(&listener, &deaf, &answer)
    });
    stop.wait()?;
    if fault == Fault::Exit {
        std::process::exit(0);
    }
    if fault != Fault::ServesOn {
        deaf.store(true, Ordering::SeqCst);
        accepting.join().map_err(|_| anyhow::anyhow!("accepting panicked"))?;
    }
    if fault == Fault::ClosesListener {
        drop(listener);
    }
    pause(LIVES_ON);
    std::process::exit(0);
}

fn accept(
    listener: &TcpListener,
    deaf: &AtomicBool,
    answer: &(impl Fn(&TcpStream) -> Result<()> + Clone + Send + 'static),
) {
    while !deaf.load(Ordering::SeqCst) {
        let Ok((connection, _)) = listener.accept() else {
            thread::sleep(Duration::from_millis(1));
            continue;
        };
        let answer = answer.clone();
        // A client that goes away ends its own thread only.
        thread::spawn(move || connection.set_nonblocking(false).map(|()| answer(&connection)));
    }
}

/// One request, one connection behind; without an answer from there it is a 502.
fn pass_on(mut connection: &TcpStream, behind: u16) -> Result<()> {
    let mut request = [0; 4096];
    loop {
        let length = connection.read(&mut request)?;
        if length == 0 {
            return Ok(());
        }
        let answer = ask(behind, &request[..length])
            .unwrap_or_else(|_| b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n".to_vec());
        connection.write_all(&answer)?;
    }
}

fn ask(port: u16, request: &[u8]) -> Result<Vec<u8>> {
    let mut behind = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    behind.write_all(request)?;
    let mut answer = vec![0; 4096];
    let length = behind.read(&mut answer)?;
    answer.truncate(length);
    anyhow::ensure!(length > 0, "no answer");
    Ok(answer)
}

/// Moves into a memory cgroup, serves, and at SIGTERM takes more memory than that allows.
pub fn eat(port: u16, cgroup: &str) -> Result<()> {
    fs::write(format!("{cgroup}/cgroup.procs"), std::process::id().to_string())
        .with_context(|| format!("cannot enter {cgroup}"))?;
    let stop = SigSet::from(Signal::SIGTERM);
    stop.thread_block()?;
    thread::spawn(move || http::serve_alone(port));
    stop.wait()?;
    let mut eaten = Vec::new();
    loop {
        // Written to, so that the kernel has to find pages for it.
        eaten.push(vec![1_u8; 1 << 20]);
    }
}
