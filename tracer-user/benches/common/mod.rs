//! What both benchmarks run: one turn of the pipeline, over made-up records.

pub(crate) mod synthetic;

use std::hint::black_box;

use bytes::Bytes;
use tracer_core::{
    Tracer,
    input::{Clock, Input},
    output::Line,
};
use tracer_user::sink::{Render, jsonl::JsonLines};

/// Connections whose records are made at a time, so that they stay in the cache as the ring buffer's do.
pub(crate) const BATCH: u64 = 200;

/// One turn of the pipeline: records in, lines out.
pub(crate) struct Turn {
    tracer: Tracer,
    lines: Vec<Line>,
    json: Vec<u8>,
    with_json: bool,
}

impl Turn {
    /// A pipeline that knows one target.
    pub(crate) fn new(with_json: bool) -> Self {
        Self { tracer: synthetic::tracer(), lines: Vec::new(), json: Vec::new(), with_json }
    }

    /// Takes records, the last of them of connection number `last`.
    pub(crate) fn take(&mut self, records: Vec<Bytes>, last: u64) {
        for record in records {
            self.tracer.step(Input::Record(record), &mut self.lines);
        }
        let mono = last * synthetic::RECORDS_OF_LIFE * synthetic::STEP;
        self.tracer.step(Input::Tick(Clock { mono, wall: 0 }), &mut self.lines);
        if self.with_json {
            self.lines.iter().for_each(|line| JsonLines.line(line, &mut self.json));
        }
        black_box(&self.json);
        self.json.clear();
        black_box(&self.lines);
        self.lines.clear();
    }
}
