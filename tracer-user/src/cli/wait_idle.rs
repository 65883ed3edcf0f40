//! `lastpacket wait-idle`: a preStop hook that ends when traffic has.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tracer_core::input::Network;

use super::{
    Outcome,
    options::{Format, duration},
    progress::Progress,
};
use crate::wait_idle::{self, Answer, Settings};

/// What to wait for.
#[derive(clap::Args)]
#[command(
    after_help = "Exit codes: 0 the ports were idle; 1 they were not, in the time given; 2 usage or environment error. \
It needs no privilege, and looks at the network namespace that it runs in."
)]
pub(super) struct Arguments {
    /// A port of this pod, as its server listens on it
    #[arg(long, value_name = "PORT", required_unless_present = "copy_to",
          value_parser = clap::value_parser!(u16).range(1..))]
    port: Vec<u16>,
    /// How long there must have been no connection and no new one
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration)]
    quiet: Duration,
    /// How long to wait at most; leave the server the rest of the grace period
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = duration)]
    timeout: Duration,
    /// Peers whose connections do not count: health checkers, such as the node's own address
    #[arg(long, value_name = "CIDR")]
    ignore_peer: Vec<Network>,
    /// How to write the result: text to a terminal, JSON to a pipe
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Only copy this program to a file, for another container of the pod to run
    #[arg(long, value_name = "FILE", exclusive = true)]
    copy_to: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<Outcome> {
    if let Some(file) = &arguments.copy_to {
        return copy_to(file);
    }
    let settings = Settings {
        ports: arguments.port.clone(),
        quiet: arguments.quiet,
        timeout: arguments.timeout,
        ignored: arguments.ignore_peer.clone(),
    };
    let format = Format::or_fitting(arguments.format);
    let progress = Progress::start(format == Format::Text);
    let answer = wait_idle::wait(settings, |idleness, now| progress.tell(state(idleness.open(), now)));
    progress.end();
    let answer = answer?;
    let text = match format {
        Format::Json => serde_json::to_string(&answer)? + "\n",
        Format::Text => as_text(&answer),
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(if answer.idle { Outcome::Fine } else { Outcome::Cut })
}

fn state((open, last): (u64, Instant), now: Instant) -> String {
    match open {
        0 => format!("no connection for {:.1} s", (now - last).as_secs_f64()),
        _ => format!("{open} open"),
    }
}

fn as_text(answer: &Answer) -> String {
    let ports: Vec<String> = answer.ports.iter().map(ToString::to_string).collect();
    let ports = format!("port{} {}", if ports.len() == 1 { "" } else { "s" }, ports.join(", "));
    let seconds = |milliseconds: u64| milliseconds as f64 / 1000.0;
    let (waited, quiet) = (seconds(answer.waited_ms), seconds(answer.quiet_ms));
    let mut text = if answer.idle {
        format!("idle: {ports} had no connection for {quiet:.1} s, after {waited:.1} s")
    } else if answer.open > 0 {
        let peers: Vec<String> =
            answer.peers.iter().map(|peer| format!("{} ({})", peer.address, peer.open)).collect();
        format!(
            "not idle: {} connections of {ports} are open after {waited:.1} s, of {}",
            answer.open,
            peers.join(", ")
        )
    } else {
        format!("not idle: {ports} had a connection {quiet:.1} s ago, after {waited:.1} s")
    };
    text += &format!("; {} ended meanwhile", answer.ended);
    if answer.ignored > 0 {
        text += &format!(", and {} of ignored peers", answer.ignored);
    }
    if answer.missed {
        text += "; so many ended at once that the kernel could not tell of all";
    }
    for port in &answer.not_listening {
        text += &format!("\nnothing listens on port {port}: is it the right one?");
    }
    text + "\n"
}

fn copy_to(file: &Path) -> Result<Outcome> {
    let this = std::env::current_exe().context("cannot find this program's own file")?;
    fs::copy(&this, file)
        .with_context(|| format!("cannot copy to {}; mount a volume there", file.display()))?;
    Ok(Outcome::Fine)
}
