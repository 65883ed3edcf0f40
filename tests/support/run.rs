//! A run of the real program: started, listened to, and ended.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use tracer_core::output::{Body, Line};

use crate::{binary, process};

/// Nothing that a test waits for takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Lines of a run that failed that are told.
const TOLD: usize = 100;

/// A run that goes on; dropping it kills it.
pub struct Running {
    child: Child,
    lines: Receiver<Result<Line>>,
    seen: Vec<Line>,
    stderr: Option<JoinHandle<String>>,
}

/// A run that has ended.
#[derive(Debug)]
pub struct Run {
    /// How it ended.
    pub status: ExitStatus,
    /// The lines that it wrote.
    pub lines: Vec<Line>,
    /// What it said on stderr.
    pub stderr: String,
}

impl Run {
    /// Keeps the lines of a run that was judged wrongly, in `target/judged-wrongly`; returns where.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn keep(&self, name: &str) -> Result<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/judged-wrongly");
        fs::create_dir_all(&folder)?;
        let file = folder.join(format!("{name}.jsonl"));
        let lines = self.lines.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
        fs::write(&file, lines.join("\n") + "\n")?;
        Ok(file.display().to_string())
    }
}

/// Starts `lastpacket` with these arguments; its output is read as JSON lines.
///
/// # Errors
/// If it cannot be built or started.
pub fn start<A: AsRef<str>>(arguments: &[A]) -> Result<Running> {
    start_as(arguments, |_| {})
}

/// The same, with something of its surroundings prepared.
///
/// # Errors
/// If it cannot be built or started.
pub fn start_as<A: AsRef<str>>(arguments: &[A], prepare: impl FnOnce(&mut Command)) -> Result<Running> {
    let mut command = Command::new(binary::lastpacket()?);
    command.args(arguments.iter().map(AsRef::as_ref));
    prepare(&mut command);
    start_command(command)
}

/// The same for a command that becomes `lastpacket`.
///
/// # Errors
/// If it cannot be started.
pub fn start_command(mut command: Command) -> Result<Running> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("cannot start lastpacket")?;
    let (stdout, mut stderr) =
        (child.stdout.take().context("stdout")?, child.stderr.take().context("stderr")?);
    let (tell, lines) = channel();
    thread::spawn(move || {
        for text in BufReader::new(stdout).lines() {
            let line = text.map_err(Into::into).and_then(|text| {
                serde_json::from_str(&text).with_context(|| format!("no line of the schema: {text}"))
            });
            if tell.send(line).is_err() {
                return;
            }
        }
    });
    let stderr = thread::spawn(move || {
        let mut text = String::new();
        let _ = stderr.read_to_string(&mut text);
        text
    });
    Ok(Running { child, lines, seen: Vec::new(), stderr: Some(stderr) })
}

/// Whether the run said at its start that this kernel cannot show something.
#[must_use]
pub fn cannot_show(run: &Run, what: &str) -> bool {
    run.lines.iter().any(|line| match &line.body {
        Body::AgentStarted(started) => started.cannot_show.iter().any(|class| class.contains(what)),
        _ => false,
    })
}

impl Running {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `count` lines were written that are as wanted, counted from the start.
    ///
    /// # Errors
    /// If the run ends before, or takes too long.
    pub fn wait_for(&mut self, count: usize, wanted: impl Fn(&Body) -> bool) -> Result<()> {
        self.wait_for_lines(count, |line| wanted(&line.body))
    }

    /// The same, where it matters whose lines they are.
    ///
    /// # Errors
    /// If the run ends before, or takes too long.
    pub fn wait_for_lines(&mut self, count: usize, wanted: impl Fn(&Line) -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.seen.iter().filter(|line| wanted(line)).count() < count {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push(line?),
                Err(RecvTimeoutError::Timeout) => bail!("waited too long; {}", self.last_seen()),
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("lastpacket ended: {}", self.stderr().unwrap_or_default());
                }
            }
        }
        Ok(())
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// If it is gone.
    pub fn signal(&self, signal: nix::sys::signal::Signal) -> Result<()> {
        process::signal(self.pid(), signal)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If it takes too long after its last line, or wrote something that is no line.
    pub fn finish(mut self) -> Result<Run> {
        // The lines of a storm alone may take an emulated processor longer to read.
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => self.seen.push(line?),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => bail!("lastpacket did not end; {}", self.last_seen()),
            }
        }
        let status = self.child.wait()?;
        Ok(Run { status, lines: std::mem::take(&mut self.seen), stderr: self.stderr()? })
    }

    /// The end of what was written, to be told.
    fn last_seen(&self) -> String {
        let told = self.seen.len().min(TOLD);
        format!(
            "{} lines seen, the last {told}: {:#?}",
            self.seen.len(),
            &self.seen[self.seen.len() - told..]
        )
    }

    fn stderr(&mut self) -> Result<String> {
        let reader = self.stderr.take().context("stderr was read already")?;
        reader.join().map_err(|_| anyhow!("the reader of stderr panicked"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
