//! `lastpacket rollout`: the gate of a rollout, from a workstation or in CI.

use std::{
    io::{self, Write},
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
    report::Form,
};
use crate::{
    kube::{client, list_watch::Timing},
    report::Failing,
    rollout::{
        self, Settings, gathered::Gathered, input::Patience, join::News, permissions, text, total::Total,
        workload::Name,
    },
    sink::OutputFailed,
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
    output: Option<Form>,
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
    let form = Form::or_fitting(arguments.output);
    let progress = Progress::start(form != Form::Json);
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
    let mut told = Told::new(form, &progress);
    let watched =
        rollout::watch(client, settings, stop, |news| told.take(news), |state| progress.tell(state)).await;
    progress.end();
    let total = watched?;
    let failing = arguments.failing(&total);
    told.end(&total, failing)?;
    if total.rollout == "never_began" {
        bail!("no rollout of {} began within the --timeout; start one with --restart", total.workload);
    }
    Ok(outcome(&total, failing))
}

/// Where the news go: text and JSON lines to stdout as they come. The other forms are made at the end, of
/// what was gathered until then; a rollout takes its time, so that the text goes to stderr meanwhile.
struct Told {
    form: Form,
    stdout: Box<dyn Write>,
    rows: Box<dyn Write>,
    gathered: Option<Gathered>,
}

impl Told {
    fn new(form: Form, progress: &Progress) -> Self {
        let gathered = form.is_made_at_the_end().then(Gathered::default);
        let rows =
            if gathered.is_some() { progress.beside(io::stderr()) } else { progress.beside(io::stdout()) };
        Self { form, stdout: Box::new(io::stdout()), rows, gathered }
    }

    fn take(&mut self, news: News) -> Result<()> {
        if let News::Row(row) = &news {
            let text = if self.form == Form::Json { line("pod", row)? } else { text::row(row) };
            self.rows.write_all(text.as_bytes()).map_err(OutputFailed::from)?;
        }
        if let Some(gathered) = &mut self.gathered {
            gathered.take(news);
        }
        Ok(())
    }

    fn end(mut self, total: &Total, failing: Failing) -> Result<()> {
        let text = if self.form == Form::Json { line("rollout", total)? } else { text::total(total) };
        self.rows.write_all(text.as_bytes()).map_err(OutputFailed::from)?;
        let whole = self.gathered.map(|gathered| self.form.render(&gathered.finish(total), failing));
        let whole = whole.flatten().unwrap_or_default();
        Ok(self
            .stdout
            .write_all(whole.as_bytes())
            .and_then(|()| self.stdout.flush())
            .map_err(OutputFailed::from)?)
    }
}

/// An object with its type, as a line.
fn line(kind: &str, object: &impl serde::Serialize) -> Result<String> {
    let mut value = serde_json::to_value(object).context("cannot write the result as JSON")?;
    value["type"] = json!(kind);
    Ok(value.to_string() + "\n")
}

impl Arguments {
    /// What is a failure, now that all losses are known.
    fn failing(&self, total: &Total) -> Failing {
        Failing {
            cut: self.fail_on.contains(&FailOn::Cut) && total.lost > self.max_losses,
            unproven: self.fail_on.contains(&FailOn::Unproven),
            late_or_doubtful: self.strict,
        }
    }
}

fn outcome(total: &Total, failing: Failing) -> Outcome {
    let any = |result: words::Result| total.count(result) > 0;
    let doubtful = total.doubts > 0 || any(words::Result::Late);
    if failing.cut && any(words::Result::Cut) || failing.late_or_doubtful && doubtful {
        Outcome::Cut
    } else if failing.unproven && any(words::Result::Unproven) || total.rollout != "complete" {
        Outcome::Unproven
    } else {
        Outcome::Fine
    }
}
