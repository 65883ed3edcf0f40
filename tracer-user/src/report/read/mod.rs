//! From lines of text to events: what collectors put before them is taken away, each run's events come
//! in order and once, and what is no event is counted, never fatal.

mod line;
mod order;
pub mod source;
#[cfg(test)]
pub(super) mod tests;

use std::{collections::BTreeMap, sync::Arc};

use tracer_core::output::Line;

use line::{Found, Names};
use order::Order;

/// Lines of a run that may wait for a missing one, where several files are read.
pub const PATIENCE: usize = 1024;
/// Longer lines are skipped: no event is that long.
const LONGEST: usize = 16 << 20;

/// What was read, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events.
    pub events: u64,
    /// Lines that break off.
    pub truncated: u64,
    /// Lines that several writers share; the events that are whole in them count as such.
    pub interleaved: u64,
    /// Events that this version does not understand: of a newer schema, with new types or words.
    pub newer: u64,
    /// Other lines.
    pub garbage: u64,
    /// Events that had been read before, or came too late to be put in order.
    pub repeated: u64,
    /// Numbers that no event has, between the first and the last of their runs.
    pub missing: u64,
    /// Inputs that could not be read to their end, and why.
    pub broken: Vec<String>,
}

/// One input: its lines may be parts of lines.
#[derive(Debug, Default)]
pub struct Stream {
    partial: Vec<u8>,
}

/// See the module.
#[derive(Debug)]
pub struct Reader {
    names: Names,
    runs: BTreeMap<Arc<str>, Order>,
    patience: usize,
    counts: Counts,
}

impl Reader {
    /// So many lines of a run may wait for a missing one: [`PATIENCE`] for files, 0 for a stream that
    /// is in order.
    #[must_use]
    pub fn new(patience: usize) -> Self {
        Self { names: Names::default(), runs: BTreeMap::new(), patience, counts: Counts::default() }
    }

    /// Takes a line without its end, and gives the events whose turn has come. Verdicts whose evidence
    /// has gaps are `unproven` and say why, unless they are `cut`.
    pub fn line(&mut self, stream: &mut Stream, text: &[u8], out: &mut Vec<Line>) {
        let joined;
        let text = match container_log(text) {
            Some((false, part)) => {
                stream.partial.extend_from_slice(part);
                return;
            }
            Some((true, rest)) if !stream.partial.is_empty() => {
                stream.partial.extend_from_slice(rest);
                joined = std::mem::take(&mut stream.partial);
                &joined[..]
            }
            Some((true, whole)) => whole,
            None => text,
        };
        if text.len() > LONGEST {
            self.counts.garbage += 1;
        } else if !text.trim_ascii().is_empty() {
            self.whole_line(&String::from_utf8_lossy(text), out);
        }
    }

    fn whole_line(&mut self, text: &str, out: &mut Vec<Line>) {
        let found = line::find(text, &mut self.names);
        self.counts.interleaved += u64::from(found.len() > 1);
        let shared = found.len() > 1;
        for found in found {
            match found {
                Found::Event(line) => {
                    let (run, seq, mono_ns) = (Arc::clone(&line.agent.run_id), line.seq, line.mono_ns);
                    self.put(run, seq, mono_ns, Some(line), out);
                }
                Found::Newer(whose) => {
                    self.counts.newer += 1;
                    if let Some((run, seq)) = whose {
                        self.put(run, seq, 0, None, out);
                    }
                }
                // Told as interleaved.
                Found::Truncated | Found::Garbage if shared => {}
                Found::Truncated => self.counts.truncated += 1,
                Found::Garbage => self.counts.garbage += 1,
            }
        }
    }

    fn put(&mut self, run: Arc<str>, seq: u64, mono_ns: u64, line: Option<Line>, out: &mut Vec<Line>) {
        let patience = self.patience;
        let event = line.is_some();
        let run = self.runs.entry(run).or_insert_with(|| Order::new(seq, mono_ns, patience));
        match run.put(seq, line, out) {
            true => self.counts.events += u64::from(event),
            false => self.counts.repeated += 1,
        }
    }

    /// An input ended, by an error if it says one.
    pub fn end_of(&mut self, stream: &Stream, error: Option<String>) {
        self.counts.truncated += u64::from(!stream.partial.is_empty());
        self.counts.broken.extend(error);
    }

    /// No more lines come: gives what still waited.
    pub fn end(&mut self, out: &mut Vec<Line>) {
        self.runs.values_mut().for_each(|run| run.end(out));
    }

    /// What was read until now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let missing = self.runs.values().map(Order::missing).sum();
        Counts { missing, ..self.counts.clone() }
    }
}

/// The content of a line of a container runtime's log (`2026-11-21T10:00:00.1Z stdout F …`), and
/// whether its end is there: the runtime splits long lines.
fn container_log(text: &[u8]) -> Option<(bool, &[u8])> {
    if !text.first()?.is_ascii_digit() {
        return None;
    }
    let mut fields = text.splitn(4, |byte| *byte == b' ');
    let (time, stream, tags, content) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let known = time.contains(&b'T') && (stream == b"stdout" || stream == b"stderr");
    match tags.first() {
        Some(b'P') if known => Some((false, content)),
        Some(b'F') if known => Some((true, content)),
        _ => None,
    }
}

impl Counts {
    /// All that was not well, one sentence each.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        let lines = |count: u64| format!("{count} {}", if count == 1 { "line" } else { "lines" });
        let counted = [
            (self.truncated, "truncated: what they said is missing"),
            (self.interleaved, "written by several writers at once: what was whole in them was taken"),
            (self.newer, "not understood: of a newer schema; a newer lastpacket reads them"),
            (self.garbage, "no events"),
            (self.repeated, "read before, or too far from their place"),
            (self.missing, "missing: a gap in seq"),
        ];
        let counted = counted.into_iter().filter(|(count, _)| *count > 0);
        counted.map(|(count, what)| format!("{}: {what}", lines(count))).chain(self.broken.clone()).collect()
    }
}
