//! The queue and the thread behind it.

use std::{
    io::{self, ErrorKind, Write},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
};

use thiserror::Error;
use tracer_core::output::Line;

use super::Render;

/// Batches that may wait. A batch is what one turn of the pipeline made.
const QUEUE: usize = 4096;
/// Lines that may wait: more than a full ring buffer of the default size makes at once, some 10 MiB.
const LINES: usize = 1 << 15;

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
    queue: Option<SyncSender<Vec<Line>>>,
    /// Lines in the queue.
    waiting: Arc<AtomicUsize>,
    /// Batches in the queue.
    batches: Arc<AtomicUsize>,
    thread: Option<JoinHandle<Result<(), OutputFailed>>>,
    dropped: u64,
}

impl Output {
    /// Starts a thread that renders lines and writes them.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(render: Box<dyn Render>, to: Box<dyn Write + Send>) -> io::Result<Self> {
        let (queue, lines) = sync_channel(QUEUE);
        let (waiting, batches) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let left = (Arc::clone(&waiting), Arc::clone(&batches));
        let thread = std::thread::Builder::new()
            .name("output".to_owned())
            .spawn(move || write_all(&lines, &left, render, to))?;
        Ok(Self { queue: Some(queue), waiting, batches, thread: Some(thread), dropped: 0 })
    }

    /// Whether so many lines in one batch find room now. Nobody else fills it.
    #[must_use]
    pub fn has_room(&self, lines: usize) -> bool {
        self.waiting.load(Ordering::Relaxed) + lines <= LINES && self.batches.load(Ordering::Relaxed) < QUEUE
    }

    /// Queues lines. When the queue is full they are dropped and counted.
    ///
    /// # Errors
    /// If writing failed before.
    pub fn send(&mut self, lines: Vec<Line>) -> Result<(), OutputFailed> {
        let count = lines.len();
        let has_room = self.has_room(count);
        let Some(queue) = &self.queue else { return Ok(()) };
        if !has_room {
            self.dropped += count as u64;
            return Ok(());
        }
        self.count(count);
        // There is room, by the count: it waits for nobody.
        match queue.send(lines) {
            Ok(()) => Ok(()),
            Err(_) => self.finish(),
        }
    }

    /// Queues lines that must not be dropped, such as verdicts: waits for room.
    ///
    /// # Errors
    /// If writing failed before.
    pub fn send_surely(&mut self, lines: Vec<Line>) -> Result<(), OutputFailed> {
        self.count(lines.len());
        match self.queue.as_ref().map(|queue| queue.send(lines)) {
            Some(Err(_)) => self.finish(),
            _ => Ok(()),
        }
    }

    fn count(&self, lines: usize) {
        self.waiting.fetch_add(lines, Ordering::Relaxed);
        self.batches.fetch_add(1, Ordering::Relaxed);
    }

    /// Lines dropped since the last call.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// Writes what is queued and ends the thread.
    ///
    /// # Errors
    /// If writing failed.
    pub fn finish(&mut self) -> Result<(), OutputFailed> {
        self.queue = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(OutputFailed::Io(io::Error::other("the writing thread panicked"))),
            None => Ok(()),
        }
    }
}

fn write_all(
    lines: &Receiver<Vec<Line>>,
    (waiting, batches): &(Arc<AtomicUsize>, Arc<AtomicUsize>),
    mut render: Box<dyn Render>,
    mut to: Box<dyn Write + Send>,
) -> Result<(), OutputFailed> {
    let mut bytes = Vec::new();
    let mut flush = |bytes: &mut Vec<u8>| {
        let written = to.write_all(bytes).and_then(|()| to.flush());
        bytes.clear();
        written.map_err(OutputFailed::from)
    };
    while let Ok(batch) = lines.recv() {
        batches.fetch_sub(1, Ordering::Relaxed);
        for line in &batch {
            render.line(line, &mut bytes);
        }
        flush(&mut bytes)?;
        waiting.fetch_sub(batch.len(), Ordering::Relaxed);
    }
    render.end(&mut bytes);
    flush(&mut bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tracer_core::{
        Tracer,
        input::Clock,
        output::{Body, TargetEnded},
        target::Rules,
        tracer::Identity,
    };

    use super::*;
    use crate::sink::jsonl::JsonLines;

    /// Somebody who reads nothing until the other end of the channel is gone.
    struct Stuck(Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn batch(lines: usize) -> Vec<Line> {
        let identity = Identity { node: "node".into(), run_id: "run".into() };
        let rules = Rules { quiet: 0, reset_reasons: Default::default(), curr_estab: None };
        let (mut tracer, mut batch) = (Tracer::new(identity, rules, Clock::default()), Vec::new());
        for _ in 0..lines {
            tracer.announce(0, Body::TargetEnded(TargetEnded { reason: String::new() }), &mut batch);
        }
        batch
    }

    #[test]
    fn what_a_stuck_reader_does_not_take_is_bounded_and_counted() {
        let (release, stuck) = mpsc::channel();
        let mut output = Output::start(Box::new(JsonLines), Box::new(Stuck(stuck))).unwrap();
        let sent = LINES / 1000 + 3;
        for _ in 0..sent {
            output.send(batch(1000)).unwrap();
        }
        assert_eq!(output.take_dropped(), 3_000, "all but what fits");
        drop(release);
        output.finish().unwrap();
    }
}
