//! A gateway container: PID 1 of its own pid namespace, in the pod's network namespace, and terminated as
//! a kubelet does.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{gateway::Gateway, stage::Stage};

/// What a kubelet leaves after the preStop hook at least.
const MINIMUM_GRACE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(10);

/// How a container is terminated.
#[derive(Clone, Copy, Debug)]
pub struct Termination {
    /// What `sh` runs inside before the stop signal; `$POD` is the folder of what it serves.
    pub pre_stop: Option<&'static str>,
    /// The stop signal.
    pub signal: Signal,
    /// For hook and stopping together.
    pub grace: Duration,
}

/// A running container.
pub struct Container {
    parent: Parent,
    init: u32,
    folder: PathBuf,
}

/// `unshare`, which ends when PID 1 does, and takes it along when it is killed. It stays outside the pod.
struct Parent(Child);

impl Drop for Parent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Container {
    /// Starts a gateway in a pod.
    ///
    /// # Errors
    /// If it cannot be run.
    pub fn start(stage: &Stage, pod: usize, gateway: &Gateway) -> Result<Self> {
        let folder = stage.file(&gateway.name);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("ready"), "ready\n")?;
        fs::write(folder.join("gateway.conf"), gateway.configuration(&folder.display().to_string()))?;
        let output = File::create(folder.join("output.log"))?;
        let script =
            format!("until [ -e \"$POD/go\" ]; do sleep 0.05; done; {} < /dev/null", gateway.command());
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
        // The pod's network namespace is its standard input until then.
        command.args(["nsenter", "--net=/proc/self/fd/0", "sh", "-c", &script]);
        command.env("POD", &folder).stdin(File::open(stage.pod(pod).path())?);
        command.stdout(output.try_clone()?).stderr(output);
        let parent = Parent(command.spawn().context("cannot run unshare")?);
        let init = only_child(parent.0.id(), &format!("net:[{}]", stage.pod(pod).inode()?))?;
        let container = Self { parent, init, folder };
        if gateway.at_once {
            container.let_listen()?;
        }
        Ok(container)
    }

    /// Lets it listen, if it was not to at once.
    pub fn let_listen(&self) -> Result<()> {
        Ok(fs::write(self.folder.join("go"), "go\n")?)
    }

    /// The process id of its PID 1, as the host sees it.
    pub const fn init(&self) -> u32 {
        self.init
    }

    /// Terminates it as a kubelet does.
    pub fn terminate(&mut self, plan: Termination) -> Result<()> {
        let begin = Instant::now();
        if let Some(hook) = plan.pre_stop {
            self.run_hook(hook, begin + plan.grace)?;
        }
        self.signal(plan.signal)?;
        let left = plan.grace.saturating_sub(begin.elapsed()).max(MINIMUM_GRACE);
        let deadline = Instant::now() + left;
        while !self.has_ended()? {
            if Instant::now() > deadline {
                self.signal(Signal::SIGKILL)?;
                self.parent.0.wait()?;
            }
            sleep(POLL);
        }
        Ok(())
    }

    /// Enters its namespaces, as a runtime's exec does. A hook that is not done in time goes on until
    /// the container ends.
    fn run_hook(&self, hook: &str, deadline: Instant) -> Result<()> {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init.to_string(), "--pid", "--net", "--mount", "sh", "-c", hook]);
        let mut running = command.env("POD", &self.folder).spawn().context("cannot run nsenter")?;
        while running.try_wait()?.is_none() && Instant::now() < deadline {
            sleep(POLL);
        }
        Ok(())
    }

    /// Who is gone already needs no signal: its parent takes a moment longer to end.
    fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.has_ended()? {
            return Ok(());
        }
        match kill(Pid::from_raw(self.init.try_into()?), signal) {
            Err(Errno::ESRCH) => Ok(()),
            sent => Ok(sent?),
        }
    }

    fn has_ended(&mut self) -> Result<bool> {
        Ok(self.parent.0.try_wait()?.is_some())
    }
}

/// The child of `unshare`, when it has entered this network namespace.
fn only_child(parent: u32, netns: &str) -> Result<u32> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    for _ in 0..500 {
        let children = fs::read_to_string(&path).unwrap_or_default();
        let child = children.split(' ').find_map(|pid| pid.parse().ok());
        let entered =
            |pid: &u32| fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|link| link == *netns);
        if let Some(child) = child.filter(entered) {
            return Ok(child);
        }
        sleep(POLL);
    }
    bail!("unshare started nothing in {netns}")
}
