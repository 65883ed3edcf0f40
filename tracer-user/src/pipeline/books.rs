//! Both sides of the books, and what was lost on the way.

use anyhow::Result;
use tracer_common::{Counters, NODE};
use tracer_core::{
    books::{Reading, Totals},
    event::TargetId,
    input::Input,
    output::{Body, LostEvent},
};

use super::Pipeline;

/// Attempts to read both sides of the books at the same instant. On a busy target the counters change
/// all the time, but a reading takes some 50 µs.
const READING_ATTEMPTS: usize = 200;

impl Pipeline {
    /// Tells events that the kernel did not show, and records that found the ring buffer full.
    pub(super) fn tell_missed(&mut self) {
        for (hook, missed) in self.probes.missed().cloned().unwrap_or_default() {
            let before = self.missed.insert(hook, missed).unwrap_or_default();
            let lost =
                LostEvent { hook: Some(hook.to_owned()), ..lost("kernel", "skipped", missed - before) };
            self.tell_lost(lost);
        }
        // Only what is armed sends records, and the node.
        let sends = self.tracked.iter().filter(|(_, tracked)| tracked.armed).map(|(id, _)| *id);
        let mut new = 0;
        for target in sends.chain([NODE]) {
            let Ok(counters) = self.probes.counters(target) else { continue };
            let lost: u64 = counters.records_lost.iter().sum();
            new += lost - self.records_lost.insert(target, lost).unwrap_or_default().min(lost);
        }
        self.tell_lost(lost("ring_buffer", "full", new));
        let unattributed = self.tracer.records().unattributed;
        let before = std::mem::replace(&mut self.unattributed, unattributed);
        self.tell_lost(lost("attribute", "no_target", unattributed.saturating_sub(before)));
        if self.output.has_room() {
            self.tell_dropped();
        }
    }

    /// Tells lines that found the output's queue full.
    pub(super) fn tell_dropped(&mut self) {
        let dropped = self.output.take_dropped();
        self.tell_lost(lost("sink", "slow_reader", dropped));
    }

    fn tell_lost(&mut self, lost: LostEvent) {
        if lost.count > 0 {
            self.add_line(Body::Lost(lost));
        }
    }

    /// What only counters tell (connections that the kernel dropped, resets whose records were lost)
    /// belongs to the phase that it happened in: read them whenever one begins.
    pub(super) fn read_books_of_phases(&mut self) -> Result<()> {
        while let Some(target) = self.phase_entered.pop_first() {
            if self.tracked.contains_key(&target) {
                self.read_books(target)?;
            }
            if self.tracer.is_terminating(target) {
                self.arm(target)?;
            }
        }
        Ok(())
    }

    /// Reads both sides of a target's books at the same instant: the programs' counters must not
    /// change while the kernel's totals are read. All records counted by then are drained first.
    pub(super) fn read_books(&mut self, target: TargetId) -> Result<()> {
        let missed = self.probes.missed().map(|missed| missed.values().sum());
        let (mut counters, mut totals) = (Counters::default(), None);
        for _ in 0..READING_ATTEMPTS {
            let before = self.probes.counters(target)?;
            self.drain();
            totals = self.totals(target);
            counters = self.probes.counters(target)?;
            if counters == before {
                break;
            }
        }
        self.input(Input::Counters { target, reading: Box::new(Reading { counters, totals, missed }) });
        Ok(())
    }

    /// `None` if there are none, or they cannot be read.
    fn totals(&self, target: TargetId) -> Option<Totals> {
        let reader = self.tracked.get(&target)?.totals.as_ref()?;
        reader.read().inspect_err(|error| log::warn!("{error:#}")).ok()
    }
}

fn lost(stage: &str, reason: &str, count: u64) -> LostEvent {
    LostEvent { stage: stage.to_owned(), reason: reason.to_owned(), hook: None, count }
}
