//! Connections and losses over time, in a fixed number of bins however long it takes.
//!
//! Before the termination begins, old bins are dropped: only the last seconds are of interest. From
//! then on none is dropped; when there is no room, bins are joined in pairs, and each is twice as long.

use std::collections::VecDeque;

use tracer_core::{event::Mono, words::Confidence};

/// Bins kept.
const BINS: usize = 4096;
/// How long a bin is at first.
const SHORTEST: Mono = 2_000_000;

/// What happened in a span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bin {
    /// Open connections: the most at once, and at its end; `None` if nothing changed.
    level: Option<(u32, u32)>,
    opened: u32,
    sure: u32,
    possible: u32,
}

/// A column of the picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Column {
    /// The most connections open at once.
    pub(super) open: u32,
    /// New connections.
    pub(super) opened: u32,
    /// Certain and likely losses.
    pub(super) sure: u32,
    /// Possible losses.
    pub(super) possible: u32,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Series {
    start: Mono,
    width: Mono,
    bins: VecDeque<Bin>,
    /// Connections open now, and before the first bin.
    level: u32,
    level_before: u32,
    keep_all: bool,
}

impl Series {
    /// From this time on.
    pub(super) fn new(start: Mono) -> Self {
        let (level, level_before) = (0, 0);
        Self { start, width: SHORTEST, bins: VecDeque::new(), level, level_before, keep_all: false }
    }

    /// Begin of the first bin.
    pub(super) fn start(&self) -> Mono {
        self.start
    }

    /// From now on, nothing is forgotten.
    pub(super) fn keep_all(&mut self) {
        self.keep_all = true;
    }

    /// A connection was opened, or found open.
    pub(super) fn opened(&mut self, time: Mono, new: bool) {
        self.level = self.level.saturating_add(1);
        self.change(time, |bin| bin.opened = bin.opened.saturating_add(new.into()));
    }

    /// A connection ended.
    pub(super) fn closed(&mut self, time: Mono) {
        self.level = self.level.saturating_sub(1);
        self.change(time, |_| {});
    }

    /// A loss.
    pub(super) fn lost(&mut self, time: Mono, confidence: Confidence) {
        self.change(time, |bin| match confidence {
            Confidence::Possible => bin.possible = bin.possible.saturating_add(1),
            Confidence::Likely | Confidence::Certain => bin.sure = bin.sure.saturating_add(1),
        });
    }

    fn change(&mut self, time: Mono, change: impl FnOnce(&mut Bin)) {
        let index = self.make_room(time.saturating_sub(self.start));
        while self.bins.len() <= index {
            self.bins.push_back(Bin::default());
        }
        let level = self.level;
        if let Some(bin) = self.bins.get_mut(index) {
            let most = bin.level.map_or(level, |(most, _)| most.max(level));
            bin.level = Some((most, level));
            change(bin);
        }
    }

    /// The bin of a time, given from the start; there is room for it.
    fn make_room(&mut self, since: Mono) -> usize {
        let mut since = since;
        if !self.keep_all {
            let ahead = (since / self.width).saturating_sub(BINS as u64 - 1);
            self.drop_first(ahead);
            since -= ahead * self.width;
        }
        while since / self.width >= BINS as u64 {
            self.join_pairs();
        }
        usize::try_from(since / self.width).unwrap_or(BINS - 1)
    }

    fn drop_first(&mut self, count: u64) {
        let dropped = usize::try_from(count).unwrap_or(usize::MAX).min(self.bins.len());
        for bin in self.bins.drain(..dropped) {
            self.level_before = bin.level.map_or(self.level_before, |(_, last)| last);
        }
        self.start += count * self.width;
    }

    fn join_pairs(&mut self) {
        let joined = self.bins.make_contiguous().chunks(2).map(|pair| {
            let (first, second) = (pair[0], pair.get(1).copied().unwrap_or_default());
            Bin {
                level: match (first.level, second.level) {
                    (Some((most, _)), Some((later, last))) => Some((most.max(later), last)),
                    (one, other) => one.or(other),
                },
                opened: first.opened.saturating_add(second.opened),
                sure: first.sure.saturating_add(second.sure),
                possible: first.possible.saturating_add(second.possible),
            }
        });
        self.bins = joined.collect();
        self.width *= 2;
    }

    /// The most connections open at once, as far as it is remembered.
    pub(super) fn most_open(&self) -> u32 {
        let levels = self.bins.iter().filter_map(|bin| bin.level);
        levels.map(|(most, _)| most).chain([self.level_before]).max().unwrap_or(0)
    }

    /// What happened from one time to another, in this many columns.
    pub(super) fn columns(&self, from: Mono, to: Mono, count: usize) -> Vec<Column> {
        let mut columns = vec![Column::default(); count];
        let mut level = self.level_before;
        let mut next = 0;
        for (index, bin) in self.bins.iter().enumerate() {
            let time = self.start + index as u64 * self.width;
            let Some(at) = column(time, from, to, count) else {
                level = bin.level.map_or(level, |(_, last)| last);
                continue;
            };
            while next <= at {
                columns[next].open = level;
                next += 1;
            }
            let (most, last) = bin.level.unwrap_or((level, level));
            level = last;
            columns[at].open = columns[at].open.max(most);
            columns[at].opened = columns[at].opened.saturating_add(bin.opened);
            columns[at].sure = columns[at].sure.saturating_add(bin.sure);
            columns[at].possible = columns[at].possible.saturating_add(bin.possible);
        }
        columns[next..].iter_mut().for_each(|column| column.open = level);
        columns
    }
}

/// The column of a time; `None` if it lies outside.
pub(super) fn column(time: Mono, from: Mono, to: Mono, count: usize) -> Option<usize> {
    if time < from || time > to {
        return None;
    }
    let span = u128::from((to - from).max(1));
    let at = u128::from(time - from) * count as u128 / span;
    Some(usize::try_from(at).unwrap_or(count).min(count.saturating_sub(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Mono = 1_000_000_000;

    #[test]
    fn the_level_is_carried_over_empty_columns() {
        let mut series = Series::new(0);
        series.opened(0, true);
        series.opened(SECOND, true);
        series.closed(3 * SECOND);
        series.lost(3 * SECOND, Confidence::Certain);
        let columns = series.columns(0, 4 * SECOND, 4);
        assert_eq!(columns.iter().map(|column| column.open).collect::<Vec<_>>(), [1, 2, 2, 2]);
        assert_eq!(columns.iter().map(|column| column.opened).sum::<u32>(), 2);
        assert_eq!(columns[3].sure, 1);
    }

    #[test]
    fn before_the_termination_only_the_last_seconds_are_kept() {
        let mut series = Series::new(0);
        for second in 0..3600 {
            series.opened(second * SECOND, true);
        }
        assert!(series.bins.len() <= BINS && series.width == SHORTEST);
        assert_eq!(series.columns(3599 * SECOND, 3600 * SECOND, 1)[0].open, 3600);
    }

    #[test]
    fn a_termination_is_kept_whole_in_bounded_memory() {
        let mut series = Series::new(0);
        series.keep_all();
        for second in 0..3600 {
            series.opened(second * SECOND, true);
        }
        assert!(series.bins.len() <= BINS);
        assert_eq!(series.start(), 0);
        let opened: u32 = series.columns(0, 3600 * SECOND, 60).iter().map(|column| column.opened).sum();
        assert_eq!(opened, 3600);
    }
}
