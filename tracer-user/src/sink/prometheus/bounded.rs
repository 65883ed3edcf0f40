//! A family of counters whose label sets are bounded in number.

use std::{hash::Hash, sync::Mutex};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};

/// A label set that can be folded into one of few: what is counted when there are too many.
pub(super) trait Fold {
    /// The label set that stands for many.
    fn folded(&self) -> Self;
}

/// Counters by label set.
pub(super) struct Bounded<L> {
    family: Family<L, Counter>,
    /// Label sets that may still be made.
    room: Mutex<usize>,
}

impl<L: Clone + Eq + Hash + EncodeLabelSet + Fold> Bounded<L> {
    /// At most this many label sets, and those that they are folded into.
    pub(super) fn new(most: usize) -> Self {
        Self { family: Family::default(), room: Mutex::new(most) }
    }

    /// For a registry.
    pub(super) fn family(&self) -> Family<L, Counter> {
        self.family.clone()
    }

    /// Counts.
    pub(super) fn add(&self, labels: &L, count: u64) {
        if let Some(counter) = self.family.get(labels) {
            counter.inc_by(count);
        } else if self.take_room() {
            self.family.get_or_create(labels).inc_by(count);
        } else {
            self.family.get_or_create(&labels.folded()).inc_by(count);
        }
    }

    fn take_room(&self) -> bool {
        let mut room = self.room.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let is_room = *room > 0;
        *room = room.saturating_sub(1);
        is_room
    }
}
