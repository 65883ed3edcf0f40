//! Numbers of the lines that show something; the first few of each.

use std::collections::BTreeMap;

use crate::{losses::LossKey, words::Phase};

/// Lines kept of each kind.
const MAX_EXHIBITS: usize = 5;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Exhibits {
    phases: BTreeMap<(u32, Phase), u64>,
    losses: BTreeMap<LossKey, Vec<u64>>,
}

impl Exhibits {
    /// A line that says that a container entered a phase.
    pub fn phase(&mut self, container: u32, phase: Phase, seq: u64) {
        self.phases.entry((container, phase)).or_insert(seq);
    }

    /// A line that shows a loss.
    pub fn loss(&mut self, key: LossKey, seq: u64) {
        let lines = self.losses.entry(key).or_default();
        if lines.len() < MAX_EXHIBITS {
            lines.push(seq);
        }
    }

    pub(super) fn of_phase(&self, container: u32, phase: Phase) -> Option<u64> {
        self.phases.get(&(container, phase)).copied()
    }

    pub(super) fn of_losses(&self, matches: impl Fn(&LossKey) -> bool) -> Vec<u64> {
        let matching = self.losses.iter().filter(|(key, _)| matches(key));
        let mut lines: Vec<u64> = matching.flat_map(|(_, lines)| lines).copied().collect();
        lines.sort_unstable();
        lines.truncate(MAX_EXHIBITS);
        lines
    }
}
