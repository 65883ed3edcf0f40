//! Facts of processes, from procfs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};

use super::netns;

/// A process as it was when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Its parent.
    pub parent: u32,
    /// Command name.
    pub comm: String,
    /// Inode of its network namespace.
    pub netns: u64,
    /// Inode of its pid namespace.
    pub pidns: u64,
    /// Path of its cgroup in the v2 hierarchy, from its root; `None` without one.
    pub cgroup: Option<String>,
    /// It is the first process of its pid namespace.
    pub is_namespace_init: bool,
}

impl Process {
    /// Looks at a process.
    ///
    /// # Errors
    /// If there is no such process, or it is a zombie.
    pub fn read(pid: u32) -> Result<Self> {
        let folder = PathBuf::from(format!("/proc/{pid}"));
        if !folder.exists() {
            ensure!(
                Path::new("/proc/self").exists(),
                "/proc cannot be read; mount it with `mount -t proc proc /proc`"
            );
            bail!("no process with pid {pid}; look with `ps -e`");
        }
        let status = read(&folder, "status")?;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        if field("State:").is_some_and(|state| state.starts_with(['Z', 'X'])) {
            bail!("process {pid} has already ended");
        }
        let group = field("Tgid:").and_then(|tgid| tgid.parse().ok());
        if group != Some(pid) {
            bail!("{pid} is a thread of process {}; give the process", group.unwrap_or(0));
        }
        Ok(Self {
            pid,
            parent: field("PPid:").and_then(|parent| parent.parse().ok()).unwrap_or(0),
            comm: read(&folder, "comm")?.trim_end().to_owned(),
            netns: netns::inode(&folder.join("ns/net"))?,
            pidns: netns::inode(&folder.join("ns/pid"))?,
            cgroup: read(&folder, "cgroup")?
                .lines()
                .find_map(|line| line.strip_prefix("0::"))
                .map(str::to_owned),
            is_namespace_init: field("NSpid:").and_then(|pids| pids.split_whitespace().last()) == Some("1"),
        })
    }

    /// Path of its network namespace.
    #[must_use]
    pub fn netns_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.pid))
    }
}

fn read(folder: &Path, name: &str) -> Result<String> {
    let path = folder.join(name);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// Inode of the machine's own pid namespace.
///
/// # Errors
/// If procfs cannot be read.
pub fn machine_pidns() -> Result<u64> {
    netns::inode(&netns::machine("pid"))
}

/// All processes of this machine that can be looked at.
#[must_use]
pub fn all() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Process::read(pid).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_and_a_missing_one_is_named() {
        let this = Process::read(std::process::id()).unwrap();
        assert_eq!(this.netns, netns::machine_inode().unwrap());
        let error = Process::read(u32::MAX).unwrap_err().to_string();
        assert!(error.contains("no process with pid 4294967295"), "{error}");
    }
}
