//! Running the program and looking at how it ends.

use std::{
    ffi::OsStr,
    fs,
    io::Read,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
};

use anyhow::{Context, Result, ensure};
use lastpacket_tests::{binary, leftovers::Mark};

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// A command line of `lastpacket`.
pub fn lastpacket<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Result<Command> {
    let mut command = Command::new(binary::lastpacket()?);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

/// Runs a command to its end; nothing may be left of it.
pub fn run(command: Command) -> Result<Ended> {
    let (ended, mark, pid) = run_marked(command)?;
    mark.ensure_nothing_left(pid)?;
    Ok(ended)
}

fn run_marked(mut command: Command) -> Result<(Ended, Mark, u32)> {
    let mark = Mark::on(&mut command);
    let child = command.spawn().with_context(|| format!("cannot run {command:?}"))?;
    let pid = child.id();
    Ok((end(child)?, mark, pid))
}

/// Waits for the end of a child and reads what it said.
pub fn end(mut child: Child) -> Result<Ended> {
    let stdout = child.stdout.take();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        stdout.map_or(Ok(0), |mut stdout| stdout.read_to_string(&mut text)).map(|_| text)
    });
    let mut stderr = String::new();
    child.stderr.take().context("no stderr")?.read_to_string(&mut stderr)?;
    let stdout = reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
    Ok(Ended { status: child.wait()?, stdout, stderr })
}

/// The program failed with exit code 2 and one sentence that says all of this.
pub fn ensure_one_sentence(ended: &Ended, wanted: &[&str]) -> Result<()> {
    ensure_failed(ended, wanted)?;
    ensure!(ended.stderr.starts_with("lastpacket: "), "it does not say who speaks: {}", ended.stderr);
    ensure!(ended.stderr.lines().count() == 1, "more than one line: {}", ended.stderr);
    Ok(())
}

/// The program failed with exit code 2 and a message that says all of this.
pub fn ensure_failed(ended: &Ended, wanted: &[&str]) -> Result<()> {
    ensure!(!ended.stderr.contains("panicked"), "it panicked: {}", ended.stderr);
    ensure!(ended.status.code() == Some(2), "{}: {}", ended.status, ended.stderr);
    for words in wanted {
        ensure!(ended.stderr.contains(words), "{words:?} is not in: {}", ended.stderr);
    }
    Ok(())
}

/// A copy of the program where everybody can reach it.
pub struct Copy(pub PathBuf);

impl Copy {
    pub fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("lastpacket-cli-{}", std::process::id()));
        fs::copy(binary::lastpacket()?, &path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// Runs it as nobody, without any capability.
    pub fn as_nobody(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--bounding-set=-all"]);
        command.arg("--no-new-privs").arg(&self.0).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
