//! The cgroup v2 hierarchy: where it is mounted, ids, processes.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

/// Where cgroup v2 is mounted: `/sys/fs/cgroup`, or beside version 1 on a hybrid machine.
#[must_use]
pub fn mount_point() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    parse_mount_point(&mounts)
}

fn parse_mount_point(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (_, path, kind) = (words.next()?, words.next()?, words.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(path))
    })
}

/// Where the cgroups of containers are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub folder: PathBuf,
    /// It is version 2: the kernel programs tell its cgroups apart.
    pub is_version_2: bool,
}

impl Hierarchy {
    /// The hierarchy that has the containers: version 2 where the runtime uses it, else one of
    /// version 1.
    ///
    /// # Errors
    /// If none is mounted.
    pub fn of_containers() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
        let all = Self::parse(&mounts);
        let with_pods = all.iter().find(|hierarchy| hierarchy.has_pods());
        with_pods.or(all.first()).cloned().context("no cgroup hierarchy is mounted; mount cgroup2")
    }

    /// Version 2 first, then those of version 1.
    fn parse(mounts: &str) -> Vec<Self> {
        let mounted = mounts.lines().filter_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            let (path, kind) = (words.next()?, words.next()?);
            let is_version_2 = kind == "cgroup2";
            (is_version_2 || kind == "cgroup").then(|| Self { folder: path.into(), is_version_2 })
        });
        let mut all: Vec<Self> = mounted.collect();
        all.sort_by_key(|hierarchy| !hierarchy.is_version_2);
        all
    }

    fn has_pods(&self) -> bool {
        ["kubepods", "kubepods.slice"].iter().any(|name| self.folder.join(name).exists())
    }
}

/// Whether version 1 controllers are mounted too, so that the machine is hybrid.
#[must_use]
pub fn has_version_1() -> bool {
    fs::read_to_string("/proc/self/mounts")
        .is_ok_and(|mounts| mounts.lines().any(|line| line.split_whitespace().nth(2) == Some("cgroup")))
}

/// A folder in the hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// Its folder.
    pub folder: PathBuf,
    /// Its id, as the kernel programs see it: the inode of the folder.
    pub id: u64,
}

impl Cgroup {
    /// Opens a cgroup by its folder, or by its path from the hierarchy's root.
    ///
    /// # Errors
    /// If there is no such cgroup.
    pub fn open(path: &Path) -> Result<Self> {
        let Some(mount_point) = mount_point() else {
            bail!("no cgroup v2 hierarchy is mounted; mount one, or trace by --pid or --netns");
        };
        let inside = mount_point.join(path.strip_prefix("/").unwrap_or(path));
        let folder = if path.starts_with(&mount_point) { path.to_owned() } else { inside };
        if !folder.join("cgroup.procs").exists() {
            bail!("no cgroup {}; give its folder below {}", path.display(), mount_point.display());
        }
        let id = folder.metadata().with_context(|| format!("cannot stat {}", folder.display()))?.ino();
        Ok(Self { folder, id })
    }

    /// Its processes and those of the cgroups below it.
    ///
    /// # Errors
    /// If it is gone.
    pub fn processes(&self) -> Result<Vec<u32>> {
        let mut pids = Vec::new();
        collect(&self.folder, &mut pids)?;
        Ok(pids)
    }
}

fn collect(folder: &Path, pids: &mut Vec<u32>) -> Result<()> {
    let path = folder.join("cgroup.procs");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        // A cgroup may go while the tree is walked.
        let _ = collect(&entry.path(), pids);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_point_is_found_on_pure_and_hybrid_machines() {
        let pure = "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";
        assert_eq!(parse_mount_point(pure), Some(PathBuf::from("/sys/fs/cgroup")));
        let hybrid =
            "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(parse_mount_point(hybrid), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        let first = Hierarchy::parse(hybrid);
        assert!(first[0].is_version_2 && !first[1].is_version_2, "{first:?}");
        assert_eq!(parse_mount_point("cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n"), None);
    }
}
