//! `lastpacket rollout`: the gate of a rollout, from a workstation or in CI.

use std::{
    io::{self, IsTerminal, Write},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::json;
use tracer_core::words;

use super::{
    Outcome,
    options::{duration, interrupted, runtime},
    progress::Progress,
};
use crate::{
    kube::{client, list_watch::Timing},
    rollout::{self, Settings, input::Patience, permissions, text, total::Total, workload::Name},
};

/// Which rollout.
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Arguments {
    /// The workload: deployment/NAME, statefulset/NAME or daemonset/NAME
    #[arg(value_name = "KIND/NAME")]
    workload: Name,
    /// Start a rollout, as `kubectl rollout restart` does; without, wait for the next or join one under way
    #[arg(long)]
    restart: bool,
    /// The workload's namespace [default: the context's]
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    /// Where the agents are
    #[arg(long, value_name = "NAMESPACE", default_value = "lastpacket")]
    agents: String,
    /// How to reach the Kubernetes API [default: KUBECONFIG, ~/.kube/config, the service account]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Which context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// How long to wait for the rollout and the ends of its pods
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
    timeout: Duration,
    /// How long to wait for a pod's verdict after the pod is gone
    #[arg(long, value_name = "DURATION", default_value = "45s", value_parser = duration)]
    verdict_timeout: Duration,
    /// So many losses, over all pods, are no failure
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    max_losses: u64,
    /// Which verdicts are a failure
    #[arg(long, value_name = "VERDICTS", value_enum, value_delimiter = ',', default_values = ["cut", "unproven"])]
    fail_on: Vec<FailOn>,
    /// Also fail (exit code 1) on late verdicts and on doubts
    #[arg(long)]
    strict: bool,
    /// How to write the result: text to a terminal, JSON lines to a pipe
    #[arg(short, long, value_enum)]
    output: Option<Output>,
}

const HELP: &str = "\
Exit codes: 0 all drained, late or idle (--strict: late and doubts are 1); 1 at least one cut; \
2 usage or environment error; 3 at least one unproven, or a rollout that is not complete, and none cut.

Permissions needed: in the workload's namespace list and watch its kind and pods, and patch its kind \
with --restart; in the agents' namespace list and watch pods, and get pods/log. docs/rollout.md has the Roles.";

/// A verdict that is a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum FailOn {
    /// Clients lost requests or responses.
    Cut,
    /// The proof has a gap.
    Unproven,
}

/// How the result is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// JSON lines: a line per pod as it ends, then the total.
    Json,
}

pub(super) fn run(arguments: &Arguments) -> Result<Outcome> {
    runtime()?.block_on(watch(arguments))
}

async fn watch(arguments: &Arguments) -> Result<Outcome> {
    let stop = interrupted()?;
    let (client, default) =
        client::for_user(arguments.kubeconfig.as_deref(), arguments.context.clone()).await?;
    let namespace = arguments.namespace.clone().unwrap_or(default);
    let needed =
        permissions::needed(arguments.workload.kind, &namespace, &arguments.agents, arguments.restart);
    permissions::check(&client, needed).await?;
    let output = arguments
        .output
        .unwrap_or_else(|| if io::stdout().is_terminal() { Output::Text } else { Output::Json });
    let progress = Progress::start(output == Output::Text);
    let patience =
        Patience { verdict: arguments.verdict_timeout, settle: Patience::SETTLE, all: arguments.timeout };
    let settings = Settings {
        name: arguments.workload.clone(),
        namespace,
        agents: arguments.agents.clone(),
        restart: arguments.restart,
        patience,
        timing: Timing::default(),
    };
    let mut stdout = progress.stdout();
    let row = |row: &rollout::row::Row| match output {
        Output::Text => Ok(text::row(row)),
        Output::Json => line("pod", row),
    };
    let watched = rollout::watch(
        client,
        settings,
        stop,
        |ended| Ok(stdout.write_all(row(&ended)?.as_bytes())?),
        |state| progress.tell(state),
    );
    let total = watched.await;
    progress.end();
    let total = total?;
    let text = match output {
        Output::Text => text::total(&total),
        Output::Json => line("rollout", &total)?,
    };
    io::stdout().write_all(text.as_bytes())?;
    outcome(arguments, &total)
}

/// An object with its type, as a line.
fn line(kind: &str, object: &impl serde::Serialize) -> Result<String> {
    let mut value = serde_json::to_value(object).context("cannot write the result as JSON")?;
    value["type"] = json!(kind);
    Ok(value.to_string() + "\n")
}

fn outcome(arguments: &Arguments, total: &Total) -> Result<Outcome> {
    if total.rollout == "never_began" {
        bail!("no rollout of {} began within the --timeout; start one with --restart", total.workload);
    }
    let fails =
        |on: FailOn, result: words::Result| arguments.fail_on.contains(&on) && total.count(result) > 0;
    let cut = fails(FailOn::Cut, words::Result::Cut) && total.lost > arguments.max_losses;
    let late = arguments.strict && (total.doubts > 0 || total.count(words::Result::Late) > 0);
    Ok(if cut || late {
        Outcome::Cut
    } else if fails(FailOn::Unproven, words::Result::Unproven) || total.rollout != "complete" {
        Outcome::Unproven
    } else {
        Outcome::Fine
    })
}
