//! A process that the agent takes for a pod: in a cgroup as a kubelet makes it, in a network namespace of
//! its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};

/// See the module; ended and removed when dropped.
pub(crate) struct Pod {
    init: Child,
    cgroup: PathBuf,
}

impl Pod {
    /// Starts pod number `number`; its uid and its container's id follow from that.
    pub(crate) fn start(number: u32) -> Result<Self> {
        let uid = format!("00000000-0000-4000-8000-{number:012x}");
        let cgroup = cgroups()?.join(format!("kubepods/burstable/pod{uid}/{number:064x}"));
        fs::create_dir_all(&cgroup).with_context(|| format!("cannot make {}", cgroup.display()))?;
        let enter = "echo $$ > \"$0\"/cgroup.procs && ip link set lo up && exec sleep infinity";
        let init = Command::new("unshare")
            .args(["--net", "sh", "-c", enter])
            .arg(&cgroup)
            .stdin(Stdio::null())
            .spawn()
            .context("cannot run unshare")?;
        let pod = Self { init, cgroup };
        pod.wait_until_it_sleeps()?;
        Ok(pod)
    }

    /// Its init's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.init.id()
    }

    /// Sends its init the stop signal.
    pub(crate) fn terminate(&self) {
        // SAFETY: it takes two numbers; the child is not reaped yet, so that the number is its own.
        unsafe { libc::kill(self.pid().cast_signed(), libc::SIGTERM) };
    }

    fn wait_until_it_sleeps(&self) -> Result<()> {
        for _ in 0..500 {
            let name = fs::read_to_string(format!("/proc/{}/comm", self.pid())).unwrap_or_default();
            if name.trim_end() == "sleep" {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("the pod of the benchmark did not start within 5 s")
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // Both may be gone already, and a folder that others use stays.
        let _ = self.init.kill();
        let _ = self.init.wait();
        for folder in self.cgroup.ancestors().take(4) {
            let _ = fs::remove_dir(folder);
        }
    }
}

/// Where cgroup v2 is mounted.
fn cgroups() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read the mounts")?;
    let path = mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let path = words.next()?;
        (words.next()? == "cgroup2").then(|| Path::new(path).to_owned())
    });
    path.context("no cgroup v2 hierarchy is mounted")
}
