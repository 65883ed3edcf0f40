//! A program that is denied something: by its limits, or by what it finds on the machine. All of it is
//! gone when it ends.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use lastpacket_tests::{binary, run};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::resource::{Resource, setrlimit},
};

use super::seccomp;

const BTF: &str = "/sys/kernel/btf/vmlinux";
/// Only there if programs can be attached to functions.
const KPROBES: &str = "/sys/bus/event_source/devices/kprobe";
const CAP_SYS_RESOURCE: libc::c_ulong = 24;
/// Less than the kernel programs need.
const LITTLE: u64 = 64 * 1024;

/// What is denied.
#[derive(Clone, Copy)]
pub enum Denied {
    /// Nearly all locked memory, as a user's shell has it; root may lift the limit.
    LockedMemory,
    /// The same, for a process that may not lift it.
    LockedMemoryForGood,
    /// The system call that attaches to functions, as container runtimes' profiles do.
    PerfEvents,
    /// Attaching to functions, as a kernel without CONFIG_KPROBES does.
    Kprobes,
    /// A name in the kernel's type information: the field has another one.
    Field(&'static str),
}

/// `lastpacket`, denied something; its output is read as JSON lines.
pub fn start(denied: Denied, arguments: &[&str]) -> Result<run::Running> {
    run::start_command(command(denied, arguments)?)
}

/// `lastpacket`, denied something: what it says on stdout and stderr, and its exit code.
pub fn run(denied: Denied, arguments: &[&str]) -> Result<(String, String, Option<i32>)> {
    let ended = command(denied, arguments)?.stdin(Stdio::null()).output()?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok((text(ended.stdout), text(ended.stderr), ended.status.code()))
}

fn command(denied: Denied, arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["child", &format!("denied:{}", denied.word())]);
    command.arg(binary::lastpacket()?).args(arguments);
    Ok(command)
}

/// The role: takes away what the word says, and becomes the program in the arguments.
pub fn become_program(word: &str) -> Result<()> {
    match word {
        "locked-memory" => limit_locked_memory()?,
        "locked-memory-for-good" => {
            limit_locked_memory()?;
            give_up_sys_resource()?;
        }
        "perf-events" => seccomp::deny(libc::SYS_perf_event_open)?,
        "kprobes" => hide_kprobes()?,
        _ => rename_field(word.strip_prefix("field-").context("nobody knows what to deny")?)?,
    }
    let mut words = std::env::args_os().skip(3);
    Err(Command::new(words.next().context("no program")?).args(words).exec().into())
}

impl Denied {
    fn word(self) -> String {
        match self {
            Self::LockedMemory => "locked-memory".to_owned(),
            Self::LockedMemoryForGood => "locked-memory-for-good".to_owned(),
            Self::PerfEvents => "perf-events".to_owned(),
            Self::Kprobes => "kprobes".to_owned(),
            Self::Field(name) => format!("field-{name}"),
        }
    }
}

fn limit_locked_memory() -> Result<()> {
    Ok(setrlimit(Resource::RLIMIT_MEMLOCK, LITTLE, LITTLE)?)
}

/// A program that root starts has what the bounding set has.
fn give_up_sys_resource() -> Result<()> {
    // SAFETY: takes integers only.
    let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, CAP_SYS_RESOURCE, 0, 0, 0) };
    ensure!(result == 0, "PR_CAPBSET_DROP: {}", std::io::Error::last_os_error());
    Ok(())
}

fn hide_kprobes() -> Result<()> {
    let empty = own_mounts()?.join("empty");
    fs::create_dir(&empty)?;
    if Path::new(KPROBES).exists() { bind(&empty, Path::new(KPROBES)) } else { Ok(()) }
}

/// The same BTF, but for the first letter of a name.
fn rename_field(name: &str) -> Result<()> {
    let mut btf = fs::read(BTF)?;
    let needle = [b"\0", name.as_bytes(), b"\0"].concat();
    let Some(at) = btf.windows(needle.len()).position(|window| window == needle) else {
        bail!("the kernel has no name {name}");
    };
    btf[at + 1] = b'?';
    let doctored = own_mounts()?.join("btf");
    fs::write(&doctored, btf)?;
    bind(&doctored, Path::new(BTF))
}

/// A mount namespace of its own, with an empty folder for files.
fn own_mounts() -> Result<&'static Path> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("tmpfs"), "/mnt", Some("tmpfs"), MsFlags::empty(), none)?;
    Ok(Path::new("/mnt"))
}

fn bind(from: &Path, over: &Path) -> Result<()> {
    let none: Option<&str> = None;
    mount(Some(from), over, none, MsFlags::MS_BIND, none)
        .with_context(|| format!("cannot mount over {}", over.display()))
}
