//! A server that takes connections, keeps them, and exits at once when it is told to stop.

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::{Child, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result};
use lastpacket_tests::{netns::Namespace, process};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use socket2::Socket;

use crate::scene::pause;

/// The first byte of a message that wants an answer.
const WANTS_ANSWER: u8 = b'?';

/// Such a server, as the test sees it.
pub struct Holder {
    child: Child,
    taken: ChildStdout,
}

impl Holder {
    /// Starts one that takes `count` connections of a listener, which is its own from then on.
    pub fn start(namespace: &Namespace, role: &str, count: usize, listener: Socket) -> Result<Self> {
        let mut child = namespace.enter(|| {
            let this = std::env::current_exe()?;
            let mut command = Command::new(this);
            command
                .args(["child", &format!("{role}:{count}")])
                .stdin(Stdio::from(std::os::fd::OwnedFd::from(listener)));
            command.stdout(Stdio::piped()).spawn().context("cannot start itself")
        })?;
        let taken = child.stdout.take().context("no stdout")?;
        Ok(Self { child, taken })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has read the first message of one more connection.
    pub fn wait_until_taken(&mut self) -> Result<()> {
        Ok(self.taken.read_exact(&mut [0])?)
    }

    /// Tells it to stop.
    pub fn stop(&self) -> Result<()> {
        process::signal(self.pid(), Signal::SIGTERM)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// SIGTERM ends it at once.
pub fn hold(count: usize) -> Result<()> {
    exit_at_sigterm()?;
    let _held = take(count)?;
    loop {
        nix::unistd::pause();
    }
}

/// At SIGTERM it says a farewell on all connections, as TLS and HTTP/2 servers do, and exits.
pub fn hold_and_part(count: usize) -> Result<()> {
    let stop = SigSet::from(Signal::SIGTERM);
    stop.thread_block()?;
    let mut held = take(count)?;
    stop.wait()?;
    for connection in &mut held {
        connection.write_all(&[b'N'; 24])?;
    }
    exit_now(0);
    Ok(())
}

/// At SIGTERM it closes all connections at once, and lives on for a while.
pub fn hold_and_close(count: usize) -> Result<()> {
    let stop = SigSet::from(Signal::SIGTERM);
    stop.thread_block()?;
    let held = take(count)?;
    stop.wait()?;
    drop(held);
    pause(500);
    exit_now(0);
    Ok(())
}

/// Takes `count` connections and one message of each, answers those that want it, and tells of each by
/// a byte on standard output.
fn take(count: usize) -> Result<Vec<TcpStream>> {
    let listener = super::listener()?;
    let mut held = Vec::new();
    for _ in 0..count {
        let (mut connection, _) = listener.accept()?;
        let mut message = [0; 4096];
        let length = connection.read(&mut message)?;
        if length > 0 && message[0] == WANTS_ANSWER {
            connection.write_all(&[b'y'; 100])?;
        }
        held.push(connection);
        std::io::stdout().write_all(b".")?;
        std::io::stdout().flush()?;
    }
    Ok(held)
}

extern "C" fn exit_now(_: i32) {
    // SAFETY: allowed in a signal handler; ends the process at once.
    unsafe { libc::_exit(0) }
}

fn exit_at_sigterm() -> Result<()> {
    let action = SigAction::new(SigHandler::Handler(exit_now), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler makes one system call that is allowed in handlers.
    unsafe { sigaction(Signal::SIGTERM, &action)? };
    Ok(())
}
