//! Pre-stop hooks: a command run inside the server's namespaces, as a runtime's exec does.

use std::{
    fs::File,
    os::{fd::AsRawFd, unix::process::CommandExt},
    time::Duration,
};

use anyhow::{Context, Result};

use super::sandbox::{
    Cgroup, Container, ContainerSpec, Exit, OutputTail, command_of,
    process::{Process, become_user, check, join_sandbox},
};
use crate::clock::mono_ns;

/// What became of a hook.
#[derive(Debug, Clone)]
pub struct HookRun {
    /// When it was started, in ns of `CLOCK_MONOTONIC`.
    pub start_mono_ns: u64,
    /// When it ended or was no longer waited for, in ns of `CLOCK_MONOTONIC`.
    pub end_mono_ns: u64,
    /// How it ended; none if it took longer than the timeout.
    pub exit: Option<Exit>,
    /// The last lines of its output.
    pub output: String,
}

impl Container {
    /// Runs `words` in the container's namespaces and cgroup, as its user. When the timeout is over it
    /// is left running, as by a kubelet; it then dies with the container.
    ///
    /// Errors: the command cannot be run, or the container has ended.
    pub async fn run_in_target(&self, words: &[String], timeout: Duration) -> Result<HookRun> {
        let spec = ContainerSpec { words: words.to_vec(), ..self.spec().clone() };
        let mut prepared = command_of(&spec)?;
        let mounts_path = format!("/proc/{}/ns/mnt", self.pid());
        let mounts = File::open(&mounts_path).context("cannot run the hook: the server has ended")?;
        let (user, directory) = (spec.user, spec.working_directory()?);
        let cgroup = self.cgroup().map(Cgroup::entrance).transpose()?;
        // SAFETY: between fork and exec only system calls are made, nothing is allocated or locked.
        unsafe {
            prepared.pre_exec(move || {
                join_sandbox(cgroup.as_ref())?;
                // Entering a mount namespace goes to its root.
                check(libc::setns(mounts.as_raw_fd(), libc::CLONE_NEWNS))?;
                become_user(user, &directory)
            });
        }
        let start_mono_ns = mono_ns();
        let spawned = self.thread().run(move || prepared.spawn()).await?;
        let mut child =
            spawned.with_context(|| format!("cannot run the pre-stop hook `{}`", words.join(" ")))?;
        let output = OutputTail::new();
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let process = Process::adopt(child, start_mono_ns)?;
        if let (Some(stdout), Some(stderr)) = (stdout, stderr) {
            output.follow(stdout, None)?;
            output.follow(stderr, None)?;
        }
        let exit = tokio::time::timeout(timeout, process.wait()).await.ok().transpose()?;
        let end_mono_ns = exit.map_or_else(mono_ns, |exit| exit.at_mono_ns);
        if exit.is_some() {
            output.complete().await;
        }
        Ok(HookRun { start_mono_ns, end_mono_ns, exit, output: output.last_lines(20) })
    }
}
