//! The end clients: loops of short requests that never try again, and curl for long ones.

use std::{
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{Ipv4Addr, TcpStream},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle, sleep},
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use serde::Serialize;

use crate::stage::{BALANCER, Stage, address};

/// A short request, which takes 100 ms at the backend.
const QUESTION: &str = "GET /?ms=100 HTTP/1.1\r\nHost: gateway.example\r\nUser-Agent: lastpacket-scenario\r\n\
                        Accept: */*\r\n\r\n";
const THINK: Duration = Duration::from_millis(20);

/// What clients saw of their requests.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Seen {
    /// Answers other than 5xx.
    pub answered: u64,
    /// 5xx answers.
    pub errors: u64,
    /// Requests without a whole answer.
    pub broken: u64,
    /// Those among them without a byte of it.
    pub silent: u64,
    /// What was the matter with those.
    pub causes: Vec<String>,
}

/// Loops that run until they are stopped.
pub struct Loops {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<Seen>>>,
}

impl Loops {
    /// Starts `count` clients, each with a connection that it keeps.
    pub fn start(stage: &Stage, count: usize) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for _ in 0..count {
            let stop = Arc::clone(&stop);
            threads.push(stage.clients.enter(|| Ok(thread::spawn(move || request_until(&stop))))?);
        }
        Ok(Self { stop, threads })
    }

    /// Ends them; what they saw.
    pub fn stop(self) -> Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        let mut sum = Seen::default();
        for thread in self.threads {
            let seen = thread.join().map_err(|_| anyhow!("a client panicked"))??;
            sum.answered += seen.answered;
            sum.errors += seen.errors;
            sum.broken += seen.broken;
            sum.silent += seen.silent;
            sum.causes.extend(seen.causes);
        }
        Ok(sum)
    }
}

/// One client. A thread is in the namespace of the one that started it.
fn request_until(stop: &AtomicBool) -> Result<Seen> {
    let mut seen = Seen::default();
    let mut connection = None;
    while !stop.load(Ordering::Relaxed) {
        let mut began = false;
        match request(&mut connection, &mut began) {
            Ok(500..) => seen.errors += 1,
            Ok(_) => seen.answered += 1,
            Err(error) => {
                connection = None;
                seen.broken += 1;
                seen.silent += u64::from(!began);
                seen.causes.push(error.to_string());
            }
        }
        sleep(THINK);
    }
    Ok(seen)
}

/// A request on the connection, which is opened if there is none; its status. `began` tells whether any
/// of the answer came.
fn request(connection: &mut Option<BufReader<TcpStream>>, began: &mut bool) -> std::io::Result<u16> {
    let mut stream = match connection.take() {
        Some(stream) => stream,
        None => BufReader::new(TcpStream::connect((balancer(), 80))?),
    };
    stream.get_ref().set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.get_mut().write_all(QUESTION.as_bytes())?;
    let (mut status, mut length, mut close) = (0, None, false);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        *began = true;
        let line = line.trim_end().to_ascii_lowercase();
        match line.split_once(": ") {
            _ if line.is_empty() => break,
            Some(("content-length", value)) => length = value.parse().ok(),
            Some(("connection", "close")) => close = true,
            Some(_) => {}
            None => status = line.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0),
        }
    }
    match length {
        Some(length) => stream.read_exact(&mut vec![0; length])?,
        None => drop(stream.read_to_end(&mut Vec::new())?),
    }
    *connection = Some(stream).filter(|_| !close && length.is_some());
    Ok(status)
}

/// A request by curl that goes on.
pub struct Curl(Child);

/// How a request by curl ended.
#[derive(Debug, Serialize)]
pub struct Got {
    /// curl's exit code.
    pub code: i32,
    /// The status, 0 if there was none.
    pub status: u16,
    /// Lines of the body.
    pub lines: usize,
}

impl Curl {
    /// Starts one; `words` come before the URL `SCHEME://balancer PATH`.
    pub fn start(stage: &Stage, words: &[&str], scheme: &str, path: &str) -> Result<Self> {
        let url = format!("{scheme}://{}{path}", balancer());
        let format = "\n%{http_code}";
        stage.clients.enter(|| {
            let mut curl = Command::new("curl");
            curl.args(["--silent", "--insecure", "--no-buffer", "--max-time", "100", "--write-out", format]);
            curl.args(words).arg(url).stdin(Stdio::null()).stdout(Stdio::piped());
            Ok(Self(curl.spawn().context("cannot run curl")?))
        })
    }

    /// Waits for its end.
    pub fn wait(self) -> Result<Got> {
        let ended = self.0.wait_with_output()?;
        let text = String::from_utf8_lossy(&ended.stdout).into_owned();
        let (body, status) = text.rsplit_once('\n').unwrap_or(("", "0"));
        let lines = body.lines().filter(|line| !line.is_empty()).count();
        Ok(Got { code: ended.status.code().unwrap_or(-1), status: status.parse().unwrap_or(0), lines })
    }
}

fn balancer() -> Ipv4Addr {
    address(BALANCER)
}
