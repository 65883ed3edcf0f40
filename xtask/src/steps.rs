//! A verb's steps with their times, and the summary at its end.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// The steps done so far.
#[derive(Default)]
pub(crate) struct Steps {
    done: Vec<(&'static str, Duration)>,
}

impl Steps {
    /// Does one step; its name tells where an error came from.
    pub(crate) fn step(&mut self, name: &'static str, work: impl FnOnce() -> Result<()>) -> Result<()> {
        eprintln!("==> {name}");
        let start = Instant::now();
        work().with_context(|| format!("step `{name}`"))?;
        let took = start.elapsed();
        eprintln!("    {name}: done ({:.1} s)", took.as_secs_f64());
        self.done.push((name, took));
        Ok(())
    }

    /// Prints a line per step and the time of all.
    pub(crate) fn summary(&self) {
        eprintln!("==> all passed");
        for (name, took) in &self.done {
            eprintln!("    {name:<12}{:>8.1} s", took.as_secs_f64());
        }
        let total: Duration = self.done.iter().map(|(_, took)| *took).sum();
        eprintln!("    {:<12}{:>8.1} s", "total", total.as_secs_f64());
    }
}
