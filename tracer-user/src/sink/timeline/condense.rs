//! Floods of the same kind of loss: the first few are told one by one, the rest in one line.
//!
//! It remembers a few kinds at a time and no single losses, however many there are.

use tracer_core::event::Mono;

/// Losses of a kind that are told one by one.
const SHOWN: u64 = 3;
/// Kinds remembered at a time.
const MAX_RUNS: usize = 8;
/// A kind that was not seen for this long begins anew.
const GAP: Mono = 1_000_000_000;
/// A flood that goes on is told at least this often.
const INTERVAL: Mono = 5_000_000_000;

/// Losses of one kind in quick succession.
#[derive(Debug)]
struct Run<K> {
    kind: K,
    shown: u64,
    hidden: u64,
    told: Mono,
    last: Mono,
}

/// Losses that were not told one by one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct More<K> {
    /// Of which kind.
    pub(super) kind: K,
    /// How many.
    pub(super) count: u64,
    /// When the last one was.
    pub(super) until: Mono,
}

/// See the module. `K` is the kind.
#[derive(Debug)]
pub(super) struct Condense<K>(Vec<Run<K>>);

impl<K> Default for Condense<K> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Clone + PartialEq> Condense<K> {
    /// Takes a loss; whether it is to be told by itself. Call [`due`](Self::due) before.
    pub(super) fn take(&mut self, kind: &K, time: Mono, more: &mut Vec<More<K>>) -> bool {
        if let Some(run) = self.0.iter_mut().find(|run| run.kind == *kind) {
            run.last = run.last.max(time);
            if run.shown < SHOWN {
                run.shown += 1;
                return true;
            }
            run.hidden += 1;
            return false;
        }
        if self.0.len() == MAX_RUNS {
            let oldest = (0..MAX_RUNS).min_by_key(|at| self.0[*at].last).unwrap_or(0);
            more.extend(self.0.remove(oldest).tell(time));
        }
        self.0.push(Run { kind: kind.clone(), shown: 1, hidden: 0, told: time, last: time });
        true
    }

    /// What is to be told by now, before anything of this time.
    pub(super) fn due(&mut self, now: Mono, more: &mut Vec<More<K>>) {
        for run in &mut self.0 {
            if now >= run.last + GAP || now >= run.told + INTERVAL {
                more.extend(run.tell(now));
            }
        }
        self.0.retain(|run| now < run.last + GAP);
    }

    /// All that was not told yet, because something else is to be told; the floods may go on.
    pub(super) fn flush(&mut self, now: Mono, more: &mut Vec<More<K>>) {
        more.extend(self.0.iter_mut().filter_map(|run| run.tell(now)));
    }
}

impl<K: Clone> Run<K> {
    fn tell(&mut self, now: Mono) -> Option<More<K>> {
        let count = std::mem::take(&mut self.hidden);
        self.told = now;
        (count > 0).then(|| More { kind: self.kind.clone(), count, until: self.last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Mono = 1_000_000;

    fn take(condense: &mut Condense<u32>, kind: u32, time: Mono) -> (bool, Vec<More<u32>>) {
        let mut more = Vec::new();
        condense.due(time, &mut more);
        (condense.take(&kind, time, &mut more), more)
    }

    #[test]
    fn a_flood_is_told_by_its_first_and_its_number() {
        let mut condense = Condense::default();
        let shown = (0..45).filter(|at| take(&mut condense, 1, at * MS).0).count();
        assert_eq!(shown, 3);
        let mut more = Vec::new();
        condense.due(2_000 * MS, &mut more);
        assert_eq!(more, [More { kind: 1, count: 42, until: 44 * MS }]);
        assert!(take(&mut condense, 1, 2_000 * MS).0, "it begins anew");
    }

    #[test]
    fn a_long_flood_is_told_now_and_then() {
        let mut condense = Condense::default();
        let told: usize = (0..120).map(|at| take(&mut condense, 1, at * 100 * MS).1.len()).sum();
        assert_eq!(told, 2);
    }

    #[test]
    fn many_kinds_do_not_take_more_room() {
        let mut condense = Condense::default();
        for kind in 0..100 {
            take(&mut condense, kind, MS);
        }
        assert_eq!(condense.0.len(), MAX_RUNS);
    }
}
