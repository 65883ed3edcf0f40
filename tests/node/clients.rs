//! Clients in a network namespace of their own: what each of them saw, with its end of the connection.

use std::{
    io::{ErrorKind, Read, Write},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use lastpacket_tests::netns::Namespace;
use socket2::{Domain, SockAddr, Socket, Type};

/// No answer takes longer, unless none comes.
const PATIENCE: Duration = Duration::from_secs(6);
/// Between two requests of a client.
const PAUSE: Duration = Duration::from_millis(15);

/// No two connections share a client's end, so that it tells which is meant.
static NEXT_PORT: AtomicU16 = AtomicU16::new(10_000);

/// How a request ended for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// The whole answer came.
    Answered,
    /// Nothing listened.
    Refused,
    /// The connection was reset.
    Reset,
    /// The connection was closed before the whole answer had come.
    Closed,
    /// Nothing came any more: the network was gone, or nobody answered.
    Silence,
}

/// A request as its client saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The client's end.
    pub local: SocketAddr,
    /// CLOCK_MONOTONIC in nanoseconds.
    pub began: u64,
    pub ended: u64,
    pub outcome: Outcome,
}

/// How a client behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A connection for each request.
    Short,
    /// One connection for all requests, as long as the server keeps it.
    KeepAlive,
    /// Asks for what takes the server two seconds, at this path.
    Slow(&'static str),
}

/// Clients at work.
pub struct Clients {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<Vec<Seen>>>>,
}

impl Clients {
    /// Starts one of each of these kinds.
    pub fn start(from: &Namespace, server: SocketAddr, kinds: &[Kind]) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let spawn = |kind: Kind| {
            let stop = Arc::clone(&stop);
            // A thread stays in the namespace in which it was started.
            from.enter(move || Ok(thread::spawn(move || Client { server, kind }.work(&stop))))
        };
        let threads = kinds.iter().map(|kind| spawn(*kind)).collect::<Result<_>>()?;
        Ok(Self { stop, threads })
    }

    /// Lets them finish the requests that they are at, and gives what all of them saw.
    pub fn finish(self) -> Result<Vec<Seen>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut seen = Vec::new();
        for thread in self.threads {
            seen.extend(thread.join().map_err(|_| anyhow!("a client panicked"))??);
        }
        Ok(seen)
    }
}

/// CLOCK_MONOTONIC in nanoseconds, as lines have it.
pub fn now() -> Result<u64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec, valid during the call.
    ensure!(unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) } == 0, "no clock");
    Ok(u64::try_from(time.tv_sec)? * 1_000_000_000 + u64::try_from(time.tv_nsec)?)
}

struct Client {
    server: SocketAddr,
    kind: Kind,
}

impl Client {
    fn work(&self, stop: &AtomicBool) -> Result<Vec<Seen>> {
        let (mut seen, mut kept) = (Vec::new(), None);
        while !stop.load(Ordering::Relaxed) {
            let began = now()?;
            let (local, socket) = match kept.take().filter(is_open) {
                Some(socket) => (local(&socket)?, Ok(socket)),
                None => self.connect()?,
            };
            let outcome = match socket {
                Ok(socket) => {
                    let outcome = self.ask(&socket);
                    if outcome == Outcome::Answered && self.kind == Kind::KeepAlive {
                        kept = Some(socket);
                    }
                    outcome
                }
                Err(outcome) => outcome,
            };
            seen.push(Seen { local, began, ended: now()?, outcome });
            thread::sleep(PAUSE);
        }
        Ok(seen)
    }

    /// A connection, or why there is none, and in each case its own end.
    fn connect(&self) -> Result<(SocketAddr, Result<Socket, Outcome>)> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        let port = NEXT_PORT.fetch_add(1, Ordering::Relaxed);
        socket.bind(&SockAddr::from(SocketAddr::from(([0, 0, 0, 0], port))))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let connected = socket.connect_timeout(&self.server.into(), PATIENCE);
        let local = SocketAddr::new(crate::network::CLIENT.into(), port);
        Ok((local, connected.map(|()| socket).map_err(|error| outcome(&error))))
    }

    /// Sends a request and reads its answer.
    fn ask(&self, mut socket: &Socket) -> Outcome {
        let (path, connection) = match self.kind {
            Kind::Short => ("/", "close"),
            Kind::KeepAlive => ("/", "keep-alive"),
            Kind::Slow(path) => (path, "close"),
        };
        let request = format!("GET {path} HTTP/1.1\r\nHost: pod\r\nConnection: {connection}\r\n\r\n");
        if let Err(error) = socket.write_all(request.as_bytes()) {
            return outcome(&error);
        }
        let (mut answer, mut buffer) = (Vec::new(), [0; 8192]);
        loop {
            match socket.read(&mut buffer) {
                Ok(0) => return if is_whole(&answer, true) { Outcome::Answered } else { Outcome::Closed },
                Ok(bytes) => answer.extend_from_slice(&buffer[..bytes]),
                Err(error) => return outcome(&error),
            }
            if is_whole(&answer, false) {
                return Outcome::Answered;
            }
        }
    }
}

fn local(socket: &Socket) -> Result<SocketAddr> {
    socket.local_addr()?.as_socket().context("no address")
}

/// The server has not closed it while it was idle.
fn is_open(socket: &Socket) -> bool {
    let _ = socket.set_nonblocking(true);
    let peeked = socket.peek(&mut [std::mem::MaybeUninit::uninit()]);
    let _ = socket.set_nonblocking(false);
    peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

/// Header and body have come; without a length, the end of the connection ends the body.
fn is_whole(answer: &[u8], at_end: bool) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((header, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = header.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    // The slow script's answer has no length and ends with its only word.
    length.map_or(at_end && body.ends_with("slow\n"), |length| body.len() >= length)
}

fn outcome(error: &std::io::Error) -> Outcome {
    match error.kind() {
        ErrorKind::ConnectionRefused => Outcome::Refused,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Outcome::Reset,
        _ => Outcome::Silence,
    }
}
