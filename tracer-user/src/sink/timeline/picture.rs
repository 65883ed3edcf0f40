//! The picture of a target over time: a lane of phases for each container, lanes of connections and
//! losses, and the axis.

use tracer_core::event::Mono;

use super::{
    bands::bands,
    history::History,
    names,
    series::{Column, column},
    style::{BAD, DOUBT, FAINT, Look, PLAIN, STRONG, TRAFFIC, columns, pad},
};
use anstyle::Style;

/// Lanes are no wider, whatever the terminal is.
const WIDEST: usize = 240;
/// Room for names of containers and lanes.
const NAMES: std::ops::RangeInclusive<usize> = 13..=24;
/// What is shown from before the termination, at least.
const LEAST_LEAD: Mono = 300_000_000;
const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A span of time on a number of columns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    pub(super) from: Mono,
    pub(super) zero: Mono,
    pub(super) to: Mono,
    pub(super) columns: usize,
}

/// A row of the picture, column by column.
pub(super) type Cells = Vec<(char, Style)>;

/// Draws it, line by line.
pub(super) fn draw(look: Look, first: Mono, history: &History) -> Vec<String> {
    let most = history.series.most_open();
    let (lost, doubts) = history.lost;
    let losses = if doubts == 0 { format!("losses {lost}") } else { format!("losses {lost}, {doubts}?") };
    let (open, new) = (format!("open, max {most}"), format!("new, {}", history.opened));
    let all = history.lanes.iter().map(|lane| &lane.name).chain([&open, &new, &losses]);
    let names = all.map(|name| columns(name)).max().unwrap_or(0).clamp(*NAMES.start(), *NAMES.end());
    let axis = Axis::of(history, look.width().min(WIDEST).saturating_sub(names + 2));
    let row = |name: &str, cells: Cells| {
        format!("{}  {}", look.paint(STRONG, &pad(name, names)), paint(look, &cells))
    };
    let mut lines = vec![caption(look, first, history)];
    lines.extend(history.lanes.iter().map(|lane| row(&lane.name, bands(lane, axis))));
    let drawn = history.series.columns(axis.from, axis.to, axis.columns);
    lines.push(row(&open, blocks(&drawn, |column| column.open)));
    lines.push(row(&new, blocks(&drawn, |column| column.opened)));
    lines.push(row(&losses, drawn.iter().map(|column| loss(*column)).collect()));
    let (ruler, labels) = axis.ruler();
    lines.push(row("seconds", ruler.chars().map(|cell| (cell, FAINT)).collect()));
    lines.push(row("", labels.chars().map(|cell| (cell, PLAIN)).collect()));
    lines
}

fn caption(look: Look, first: Mono, history: &History) -> String {
    let name = look.paint(STRONG, &history.name);
    match &history.began {
        Some((time, phase)) => {
            format!("{name} over time; 0 is {phase}, {} above", names::since(first, *time))
        }
        None => format!("{name} over time; 0 is the first line above; it was not terminated"),
    }
}

impl Axis {
    /// From shortly before the termination to the last that happened.
    fn of(history: &History, columns: usize) -> Self {
        let zero = history.began.as_ref().map_or(history.series.start(), |(time, _)| *time);
        let took = history.last.saturating_sub(zero);
        let lead = (took / 4).max(LEAST_LEAD).min(zero.saturating_sub(history.series.start()));
        // A little room after the last event, so that it does not stick to the edge.
        let to = history.last.max(zero) + (took + lead).max(columns as u64) / 40 + 1;
        Self { from: zero - lead, zero, to, columns }
    }

    /// The column of a time; what lies outside is at the edge.
    pub(super) fn at(self, time: Mono) -> usize {
        column(time.clamp(self.from, self.to), self.from, self.to, self.columns).unwrap_or(0)
    }

    /// Marks at round numbers of seconds, and the numbers.
    fn ruler(self) -> (String, String) {
        let step = self.step();
        let digits = (0..9).find(|digits| step % 10_i64.pow(9 - digits) == 0).unwrap_or(9) as usize;
        let (mut ruler, mut labels) = (vec!['─'; self.columns], vec![' '; self.columns]);
        let start = self.from.cast_signed() - self.zero.cast_signed();
        let end = self.to.cast_signed() - self.zero.cast_signed();
        let mut free = 0;
        for tick in (start.div_euclid(step)..).map(|number| number * step).take_while(|tick| *tick <= end) {
            let at = self.at(self.zero.saturating_add_signed(tick));
            let label =
                if tick == 0 { "0".to_owned() } else { format!("{:+.digits$}", names::seconds(tick)) };
            let label: Vec<char> = label.chars().collect();
            if tick < start || at < free || at + label.len() > self.columns {
                continue;
            }
            ruler[at] = '┴';
            labels[at..at + label.len()].copy_from_slice(&label);
            free = at + label.len() + 1;
        }
        (ruler.into_iter().collect(), labels.into_iter().collect())
    }

    /// 1, 2 or 5 times a power of ten, so that there are some 12 columns between marks.
    fn step(self) -> i64 {
        let least = (self.to - self.from).cast_signed() / (self.columns as i64 / 12).max(1);
        let powers = (6..18).map(|power| 10_i64.pow(power));
        powers.flat_map(|power| [power, 2 * power, 5 * power]).find(|step| *step >= least).unwrap_or(i64::MAX)
    }
}

/// Heights in eighths of the highest; what is not zero can be seen.
fn blocks(drawn: &[Column], value: impl Fn(&Column) -> u32) -> Cells {
    let most = u64::from(drawn.iter().map(&value).max().unwrap_or(0).max(1));
    let block = |column: &Column| {
        let eighths = (u64::from(value(column)) * 8).div_ceil(most);
        (BLOCKS[usize::try_from(eighths).unwrap_or(8).min(8)], TRAFFIC)
    };
    drawn.iter().map(block).collect()
}

fn loss(column: Column) -> (char, Style) {
    match column {
        Column { sure: 1.., .. } => ('×', BAD),
        Column { possible: 1.., .. } => ('?', DOUBT),
        _ => (' ', PLAIN),
    }
}

/// Cells of the same style together.
fn paint(look: Look, cells: &[(char, Style)]) -> String {
    let runs = cells.chunk_by(|one, next| one.1 == next.1);
    runs.map(|run| look.paint(run[0].1, &run.iter().map(|(cell, _)| *cell).collect::<String>())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(cells: &Cells) -> String {
        cells.iter().map(|(cell, _)| *cell).collect()
    }

    const AXIS: Axis = Axis { from: 0, zero: 10_000_000_000, to: 40_000_000_000, columns: 40 };

    #[test]
    fn the_axis_has_round_numbers() {
        let (ruler, labels) = AXIS.ruler();
        assert_eq!(labels.trim_end(), "          0                   +20");
        assert_eq!(ruler.matches('┴').count(), 2);
    }

    #[test]
    fn one_connection_among_many_can_be_seen() {
        let drawn = [0, 1, 1000].map(|open| Column { open, ..Column::default() });
        assert_eq!(text(&blocks(&drawn, |column| column.open)), " ▁█");
    }
}
