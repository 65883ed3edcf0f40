//! Processes inside the sandbox: how they start, how they are signalled, how their end is seen.

use std::{
    ffi::{CStr, CString},
    fs::File,
    io::{self, Write},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Child, Command, ExitStatus},
    thread::JoinHandle,
};

use anyhow::{Context, Result, anyhow};
use tokio::sync::watch;

use super::User;
use crate::clock::mono_ns;

/// How and when a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// When its end was seen, in ns of `CLOCK_MONOTONIC`.
    pub at_mono_ns: u64,
    /// Exit code or killing signal.
    pub status: ExitStatus,
}

/// A running process that cannot be mistaken for another with the same pid.
pub(crate) struct Process {
    pid: u32,
    started_mono_ns: u64,
    pidfd: OwnedFd,
    exit: watch::Receiver<Option<Exit>>,
    reaper: Option<JoinHandle<()>>,
}

impl Process {
    /// Takes over a child that nobody else waits for.
    pub(crate) fn adopt(mut child: Child, started_mono_ns: u64) -> Result<Self> {
        let pid = child.id();
        let pidfd = open_pidfd(pid).with_context(|| format!("cannot open a pidfd of process {pid}"))?;
        let (sender, exit) = watch::channel(None);
        // A process of a dying pid namespace must be reaped, or its PID 1 never finishes dying.
        let reaper = std::thread::Builder::new().name("lp-reaper".to_owned()).spawn(move || {
            if let Ok(status) = child.wait() {
                sender.send_replace(Some(Exit { at_mono_ns: mono_ns(), status }));
            }
        })?;
        Ok(Self { pid, started_mono_ns, pidfd, exit, reaper: Some(reaper) })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn started_mono_ns(&self) -> u64 {
        self.started_mono_ns
    }

    /// How it ended, if it has.
    pub(crate) fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Waits for its end.
    pub(crate) async fn wait(&self) -> Result<Exit> {
        let mut exit = self.exit.clone();
        let ended = exit.wait_for(Option::is_some).await.map(|exit| *exit);
        ended.ok().flatten().ok_or_else(|| anyhow!("process {} was reaped by somebody else", self.pid))
    }

    /// Sends a signal; to a process that has ended it does nothing.
    pub(crate) fn signal(&self, signal: i32) -> Result<()> {
        let none = std::ptr::null::<libc::siginfo_t>();
        let pidfd = self.pidfd.as_raw_fd();
        // SAFETY: the descriptor is open as long as `self`, and a null siginfo is allowed.
        let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd, signal, none, 0) };
        let error = io::Error::last_os_error();
        if sent == 0 || error.raw_os_error() == Some(libc::ESRCH) {
            return Ok(());
        }
        Err(error).with_context(|| format!("cannot send signal {signal} to process {}", self.pid))
    }

    /// Kills it and waits until it is gone.
    pub(crate) fn kill_and_reap(&mut self) {
        if let Err(error) = self.signal(libc::SIGKILL) {
            log::warn!("{error:#}");
        }
        if let Some(reaper) = self.reaper.take() {
            let _ = reaper.join();
        }
    }
}

fn open_pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: takes two integers and returns a new descriptor or an error.
    let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let pidfd = i32::try_from(pidfd).map_err(io::Error::other)?;
    if pidfd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(pidfd) })
}

/// Makes `command` start as a container's first process does: with a /proc of its pid namespace,
/// in the cgroup, as the user, with default signal handling, and dying with the thread that spawns it.
pub(super) fn isolate_as_init(
    command: &mut Command,
    cgroup: Option<File>,
    user: Option<User>,
    directory: CString,
) {
    // SAFETY: between fork and exec only system calls are made, nothing is allocated or locked.
    unsafe {
        command.pre_exec(move || {
            join_sandbox(cgroup.as_ref())?;
            check(libc::unshare(libc::CLONE_NEWNS))?;
            // Our /proc must not propagate to the host's mount namespace.
            mount(c"none", c"/", c"none", libc::MS_REC | libc::MS_PRIVATE)?;
            mount(c"proc", c"/proc", c"proc", libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC)?;
            become_user(user, &directory)
        });
    }
}

/// What every process of the sandbox does between fork and exec; makes system calls only.
pub(crate) fn join_sandbox(mut cgroup: Option<&File>) -> io::Result<()> {
    if let Some(procs) = &mut cgroup {
        procs.write_all(b"0")?;
    }
    // SAFETY: plain system calls on integers and on locals that outlive them.
    unsafe {
        check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
        // Away from the terminal: its Ctrl-C is for us alone.
        check(libc::setsid())?;
        // exec keeps ignored signals ignored (nohup, a shell's `&`), a runtime starts with none.
        for signal in 1..=libc::SIGRTMAX() {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        check(libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut()))
    }
}

/// The last step before exec: goes to the directory with the user's rights. System calls only.
pub(crate) fn become_user(user: Option<User>, directory: &CStr) -> io::Result<()> {
    // SAFETY: plain system calls on integers and on a string that outlives them.
    unsafe {
        if let Some(User { uid, gid }) = user {
            check(libc::setgroups(0, std::ptr::null()))?;
            check(libc::setresgid(gid, gid, gid))?;
            check(libc::setresuid(uid, uid, uid))?;
            // The kernel forgets it when rights change.
            check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
        }
        check(libc::chdir(directory.as_ptr()))
    }
}

pub(crate) fn check(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn mount(source: &CStr, target: &CStr, kind: &CStr, flags: u64) -> io::Result<()> {
    // SAFETY: the strings are NUL-terminated and outlive the call; no mount data is passed.
    check(unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, std::ptr::null()) })
}
