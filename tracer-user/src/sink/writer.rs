//! The queue and the thread behind it.

use std::{
    io::{self, ErrorKind, Write},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::JoinHandle,
};

use thiserror::Error;
use tracer_core::output::{Body, Line};

use super::Render;

/// Bytes of lines that may wait before those about single connections are dropped.
const ROOM: usize = 8 << 20;
/// Bytes beyond that for all others: verdicts, phases, what was lost. They are few.
const RESERVE: usize = 4 << 20;
/// Rendered bytes that are written at once.
const AT_ONCE: usize = 64 << 10;

/// Lines could not be written.
#[derive(Debug, Error)]
pub enum OutputFailed {
    /// The reader closed the pipe.
    #[error("the reader of the output closed it; what was traced until then was written")]
    Closed,
    /// Anything else, such as a full disk.
    #[error("cannot write the output: {0}; make room or write elsewhere")]
    Io(#[source] io::Error),
}

impl From<io::Error> for OutputFailed {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Io(error),
        }
    }
}

/// Where lines go.
pub struct Output {
    queue: Option<Sender<Line>>,
    /// Bytes of the lines that wait in the queue.
    waiting: Arc<AtomicUsize>,
    thread: Option<JoinHandle<Result<(), OutputFailed>>>,
    dropped: u64,
}

impl Output {
    /// Starts a thread that renders lines and writes them.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(render: Box<dyn Render>, to: Box<dyn Write + Send>) -> io::Result<Self> {
        let (queue, lines) = channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let written = Arc::clone(&waiting);
        let thread = std::thread::Builder::new()
            .name("output".to_owned())
            .spawn(move || write_all(&lines, &written, render, to))?;
        Ok(Self { queue: Some(queue), waiting, thread: Some(thread), dropped: 0 })
    }

    /// Queues lines, and never waits: a reader that is stuck holds up nothing. Lines that find no room
    /// are dropped and counted; there is room for verdicts and the like where there is none left for
    /// lines about single connections.
    ///
    /// # Errors
    /// If writing failed before.
    pub fn send(&mut self, lines: impl IntoIterator<Item = Line>) -> Result<(), OutputFailed> {
        for line in lines {
            let limit = if is_about_a_connection(&line) { ROOM } else { ROOM + RESERVE };
            if self.waiting.load(Ordering::Relaxed) < limit {
                self.queue_line(line)?;
            } else {
                self.dropped += 1;
            }
        }
        Ok(())
    }

    fn queue_line(&mut self, line: Line) -> Result<(), OutputFailed> {
        self.waiting.fetch_add(bytes_of(&line), Ordering::Relaxed);
        let is_gone = self.queue.as_ref().is_some_and(|queue| queue.send(line).is_err());
        if is_gone { self.end() } else { Ok(()) }
    }

    /// Lines dropped since the last call.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// Whether a line that tells of lost ones would not be lost itself.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) < ROOM + RESERVE
    }

    /// Queues the last lines, whatever waits, writes all and ends the thread.
    ///
    /// # Errors
    /// If writing failed.
    pub fn finish(mut self, last: impl IntoIterator<Item = Line>) -> Result<(), OutputFailed> {
        last.into_iter().try_for_each(|line| self.queue_line(line))?;
        self.end()
    }

    fn end(&mut self) -> Result<(), OutputFailed> {
        self.queue = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(OutputFailed::Io(io::Error::other("the writing thread panicked"))),
            None => Ok(()),
        }
    }
}

/// Of these there may be any number.
fn is_about_a_connection(line: &Line) -> bool {
    matches!(line.body, Body::ConnectionOpened(_) | Body::ConnectionClosed(_) | Body::Reset(_))
}

/// What a line takes of memory. Only verdicts, and what clients of a rehearsal saw, hold long lists;
/// names are shared.
fn bytes_of(line: &Line) -> usize {
    let lists = match &line.body {
        Body::Verdict(verdict) => size_of_val(&**verdict) + size_of_val(verdict.peers.each.as_slice()),
        Body::Rehearsal(clients) => size_of_val(&**clients) + size_of_val(clients.failures.as_slice()),
        _ => 0,
    };
    size_of_val(line) + lists
}

