//! Nothing of a node is left, however its tests end: they run in a child, inside a cgroup that none of
//! the processes they start can leave, and the parent ends all that is in it.

use std::{
    env, fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    sys::{
        prctl,
        signal::{SigSet, Signal, kill},
    },
    unistd::Pid,
};

use crate::machine;

/// Tells the child which cgroup it lives in.
const VARIABLE: &str = "LASTPACKET_TEST_NODE";
/// What the names of such cgroups begin with; the guardian's process id follows.
const PREFIX: &str = "node-test-";
/// Folders that container programs have in fixed places; the node's own hide them.
const FIXED: [&str; 2] = ["/run/containerd", "/var/lib/cni"];

/// Whether this process is the guarded child.
pub fn guards_this() -> bool {
    env::var_os(VARIABLE).is_some()
}

/// What the child does first, while it has one thread: takes the node's cgroup and mounts. That this is
/// not possible fails the tests, with the reason.
pub fn begin() {
    if let Some(cgroup) = env::var_os(VARIABLE) {
        // The guardian holds back what would end it before it has cleaned up; not the child.
        let _ = SigSet::all().thread_unblock();
        let _ = prctl::set_pdeathsig(Signal::SIGKILL);
        machine::isolate(Path::new(&cgroup), &FIXED);
    }
}

/// Runs the tests in a child and cleans up after it.
pub fn guard() -> Result<ExitCode> {
    let root = machine::cgroup_root()?;
    end_orphans(&root);
    let ending = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    ending.thread_block()?;
    let cgroup = root.join(format!("{PREFIX}{}", std::process::id()));
    fs::create_dir(&cgroup).with_context(|| format!("cannot make the cgroup {}", cgroup.display()))?;
    let made: Vec<_> = FIXED.iter().filter(|folder| fs::create_dir(folder).is_ok()).collect();
    let mut child = Command::new(env::current_exe()?)
        .args(env::args_os().skip(1))
        .env(VARIABLE, &cgroup)
        .spawn()
        .context("cannot start itself")?;
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    thread::spawn(move || {
        if ending.wait().is_ok() {
            let _ = kill(pid, Signal::SIGKILL);
        }
    });
    let status = child.wait()?;
    end_all(&cgroup);
    for folder in made {
        let _ = fs::remove_dir(folder);
    }
    if let Some(signal) = status.signal() {
        eprintln!("the tests were ended by signal {signal}");
    }
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// What guardians left behind that were killed themselves.
fn end_orphans(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let guardian = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        if guardian.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            end_all(&entry.path());
        }
    }
}

/// Kills all processes of a cgroup and those below, and removes it.
fn end_all(cgroup: &Path) {
    for _ in 0..200 {
        let folders = tree(cgroup);
        let pids = folders.iter().filter_map(|folder| fs::read_to_string(folder.join("cgroup.procs")).ok());
        let pids: Vec<i32> =
            pids.flat_map(|text| text.lines().map(str::parse).collect::<Vec<_>>()).flatten().collect();
        for pid in &pids {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        // Those below first: a cgroup with others in it cannot be removed.
        let removed = folders.iter().rev().filter(|folder| fs::remove_dir(folder).is_ok()).count();
        if removed == folders.len() {
            return;
        }
        thread::sleep(Duration::from_millis(25));
    }
    eprintln!("left behind: the cgroup {}", cgroup.display());
}

/// A cgroup and all below it, parents first.
fn tree(cgroup: &Path) -> Vec<PathBuf> {
    let mut folders = vec![cgroup.to_owned()];
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            folders.extend(tree(&entry.path()));
        }
    }
    folders
}
