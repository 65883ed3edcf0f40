//! The server under rehearsal: PID 1 in a netns, pid namespace and cgroup that vanish with us.
//!
//! No namespace has a name and no device is in the host's netns, so that even a `kill -9` of
//! lastpacket leaves nothing but an empty cgroup, which the next run removes.

mod cgroup;
mod link;
mod namespace;
mod output;
pub(crate) mod process;

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
    namespace::ClientNet,
    output::OutputTail,
    process::Exit,
};
use self::{
    namespace::{NamespaceThread, local_runtime},
    process::{Process, isolate_as_init},
};
use super::clock::mono_ns;

/// What to run in a sandbox.
pub struct SandboxOptions {
    /// The container's name, also of its cgroup: unique among this process' sandboxes.
    pub name: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Where all output goes besides the tail that is kept.
    pub log: Option<File>,
}

/// A running server and the namespaces around it. Dropping it kills the server and removes all.
pub struct Sandbox {
    // Dropped in this order, after `drop` has ended all processes.
    init: Process,
    output: OutputTail,
    followers: Vec<JoinHandle<()>>,
    clients: ClientNet,
    server: NamespaceThread,
    cgroup: Option<Cgroup>,
}

impl Sandbox {
    /// Builds the sandbox and starts the command in it as PID 1.
    ///
    /// Errors: no privilege for namespaces, no veth, or the command cannot be run.
    pub async fn start(options: SandboxOptions) -> Result<Self> {
        let cgroup = Cgroup::create(&options.name)?;
        let clients = ClientNet::start().await?;
        let server =
            NamespaceThread::start("lp-server", CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWPID).await?;
        let peer = clients.netns().try_clone().context("cannot duplicate a descriptor")?;
        server.run(move || local_runtime()?.block_on(link::set_up_server(&peer))).await??;
        clients.runtime().spawn(link::set_up_clients()).await??;

        let mut command = command_of(&options.command)?;
        let program = options.command[0].clone();
        isolate_as_init(&mut command, cgroup.as_ref().map(Cgroup::entrance).transpose()?);
        let started_mono_ns = mono_ns();
        let spawned = server.run(move || command.spawn()).await?;
        let mut child = spawned.map_err(|error| cannot_run(&program, &error))?;
        let pipes = (child.stdout.take(), child.stderr.take());
        let init = Process::adopt(child, started_mono_ns)?;
        let mut sandbox =
            Self { init, output: OutputTail::new(), followers: Vec::new(), clients, server, cgroup };
        if let (Some(stdout), Some(stderr)) = pipes {
            let second_log = options.log.as_ref().map(File::try_clone).transpose()?;
            sandbox.followers.push(sandbox.output.follow(stdout, options.log)?);
            sandbox.followers.push(sandbox.output.follow(stderr, second_log)?);
        }
        Ok(sandbox)
    }

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

    /// Runs `job` on a thread inside the server's netns; it must not start threads, which the kernel
    /// refuses to a thread whose children go to another pid namespace.
    pub async fn run_inside<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        self.server.run(job).await
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

fn cannot_run(program: &str, error: &std::io::Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::PermissionDenied => {
            anyhow!("cannot run `{program}`: {error}; check the command after `--`")
        }
        _ => anyhow!("cannot start `{program}` in the sandbox: {error}"),
    }
}
