//! A number that was measured, beside what was promised of it.

use serde_json::{Value, json};

/// What was promised of a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Goal {
    /// The median is at most this.
    AtMost(f64),
    /// The median is at least this.
    AtLeast(f64),
    /// Nothing; it is there to compare with.
    None,
}

/// One figure of a part, with a value per run.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    /// What was measured.
    pub name: String,
    /// Its unit.
    pub unit: &'static str,
    /// A value per run; never empty.
    pub values: Vec<f64>,
    /// What was promised.
    pub goal: Goal,
}

impl Figure {
    /// A figure that was measured `values.len()` times.
    pub(crate) fn new(name: impl Into<String>, unit: &'static str, values: Vec<f64>, goal: Goal) -> Self {
        Self { name: name.into(), unit, values, goal }
    }

    /// The smallest value, the median, and the greatest.
    pub(crate) fn spread(&self) -> [f64; 3] {
        let mut values = self.values.clone();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        [at(0), at(values.len() / 2), at(values.len().saturating_sub(1))]
    }

    /// Whether the goal is reached.
    pub(crate) fn is_reached(&self) -> bool {
        let [_, median, _] = self.spread();
        match self.goal {
            Goal::AtMost(limit) => median <= limit,
            Goal::AtLeast(limit) => median >= limit,
            Goal::None => true,
        }
    }

    /// Its cells in a table: name, unit, minimum, median, maximum, goal, and whether it is reached.
    pub(crate) fn cells(&self) -> [String; 7] {
        let [min, median, max] = self.spread().map(number);
        let (goal, reached) = match self.goal {
            Goal::AtMost(limit) => (format!("≤ {}", number(limit)), self.is_reached()),
            Goal::AtLeast(limit) => (format!("≥ {}", number(limit)), self.is_reached()),
            Goal::None => {
                return [self.name.clone(), self.unit.into(), min, median, max, "".into(), "".into()];
            }
        };
        let reached = if reached { "yes" } else { "missed" };
        [self.name.clone(), self.unit.to_owned(), min, median, max, goal, reached.to_owned()]
    }

    /// The figure for programs.
    pub(crate) fn json(&self) -> Value {
        let [min, median, max] = self.spread();
        let goal = match self.goal {
            Goal::AtMost(limit) => json!({"at_most": limit}),
            Goal::AtLeast(limit) => json!({"at_least": limit}),
            Goal::None => Value::Null,
        };
        json!({
            "name": self.name, "unit": self.unit, "min": min, "median": median, "max": max,
            "values": self.values, "goal": goal, "reached": self.is_reached(),
        })
    }
}

/// Three significant digits, and thousands apart.
fn number(value: f64) -> String {
    let decimals = match value.abs() {
        below if below < 10.0 => 2,
        below if below < 100.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = text.split_once('.').map_or((text.as_str(), ""), |parts| parts);
    let mut grouped = String::new();
    for (position, digit) in whole.chars().enumerate() {
        if position > 0 && (whole.len() - position) % 3 == 0 && digit.is_ascii_digit() {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if fraction.is_empty() { grouped } else { format!("{grouped}.{fraction}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_held_against_the_goal() {
        let figure = |goal| Figure::new("rate", "/s", vec![3.0, 1.0, 2.0], goal);
        assert_eq!(figure(Goal::None).spread(), [1.0, 2.0, 3.0]);
        assert!(figure(Goal::AtMost(2.0)).is_reached() && !figure(Goal::AtMost(1.9)).is_reached());
        assert!(figure(Goal::AtLeast(2.0)).is_reached() && !figure(Goal::AtLeast(2.1)).is_reached());
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!([0.5, 41.26, 17_518.4, 2_000_000.0].map(number), ["0.50", "41.3", "17,518", "2,000,000"]);
    }
}
