//! Processes that tests start: they end with the test, however it ends.

use std::{
    os::unix::process::ExitStatusExt,
    process::{Child, Command, ExitStatus, Stdio},
};

use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::netns::Namespace;

/// A process that does nothing but live in a namespace: tracing it ends when it ends.
///
/// It reads its standard input, whose other end is ours: it ends also when the test is killed.
pub struct Resident(Child);

impl Resident {
    /// Starts one.
    ///
    /// # Errors
    /// If `cat` cannot be run.
    pub fn of(namespace: &Namespace) -> Result<Self> {
        let spawn = || Ok(Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?);
        Ok(Self(namespace.enter(spawn).context("cannot run cat")?))
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Ends it by SIGTERM, for which it has no handler.
    ///
    /// # Errors
    /// If it is gone already.
    pub fn terminate(mut self) -> Result<ExitStatus> {
        signal(self.pid(), Signal::SIGTERM)?;
        let status = self.0.wait()?;
        anyhow::ensure!(status.signal() == Some(Signal::SIGTERM as i32), "{status}");
        Ok(status)
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends a signal to a process.
///
/// # Errors
/// If there is no such process.
pub fn signal(pid: u32, signal: Signal) -> Result<()> {
    Ok(kill(Pid::from_raw(pid.try_into()?), signal)?)
}
