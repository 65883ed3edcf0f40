//! Whether a rehearsal's verdict is what its clients saw, and by how much it is.

use std::{collections::BTreeMap, net::SocketAddr};

use lastpacket_tests::{
    events::{Events, peer_of},
    run::Run,
};
use serde_json::to_string;
use tracer_core::{
    output::{Body, FailedRequest, Line},
    verdict::Verdict,
    words::{Confidence, Ending, Phase, Result as Answer},
};

/// What a client notices, it notices within this time; in nanoseconds.
const SLACK: u64 = 100_000_000;

/// Numbers of one rehearsal, or the sum of several.
#[derive(Clone, Copy, Debug, Default)]
pub struct Score {
    pub runs: u64,
    pub answered: u64,
    pub failures: u64,
    pub explained: u64,
    /// Of these, by a possible loss only.
    pub possible: u64,
    /// Certain and likely losses.
    pub sure: u64,
    /// Of these, those that no client saw.
    pub unseen: u64,
    /// Possible losses that no client saw.
    pub doubts: u64,
}

impl Score {
    pub fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.answered += other.answered;
        self.failures += other.failures;
        self.explained += other.explained;
        self.possible += other.possible;
        self.sure += other.sure;
        self.unseen += other.unseen;
        self.doubts += other.doubts;
    }
}

/// A loss as the lines tell it.
struct Loss {
    time: u64,
    confidence: Confidence,
    ending: Ending,
    phase: Phase,
    /// It is told with a connection's end, of which each connection has one.
    is_end: bool,
}

/// What is wrong with a rehearsal, with the lines that show it.
#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn add(&mut self, what: impl Into<String>, lines: &[Line], peer: Option<&str>) {
        let mut text = what.into();
        let peer = peer.and_then(|peer| peer.parse().ok());
        for line in lines.iter().filter(|line| peer.is_some() && peer_of(line) == peer) {
            text.push_str("\n    ");
            text.push_str(&to_string(line).unwrap_or_default());
        }
        self.0.push(text);
    }
}

/// Judges a run: its numbers, and what is wrong with it.
pub fn check(run: &Run) -> (Score, Vec<String>) {
    let mut faults = Faults::default();
    let (Ok(verdict), Ok(clients)) = (run.lines.verdict(), run.lines.rehearsal()) else {
        return (Score::default(), vec![format!("no verdict: {}", run.stderr)]);
    };
    let losses = losses(&run.lines);
    let mut score =
        Score { runs: 1, answered: clients.answered, failures: clients.failed, ..Score::default() };
    for failure in &clients.failures {
        match explain(failure, &losses, verdict) {
            Ok(confidence) => {
                score.explained += 1;
                score.possible += u64::from(confidence == Confidence::Possible);
            }
            Err(why) => {
                faults.add(
                    format!("{why}: {}", to_string(failure).unwrap()),
                    &run.lines,
                    Some(&failure.local),
                );
            }
        }
    }
    for unseen in &clients.unseen_losses {
        score.unseen += 1;
        faults.add(format!("no client saw {}", to_string(unseen).unwrap()), &run.lines, Some(&unseen.peer));
    }
    let saw = |peer: &SocketAddr| clients.failures.iter().any(|failure| failure.local == peer.to_string());
    for (peer, losses) in &losses {
        let surest = losses.iter().map(|loss| loss.confidence).max();
        score.sure += u64::from(surest > Some(Confidence::Possible));
        score.doubts += u64::from(surest == Some(Confidence::Possible) && !saw(peer));
    }
    let told = losses.values().map(|losses| connections(losses)).sum();
    check_verdict(verdict, clients.failed, told, run, &mut faults);
    (score, faults.0)
}

/// Of how many connections these losses are: a client's port may be used again, which shows by several
/// refusals or ends; else several losses are of one connection.
fn connections(losses: &[Loss]) -> u64 {
    let refused = losses.iter().filter(|loss| loss.ending == Ending::Refused).count();
    let ended = losses.iter().filter(|loss| loss.is_end).count();
    refused.max(ended).max(1) as u64
}

fn check_verdict(verdict: &Verdict, failed: u64, lost: u64, run: &Run, faults: &mut Faults) {
    if verdict.result == Answer::Unproven || !verdict.books.iter().all(|book| book.balanced) {
        let books: Vec<_> = verdict.books.iter().filter(|book| !book.balanced).collect();
        faults.add(format!("unproven: {:?} {books:?}", verdict.reasons), &[], None);
    }
    if failed > 0 && verdict.lost + verdict.doubts == 0 {
        faults.add(format!("{:?} without doubts, but {failed} clients failed", verdict.result), &[], None);
    }
    // Those without addresses are counted only.
    let counted: u64 =
        verdict.losses.iter().filter(|loss| loss.ending != Ending::Dropped).map(|loss| loss.count).sum();
    if counted != lost {
        faults.add(format!("the verdict counts {counted} losses, the lines tell of {lost}"), &[], None);
    }
    for line in &run.lines {
        if let Body::Lost(lost) = &line.body {
            faults.add(
                format!("{} records were lost: {}, {}", lost.count, lost.stage, lost.reason),
                &[],
                None,
            );
        }
    }
}

/// The one loss that explains a failure, of those on its connection.
fn explain(
    failure: &FailedRequest,
    losses: &BTreeMap<SocketAddr, Vec<Loss>>,
    verdict: &Verdict,
) -> Result<Confidence, String> {
    let from = failure.start_mono_ns.saturating_sub(SLACK);
    let to = failure.end_mono_ns + SLACK;
    let local: SocketAddr = failure.local.parse().map_err(|_| "no address".to_owned())?;
    let known = losses.get(&local).map(Vec::as_slice).unwrap_or_default();
    let Some(loss) =
        known.iter().filter(|loss| (from..=to).contains(&loss.time)).max_by_key(|loss| loss.confidence)
    else {
        let dropped = verdict.losses.iter().any(|loss| loss.ending == Ending::Dropped);
        let timeout = failure.cause == "no connection in time";
        return if timeout && dropped {
            Ok(Confidence::Likely)
        } else if known.is_empty() {
            Err("not explained".to_owned())
        } else {
            Err("explained by a loss of another time".to_owned())
        };
    };
    let container = verdict.containers.first().ok_or("no container")?;
    let phases = &container.phases;
    let entered =
        phases.iter().find(|phase| phase.phase == loss.phase).ok_or("a phase that never was")?.mono_ns;
    let left =
        phases.iter().map(|phase| phase.mono_ns).filter(|time| *time > entered).min().unwrap_or(u64::MAX);
    if entered <= to && left >= from {
        Ok(loss.confidence)
    } else {
        Err(format!("explained by {} in the wrong phase {}", loss.ending, loss.phase))
    }
}

/// All losses by the client's end of the connection.
fn losses(lines: &[Line]) -> BTreeMap<SocketAddr, Vec<Loss>> {
    let mut losses: BTreeMap<SocketAddr, Vec<Loss>> = BTreeMap::new();
    for line in lines {
        let found = match &line.body {
            Body::Reset(reset) => (reset.ending, reset.confidence, reset.phase),
            Body::ConnectionClosed(event) => match &event.end {
                Some(end) => (Some(end.ending), end.confidence, event.phase),
                None => continue,
            },
            _ => continue,
        };
        let is_end = matches!(line.body, Body::ConnectionClosed(_));
        if let (Some(ending), Some(confidence), phase) = found
            && let Some(peer) = peer_of(line)
        {
            let loss = Loss { time: line.mono_ns, confidence, ending, phase, is_end };
            losses.entry(peer).or_default().push(loss);
        }
    }
    losses
}
