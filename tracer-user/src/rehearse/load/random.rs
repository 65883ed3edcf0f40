//! Think times from a seed, so that a run can be repeated; and numbers that tell requests apart.

use std::time::Duration;

/// SplitMix64: small, and good enough to keep clients out of step.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    /// A source for client `number`, different from every other client's.
    pub(super) fn for_client(seed: u64, number: u64) -> Self {
        let mut mixed = Self(seed ^ number.rotate_left(32));
        Self(mixed.next())
    }

    /// Between 10 and 20 ms.
    pub(super) fn think_time(&mut self) -> Duration {
        Duration::from_micros(10_000 + self.next() % 10_001)
    }

    /// The next number.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_times_and_clients_differ() {
        let times = |seed, client| {
            let mut random = Random::for_client(seed, client);
            [(); 5].map(|()| random.think_time())
        };
        assert_eq!(times(7, 0), times(7, 0));
        assert_ne!(times(7, 0), times(7, 1));
        assert!(times(7, 0).iter().all(|time| (10..=20).contains(&time.as_millis())));
    }
}
