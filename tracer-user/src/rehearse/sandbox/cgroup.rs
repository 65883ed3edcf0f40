//! The sandbox's cgroup: `lastpacket-<pid>/<name>` in whichever cgroup v2 hierarchy is writable.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};

const PREFIX: &str = "lastpacket-";

/// A cgroup v2 directory of our own, removed when dropped.
pub struct Cgroup {
    path: PathBuf,
    id: u64,
    /// Held as long as we live, also by nobody after a `kill -9`: what others' clean-up looks at.
    _owned: Flock<File>,
}

impl Cgroup {
    /// Creates the cgroup, or none where no cgroup v2 hierarchy is writable. Stale ones of runs that
    /// were killed are removed first. Errors: the hierarchy went away in between.
    pub(super) fn create(name: &str) -> Result<Option<Self>> {
        let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
        let Some(root) = hierarchy(&mounts) else { return Ok(None) };
        remove_stale(root);
        let parent = root.join(format!("{PREFIX}{}", std::process::id()));
        if fs::create_dir_all(&parent).is_err() {
            return Ok(None);
        }
        let directory = File::open(&parent).with_context(|| format!("cannot open {}", parent.display()))?;
        let owned = Flock::lock(directory, FlockArg::LockSharedNonblock)
            .map_err(|(_, errno)| errno)
            .with_context(|| format!("cannot lock {}", parent.display()))?;
        let path = parent.join(name);
        fs::create_dir(&path).with_context(|| format!("cannot create the cgroup {}", path.display()))?;
        let id = fs::metadata(&path)?.ino();
        Ok(Some(Self { path, id, _owned: owned }))
    }

    /// The cgroup's directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The kernel's id of the cgroup, as `bpf_get_current_cgroup_id` gives it.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// A file through which a process joins by writing "0".
    pub(crate) fn entrance(&self) -> Result<File> {
        let procs = self.path.join("cgroup.procs");
        File::options().write(true).open(&procs).with_context(|| format!("cannot open {}", procs.display()))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        remove(&self.path);
        if let Some(parent) = self.path.parent() {
            // Fails as long as another sandbox of this process is inside, which then removes it.
            let _ = fs::remove_dir(parent);
        }
    }
}

fn hierarchy(mounts: &str) -> Option<&Path> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (path, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| Path::new(path))
    })
}

fn remove_stale(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let ours =
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(PREFIX));
        if ours && is_orphaned(&path) {
            for inside in fs::read_dir(&path).into_iter().flatten().flatten() {
                if inside.path().is_dir() {
                    remove(&inside.path());
                }
            }
            let _ = fs::remove_dir(&path);
        }
    }
}

/// Whether no living process holds the directory's lock.
fn is_orphaned(path: &Path) -> bool {
    File::open(path).is_ok_and(|directory| Flock::lock(directory, FlockArg::LockExclusiveNonblock).is_ok())
}

/// Kills what is left inside and removes the directory, for at most a second: the kernel says EBUSY
/// until the last dying process has left.
fn remove(path: &Path) {
    for _ in 0..100 {
        if fs::remove_dir(path).is_ok() || !path.exists() {
            return;
        }
        kill_all(path);
        sleep(Duration::from_millis(10));
    }
    log::warn!("cannot remove the cgroup {}: remove it with rmdir", path.display());
}

fn kill_all(path: &Path) {
    // cgroup.kill exists since Linux 5.14.
    if fs::write(path.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    let inside = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    // 0 stands for a process that our pid namespace does not show; as a target it would be ourselves.
    for pid in inside.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_unified_hierarchy() {
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n";
        assert_eq!(hierarchy(hybrid), Some(Path::new("/sys/fs/cgroup/unified")));
        assert_eq!(hierarchy("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0"), Some(Path::new("/sys/fs/cgroup")));
        assert_eq!(hierarchy("proc /proc proc rw 0 0"), None);
    }
}
