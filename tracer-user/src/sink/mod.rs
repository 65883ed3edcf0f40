//! Lines on their way out: a bounded queue, and a thread that renders and writes them.
//!
//! Writing may be slow or stuck; tracing must not be. The queue is bounded by bytes: lines that find it
//! full are dropped and counted, and the count is written as a line of its own as soon as there is room.

pub mod jsonl;
pub(crate) mod names;
pub mod prometheus;
pub mod timeline;
mod writer;

pub use writer::{Output, OutputFailed};

use tracer_core::output::Line;

/// Turns lines into bytes, and nothing else.
pub trait Render: Send {
    /// Appends what is to be written for a line.
    fn line(&mut self, line: &Line, bytes: &mut Vec<u8>);

    /// Appends what is to be written after the last line.
    fn end(&mut self, _bytes: &mut Vec<u8>) {}
}
