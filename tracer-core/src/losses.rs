//! What endings and losses add up to: each connection counts once.

use std::collections::BTreeMap;

use crate::{
    connection::Moment,
    event::{Mono, Tuple},
    words::{Confidence, Ending, Hop, Judgement},
};

/// Losses kept one by one, as evidence; beyond, they are only counted.
const MAX_EVIDENCE: usize = 1000;

/// What losses are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LossKey {
    /// How the connection ended.
    pub ending: Ending,
    /// Where the container was.
    pub moment: Moment,
    /// How far it went.
    pub hop: Hop,
    /// How sure it is.
    pub confidence: Confidence,
}

/// One loss, as evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// When.
    pub time: Mono,
    /// Whose connection.
    pub tuple: Tuple,
    /// What it counts as.
    pub key: LossKey,
}

/// One ending of a connection, or of a request for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// When.
    pub time: Mono,
    /// Whose connection.
    pub tuple: Tuple,
    /// How far it went.
    pub hop: Hop,
    /// Where the container was.
    pub moment: Moment,
    /// What it means.
    pub judgement: Judgement,
}

impl End {
    fn key(&self) -> Option<LossKey> {
        let Judgement { ending, confidence } = self.judgement;
        Some(LossKey { ending, moment: self.moment, hop: self.hop, confidence: confidence? })
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Losses {
    counts: BTreeMap<LossKey, u64>,
    evidence: Vec<Loss>,
    endings: BTreeMap<Ending, u64>,
}

impl Losses {
    /// Counts an ending.
    pub fn add(&mut self, end: &End) {
        *self.endings.entry(end.judgement.ending).or_default() += 1;
        let Some(key) = end.key() else { return };
        *self.counts.entry(key).or_default() += 1;
        if self.evidence.len() < MAX_EVIDENCE {
            self.evidence.push(Loss { time: end.time, tuple: end.tuple, key });
        }
    }

    /// Takes an ending back: what came later on the same connection says more.
    pub fn take_back(&mut self, end: &End) {
        decrease(&mut self.endings, &end.judgement.ending);
        let Some(key) = end.key() else { return };
        decrease(&mut self.counts, &key);
        let its = |loss: &Loss| loss.tuple == end.tuple && loss.key == key;
        if let Some(at) = self.evidence.iter().rposition(its) {
            self.evidence.remove(at);
        }
    }

    /// Counts losses that only the kernel's counters tell: connections that it dropped before there was
    /// one, and resets whose records were lost. Which peers lost is not known.
    pub fn add_untold(&mut self, ending: Ending, moment: Moment, count: u64) {
        if count > 0 {
            let key = LossKey { ending, moment, hop: Hop::External, confidence: Confidence::Likely };
            *self.counts.entry(key).or_default() += count;
        }
    }

    /// Takes such losses back, as far as there are any, since they were told after all; the latest first.
    pub fn take_back_untold(&mut self, ending: Ending, mut count: u64) {
        let keys: Vec<LossKey> = self.counts.keys().filter(|key| key.ending == ending).copied().collect();
        for key in keys.iter().rev() {
            while count > 0 && self.counts.contains_key(key) {
                decrease(&mut self.counts, key);
                count -= 1;
            }
        }
    }

    /// Losses by what they are counted by.
    #[must_use]
    pub fn counts(&self) -> &BTreeMap<LossKey, u64> {
        &self.counts
    }

    /// The first losses one by one.
    #[must_use]
    pub fn evidence(&self) -> &[Loss] {
        &self.evidence
    }

    /// Endings in numbers.
    #[must_use]
    pub fn endings(&self) -> &BTreeMap<Ending, u64> {
        &self.endings
    }

    /// Certain and likely losses, and possible ones.
    #[must_use]
    pub fn totals(&self) -> (u64, u64) {
        self.counts.iter().fold((0, 0), |(lost, doubts), (key, count)| {
            if key.confidence == Confidence::Possible {
                (lost, doubts + count)
            } else {
                (lost + count, doubts)
            }
        })
    }
}

fn decrease<K: Ord>(counts: &mut BTreeMap<K, u64>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
