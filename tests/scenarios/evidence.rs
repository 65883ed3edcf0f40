//! What a run leaves: artefacts in its folder, and the questions that scenarios ask of it.

use std::{fs, process::Command};

use anyhow::{Context, Result, ensure};
use lastpacket_tests::{
    binary,
    events::{Events, ensure_balanced, ensure_no_gaps},
    run::Run,
};
use serde::Serialize;
use tracer_core::{
    output::Line,
    verdict::Verdict,
    words::{Ending, Result as Answer},
};
use tracer_user::sink::{
    Render,
    timeline::{Look, Timeline},
};

use crate::{
    balancer::Logged,
    stage::{PODS, Stage},
};

/// Columns of the timeline that is kept.
const WIDTH: usize = 160;

/// What was traced of a pod that was terminated.
pub struct Traced {
    pub verdict: Verdict,
}

impl Traced {
    /// Keeps the events and their timeline; the events must be whole and the books balance.
    pub fn new(stage: &Stage, pod: usize, run: Run) -> Result<Self> {
        keep_events(stage, pod, &run.lines)?;
        ensure_no_gaps(&run.lines)?;
        let verdict = run.lines.verdict().context(run.stderr)?.clone();
        ensure_balanced(&verdict)?;
        Ok(Self { verdict })
    }

    pub fn is(&self, answer: Answer) -> Result<()> {
        let verdict = &self.verdict;
        ensure!(verdict.result == answer, "the verdict is {}: {:?}", self.summary(), verdict.reasons);
        Ok(())
    }

    /// The verdict and what was lost when.
    pub fn summary(&self) -> String {
        let losses = self.verdict.losses.iter();
        let losses = losses.map(|loss| format!(", {} {} in {}", loss.count, loss.ending, loss.phase));
        format!("{}{}", self.verdict.result, losses.collect::<String>())
    }

    /// How many connections were lost in this way.
    pub fn lost(&self, ending: Ending) -> u64 {
        self.verdict.losses.iter().filter(|loss| loss.ending == ending).map(|loss| loss.count).sum()
    }

    pub fn has_finding(&self, id: &str) -> Result<()> {
        let found: Vec<&str> = self.verdict.findings.iter().map(|finding| &*finding.id).collect();
        ensure!(found.contains(&id), "the finding {id} is not among {found:?}");
        Ok(())
    }
}

/// The losses of these pods are what their load balancer saw fail behind it, no more and no less; what
/// the kernel cannot tell from a loss may be one or not. What fails on a connection on which the client
/// had asked before, HAProxy does not log, unless the answer had begun: it closes the client's connection
/// without a word.
pub fn ensure_explained(pods: &[&Traced], logged: &[Logged], closed_silently: u64) -> Result<()> {
    let failures = closed_silently + logged.iter().map(Logged::failures).sum::<u64>();
    let lost: u64 = pods.iter().map(|pod| pod.verdict.lost).sum();
    let doubts: u64 = pods.iter().map(|pod| pod.verdict.doubts).sum();
    let failed = logged.iter().filter(|logged| logged.failures() > 0).map(|logged| &logged.text);
    let failed: Vec<&String> = failed.collect();
    ensure!(
        (lost..=lost + doubts).contains(&failures),
        "the load balancer saw {failures} failures behind it, {closed_silently} of them not logged, lastpacket \
         {lost} losses and {doubts} doubts ({}): {failed:?}",
        pods.iter().map(|pod| pod.summary()).collect::<Vec<_>>().join("; ")
    );
    Ok(())
}

/// Keeps events and timeline of a pod.
pub fn keep_events(stage: &Stage, pod: usize, lines: &[Line]) -> Result<()> {
    let folder = stage.file(&format!("pod{pod}"));
    let text = lines.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
    fs::write(folder.join("events.jsonl"), text.join("\n") + "\n")?;
    let (mut timeline, mut bytes) = (Timeline::new(Look::new(WIDTH, false)), Vec::new());
    lines.iter().for_each(|line| timeline.line(line, &mut bytes));
    timeline.end(&mut bytes);
    fs::write(folder.join("timeline.txt"), bytes)?;
    keep_page(stage)
}

/// Keeps a page of all pods whose events are kept until now.
fn keep_page(stage: &Stage) -> Result<()> {
    let mut command = Command::new(binary::lastpacket()?);
    let name = stage.folder.file_name().unwrap_or_default();
    command.args(["report", "--output", "html", "--title"]).arg(name);
    let events = (0..PODS).map(|pod| stage.file(&format!("pod{pod}/events.jsonl")));
    let made = command.args(events.filter(|events| events.exists())).output()?;
    let told = String::from_utf8_lossy(&made.stderr);
    ensure!(matches!(made.status.code(), Some(0 | 1 | 3)), "no report: {told}");
    Ok(fs::write(stage.file("report.html"), made.stdout)?)
}

/// Keeps what clients saw.
pub fn keep_clients(stage: &Stage, seen: &impl Serialize) -> Result<()> {
    Ok(fs::write(stage.file("clients.json"), serde_json::to_string_pretty(seen)? + "\n")?)
}
