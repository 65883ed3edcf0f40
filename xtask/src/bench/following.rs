//! An agent that runs without the API, and what it tells of its targets.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

/// As much as a busy machine needs for a thousand pods.
const PATIENCE: Duration = Duration::from_secs(120);

/// See the module; ended when dropped.
pub(crate) struct Following {
    child: Child,
    started: Receiver<Instant>,
    verdicts: Receiver<Instant>,
}

impl Following {
    /// Starts it; the pods that are there come into scope.
    pub(crate) fn start(lastpacket: &Path) -> Result<Self> {
        let mut child = Command::new(lastpacket)
            .args(["agent", "--without-api", "--listen", "127.0.0.1:0", "--format", "json"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run lastpacket")?;
        let stdout = child.stdout.take().context("lastpacket has no output")?;
        let ((tell_started, started), (tell_verdict, verdicts)) = (channel(), channel());
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let teller = if line.contains("\"type\":\"target_started\"") {
                    &tell_started
                } else if line.contains("\"type\":\"verdict\"") {
                    &tell_verdict
                } else {
                    continue;
                };
                // Nobody may be interested any more.
                let _ = teller.send(Instant::now());
            }
        });
        Ok(Self { child, started, verdicts })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until so many more targets are in scope.
    pub(crate) fn wait_for_targets(&self, count: usize) -> Result<()> {
        wait(&self.started, count).map(drop).with_context(|| format!("{count} pods did not come into scope"))
    }

    /// Waits for so many more verdicts; when the last came.
    pub(crate) fn wait_for_verdicts(&self, count: usize) -> Result<Instant> {
        wait(&self.verdicts, count).with_context(|| format!("there were no {count} verdicts"))
    }
}

fn wait(receiver: &Receiver<Instant>, count: usize) -> Result<Instant> {
    let mut last = Instant::now();
    for _ in 0..count {
        last = receiver.recv_timeout(PATIENCE)?;
    }
    Ok(last)
}

impl Drop for Following {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
