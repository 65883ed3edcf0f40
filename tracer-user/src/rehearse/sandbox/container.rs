//! A container of the sandbox: PID 1 of a pid namespace of its own, in a cgroup of its own.

use std::{
    ffi::CString,
    fs::File,
    io::ErrorKind,
    path::PathBuf,
    process::{Command, Stdio},
    str::FromStr,
    thread::JoinHandle,
};

use anyhow::{Context, Result, anyhow};

use super::{
    Cgroup, Exit, OutputTail,
    process::{Process, isolate_as_init},
    threads::NamespaceThread,
};
use crate::clock::mono_ns;

/// What runs in a container, and as whom.
#[derive(Debug, Clone, Default)]
pub struct ContainerSpec {
    /// Its name, unique in the sandbox.
    pub name: String,
    /// The program and its arguments.
    pub words: Vec<String>,
    /// Variables added to our own environment.
    pub env: Vec<(String, String)>,
    /// Whose rights it has; none: ours.
    pub user: Option<User>,
    /// Where it starts; none: where we are.
    pub directory: Option<PathBuf>,
    /// Whether it is stopped only when all that are no sidecars have exited.
    pub sidecar: bool,
}

/// A user by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
}

impl FromStr for User {
    type Err = String;

    /// Reads `UID` or `UID:GID`; the group is 0 if not given, as in Kubernetes.
    fn from_str(text: &str) -> Result<Self, String> {
        let (uid, gid) = text.split_once(':').unwrap_or((text, "0"));
        let number =
            |text: &str| text.parse().map_err(|_| format!("`{text}` is no number; write UID or UID:GID"));
        Ok(Self { uid: number(uid)?, gid: number(gid)? })
    }
}

/// A running container. Dropping it kills it.
pub struct Container {
    // Dropped in this order: the spawning thread outlives the process, and the cgroup both.
    init: Process,
    followers: Vec<JoinHandle<()>>,
    thread: NamespaceThread,
    cgroup: Option<Cgroup>,
    spec: ContainerSpec,
    output: OutputTail,
}

impl Container {
    pub(super) async fn start(
        spec: ContainerSpec,
        thread: NamespaceThread,
        cgroup: Option<Cgroup>,
        log: Option<File>,
    ) -> Result<Self> {
        let mut command = command_of(&spec)?;
        let entrance = cgroup.as_ref().map(Cgroup::entrance).transpose()?;
        isolate_as_init(&mut command, entrance, spec.user, spec.working_directory()?);
        let started_mono_ns = mono_ns();
        let spawned = thread.run(move || command.spawn()).await?;
        let mut child = spawned.map_err(|error| cannot_run(&spec, &error))?;
        let pipes = (child.stdout.take(), child.stderr.take());
        let init = Process::adopt(child, started_mono_ns)?;
        let output = OutputTail::new();
        let mut container = Self { init, followers: Vec::new(), thread, cgroup, spec, output };
        if let (Some(stdout), Some(stderr)) = pipes {
            let second_log = log.as_ref().map(File::try_clone).transpose()?;
            container.followers.push(container.output.follow(stdout, log)?);
            container.followers.push(container.output.follow(stderr, second_log)?);
        }
        Ok(container)
    }

    /// What runs in it.
    #[must_use]
    pub fn spec(&self) -> &ContainerSpec {
        &self.spec
    }

    /// Its pid as the host sees it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.init.pid()
    }

    /// When it was started, in ns of `CLOCK_MONOTONIC`.
    #[must_use]
    pub fn started_mono_ns(&self) -> u64 {
        self.init.started_mono_ns()
    }

    /// Its cgroup; none where no cgroup v2 hierarchy is writable.
    #[must_use]
    pub fn cgroup(&self) -> Option<&Cgroup> {
        self.cgroup.as_ref()
    }

    /// The end of its output.
    #[must_use]
    pub fn output(&self) -> &OutputTail {
        &self.output
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        self.init.exit()
    }

    /// Waits until its init and with it every process of its pid namespace has ended.
    pub async fn exited(&self) -> Result<Exit> {
        self.init.wait().await
    }

    /// Sends a signal to its init, from outside its cgroup and pid namespace as a runtime does.
    pub fn signal(&self, signal: i32) -> Result<()> {
        self.init.signal(signal)
    }

    /// The thread whose children are in its pid namespace.
    pub(crate) fn thread(&self) -> &NamespaceThread {
        &self.thread
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.init.kill_and_reap();
        for follower in self.followers.drain(..) {
            let _ = follower.join();
        }
    }
}

impl ContainerSpec {
    /// The directory that it starts in, for a system call.
    pub(crate) fn working_directory(&self) -> Result<CString> {
        let directory = match &self.directory {
            Some(directory) => directory.clone(),
            None => std::env::current_dir().context("the current directory is gone; go to another")?,
        };
        Ok(CString::new(directory.into_os_string().into_encoded_bytes())?)
    }

    /// The program's own name.
    #[must_use]
    pub fn program(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }
}

/// The command with piped output and no input, as a container gets it.
pub(crate) fn command_of(spec: &ContainerSpec) -> Result<Command> {
    let (program, arguments) = spec.words.split_first().context("no command given: put it after `--`")?;
    let mut command = Command::new(program);
    command.args(arguments).envs(spec.env.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

fn cannot_run(spec: &ContainerSpec, error: &std::io::Error) -> anyhow::Error {
    let program = spec.program();
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::PermissionDenied => match &spec.directory {
            Some(directory) => anyhow!(
                "cannot run `{program}` in {}: {error}; check the command, --workdir and --user",
                directory.display()
            ),
            None => anyhow!("cannot run `{program}`: {error}; check the command after `--`"),
        },
        _ => anyhow!("cannot start `{program}` in the sandbox: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_numbers() {
        assert_eq!("1000".parse(), Ok(User { uid: 1000, gid: 0 }));
        assert_eq!("33:44".parse(), Ok(User { uid: 33, gid: 44 }));
        assert!("www-data".parse::<User>().unwrap_err().contains("UID"));
    }
}