fn write_all(
    lines: &Receiver<Line>,
    waiting: &AtomicUsize,
    mut render: Box<dyn Render>,
    mut to: Box<dyn Write + Send>,
) -> Result<(), OutputFailed> {
    let mut bytes = Vec::with_capacity(AT_ONCE);
    while let Ok(first) = lines.recv() {
        let mut next = Some(first);
        while let Some(line) = next {
            render.line(&line, &mut bytes);
            waiting.fetch_sub(bytes_of(&line), Ordering::Relaxed);
            next = if bytes.len() < AT_ONCE { lines.try_recv().ok() } else { None };
        }
        flush(&mut bytes, &mut to)?;
    }
    render.end(&mut bytes);
    flush(&mut bytes, &mut to)
}

fn flush(bytes: &mut Vec<u8>, to: &mut impl Write) -> Result<(), OutputFailed> {
    let written = to.write_all(bytes).and_then(|()| to.flush());
    bytes.clear();
    Ok(written?)
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashMap,
        sync::Mutex,
        time::{Duration, Instant},
    };

    use tracer_core::{
        Tracer,
        input::Clock,
        output::{Container, Endpoint, LostEvent, Network, NetworkType, ResetEvent},
        target::Rules,
        tracer::Identity,
        words::{Direction, Hop, Origin, Phase, Role},
    };

    use super::*;
    use crate::sink::jsonl::JsonLines;

    /// A reader that takes nothing until it is let.
    struct Stuck(Receiver<()>, Arc<Mutex<Vec<u8>>>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // When the other end is gone it takes all.
            let _ = self.0.recv();
            self.1.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Makes lines of a run.
    fn scribe() -> impl FnMut(Body) -> Line {
        let identity = Identity { node: "node".into(), run_id: "run".into() };
        let rules = Rules { quiet: 0, reset_reasons: HashMap::new(), curr_estab: None };
        let mut tracer = Tracer::new(identity, rules, Clock::default());
        move |body| {
            let mut lines = Vec::new();
            tracer.announce(0, body, &mut lines);
            lines.remove(0)
        }
    }

    fn reset() -> Body {
        let endpoint = Endpoint { address: [10, 0, 0, 1].into(), port: 80 };
        Body::Reset(ResetEvent {
            container: Container { name: "web".into() },
            phase: Phase::Running,
            cause: None,
            direction: Direction::Sent,
            reason: None,
            segment: None,
            network: Network { kind: NetworkType::Ipv4, local: endpoint, peer: endpoint },
            role: Role::Server,
            origin: Origin::Peer,
            hop: Hop::External,
            ending: None,
            confidence: None,
        })
    }

    fn lost() -> Body {
        let (stage, reason) = ("sink".to_owned(), "slow_reader".to_owned());
        Body::Lost(LostEvent { stage, reason, hook: None, count: 1 })
    }

    #[test]
    fn a_reader_that_is_stuck_holds_up_nothing_and_there_is_room_for_what_matters() {
        let (let_go, stuck) = channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        let reader = Stuck(stuck, Arc::clone(&written));
        let mut output = Output::start(Box::new(JsonLines), Box::new(reader)).unwrap();
        let (mut line, began) = (scribe(), Instant::now());
        let sent = 2 * ROOM / size_of::<Line>();
        output.send((0..sent).map(|_| line(reset()))).unwrap();
        let dropped = output.take_dropped();
        assert!(dropped > 0 && output.has_room(), "{dropped} of {sent} were dropped");
        let bytes = output.waiting.load(Ordering::Relaxed);
        assert!(bytes < ROOM + size_of::<Line>(), "{bytes} bytes wait");

        output.send([line(lost())]).unwrap();
        assert_eq!(output.take_dropped(), 0, "there is room for it");
        output.send((0..sent).map(|_| line(lost()))).unwrap();
        let beyond = output.take_dropped();
        assert!(beyond > 0 && !output.has_room(), "that room ends too");
        assert!(output.waiting.load(Ordering::Relaxed) < ROOM + RESERVE + size_of::<Line>());
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());

        let last = line(lost());
        let seq = format!("\"seq\":{},", last.seq);
        drop(let_go);
        output.finish([last]).unwrap();
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count() as u64 + dropped + beyond, 2 * sent as u64 + 2);
        assert!(text.lines().last().unwrap().contains(&seq), "the last line is written whatever waits");
    }
}
