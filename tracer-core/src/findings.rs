//! Findings: causes with their evidence, and remedies with numbers from this run.
//! `docs/findings.md` has a page on each.

mod exhibits;
mod termination;
mod traffic;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::exhibits::Exhibits;
use crate::{
    event::Mono,
    input::Timeouts,
    ledger::Ledger,
    lifecycle::{Lifecycle, PhaseStart, Source},
    losses::LossKey,
    output::HookRunEvent,
    words::{Ending, Phase},
};

/// A preStop that only the API tells of, and no process, is one if it takes this long: the kubelet
/// itself waits (`sleep`) or asks (`httpGet`).
const SILENT_PRE_STOP: Mono = 500_000_000;

/// A cause, its evidence, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// Which, as in `docs/findings.md`.
    pub id: String,
    /// Which container.
    pub container: String,
    /// What was seen, in words.
    pub text: String,
    /// What to do, with numbers from this run.
    pub remedy: String,
    /// `seq` of lines that show it; the first few.
    pub evidence: Vec<u64>,
}

/// A container, as findings see it.
pub struct Suspect<'a> {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: &'a str,
    /// Its phases.
    pub lifecycle: &'a Lifecycle,
    /// Processes that entered it and were there when its termination began, or came later.
    pub hooks: &'a [HookRunEvent],
}

/// What findings are drawn from.
pub struct Case<'a> {
    /// The containers.
    pub containers: Vec<Suspect<'a>>,
    /// The connections.
    pub ledger: &'a Ledger,
    /// Numbers of the lines.
    pub exhibits: &'a Exhibits,
    /// A pod of whose deletion the API told nothing: a preStop that the kubelet runs itself (`sleep`,
    /// `httpGet`) would not be seen.
    pub unseen_pre_stop: bool,
    /// The pod was not deleted: another container took the place of one that was stopped.
    pub restarted: bool,
    /// If Services lead to it: since when they do not, if they stopped.
    pub endpoint: Option<Option<Mono>>,
    /// What somebody told of grace period and load balancer.
    pub timeouts: Timeouts,
}

/// Draws the findings, container by container.
#[must_use]
pub fn find(case: &Case<'_>) -> Vec<Finding> {
    let of_container = |container| {
        let one = One { case, container };
        one.of_termination().into_iter().chain(one.of_traffic())
    };
    case.containers.iter().flat_map(of_container).flatten().collect()
}

/// One container of a case.
struct One<'a> {
    case: &'a Case<'a>,
    container: &'a Suspect<'a>,
}

impl One<'_> {
    /// A finding about the container. Where records of what it rests on were lost, and only counts are
    /// left, its evidence is the beginning of the termination.
    fn finding(&self, id: &str, text: String, remedy: String, mut evidence: Vec<u64>) -> Finding {
        if evidence.is_empty() {
            let began = self.container.lifecycle.starts().get(1).map_or(Phase::Running, |start| start.phase);
            evidence = self.phases(&[began]);
        }
        Finding { id: id.to_owned(), container: self.container.name.to_owned(), text, remedy, evidence }
    }

    /// Lines that say when the container entered these phases.
    fn phases(&self, phases: &[Phase]) -> Vec<u64> {
        let line = |phase: &Phase| self.case.exhibits.of_phase(self.container.index, *phase);
        phases.iter().filter_map(line).collect()
    }

    /// Losses of the container, in numbers.
    fn losses(&self, matches: impl Fn(&LossKey) -> bool) -> u64 {
        let mine = |key: &LossKey| key.moment.container == self.container.index && matches(key);
        self.case.ledger.losses().counts().iter().filter(|(key, _)| mine(key)).map(|(_, count)| count).sum()
    }

    /// Lines that show them.
    fn exhibits(&self, matches: impl Fn(&LossKey) -> bool) -> Vec<u64> {
        let mine = |key: &LossKey| key.moment.container == self.container.index && matches(key);
        self.case.exhibits.of_losses(mine)
    }

    fn entered(&self, phase: Phase) -> Option<Mono> {
        self.container.lifecycle.entered(phase)
    }

    fn start(&self, phase: Phase) -> Option<&PhaseStart> {
        self.container.lifecycle.starts().iter().find(|start| start.phase == phase)
    }

    /// When it came, its name, and whether it was ignored.
    fn stop_signal(&self) -> Option<(Mono, String, bool)> {
        let start = self.start(Phase::StopSignal)?;
        Some((start.time, crate::signals::name(start.signal?).into_owned(), start.ignored))
    }

    /// When the preStop hook began, if there was one. The phase alone is none: the API tells of the
    /// deletion of pods without a hook too.
    fn pre_stop_began(&self, stopped: Mono) -> Option<Mono> {
        let hook = self.container.hooks.iter().map(|run| run.started_mono_ns).min();
        let phase = self.start(Phase::PreStop).filter(|start| {
            hook.is_some()
                || start.source == Source::Rehearsal
                || stopped.saturating_sub(start.time) >= SILENT_PRE_STOP
        });
        let began = phase.map(|start| start.time);
        began.into_iter().chain(hook).min().filter(|began| *began < stopped)
    }
}

fn is_one_of(key: &LossKey, endings: &[Ending]) -> bool {
    endings.contains(&key.ending)
}

fn connections(count: u64) -> String {
    format!("{count} connection{}", if count == 1 { "" } else { "s" })
}

fn requests(count: u64) -> String {
    format!("{count} request{}", if count == 1 { "" } else { "s" })
}

fn seconds(from: Mono, to: Mono) -> f64 {
    to.saturating_sub(from) as f64 / 1e9
}
