//! `cargo xtask bench`: what lastpacket costs, measured beside what was promised. Each part is a module
//! that gives its figures.

mod agent;
mod figure;
pub(crate) mod flood;
mod floor;
mod following;
pub(crate) mod hold;
mod kernel;
mod link;
mod loss;
mod machine;
mod plot;
mod pod;
mod process;
mod report;
mod scale;
mod start;
mod table;
pub(crate) mod tight;
mod toolbox;
mod traced;
mod tracers;
mod work;
mod wrk;

use std::{env, fmt, path::PathBuf};

use anyhow::{Result, bail};
use clap::ValueEnum;

use self::{figure::Figure, machine::Machine};
use crate::{build, shell};

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Parts to measure; all of them by default
    parts: Vec<Part>,
    /// Also put the tables into docs/performance.md
    #[arg(long)]
    record: bool,
}

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Start to armed, resident memory, size of the binary
    Start,
    /// Decode, core and JSON: records a second, allocations, instructions, memory a connection
    Work,
    /// A report of a million events: time and memory
    Report,
    /// Rate of a tight loop of connections, untraced, traced, and traced by others
    Traced,
    /// wrk against nginx, untraced and traced
    Wrk,
    /// Time in kernel programs, ours and others'
    Kernel,
    /// Many pods and many connections: memory, processor time, time to the verdict
    Scale,
    /// The highest rate without a lost record
    Loss,
    /// The agent on a node of 250 pods: memory, processor time
    Agent,
}

impl Part {
    fn measure(self) -> Result<Vec<Figure>> {
        match self {
            Self::Start => start::measure(),
            Self::Work => work::measure(),
            Self::Report => report::measure(),
            Self::Traced => traced::measure(),
            Self::Wrk => wrk::measure(),
            Self::Kernel => kernel::measure(),
            Self::Scale => scale::measure(),
            Self::Loss => loss::measure(),
            Self::Agent => agent::measure(),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}

/// What is measured: the release binary, or the one that the tests are told to use, too.
fn lastpacket() -> Result<PathBuf> {
    env::var_os("LASTPACKET_BIN").map_or_else(build::release, |path| Ok(path.into()))
}

/// Measures, prints a table a part, and fails if a goal is missed.
pub(crate) fn run(args: &Args) -> Result<()> {
    if !shell::is_root() {
        bail!("the benchmark loads kernel programs and needs root: run it as root, or with `sudo -E`");
    }
    let machine = Machine::read()?;
    let parts = if args.parts.is_empty() { Part::value_variants() } else { &args.parts };
    let mut missed = Vec::new();
    for part in parts {
        eprintln!("    {part}");
        let figures = part.measure()?;
        table::print(*part, &figures);
        table::keep(*part, &figures, &machine)?;
        if args.record {
            table::record(*part, &figures, &machine)?;
            if *part == Part::Scale {
                plot::record()?;
            }
        }
        missed.extend(figures.into_iter().filter(|figure| !figure.is_reached()).map(|figure| figure.name));
    }
    if missed.is_empty() { Ok(()) } else { bail!("goals missed: {}", missed.join(", ")) }
}
