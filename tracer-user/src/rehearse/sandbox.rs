//! The server under rehearsal: PID 1 in a netns, pid namespace and cgroup that vanish with us.
//!
//! No namespace has a name and no device is in the host's netns, so that even a `kill -9` of
//! lastpacket leaves nothing but an empty cgroup, which the next run removes.

mod cgroup;
mod link;
mod output;
pub(crate) mod process;
mod threads;

use std::{
    fs::File,
    io::ErrorKind,
    process::{Command, Stdio},
    thread::JoinHandle,
};

use anyhow::{Context, Result, anyhow};
use nix::sched::CloneFlags;

pub use self::{
    cgroup::Cgroup,
    link::{Addresses, CHECKER, CLIENT, SERVER},
    output::OutputTail,
    process::Exit,
    threads::ClientNet,
};
use self::{
    process::{Process, isolate_as_init},
    threads::{NamespaceThread, local_runtime},
};
use crate::clock::mono_ns;

/// A sandbox with nothing running in it yet: the moment to begin tracing.
pub struct Namespaces {
    // Dropped in this order.
    clients: ClientNet,
    server: NamespaceThread,
    cgroup: Option<Cgroup>,
}

impl Namespaces {
    /// Creates both sides and the veth between them. `name` is the cgroup's, to be unique among this
    /// process' sandboxes. Errors: no privilege for namespaces, no veth.
    pub async fn create(name: &str) -> Result<Self> {
        let cgroup = Cgroup::create(name)?;
        let clients = ClientNet::start().await?;
        let server =
            NamespaceThread::start("lp-server", CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWPID).await?;
        let peer = clients.netns().try_clone().context("cannot duplicate a descriptor")?;
        server.run(move || local_runtime()?.block_on(link::set_up_server(&peer))).await??;
        clients.runtime().spawn(link::set_up_clients()).await??;
        Ok(Self { clients, server, cgroup })
    }

    /// Starts a program with its arguments as PID 1. Its output goes to `log` too, if there is one.
    ///
    /// Errors: it cannot be run.
    pub async fn start(self, words: &[String], log: Option<File>) -> Result<Sandbox> {
        let mut command = command_of(words)?;
        isolate_as_init(&mut command, self.cgroup.as_ref().map(Cgroup::entrance).transpose()?);
        let started_mono_ns = mono_ns();
        let spawned = self.server.run(move || command.spawn()).await?;
        let mut child = spawned.map_err(|error| cannot_run(words, &error))?;
        let pipes = (child.stdout.take(), child.stderr.take());
        let init = Process::adopt(child, started_mono_ns)?;
        let mut sandbox =
            Sandbox { init, output: OutputTail::new(), followers: Vec::new(), namespaces: self };
        if let (Some(stdout), Some(stderr)) = pipes {
            let second_log = log.as_ref().map(File::try_clone).transpose()?;
            sandbox.followers.push(sandbox.output.follow(stdout, log)?);
            sandbox.followers.push(sandbox.output.follow(stderr, second_log)?);
        }
        Ok(sandbox)
    }

    /// The clients' side of the veth.
    #[must_use]
    pub fn clients(&self) -> &ClientNet {
        &self.clients
    }

    /// The server's cgroup; none where no cgroup v2 hierarchy is writable.
    #[must_use]
    pub fn cgroup(&self) -> Option<&Cgroup> {
        self.cgroup.as_ref()
    }

    /// Runs `job` on a thread inside the server's netns; it must not start threads, which the kernel
    /// refuses to a thread whose children go to another pid namespace.
    pub async fn run_inside<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        self.server.run(job).await
    }
}

/// A running server in its namespaces. Dropping it kills the server and removes all.
pub struct Sandbox {
    init: Process,
    output: OutputTail,
    followers: Vec<JoinHandle<()>>,
    namespaces: Namespaces,
}

impl Sandbox {
    /// The server's pid as the host sees it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.init.pid()
    }

    /// When the server was started, in ns of `CLOCK_MONOTONIC`.
    #[must_use]
    pub fn started_mono_ns(&self) -> u64 {
        self.init.started_mono_ns()
    }

    /// What is around the server.
    #[must_use]
    pub fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }

    /// The end of the server's output.
    #[must_use]
    pub fn output(&self) -> &OutputTail {
        &self.output
    }

    /// How the server ended, if it has.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        self.init.exit()
    }

    /// Waits until the server and with it every process of its pid namespace has ended.
    pub async fn exited(&self) -> Result<Exit> {
        self.init.wait().await
    }

    /// Sends a signal to the server, from outside its cgroup and pid namespace as a runtime does.
    pub fn signal(&self, signal: i32) -> Result<()> {
        self.init.signal(signal)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.init.kill_and_reap();
        for follower in self.followers.drain(..) {
            let _ = follower.join();
        }
    }
}

/// The command with piped output and no input, as a container gets it.
pub(crate) fn command_of(words: &[String]) -> Result<Command> {
    let (program, arguments) = words.split_first().context("no command given: put it after `--`")?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

fn cannot_run(words: &[String], error: &std::io::Error) -> anyhow::Error {
    let program = words.first().map_or("", String::as_str);
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::PermissionDenied => {
            anyhow!("cannot run `{program}`: {error}; check the command after `--`")
        }
        _ => anyhow!("cannot start `{program}` in the sandbox: {error}"),
    }
}
