//! `lastpacket report`: recorded events as a timeline, for pull requests, CI and browsers.

use std::{
    io::{self, IsTerminal, Write},
    path::PathBuf,
};

use anyhow::{Result, bail};

use super::{Outcome, Tally, progress::Progress};
use crate::{
    report::{Failing, Fold, Report, html, junit, markdown, read::source, text::Text},
    sink::{OutputFailed, Render, jsonl::JsonLines, timeline::Look},
};

/// How a report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Form {
    /// For people, as seen live.
    Text,
    /// JSON lines, as in docs/events.md.
    Json,
    /// For a comment on a pull request.
    Markdown,
    /// JUnit XML, for CI.
    Junit,
    /// One page for a browser, with nothing beside it.
    Html,
}

impl Form {
    /// Text to a terminal, JSON lines to a pipe.
    pub(super) fn or_fitting(form: Option<Self>) -> Self {
        form.unwrap_or_else(|| if io::stdout().is_terminal() { Self::Text } else { Self::Json })
    }

    /// It needs all that there is to tell; the others are written as it comes.
    pub(super) fn is_made_at_the_end(self) -> bool {
        matches!(self, Self::Markdown | Self::Junit | Self::Html)
    }

    /// A report as a whole; `None` for the forms that are written as it comes.
    pub(super) fn render(self, report: &Report, failing: Failing) -> Option<String> {
        match self {
            Self::Text | Self::Json => None,
            Self::Markdown => Some(markdown::render(report)),
            Self::Junit => Some(junit::render(report, failing)),
            Self::Html => Some(html::render(report)),
        }
    }
}

/// Events between two words of progress.
const TOLD_EVERY: u64 = 10_000;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Recorded JSON lines, plain, gzip or zstd, also with the prefixes of kubectl logs and of container
    /// runtimes; - is stdin
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// How to write the report: text to a terminal, JSON lines to a pipe
    #[arg(short, long, value_enum)]
    output: Option<Form>,
    /// What the report is about, as its headline says
    #[arg(long, default_value = "")]
    title: String,
    /// Also fail (exit code 1) on late verdicts and on doubts
    #[arg(long)]
    strict: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<Outcome> {
    let form = Form::or_fitting(arguments.output);
    let mut fold = Fold::default();
    let mut text = (form == Form::Text).then(|| Text::new(Look::of_stdout()));
    let mut stdout = io::BufWriter::new(io::stdout().lock());
    let mut json = Vec::new();
    let progress = Progress::start(form != Form::Json);
    let mut read = 0_u64;
    let counts = source::read(&arguments.files, |line| {
        read += 1;
        if read.is_multiple_of(TOLD_EVERY) {
            progress.tell(format!("reading, {read} events"));
        }
        fold.take(&line);
        if let Some(text) = &mut text {
            text.take(&line);
        }
        if form == Form::Json {
            json.clear();
            JsonLines.line(&line, &mut json);
            stdout.write_all(&json).map_err(OutputFailed::from)?;
        }
        Ok(())
    })?;
    progress.end();
    counts.troubles().iter().for_each(|trouble| log::warn!("{trouble}"));
    if counts.events == 0 {
        bail!("there is no event in what was read; give it JSON lines, as `--format json` writes them");
    }
    let report = fold.finish(arguments.title.clone(), counts);
    tell_silent_pods(&report);
    let whole = match (form.render(&report, Failing::usual(arguments.strict)), text) {
        (Some(whole), _) => whole.into_bytes(),
        (None, text) => text.map(Text::finish).unwrap_or_default(),
    };
    stdout.write_all(&whole).and_then(|()| stdout.flush()).map_err(OutputFailed::from)?;
    Ok(outcome(&report, arguments.strict))
}

/// Pods of which no line tells that they are unproven.
fn tell_silent_pods(report: &Report) {
    for pod in report.pods.iter().filter(|pod| pod.result.is_some() && pod.verdict.is_none()) {
        log::warn!("{}: unproven: {}", pod.name, pod.reasons.join("; "));
    }
}

/// The exit code that a report's verdicts add up to.
fn outcome(report: &Report, strict: bool) -> Outcome {
    let mut tally = Tally::default();
    for pod in &report.pods {
        if let Some(result) = pod.result {
            tally.count(result, pod.doubts());
        }
    }
    tally.outcome(strict)
}
