//! Starts a kernel in QEMU, without hardware virtualisation, and follows its serial console.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::kernel::Kernel;

/// Begins the lines that the machine's init says to us.
const MARK: &str = "lastpacket-vm: ";

/// A plain processor: the emulation of QEMU 7.2 spoils the flags at `cmpxchg16b`, which crashes kernels now and then
/// (6.12 in `kmem_cache_alloc`); without it they take another way.
const CPU: &str = "Nehalem,cx16=off";

/// What became of a machine.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// Name of the kernel in the matrix.
    pub name: &'static str,
    /// Version of the kernel, once it said so.
    pub release: Option<String>,
    /// What `lastpacket check` said.
    pub check: Option<serde_json::Value>,
    /// Exit code of the command; `None` if the machine did not get so far.
    pub exit: Option<i32>,
    /// Results of the test binaries, as they closed.
    pub results: Vec<String>,
    /// How long it ran.
    pub took: Duration,
    /// It was stopped because it ran too long.
    pub timed_out: bool,
}

impl Outcome {
    /// Whether the command ran and succeeded.
    pub(crate) fn passed(&self) -> bool {
        self.exit == Some(0)
    }

    fn read(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("test result: ") {
            self.results.push(result.split(';').take(3).collect::<Vec<_>>().join(","));
        }
        // The kernel's own messages may stand before it on the line.
        let Some((_, said)) = line.split_once(MARK) else { return };
        match said.split_once(' ') {
            Some(("release", release)) => self.release = Some(release.to_owned()),
            Some(("check", check)) => self.check = serde_json::from_str(check).ok(),
            Some(("exit", code)) => self.exit = code.parse().ok(),
            _ => {}
        }
    }
}

/// Runs a machine until it powers off, or for too long. Its console goes to the developer's terminal, with the kernel's
/// name before each line, and to `log` in `folder`.
pub(crate) fn run(kernel: &Kernel, initramfs: &[u8], folder: &Path, timeout: Duration) -> Result<Outcome> {
    let image = folder.join("initramfs");
    fs::write(&image, initramfs).context("cannot write the initramfs")?;
    let mut log = File::create(folder.join("log")).context("cannot write the machine's log")?;
    let start = Instant::now();
    let mut machine = Machine::start(kernel, &image)?;
    let mut outcome = Outcome { name: kernel.name, ..Outcome::default() };
    let lines = machine.lines()?;
    loop {
        match lines.recv_timeout(timeout.saturating_sub(start.elapsed())) {
            Ok(line) => {
                outcome.read(&line);
                writeln!(log, "{line}").context("cannot write the machine's log")?;
                if !line.contains(&format!("{MARK}check")) {
                    println!("{:>7} | {line}", kernel.name);
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                outcome.timed_out = true;
                break;
            }
        }
    }
    outcome.took = start.elapsed();
    Ok(outcome)
}

/// A running QEMU; stopped when dropped.
struct Machine(Child);

impl Machine {
    fn start(kernel: &Kernel, initramfs: &Path) -> Result<Self> {
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(["-accel", "tcg,thread=multi", "-cpu", CPU, "-smp", "2", "-m", "1536"])
            .args(["-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"])
            .arg("-kernel")
            .arg(&kernel.image)
            .arg("-initrd")
            .arg(initramfs)
            // Only errors of the kernel; a panic ends the machine at once.
            .args(["-append", "console=ttyS0 loglevel=4 panic=-1 rdinit=/init"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        command.spawn().map(Self).context("cannot run qemu-system-x86_64")
    }

    /// Lines of its console, as they come; the channel closes when it has ended.
    fn lines(&mut self) -> Result<mpsc::Receiver<String>> {
        let console = self.0.stdout.take().context("the machine has no console")?;
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let mut console = BufReader::new(console);
            let mut line = Vec::new();
            while console.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                line.clear();
                if sender.send(text).is_err() {
                    return;
                }
            }
        });
        Ok(receiver)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_says_is_understood_among_other_lines() {
        let mut outcome = Outcome::default();
        for line in [
            "lastpacket-vm: release 5.10.0-46-cloud-amd64",
            "[   1.2] random: crng init donelastpacket-vm: check {\"possible\":true}",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out",
            "lastpacket-vm: exit 0",
        ] {
            outcome.read(line);
        }
        assert_eq!(outcome.release.as_deref(), Some("5.10.0-46-cloud-amd64"));
        assert_eq!(outcome.check.as_ref().unwrap()["possible"], true);
        assert_eq!(outcome.results, ["ok. 3 passed, 0 failed, 1 ignored"]);
        assert!(outcome.passed());
    }
}
