//! A run of `lastpacket rollout`, and how it ended.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::Value;

/// Nothing that a test waits for takes longer.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A run of `lastpacket rollout`; dropping it kills it.
pub struct Watch {
    child: Child,
    stdout: Stream,
    stderr: Stream,
}

/// What it has written until now.
struct Stream {
    text: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
}

/// How it ended.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Watch {
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = Stream::read(child.stdout.take().unwrap());
        let stderr = Stream::read(child.stderr.take().unwrap());
        Self { child, stdout, stderr }
    }

    /// Waits until it has written this: a row goes to stdout, or to stderr where a report is made.
    pub fn wait_for(&self, words: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.text().contains(words) {
            self.ensure_running();
            assert!(Instant::now() < deadline, "{words} is not in: {}", self.text());
            thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn ensure_running(&self) {
        assert!(!self.stdout.reader.is_finished(), "it ended before its time: {}", self.text());
    }

    fn text(&self) -> String {
        self.stdout.text.lock().unwrap().clone() + &self.stderr.text.lock().unwrap()
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end: {}", self.text());
            thread::sleep(Duration::from_millis(20));
        };
        for stream in [&self.stdout, &self.stderr] {
            while !stream.reader.is_finished() {
                thread::sleep(Duration::from_millis(5));
            }
        }
        let text = |stream: &Stream| stream.text.lock().unwrap().clone();
        Ended { status, stdout: text(&self.stdout), stderr: text(&self.stderr) }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Stream {
    fn read(pipe: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let seen = Arc::clone(&text);
        let reader = thread::spawn(move || {
            for line in BufReader::new(pipe).lines() {
                *seen.lock().unwrap() += &(line.unwrap() + "\n");
            }
        });
        Self { text, reader }
    }
}

impl Ended {
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// The JSON lines that it wrote.
    pub fn lines(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The pods that have rows, with their verdicts.
    pub fn results(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let lines = self.lines();
        let pods = lines.iter().filter(|line| line["type"] == "pod");
        pods.map(|line| (text(&line["pod"]), text(&line["result"]))).collect()
    }

    /// Why a pod has its verdict.
    pub fn reasons(&self, pod: &str) -> String {
        let lines = self.lines();
        let row = lines.iter().find(|line| line["pod"] == pod).unwrap();
        row["reasons"].to_string()
    }

    /// The last line.
    pub fn total(&self) -> Value {
        self.lines().pop().unwrap()
    }
}
