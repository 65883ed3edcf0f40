//! The lines of one run in the order of their `seq`, each once, and what is missing of them.

use std::{collections::BTreeMap, ops::RangeInclusive};

use tracer_core::{
    event::Mono,
    output::{Body, Line},
    verdict::Verdict,
    words::{Phase, Result},
};

/// See the module.
#[derive(Debug)]
pub(super) struct Order {
    first: u64,
    first_mono_ns: Mono,
    next: u64,
    /// Lines whose predecessors have not come; `None` is one that is not understood.
    waiting: BTreeMap<u64, Option<Line>>,
    /// Lines that may wait.
    patience: usize,
    gaps: Vec<RangeInclusive<u64>>,
}

impl Order {
    /// Begins with this line, whatever its number: a recording may begin later than the run.
    pub(super) fn new(seq: u64, mono_ns: Mono, patience: usize) -> Self {
        let waiting = BTreeMap::new();
        Self { first: seq, first_mono_ns: mono_ns, next: seq, waiting, patience, gaps: Vec::new() }
    }

    /// Takes a line and gives those whose turn has come; false if it had come before, or is too late.
    pub(super) fn put(&mut self, seq: u64, line: Option<Line>, out: &mut Vec<Line>) -> bool {
        if seq < self.next || self.waiting.contains_key(&seq) {
            return false;
        }
        if seq == self.next && self.waiting.is_empty() {
            self.next = self.next.saturating_add(1);
            out.extend(line.map(|line| self.judge(line)));
            return true;
        }
        self.waiting.insert(seq, line);
        self.release(out);
        if self.waiting.len() > self.patience {
            self.give_up(out);
        }
        true
    }

    /// No more lines come.
    pub(super) fn end(&mut self, out: &mut Vec<Line>) {
        while !self.waiting.is_empty() {
            self.give_up(out);
        }
    }

    /// How many lines are missing.
    pub(super) fn missing(&self) -> u64 {
        self.gaps.iter().map(|gap| gap.end() - gap.start() + 1).sum()
    }

    fn release(&mut self, out: &mut Vec<Line>) {
        while let Some(line) = self.waiting.remove(&self.next) {
            self.next = self.next.saturating_add(1);
            out.extend(line.map(|line| self.judge(line)));
        }
    }

    /// What has not come until now is missing.
    fn give_up(&mut self, out: &mut Vec<Line>) {
        let Some(first) = self.waiting.keys().next().copied() else { return };
        if first > self.next {
            self.gaps.push(self.next..=first - 1);
            self.next = first;
        }
        self.release(out);
    }

    /// A verdict whose evidence is not complete proves nothing to the reader.
    fn judge(&self, mut line: Line) -> Line {
        if let Body::Verdict(verdict) = &mut line.body
            && let Some(reason) = self.doubt(verdict)
        {
            if verdict.result != Result::Cut {
                verdict.result = Result::Unproven;
            }
            verdict.reasons.push(reason);
        }
        line
    }

    /// Why a verdict is not proven by what was read.
    fn doubt(&self, verdict: &Verdict) -> Option<String> {
        let (first, last) = (verdict.evidence.first_seq, verdict.evidence.last_seq);
        let missing: u64 = self
            .gaps
            .iter()
            .map(|gap| (*gap.end().min(&last) + 1).saturating_sub(*gap.start().max(&first)))
            .sum();
        if missing > 0 {
            let gap = self.gaps.iter().find(|gap| *gap.end() >= first)?;
            let lines = if missing == 1 { "line is" } else { "lines are" };
            return Some(format!("{missing} {lines} missing in the recording, from seq {} on", gap.start()));
        }
        let began = began(verdict)?;
        (first < self.first && self.first_mono_ns > began)
            .then(|| format!("the recording begins at seq {}, after the termination did", self.first))
    }
}

/// When the first container left the phase running.
fn began(verdict: &Verdict) -> Option<Mono> {
    let phases = verdict.containers.iter().flat_map(|container| &container.phases);
    phases.filter(|start| start.phase != Phase::Running).map(|start| start.mono_ns).min()
}
