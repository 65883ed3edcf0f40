//! The command line: arguments, commands, exit codes.

mod agent;
mod check;
mod options;
mod progress;
mod rehearse;
mod report;
mod rollout;
mod trace;
mod wait_idle;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use tracer_core::{output::Line, words};

use crate::rehearse::demo;

/// Proves whether a pod's traffic had stopped before the pod exited, and says which connection was
/// broken, by whom and in which phase, if it had not.
#[derive(Parser)]
#[command(name = "lastpacket", version, about, after_help = EXIT_CODES)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 all drained, late or idle (--strict: late and doubts are 1); 1 at least one cut; \
2 usage or environment error; 3 at least one unproven and none cut.";

#[derive(Subcommand)]
enum Command {
    /// Rehearse a pod's termination on this machine, without Kubernetes
    Rehearse(Box<rehearse::Arguments>),
    /// Trace processes, network namespaces or cgroups until they end
    Trace(Box<trace::Arguments>),
    /// Follow all pods of this node: JSON events on stdout, metrics and health by HTTP
    Agent(Box<agent::Arguments>),
    /// Make a report of recorded events: a timeline, Markdown, JUnit XML, a page for a browser
    Report(report::Arguments),
    /// Watch a rollout of a cluster, or start one: the verdicts of all pods that it ends
    Rollout(Box<rollout::Arguments>),
    /// Wait until a port of this pod has no connections: for preStop hooks, without any privilege
    WaitIdle(wait_idle::Arguments),
    /// Check whether this machine can be traced, and what is missing
    Check(check::Arguments),
    /// Print the JSON Schema of the events
    Schema,
    /// Print the completions of a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Write the man pages of all commands into a folder
    Man {
        /// Which folder; it is made if there is none
        folder: PathBuf,
    },
    /// Run the demonstration server of rehearse
    #[command(hide = true)]
    DemoServer {
        /// What it does at SIGTERM
        #[arg(long, value_enum)]
        behaviour: demo::Behaviour,
        /// Where it listens
        #[arg(long, default_value_t = 8080)]
        port: u16,
        /// Speak TLS, with the certificate that the environment names
        #[arg(long)]
        tls: bool,
    },
}

/// The name by which kubectl calls its plugin `lastpacket`.
const PLUGIN: &str = "kubectl-lastpacket";

/// Reads the arguments; called as kubectl's plugin, it says `kubectl lastpacket` of itself.
#[must_use]
pub fn parse() -> Arguments {
    let called = std::env::args_os().next().map(PathBuf::from);
    let mut command = Arguments::command();
    if called.as_deref().and_then(Path::file_name).is_some_and(|name| name == PLUGIN) {
        command = command.bin_name("kubectl lastpacket");
    }
    Arguments::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit())
}

/// What a command's end means to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All went well.
    Fine,
    /// At least one verdict is `cut`; or, with --strict, late or doubtful. Of wait-idle: not idle in time.
    Cut,
    /// Usage or environment error.
    Failed,
    /// At least one verdict is `unproven`, and none `cut`.
    Unproven,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(match outcome {
            Outcome::Fine => 0,
            Outcome::Cut => 1,
            Outcome::Failed => 2,
            Outcome::Unproven => 3,
        })
    }
}

/// Runs the command that the arguments name.
///
/// # Errors
/// With one sentence that says what is wrong and what to do; the exit code is 2.
pub fn run(arguments: Arguments) -> Result<Outcome> {
    match arguments.command {
        Command::Rehearse(arguments) => rehearse::run(&arguments),
        Command::Trace(arguments) => trace::run(&arguments),
        Command::Agent(arguments) => agent::run(&arguments),
        Command::Report(arguments) => report::run(&arguments),
        Command::Rollout(arguments) => rollout::run(&arguments),
        Command::WaitIdle(arguments) => wait_idle::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Schema => print_schema(),
        Command::Completions { shell } => print_completions(shell),
        Command::Man { folder } => write_man_pages(&folder),
        Command::DemoServer { behaviour, port, tls } => {
            options::runtime()?.block_on(demo::run(behaviour, port, tls))?;
            Ok(Outcome::Fine)
        }
    }
}

fn print_schema() -> Result<Outcome> {
    use std::io::Write;
    let schema = schemars::schema_for!(Line);
    writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&schema)?)?;
    Ok(Outcome::Fine)
}

fn print_completions(shell: clap_complete::Shell) -> Result<Outcome> {
    use std::io::Write;
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "lastpacket", &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(Outcome::Fine)
}

fn write_man_pages(folder: &Path) -> Result<Outcome> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    clap_mangen::generate_to(Arguments::command(), folder)
        .with_context(|| format!("cannot write into {}", folder.display()))?;
    Ok(Outcome::Fine)
}

/// The exit code that verdicts add up to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    cut: bool,
    unproven: bool,
    late_or_doubtful: bool,
}

impl Tally {
    /// Takes a verdict.
    pub fn add(&mut self, verdict: &tracer_core::verdict::Verdict) {
        self.count(verdict.result, verdict.doubts);
    }

    /// Takes the result of a verdict and its doubts.
    pub fn count(&mut self, result: words::Result, doubts: u64) {
        match result {
            words::Result::Cut => self.cut = true,
            words::Result::Unproven => self.unproven = true,
            words::Result::Late => self.late_or_doubtful = true,
            words::Result::Drained | words::Result::Idle => {}
        }
        self.late_or_doubtful |= doubts > 0;
    }

    /// The exit code.
    #[must_use]
    pub fn outcome(self, strict: bool) -> Outcome {
        if self.cut || strict && self.late_or_doubtful {
            Outcome::Cut
        } else if self.unproven {
            Outcome::Unproven
        } else {
            Outcome::Fine
        }
    }
}
