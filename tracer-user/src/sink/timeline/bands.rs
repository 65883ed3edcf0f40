//! The phases of a container as bands over time, each with its name as far as there is room.

use std::ops::Range;

use anstyle::Style;
use tracer_core::words::Phase;

use super::{
    history::Lane,
    picture::{Axis, Cells},
    style::{BAD, DOUBT, FAINT, PLAIN, STRONG, TRAFFIC, columns},
};

/// What bands are filled with.
const FILLS: [char; 5] = ['─', '═', '━', '▓', '·'];

/// The name of a phase that need not be told.
const EXITING: &str = "exiting";

/// The phases of a container as bands, each with its name.
pub(super) fn bands(lane: &Lane, axis: Axis) -> Cells {
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
    label_edge(&mut cells, last, &waiting);
    cells
}

/// Names the last bands where they had no room: all of them before the last bar, or those that say most.
fn label_edge(cells: &mut Cells, bar: usize, names: &[&str]) {
    let shorter = without_exiting(names);
    let first = &shorter[..shorter.len().min(1)];
    let _ = [names, shorter.as_slice(), first].into_iter().any(|names| label_before(cells, bar, names));
}

/// That it exited can be seen by what comes after.
fn without_exiting<'a>(names: &[&'a str]) -> Vec<&'a str> {
    names.iter().copied().filter(|name| *name != EXITING).collect()
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
    let shorter = without_exiting(names);
    if shorter.len() > 1 && shorter.len() < names.len() {
        return label_band(cells, inner, bar, &shorter);
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

#[cfg(test)]
mod tests {
    use tracer_core::event::Mono;

    use super::*;

    const AXIS: Axis = Axis { from: 0, zero: 10_000_000_000, to: 40_000_000_000, columns: 40 };

    fn text(cells: &Cells) -> String {
        cells.iter().map(|(cell, _)| *cell).collect()
    }

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
        assert_eq!(text(&bands(&lane, AXIS)), "running───│SIGTERM ▸ after exit·········");
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
        assert_eq!(text(&bands(&lane, AXIS)), "running────────── SIGKILL ▸││after exit·");
    }

    #[test]
    fn where_there_is_little_room_at_the_edge_the_first_is_named() {
        let lane = lane(&[
            (Phase::Running, 0, "running"),
            (Phase::StopSignal, 8, "SIGTERM"),
            (Phase::KillSignal, 38, "SIGKILL"),
            (Phase::Exiting, 38, "exiting"),
            (Phase::AfterExit, 39, "after exit"),
        ]);
        assert_eq!(text(&bands(&lane, AXIS)), "running─│SIGTERM━━━━━━━━━━━━ SIGKILL ▸││");
    }
}
