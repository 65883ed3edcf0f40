//! A line on the terminal that says what is being done; none in a pipe or with JSON.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};

const REFRESH: Duration = Duration::from_millis(100);

/// The line, if there is one.
#[derive(Clone)]
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// Shows the line if `wanted` and stderr is a terminal.
    pub(super) fn start(wanted: bool) -> Self {
        if !wanted || !io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})");
        let line = ProgressBar::new_spinner();
        if let Ok(style) = style {
            line.set_style(style);
        }
        line.enable_steady_tick(REFRESH);
        Self(line)
    }

    /// Says what is being done now.
    pub(super) fn tell(&self, what: impl Into<String>) {
        self.0.set_message(what.into());
    }

    /// Writes a warning while the line makes room.
    pub(super) fn warn(&self, warning: &str) {
        self.0.suspend(|| log::warn!("{warning}"));
    }

    /// Stdout or stderr, written to while the line makes room.
    pub(super) fn beside(&self, stream: impl Write + Send + 'static) -> Box<dyn Write + Send> {
        Box::new(Beside(self.0.clone(), stream))
    }

    /// Takes the line away.
    pub(super) fn end(&self) {
        self.0.finish_and_clear();
    }
}

struct Beside<W>(ProgressBar, W);

impl<W: Write> Write for Beside<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| self.1.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.1.flush()
    }
}
