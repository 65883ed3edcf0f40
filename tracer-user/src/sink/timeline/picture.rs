//! The picture of a target over time: a lane of phases for each container, lanes of connections and
//! losses, and the axis.

use std::ops::Range;

use tracer_core::{event::Mono, words::Phase};

use super::{
    history::{History, Lane},
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

/// What bands are filled with.
const FILLS: [char; 5] = ['─', '═', '━', '▓', '·'];

/// A span of time on a number of columns.
#[derive(Clone, Copy, Debug)]
struct Axis {
    from: Mono,
    zero: Mono,
    to: Mono,
    columns: usize,
}

/// A row of the picture, column by column.
type Cells = Vec<(char, Style)>;

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

    fn at(self, time: Mono) -> usize {
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

/// The phases of a container as bands, each with its name.
fn bands(lane: &Lane, axis: Axis) -> Cells {
    let mut cells = vec![(' ', PLAIN); axis.columns];
    let mut waiting: Vec<&str> = Vec::new();
    let mut last = 0;
    for (index, (phase, time, name)) in lane.phases.iter().enumerate() {
        let begin = axis.at(*time);
        let end = lane.phases.get(index + 1).map_or(axis.columns, |(_, next, _)| axis.at(*next));
        waiting.push(name);
        if begin >= end {
            continue;
        }
        cells[begin..end].fill(fill(*phase));
        let bar = usize::from(*time > axis.from);
        if bar == 1 {
            cells[begin] = ('│', PLAIN);
        }
        let inner = begin + bar..end;
        if label_band(&mut cells, inner, begin, &waiting) {
            waiting.clear();
        }
        last = begin;
    }
    label_before(&mut cells, last, &waiting);
    cells
}

/// Names a band and those before it that had no room: in it as many as fit, the others before it.
fn label_band(cells: &mut Cells, inner: Range<usize>, bar: usize, names: &[&str]) -> bool {
    for split in 0..names.len() {
        let (before, inside) = (&names[..split], names[split..].join(" ▸ "));
        if columns(&inside) <= inner.len() && (before.is_empty() || label_before(cells, bar, before)) {
            write_label(cells, inner.start, &inside);
            return true;
        }
    }
    let label = fitting(names, inner.len());
    label.iter().for_each(|label| write_label(cells, inner.start, label));
    label.is_some()
}

fn write_label(cells: &mut Cells, at: usize, label: &str) {
    label.chars().zip(&mut cells[at..]).for_each(|(letter, cell)| *cell = (letter, STRONG));
}

/// The longest end of a sequence of names that fits.
fn fitting(names: &[&str], room: usize) -> Option<String> {
    (0..names.len()).find_map(|skip| {
        let start = if skip > 0 { "… ▸ " } else { "" };
        let label = format!("{start}{}", names[skip..].join(" ▸ "));
        // A name alone says enough where there is no room for what came before it.
        let label =
            if skip + 1 == names.len() && columns(&label) > room { names[skip].to_owned() } else { label };
        (columns(&label) <= room).then_some(label)
    })
}

/// Names of bands that have no room: all of them before a bar and those beside it, where it is free.
fn label_before(cells: &mut Cells, bar: usize, names: &[&str]) -> bool {
    let bars = cells[..bar].iter().rev().take_while(|(cell, _)| *cell == '│').count();
    let end = bar - bars;
    let free = cells[..end].iter().rev().take_while(|(cell, _)| FILLS.contains(cell)).count();
    let label = format!(" {} ▸", names.join(" ▸ "));
    let fits = !names.is_empty() && columns(&label) < free;
    if fits {
        write_label(cells, end - columns(&label), &label);
    }
    fits
}

fn fill(phase: Phase) -> (char, Style) {
    match phase {
        Phase::Running => ('─', PLAIN),
        Phase::PreStop => ('═', TRAFFIC),
        Phase::StopSignal => ('━', DOUBT),
        Phase::KillSignal | Phase::Exiting => ('▓', BAD),
        Phase::AfterExit => ('·', FAINT),
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

    fn lane(phases: &[(Phase, Mono, &str)]) -> Lane {
        let phases = phases.iter().map(|(phase, at, name)| (*phase, at * 1_000_000_000, (*name).to_owned()));
        Lane { name: "app".to_owned(), phases: phases.collect() }
    }

    #[test]
    fn short_phases_are_named_in_the_next_band() {
        let lane = lane(&[
            (Phase::Running, 0, "running"),
            (Phase::StopSignal, 10, "SIGTERM"),
            (Phase::Exiting, 10, "exiting"),
            (Phase::AfterExit, 10, "after exit"),
        ]);
        assert_eq!(text(&bands(&lane, AXIS)), "running───│… ▸ exiting ▸ after exit·····");
    }

    #[test]
    fn phases_at_the_edge_are_named_before_it() {
        let lane = lane(&[
            (Phase::Running, 0, "running"),
            (Phase::StopSignal, 10, "SIGQUIT"),
            (Phase::AfterExit, 37, "after exit"),
        ]);
        assert_eq!(text(&bands(&lane, AXIS)), "running───│SIGQUIT━━━━━━ after exit ▸│··");
    }

    #[test]
    fn phases_of_no_width_are_named_before_a_short_one() {
        let lane = lane(&[
            (Phase::Running, 0, "running"),
            (Phase::KillSignal, 27, "SIGKILL"),
            (Phase::AfterExit, 28, "after exit"),
        ]);
        assert_eq!(text(&bands(&lane, AXIS)), "running─────────── SIGKILL ▸││after exit·");
    }

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
