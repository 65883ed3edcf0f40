//! The kernel's tick, measured from the records themselves: its length is a build option (HZ) that
//! no interface tells.

use crate::event::Mono;

/// Lengths of a jiffy in nanoseconds that kernels are built with: HZ of 1000, 300, 250 and 100.
const LENGTHS: [Mono; 4] = [1_000_000, 3_333_333, 4_000_000, 10_000_000];
/// Two readings this far apart tell the lengths from each other.
const ENOUGH: Mono = 200_000_000;

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct Jiffies {
    first: Option<(Mono, u32)>,
    length: Option<Mono>,
}

impl Jiffies {
    /// Takes a record's two times.
    pub fn observe(&mut self, time: Mono, jiffies: u32) {
        let (first_time, first_jiffies) = *self.first.get_or_insert((time, jiffies));
        let elapsed = time.saturating_sub(first_time);
        if self.length.is_some() || elapsed < ENOUGH {
            return;
        }
        let ticks = u64::from(jiffies.wrapping_sub(first_jiffies).max(1));
        self.length = LENGTHS.into_iter().min_by_key(|length| length.abs_diff(elapsed / ticks));
    }

    /// When something happened that a record made at `time` and `now` jiffies says was at `then`.
    /// Until the tick was measured the commonest is taken (HZ=250).
    #[must_use]
    pub fn time_of(&self, time: Mono, now: u32, then: u32) -> Mono {
        // A stamp from a tick that had not reached this CPU yet lies ahead.
        let ticks = now.wrapping_sub(then).cast_signed().max(0);
        time.saturating_sub(u64::from(ticks.unsigned_abs()) * self.length.unwrap_or(LENGTHS[2]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tick_is_measured() {
        for length in LENGTHS {
            let mut jiffies = Jiffies::default();
            let start = u32::MAX - 7;
            for tick in 0..400_u32 {
                jiffies.observe(1_000 + u64::from(tick) * length, start.wrapping_add(tick));
            }
            assert_eq!(jiffies.length, Some(length));
            assert_eq!(jiffies.time_of(20 * length, 5, 2), 17 * length);
        }
    }

    #[test]
    fn a_stamp_ahead_is_now() {
        assert_eq!(Jiffies::default().time_of(100, 5, 6), 100);
    }
}
