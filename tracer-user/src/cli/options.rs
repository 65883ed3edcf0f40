//! Options that several commands share.

use std::{
    cell::RefCell,
    io::{self, IsTerminal},
    rc::Rc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;
use tokio::runtime::Runtime;
use tracer_core::{
    input::{Network, Timeouts},
    output::{Body, Line},
};

use super::Tally;
use crate::{
    kernel::probes::LoadOptions,
    pipeline::{Pipeline, Settings},
    sink::{
        Output, Render,
        jsonl::JsonLines,
        timeline::{Look, Timeline},
    },
};

/// How events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// For people.
    Text,
    /// JSON lines, as in docs/events.md.
    Json,
}

impl Format {
    /// Text to a terminal, JSON lines to a pipe.
    pub(super) fn or_fitting(format: Option<Self>) -> Self {
        format.unwrap_or_else(|| if io::stdout().is_terminal() { Self::Text } else { Self::Json })
    }
}

/// How to trace and to judge.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct TraceOptions {
    /// How to write events: text to a terminal, JSON lines to a pipe
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// How long traffic must have stopped before the exit to count as drained
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    quiet: Duration,
    /// Addresses that health checkers come from: never traffic, never a loss
    #[arg(long, value_name = "CIDR")]
    pub(super) probe_peer: Vec<Network>,
    /// Ports whose protocol never answers
    #[arg(long, value_name = "PORT")]
    pub(super) one_way: Vec<u16>,
    /// Also fail (exit code 1) on late verdicts and on doubts
    #[arg(long)]
    pub(super) strict: bool,
    /// Size of the ring buffer between kernel and user space, in KiB: a power of two
    #[arg(long, value_name = "KIB", default_value_t = LoadOptions::RING_BUFFER >> 10, value_parser = ring_buffer)]
    ring_buffer: u32,
    /// How this machine is called in events [default: its host name]
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    pub(super) node_name: Option<String>,
    /// Show the kernel programs' own debug lines on stderr
    #[arg(long)]
    kernel_log: bool,
}

impl TraceOptions {
    /// How events are written.
    pub(super) fn format(&self) -> Format {
        Format::or_fitting(self.format)
    }

    /// Starts the pipeline with stdout as its output, and a tally of its verdicts.
    pub(super) fn start(&self) -> Result<(Pipeline, Rc<RefCell<Tally>>)> {
        self.start_to(Box::new(Timeline::new(Look::of_stdout())), Box::new(io::stdout()))
    }

    /// As [`start`](Self::start), for an agent, which is told of new cgroups.
    pub(super) fn start_agent(&self) -> Result<Pipeline> {
        self.pipeline(Box::new(Timeline::new(Look::of_stdout())), Box::new(io::stdout()), true)
    }

    /// As [`start`](Self::start), with text and its way out chosen by the caller.
    pub(super) fn start_to(
        &self,
        text: Box<dyn Render>,
        to: Box<dyn io::Write + Send>,
    ) -> Result<(Pipeline, Rc<RefCell<Tally>>)> {
        Ok((self.pipeline(text, to, false)?, Rc::default()))
    }

    fn pipeline(
        &self,
        text: Box<dyn Render>,
        to: Box<dyn io::Write + Send>,
        inventory: bool,
    ) -> Result<Pipeline> {
        require_root()?;
        let render = match self.format() {
            Format::Text => text,
            Format::Json => Box::new(JsonLines),
        };
        let output = Output::start(render, to).context("cannot start a thread")?;
        let load =
            LoadOptions { ring_buffer: self.ring_buffer << 10, kernel_log: self.kernel_log, inventory };
        let node = self.node_name.clone();
        Pipeline::start(&Settings { load, quiet: self.quiet, node }, output)
    }
}

/// Takes verdicts into the tally.
pub(super) fn tally(tally: &Rc<RefCell<Tally>>) -> impl FnMut(&Line) + 'static {
    let tally = Rc::clone(tally);
    move |line| {
        if let Body::Verdict(verdict) = &line.body {
            tally.borrow_mut().add(verdict);
        }
    }
}

/// Loading kernel programs and entering namespaces need privileges.
pub(super) fn require_root() -> Result<()> {
    if !geteuid().is_root() {
        bail!("tracing loads kernel programs and needs root; run it with sudo");
    }
    Ok(())
}

/// The runtime that commands run on: one thread, as records must be handled in order.
pub(super) fn runtime() -> Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")
}

/// Takes Ctrl-C and SIGTERM from now on, and waits for one of them.
pub(super) fn interrupted() -> Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Reads `500ms`, `1s`, `1.5s`, `2m`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let error = || format!("{text} is no duration; write it like 500ms, 1.5s or 2m");
    let split = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(error)?;
    let (number, unit) = text.split_at(split);
    let scale = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        _ => return Err(error()),
    };
    let number: f64 = number.parse().map_err(|_| error())?;
    Duration::try_from_secs_f64(number * scale).map_err(|_| error())
}

/// What was told of the times that a termination must fit into.
pub(super) fn timeouts(grace: Option<Duration>, load_balancer: Option<Duration>) -> Timeouts {
    let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    Timeouts { grace: grace.map(ns), load_balancer: load_balancer.map(ns) }
}

fn ring_buffer(text: &str) -> Result<u32, String> {
    let size: u32 = text.parse().map_err(|_| format!("{text} is no number"))?;
    if size.is_power_of_two() && (4..=1 << 20).contains(&size) {
        Ok(size)
    } else {
        Err("it must be a power of two from 4 to 1048576".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "5", "s", "-1s", "1h", "1e99s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
