//! What a server does when it is told to stop.

use std::{
    net::TcpListener,
    os::{fd::OwnedFd, unix::process::CommandExt},
    process::{Child, Command, Stdio, exit},
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use anyhow::Result;
use nix::{
    sys::signal::{SigSet, Signal, kill},
    unistd::Pid,
};

use super::{Behaviour, Server};

/// No request for this long: traffic has stopped.
const QUIET: usize = 400;

/// Acts as the behaviour says, and exits.
pub(super) fn stop(server: &Arc<Server>, mut listeners: Vec<Arc<TcpListener>>) -> Result<()> {
    match server.behaviour {
        Behaviour::Linger => server.open.linger_0(),
        Behaviour::Disconnect => {
            server.open.disconnect();
            pause(300);
        }
        Behaviour::HalfClose => {
            server.open.shut_down();
            pause(300);
        }
        Behaviour::Backlog => {
            server.deaf.store(true, Ordering::SeqCst);
            pause(600);
        }
        Behaviour::BacklogFull => {
            server.deaf.store(true, Ordering::SeqCst);
            pause(3_600);
        }
        Behaviour::Reexec => return anew(&listeners.remove(0)),
        Behaviour::Listeners => {
            close_listeners(server, &mut listeners, 1);
            pause(150);
        }
        Behaviour::MidResponse => pause(400),
        Behaviour::CloseListener => {
            close_listeners(server, &mut listeners, 0);
            wait_until_quiet(server);
        }
        Behaviour::Drain => {
            wait_until_quiet(server);
            close_listeners(server, &mut listeners, 0);
            pause(50);
        }
        Behaviour::Exit
        | Behaviour::Ignore
        | Behaviour::SlowReader
        | Behaviour::Workers
        | Behaviour::Orphans => {}
    }
    exit(0)
}

fn pause(ms: u64) {
    thread::sleep(Duration::from_millis(ms));
}

/// Closes all listeners but some. With several, only one thread goes on accepting.
fn close_listeners(server: &Server, listeners: &mut Vec<Arc<TcpListener>>, but: usize) {
    server.deaf.store(true, Ordering::SeqCst);
    while listeners.len() > but {
        let Some(mut listener) = listeners.pop() else { return };
        // Its thread looks each ms whether it is to go on.
        while let Err(shared) = Arc::try_unwrap(listener) {
            listener = shared;
            pause(1);
        }
    }
}

fn wait_until_quiet(server: &Server) {
    let busy = || server.in_flight.load(Ordering::SeqCst) > 0;
    while busy() || server.now() < server.last.load(Ordering::SeqCst) + QUIET {
        pause(5);
    }
}

/// The same process runs this program again, with nothing of the old one but the listener.
fn anew(listener: &TcpListener) -> Result<()> {
    let listener = OwnedFd::from(listener.try_clone()?);
    thread::spawn({
        let pid = Pid::this();
        // The new program, which takes SIGTERM from its first moment on, is told to stop in its turn.
        let mut later = Command::new("/bin/sh");
        later.args(["-c", &format!("sleep 0.5; kill {pid}")]);
        move || later.spawn()
    })
    .join()
    .map_err(|_| anyhow::anyhow!("a thread panicked"))??;
    Err(itself(Behaviour::Reexec, "anew").stdin(Stdio::from(listener)).exec().into())
}

fn itself(behaviour: Behaviour, role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["child", behaviour.name(), role]);
    command
}

/// The first process only waits; two others serve.
pub(super) fn with_workers(behaviour: Behaviour, listener: &TcpListener, signals: SigSet) -> Result<()> {
    let worker = || -> Result<Child> {
        let shared = Stdio::from(OwnedFd::from(listener.try_clone()?));
        Ok(itself(behaviour, "worker").stdin(shared).spawn()?)
    };
    let mut workers = [worker()?, worker()?];
    signals.wait()?;
    if behaviour == Behaviour::Workers {
        for worker in &mut workers {
            kill(Pid::from_raw(worker.id().try_into()?), Signal::SIGTERM)?;
            worker.wait()?;
        }
    }
    exit(0)
}
