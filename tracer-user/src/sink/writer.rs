//! The queue and the thread behind it.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Write},
    sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    thread::JoinHandle,
};

use thiserror::Error;
use tracer_core::output::Line;

use super::Render;

/// Batches that may wait. A batch is what one turn of the pipeline made.
const QUEUE: usize = 1024;

/// Batches of lines that must not be dropped that may wait beside the queue.
const WAITING: usize = 4096;

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
    /// Lines that must not be dropped and found the queue full, in order.
    waiting: VecDeque<Vec<Line>>,
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
        let thread = std::thread::Builder::new()
            .name("output".to_owned())
            .spawn(move || write_all(&lines, render, to))?;
        Ok(Self { queue: Some(queue), waiting: VecDeque::new(), thread: Some(thread), dropped: 0 })
    }

    /// Queues lines. When the queue is full they are dropped and counted.
    ///
    /// # Errors
    /// If writing failed before.
    pub fn send(&mut self, lines: Vec<Line>) -> Result<(), OutputFailed> {
        self.send_waiting()?;
        let refused = if self.waiting.is_empty() { self.try_send(lines)? } else { Some(lines) };
        self.dropped += refused.map_or(0, |lines| lines.len() as u64);
        Ok(())
    }

    /// Queues lines that must not be dropped, such as verdicts: they wait beside the queue when it is
    /// full, so that a reader that is stuck holds up nothing. Only when far too many wait, the oldest
    /// are dropped and counted.
    ///
    /// # Errors
    /// If writing failed before.
    pub fn send_surely(&mut self, lines: Vec<Line>) -> Result<(), OutputFailed> {
        self.waiting.push_back(lines);
        self.send_waiting()?;
        if self.waiting.len() > WAITING {
            self.dropped += self.waiting.pop_front().map_or(0, |lines| lines.len() as u64);
        }
        Ok(())
    }

    fn send_waiting(&mut self) -> Result<(), OutputFailed> {
        while let Some(lines) = self.waiting.pop_front() {
            if let Some(refused) = self.try_send(lines)? {
                self.waiting.push_front(refused);
                break;
            }
        }
        Ok(())
    }

    /// Gives lines back for which the queue has no room.
    fn try_send(&mut self, lines: Vec<Line>) -> Result<Option<Vec<Line>>, OutputFailed> {
        match self.queue.as_ref().map(|queue| queue.try_send(lines)) {
            Some(Err(TrySendError::Full(lines))) => Ok(Some(lines)),
            Some(Err(TrySendError::Disconnected(_))) => self.finish().map(|()| None),
            Some(Ok(())) | None => Ok(None),
        }
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
        if let Some(queue) = self.queue.take() {
            // That nobody takes them any more, the thread tells below.
            let _ = std::mem::take(&mut self.waiting).into_iter().try_for_each(|lines| queue.send(lines));
        }
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(OutputFailed::Io(io::Error::other("the writing thread panicked"))),
            None => Ok(()),
        }
    }
}

fn write_all(
    lines: &Receiver<Vec<Line>>,
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
        for line in &batch {
            render.line(line, &mut bytes);
        }
        flush(&mut bytes)?;
    }
    render.end(&mut bytes);
    flush(&mut bytes)
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Mutex},
        time::{Duration, Instant},
    };

    use tracer_core::{
        Tracer,
        input::Clock,
        output::{Body, LostEvent},
        target::Rules,
        tracer::Identity,
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

    fn lines() -> impl FnMut() -> Vec<Line> {
        let identity = Identity { node: "node".into(), run_id: "run".into() };
        let rules = Rules { quiet: 0, reset_reasons: std::collections::HashMap::new(), curr_estab: None };
        let mut tracer = Tracer::new(identity, rules, Clock::default());
        move || {
            let mut lines = Vec::new();
            let lost = LostEvent { stage: "sink".to_owned(), reason: "slow_reader".to_owned(), count: 1 };
            tracer.announce(0, Body::Lost(lost), &mut lines);
            lines
        }
    }

    #[test]
    fn a_reader_that_is_stuck_holds_up_nothing_and_gets_what_must_not_be_dropped() {
        let (let_go, stuck) = std::sync::mpsc::channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        let reader = Stuck(stuck, Arc::clone(&written));
        let mut output = Output::start(Box::new(JsonLines), Box::new(reader)).unwrap();
        let (mut line, began) = (lines(), Instant::now());
        for _ in 0..3 * QUEUE {
            output.send(line()).unwrap();
        }
        let sure = line();
        let seq = format!("\"seq\":{},", sure[0].seq);
        output.send_surely(sure).unwrap();
        output.send(line()).unwrap();
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        let dropped = output.take_dropped();
        assert!((2 * QUEUE as u64 - 1..=2 * QUEUE as u64 + 1).contains(&dropped), "{dropped}");
        drop(let_go);
        output.finish().unwrap();
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count() as u64 + dropped, 3 * QUEUE as u64 + 2);
        assert!(text.lines().last().unwrap().contains(&seq), "what must not be dropped comes last");
    }
}
