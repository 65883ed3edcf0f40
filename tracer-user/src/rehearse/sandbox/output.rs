//! The end of what the server wrote, kept to be shown when it fails.

use std::{
    collections::VecDeque,
    fs::File,
    io::{Read, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Result;
use tokio::{sync::watch, time::timeout};

const KEPT_BYTES: usize = 64 * 1024;
/// How long to wait for the last words of a process that has ended.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// The last 64 KiB of stdout and stderr, interleaved as they came.
#[derive(Clone)]
pub struct OutputTail {
    kept: Arc<Mutex<VecDeque<u8>>>,
    open_pipes: watch::Sender<usize>,
}

impl OutputTail {
    pub(crate) fn new() -> Self {
        Self { kept: Arc::default(), open_pipes: watch::Sender::new(0) }
    }

    /// Waits until all was read; not for long, as a child may have inherited the pipes.
    pub(crate) async fn complete(&self) {
        let mut open_pipes = self.open_pipes.subscribe();
        let _ = timeout(LAST_WORDS, open_pipes.wait_for(|open| *open == 0)).await;
    }

    /// The last `count` lines.
    #[must_use]
    pub fn last_lines(&self, count: usize) -> String {
        let kept: Vec<u8> = self.lock().iter().copied().collect();
        let text = String::from_utf8_lossy(&kept);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }

    /// Reads `pipe` to its end on a thread of its own, passing everything on to `log`.
    pub(crate) fn follow(
        &self,
        mut pipe: impl Read + Send + 'static,
        mut log: Option<File>,
    ) -> Result<JoinHandle<()>> {
        let tail = self.clone();
        tail.open_pipes.send_modify(|open| *open += 1);
        let thread = std::thread::Builder::new().name("lp-output".to_owned()).spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = pipe.read(&mut buffer) {
                tail.append(&buffer[..length]);
                if let Some(file) = &mut log {
                    // A full disk must not stop the server, which a blocked pipe would.
                    let _ = file.write_all(&buffer[..length]);
                }
            }
            tail.open_pipes.send_modify(|open| *open -= 1);
        })?;
        Ok(thread)
    }

    fn append(&self, bytes: &[u8]) {
        let mut kept = self.lock();
        kept.extend(bytes);
        let excess = kept.len().saturating_sub(KEPT_BYTES);
        kept.drain(..excess);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<u8>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_bytes_and_lines() {
        let tail = OutputTail::new();
        tail.append(&vec![b'x'; KEPT_BYTES]);
        tail.append(b"\none\ntwo\nthree\n");
        assert_eq!(tail.last_lines(2), "two\nthree");
        assert_eq!(tail.lock().len(), KEPT_BYTES);
    }
}
