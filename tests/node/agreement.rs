//! Whether what the agent tells of a pod is what its clients saw.

use std::{collections::BTreeMap, net::SocketAddr};

use anyhow::{Context, Result, ensure};
use lastpacket_tests::events::{Events, ensure_balanced, ensure_nothing_lost, peer_of};
use tracer_core::{
    output::{Body, Line},
    verdict::Verdict,
    words::{Confidence, Ending, Origin, Phase, Role},
};

use crate::clients::{Outcome, Seen};

/// What happens on one side is noticed on the other within this time; in nanoseconds.
const SLACK: u64 = 200_000_000;

/// A loss as the lines tell it.
#[derive(Clone, Debug)]
struct Loss {
    time: u64,
    ending: Ending,
    confidence: Confidence,
    container: String,
    phase: Phase,
}

/// The lines of one pod.
pub fn lines_of(lines: &[Line], uid: &str) -> Vec<Line> {
    lines.iter().filter(|line| pod_uid(line) == Some(uid)).cloned().collect()
}

/// Whose line it is.
pub fn pod_uid(line: &Line) -> Option<&str> {
    Some(&line.subject.as_ref()?.k8s.as_ref()?.pod.uid)
}

/// The clients of a pod and its lines agree: every failure is explained by exactly one loss in a phase
/// that the container was in, no certain or likely loss is without a client that saw it, the verdict
/// counts them all, and its books balance. Gives the verdict.
pub fn ensure_agreement<'lines>(lines: &'lines [Line], seen: &[Seen]) -> Result<&'lines Verdict> {
    let verdict = lines.verdict()?;
    ensure_balanced(verdict)?;
    let losses = losses(lines)?;
    for failure in seen.iter().filter(|seen| is_failure(seen)) {
        let loss = losses.get(&failure.local);
        let loss =
            loss.with_context(|| format!("{failure:?} is not explained; {}", told_of(lines, failure.local)))?;
        ensure_phase(verdict, failure, loss)
            .with_context(|| format!("{failure:?} explained by {} in {}", loss.ending, loss.phase))?;
    }
    for (client, loss) in &losses {
        let saw = seen.iter().any(|seen| seen.local == *client && is_failure(seen));
        ensure!(
            saw || loss.confidence == Confidence::Possible,
            "{client} saw nothing of {}; {}",
            loss.ending,
            told_of(lines, *client)
        );
    }
    let counted: u64 = verdict.losses.iter().map(|loss| loss.count).sum();
    ensure!(
        counted == losses.len() as u64,
        "the verdict counts {counted} losses, the lines {}",
        losses.len()
    );
    ensure_nothing_lost(lines)?;
    Ok(verdict)
}

/// Silence is none: it leaves nothing on the pod's side.
pub fn is_failure(seen: &Seen) -> bool {
    matches!(seen.outcome, Outcome::Refused | Outcome::Reset | Outcome::Closed)
}

/// The container was in the loss's phase when the client's request ended.
fn ensure_phase(verdict: &Verdict, failure: &Seen, loss: &Loss) -> Result<()> {
    let time = loss.time;
    ensure!(
        (failure.began.saturating_sub(SLACK)..=failure.ended + SLACK).contains(&time),
        "a loss of another time: {time}"
    );
    let container = verdict.containers.iter().find(|container| *container.name == *loss.container);
    let phases = &container.context("of no container of the verdict")?.phases;
    let entered = phases.iter().find(|phase| phase.phase == loss.phase).map(|phase| phase.mono_ns);
    // A container is running before it is in any phase that has a line.
    let entered =
        entered.or((loss.phase == Phase::Running).then_some(0)).context("it never was in that phase")?;
    let left = phases.iter().map(|phase| phase.mono_ns).filter(|time| *time > entered).min();
    ensure!(
        entered <= failure.ended + SLACK && left.is_none_or(|left| left + SLACK >= failure.began),
        "the container was in that phase from {entered} to {left:?}"
    );
    Ok(())
}

/// The loss of each connection, by the client's end, which no two connections share. A reset and the end
/// of its connection tell of the same loss.
fn losses(lines: &[Line]) -> Result<BTreeMap<SocketAddr, Loss>> {
    let mut losses: BTreeMap<SocketAddr, Loss> = BTreeMap::new();
    for line in lines {
        let (ending, confidence, container, phase, role, origin) = match &line.body {
            Body::Reset(event) => {
                (event.ending, event.confidence, &event.container, event.phase, event.role, event.origin)
            }
            Body::ConnectionClosed(event) => {
                let end = event.end.as_ref();
                let (ending, confidence) = (end.map(|end| end.ending), end.and_then(|end| end.confidence));
                (ending, confidence, &event.container, event.phase, event.role, event.origin)
            }
            _ => continue,
        };
        let (Some(ending), Some(confidence), Some(peer)) = (ending, confidence, peer_of(line)) else {
            continue;
        };
        if role != Role::Client && origin != Origin::KubeletProbe {
            let container = container.name.to_string();
            let loss = Loss { time: line.mono_ns, ending, confidence, container, phase };
            if let Some(other) = losses.insert(peer, loss) {
                let same = (other.ending, other.confidence) == (ending, confidence);
                ensure!(same, "{peer} lost twice; {}", told_of(lines, peer));
            }
        }
    }
    Ok(losses)
}

/// All lines about one client's end, for whoever has to find out.
fn told_of(lines: &[Line], client: SocketAddr) -> String {
    let told =
        lines.iter().filter(|line| peer_of(line) == Some(client) || matches!(line.body, Body::Phase(_)));
    let told: Vec<String> = told.filter_map(|line| serde_json::to_string(line).ok()).collect();
    format!("told:\n{}", told.join("\n"))
}
