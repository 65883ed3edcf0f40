//! The axis of a plot: what part of time is shown, and where on it a moment lies.

use std::fmt;

use tracer_core::event::Mono;

use super::super::model::Pod;
use crate::sink::names;

/// What is shown from before the termination, at least.
const LEAST_LEAD: Mono = 300_000_000;
/// Marks on the axis: so few that their labels fit a narrow page.
const TICKS: i64 = 5;

/// A place from left to right.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(super) struct Percent(pub(super) f64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2}%", self.0)
    }
}

/// A mark on the axis.
pub(super) struct Tick {
    pub(super) at: Percent,
    pub(super) label: String,
    /// Its label would leave the picture to the right.
    pub(super) last: bool,
    pub(super) zero: bool,
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    pub(super) from: Mono,
    pub(super) zero: Mono,
    pub(super) to: Mono,
}

impl Axis {
    /// From shortly before the termination to the last event; without a termination, all.
    pub(super) fn of(pod: &Pod) -> Self {
        // Of some pods no event was read.
        let first = if pod.span.0 == Mono::MAX { 0 } else { pod.span.0 };
        let last = pod.span.1.max(first);
        let zero = pod.began.unwrap_or(first).max(first);
        let took = last.saturating_sub(zero);
        let lead = if pod.began.is_some() { (took / 4).max(LEAST_LEAD).min(zero - first) } else { 0 };
        Self { from: zero - lead, zero, to: last.max(zero) + (took + lead) / 30 + 1_000_000 }
    }

    /// Where a moment lies; those outside are at the edge.
    pub(super) fn at(self, time: Mono) -> Percent {
        let span = (self.to - self.from) as f64;
        Percent((time.clamp(self.from, self.to) - self.from) as f64 * 100.0 / span)
    }

    /// Seconds since the termination began.
    pub(super) fn since(self, time: Mono) -> String {
        names::since(self.zero, time)
    }

    /// Round numbers of seconds.
    pub(super) fn ticks(self) -> Vec<Tick> {
        let (start, end) = (self.relative(self.from), self.relative(self.to));
        let step = step((end - start) / TICKS);
        let digits = (0..9).find(|digits| step % 10_i64.pow(9 - digits) == 0).unwrap_or(9) as usize;
        let all = (start.div_euclid(step)..).map(|number| number * step);
        all.take_while(|tick| *tick <= end)
            .filter(|tick| *tick >= start)
            .map(|tick| {
                let at = self.at(self.zero.saturating_add_signed(tick));
                let seconds = names::seconds(tick);
                let label = if tick == 0 { "0 s".to_owned() } else { format!("{seconds:+.digits$} s") };
                Tick { at, label, last: at.0 > 88.0, zero: tick == 0 }
            })
            .collect()
    }

    fn relative(self, time: Mono) -> i64 {
        time.cast_signed() - self.zero.cast_signed()
    }
}

/// 1, 2 or 5 times a power of ten, no less than this.
fn step(least: i64) -> i64 {
    let powers = (3..18).map(|power| 10_i64.pow(power));
    powers.flat_map(|power| [power, 2 * power, 5 * power]).find(|step| *step >= least).unwrap_or(i64::MAX)
}
