//! JSON lines, as in `docs/events.md`.

use tracer_core::output::Line;

use super::Render;

/// One JSON object a line.
pub struct JsonLines;

impl Render for JsonLines {
    fn line(&mut self, line: &Line, bytes: &mut Vec<u8>) {
        // Lines hold only strings, numbers and lists of them: they cannot fail to serialise, and
        // writing to memory does not fail.
        if serde_json::to_writer(&mut *bytes, line).is_ok() {
            bytes.push(b'\n');
        }
    }
}
