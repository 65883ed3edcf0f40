//! What the node has for itself on this machine: a cgroup that looks like the whole hierarchy, mounts.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use anyhow::{Context, Result, anyhow};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};

const CGROUPS: &str = "/sys/fs/cgroup";

static ISOLATED: OnceLock<Result<(), String>> = OnceLock::new();

/// Where this machine has its cgroup v2 hierarchy.
pub fn cgroup_root() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let found = mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (folder, kind) = (words.next()?, words.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(folder))
    });
    found.context("no cgroup v2 hierarchy is mounted, which the node's containers need")
}

/// Moves this process, which has one thread, into a cgroup and a mount namespace of its own.
pub fn isolate(cgroup: &Path, fixed: &[&str]) {
    let done = try_isolate(cgroup, fixed).map_err(|error| format!("{error:#}"));
    let _ = ISOLATED.set(done);
}

/// Whether that was done.
pub fn ensure_isolated() -> Result<()> {
    let done = ISOLATED.get().context("the tests run without their guardian")?;
    done.clone().map_err(|error| anyhow!("this machine cannot have a node: {error}"))
}

fn try_isolate(cgroup: &Path, fixed: &[&str]) -> Result<()> {
    join(cgroup)?;
    unshare(CloneFlags::CLONE_NEWCGROUP | CloneFlags::CLONE_NEWNS).context("cannot unshare")?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context("cannot make mounts private")?;
    // Version 1 beside it, if there is one, is of no use to containers.
    umount2(CGROUPS, MntFlags::MNT_DETACH).context("cannot unmount the machine's cgroups")?;
    mount(Some("cgroup2"), CGROUPS, Some("cgroup2"), MsFlags::empty(), none)
        .context("cannot mount cgroup v2")?;
    for folder in fixed {
        mount(Some("tmpfs"), *folder, Some("tmpfs"), MsFlags::empty(), none)
            .with_context(|| format!("cannot mount over {folder}"))?;
    }
    // Only a cgroup without processes can hand controllers down.
    let own = Path::new(CGROUPS).join("harness");
    fs::create_dir(&own).with_context(|| format!("cannot make {}", own.display()))?;
    join(&own)
}

fn join(cgroup: &Path) -> Result<()> {
    fs::write(cgroup.join("cgroup.procs"), "0").with_context(|| format!("cannot enter {}", cgroup.display()))
}
