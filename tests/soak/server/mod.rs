//! A server that misbehaves as it is told to: plain HTTP/1.1, a thread for each connection.

mod answer;
mod open;
mod stop;

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use socket2::{Domain, Protocol, Socket, Type};

use self::open::Open;

/// Where it takes traffic.
pub const PORT: u16 = 8080;
/// Clients of a listener that is never accepted from have to wait in a queue this long.
const SHORT_BACKLOG: i32 = 2;

/// What it does at SIGTERM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Behaviour {
    /// Answers until traffic has stopped, with `Connection: close`, and exits.
    Drain,
    /// Exits at once.
    Exit,
    /// Nothing.
    Ignore,
    /// Aborts all connections by `SO_LINGER` 0 and its exit.
    Linger,
    /// Aborts all connections by its own act, and exits later.
    Disconnect,
    /// Sends a FIN on all connections, and exits later.
    HalfClose,
    /// Reads slowly all the time, and exits at once.
    SlowReader,
    /// Accepts no more, and exits later.
    Backlog,
    /// Accepts no more with a short queue, for so long that clients give up.
    BacklogFull,
    /// Two workers serve; they exit at once.
    Workers,
    /// Two workers serve; only the first process exits, and the kernel kills the workers.
    Orphans,
    /// Runs itself anew with the listener, and exits later.
    Reexec,
    /// Two listeners on one port; one is closed before the exit.
    Listeners,
    /// Closes connections in the middle of answers, and exits later.
    MidResponse,
    /// Closes its listener at once, and answers what is in flight.
    CloseListener,
}

impl Behaviour {
    /// All of them.
    pub const ALL: [(Self, &'static str); 15] = [
        (Self::Drain, "drain"),
        (Self::Exit, "exit"),
        (Self::Ignore, "ignore"),
        (Self::Linger, "linger-0"),
        (Self::Disconnect, "disconnect"),
        (Self::HalfClose, "half-close"),
        (Self::SlowReader, "slow-reader"),
        (Self::Backlog, "backlog"),
        (Self::BacklogFull, "backlog-full"),
        (Self::Workers, "workers"),
        (Self::Orphans, "orphans"),
        (Self::Reexec, "re-exec"),
        (Self::Listeners, "listeners"),
        (Self::MidResponse, "mid-response"),
        (Self::CloseListener, "close-listener"),
    ];

    /// Its name on the command line and in tables.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(behaviour, _)| *behaviour == self).map_or("", |(_, name)| name)
    }
}

/// What the threads of a server share.
struct Server {
    behaviour: Behaviour,
    open: Open,
    /// Told to stop.
    stopping: AtomicBool,
    /// Takes no more connections.
    deaf: AtomicBool,
    /// Requests being answered.
    in_flight: AtomicUsize,
    started: Instant,
    /// When the last request began or ended, in ms since the start.
    last: AtomicUsize,
}

impl Server {
    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    fn touch(&self) {
        self.last.store(self.now(), Ordering::SeqCst);
    }

    fn now(&self) -> usize {
        usize::try_from(self.started.elapsed().as_millis()).unwrap_or(usize::MAX)
    }
}

/// Plays the role that the words after `child` name.
///
/// # Errors
/// If it cannot listen, or there is no such role.
pub fn play(words: &[String]) -> Result<()> {
    // Before there are other threads: all are to leave these signals to the one that waits for them.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.thread_block()?;
    let name = words.first().context("no role")?;
    let (behaviour, _) =
        Behaviour::ALL.into_iter().find(|(_, known)| known == name).context("no such role")?;
    match words.get(1).map(String::as_str) {
        Some("worker") => return serve(behaviour, vec![inherited()?], signals),
        Some("anew") => return serve(Behaviour::Exit, vec![inherited()?], signals),
        _ => {}
    }
    match behaviour {
        Behaviour::Workers | Behaviour::Orphans => stop::with_workers(behaviour, &listen(128)?, signals),
        Behaviour::Listeners => serve(behaviour, vec![listen(128)?, listen(128)?], signals),
        Behaviour::BacklogFull => serve(behaviour, vec![listen(SHORT_BACKLOG)?], signals),
        _ => serve(behaviour, vec![listen(128)?], signals),
    }
}

fn inherited() -> Result<TcpListener> {
    Ok(TcpListener::from(std::io::stdin().as_fd().try_clone_to_owned()?))
}

fn listen(backlog: i32) -> Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)).into())?;
    socket.listen(backlog)?;
    Ok(socket.into())
}

fn serve(behaviour: Behaviour, listeners: Vec<TcpListener>, signals: SigSet) -> Result<()> {
    let server = Arc::new(Server {
        behaviour,
        open: Open::default(),
        stopping: AtomicBool::new(false),
        deaf: AtomicBool::new(false),
        in_flight: AtomicUsize::new(0),
        started: Instant::now(),
        last: AtomicUsize::new(0),
    });
    let accepting: Vec<_> = listeners
        .into_iter()
        .map(|listener| {
            listener.set_nonblocking(true)?;
            let (listener, server) = (Arc::new(listener), Arc::clone(&server));
            let shared = Arc::clone(&listener);
            thread::spawn(move || accept(&shared, &server));
            Ok(listener)
        })
        .collect::<Result<_>>()?;
    loop {
        signals.wait()?;
        if behaviour != Behaviour::Ignore {
            server.stopping.store(true, Ordering::SeqCst);
            return stop::stop(&server, accepting);
        }
    }
}

/// Accepts until told not to.
fn accept(listener: &TcpListener, server: &Arc<Server>) {
    while !server.deaf.load(Ordering::SeqCst) {
        if let Ok((stream, _)) = listener.accept() {
            server.touch();
            let server = Arc::clone(server);
            // A client that goes away ends its own thread only.
            thread::spawn(move || answer::all(stream, &server));
        } else {
            thread::sleep(Duration::from_millis(1));
        }
    }
}
