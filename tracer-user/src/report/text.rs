//! The text that was, or would have been, seen live: byte for byte.

use std::sync::Arc;

use tracer_core::output::Line;

use crate::sink::{
    Render,
    timeline::{Look, Timeline},
};

/// Runs of lastpacket as text, one after the other: their clocks have nothing in common.
pub struct Text {
    look: Look,
    runs: Vec<Run>,
}

struct Run {
    id: Arc<str>,
    node: Arc<str>,
    timeline: Timeline,
    bytes: Vec<u8>,
}

impl Text {
    /// Text that looks like this.
    #[must_use]
    pub fn new(look: Look) -> Self {
        Self { look, runs: Vec::new() }
    }

    /// Takes an event. Those of a run must come in their order.
    pub fn take(&mut self, line: &Line) {
        let id = &line.agent.run_id;
        let at = self.runs.iter().position(|run| run.id == *id).unwrap_or_else(|| {
            let timeline = Timeline::new(self.look);
            let (id, node) = (Arc::clone(id), Arc::clone(&line.node));
            self.runs.push(Run { id, node, timeline, bytes: Vec::new() });
            self.runs.len() - 1
        });
        let run = &mut self.runs[at];
        run.timeline.line(line, &mut run.bytes);
    }

    /// All of it. Where there are several runs, each begins with its name.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        let several = self.runs.len() > 1;
        let mut bytes = Vec::new();
        for mut run in self.runs {
            if several {
                let gap = if bytes.is_empty() { "" } else { "\n" };
                let (node, id) = (crate::sink::names::clean(&run.node), crate::sink::names::clean(&run.id));
                bytes.extend_from_slice(format!("{gap}== node {node}, run {id}\n\n").as_bytes());
            }
            run.timeline.end(&mut run.bytes);
            bytes.append(&mut run.bytes);
        }
        bytes
    }
}
