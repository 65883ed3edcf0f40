//! What a run must not leave behind: processes, cgroups, devices, named namespaces.
//!
//! Runs of others on the same machine are none of our business: ours are known by a word in their
//! environment, which all their children inherit.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};

const VARIABLE: &str = "LASTPACKET_TEST_RUN";
static RUNS: AtomicU32 = AtomicU32::new(0);

/// Marks a run, to look for what it leaves.
#[derive(Debug)]
pub struct Mark(String);

impl Mark {
    /// Marks what this command will start.
    #[must_use]
    pub fn on(command: &mut Command) -> Self {
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let word = format!("{}-{run}", std::process::id());
        command.env(VARIABLE, &word);
        Self(format!("{VARIABLE}={word}"))
    }

    /// Processes of the run that are alive.
    fn processes(&self) -> Vec<u32> {
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid| self.is_on(*pid)).collect()
    }

    fn is_on(&self, pid: u32) -> bool {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == self.0.as_bytes())
    }

    /// Nothing is left of the run, whose `lastpacket` had this process id.
    ///
    /// # Errors
    /// With what is left.
    pub fn ensure_nothing_left(&self, pid: u32) -> Result<()> {
        self.ensure_no_process_left()?;
        let cgroup = cgroup_of(pid);
        ensure!(cgroup.is_none(), "the cgroup {cgroup:?} is left");
        for folder in ["/sys/class/net", "/run/netns"] {
            let names = names_in(folder);
            let ours = names.iter().any(|name| name.starts_with("lp-") || name.starts_with("lastpacket"));
            ensure!(!ours, "something of lastpacket is left in {folder}: {names:?}");
        }
        Ok(())
    }

    /// No process of the run is left, and with the last of them its namespaces are gone.
    ///
    /// # Errors
    /// With those that are left.
    pub fn ensure_no_process_left(&self) -> Result<()> {
        // A process that was just killed takes a moment to go.
        for _ in 0..50 {
            if self.processes().is_empty() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        let left = self.processes();
        ensure!(left.is_empty(), "processes are left: {left:?}");
        Ok(())
    }
}

/// The cgroup that a `lastpacket` of this process id made, if it is still there.
#[must_use]
pub fn cgroup_of(pid: u32) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let roots = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (folder, kind) = (words.next()?, words.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(folder))
    });
    roots.map(|root| root.join(format!("lastpacket-{pid}"))).find(|folder| folder.exists())
}

fn names_in(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
