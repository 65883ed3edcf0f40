//! The phases of a container as bands, with as many of their names as there is room for.

use tracer_core::words::Phase;

use super::{
    super::model::Lane,
    axis::{Axis, Percent},
};
use crate::sink::names;

/// Pixels that a letter of a label takes, at most.
const LETTER: f64 = 7.2;
/// Pixels beside a label.
const MARGIN: f64 = 8.0;

/// A band.
pub(super) struct Band {
    pub(super) x: Percent,
    pub(super) width: Percent,
    pub(super) class: &'static str,
    pub(super) title: String,
}

/// A name, from `x` to the right or, if `before`, to the left.
pub(super) struct Label {
    pub(super) x: Percent,
    pub(super) before: bool,
    pub(super) text: String,
}

/// The phases as bands.
pub(super) fn bands(lane: &Lane, axis: Axis) -> Vec<Band> {
    let starts = lane.phases.iter().enumerate();
    let band = starts.map(|(index, (phase, time, name))| {
        let next = lane.phases.get(index + 1).map(|(_, next, _)| *next);
        let (x, end) = (axis.at(*time), axis.at(next.unwrap_or(axis.to)));
        let took = next.map_or(String::new(), |next| {
            format!(", for {:.3} s", names::seconds(next.cast_signed() - time.cast_signed()))
        });
        Band {
            x,
            width: Percent(end.0 - x.0),
            class: class(*phase),
            title: format!("{}: {name} at {}{took}", names::clean(&lane.name), axis.since(*time)),
        }
    });
    band.collect()
}

/// The names of the phases on a plot of so many pixels: in their band, or with the next, or, at the
/// end, before the last.
pub(super) fn labels(lane: &Lane, bands: &[Band], pixels: f64) -> Vec<Label> {
    let mut labels: Vec<Label> = Vec::new();
    let mut waiting: Vec<&str> = Vec::new();
    let mut begin = Percent(0.0);
    // The right end of the last label.
    let mut taken = 0.0;
    for ((_, _, name), band) in lane.phases.iter().zip(bands) {
        if waiting.is_empty() {
            begin = band.x;
        }
        waiting.push(name);
        let (left, room) = (band.x.0 * pixels / 100.0, band.width.0 * pixels / 100.0);
        // Where there is no room for those before it, a name alone says enough.
        let mut fitting = (0..waiting.len()).map(|skip| waiting[skip..].join(" ▸ "));
        if let Some(text) = fitting.find(|text| width(text) <= room) {
            labels.push(Label { x: band.x, before: false, text: text.clone() });
            taken = left + width(&text);
            waiting.clear();
        }
    }
    let text = waiting.join(" ▸ ");
    if !waiting.is_empty() && width(&text) <= begin.0 * pixels / 100.0 - taken {
        labels.push(Label { x: begin, before: true, text });
    }
    labels
}

fn width(text: &str) -> f64 {
    text.chars().count() as f64 * LETTER + 2.0 * MARGIN
}

fn class(phase: Phase) -> &'static str {
    match phase {
        Phase::Running => "p-run",
        Phase::PreStop => "p-pre",
        Phase::StopSignal => "p-stop",
        Phase::KillSignal => "p-kill",
        Phase::Exiting => "p-exit",
        Phase::AfterExit => "p-after",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const AXIS: Axis = Axis { from: 0, zero: 10 * SECOND, to: 40 * SECOND };

    fn texts(phases: &[(Phase, u64, &str)], pixels: f64) -> Vec<(f64, bool, String)> {
        let phases = phases.iter().map(|(phase, at, name)| (*phase, at * SECOND, (*name).to_owned()));
        let lane = Lane { name: "app".to_owned(), phases: phases.collect(), status: None, cause: None };
        let bands = bands(&lane, AXIS);
        labels(&lane, &bands, pixels).into_iter().map(|label| (label.x.0, label.before, label.text)).collect()
    }

    #[test]
    fn phases_without_room_are_named_with_the_next() {
        let phases = [
            (Phase::Running, 0, "running"),
            (Phase::StopSignal, 10, "SIGTERM"),
            (Phase::Exiting, 10, "exiting"),
            (Phase::AfterExit, 10, "after exit"),
        ];
        let expected = vec![
            (0.0, false, "running".to_owned()),
            (25.0, false, "SIGTERM ▸ exiting ▸ after exit".to_owned()),
        ];
        assert_eq!(texts(&phases, 640.0), expected);
    }

    #[test]
    fn phases_at_the_edge_are_named_before_it() {
        let phases = [
            (Phase::Running, 0, "running"),
            (Phase::StopSignal, 10, "SIGQUIT"),
            (Phase::AfterExit, 38, "after exit"),
        ];
        assert_eq!(texts(&phases, 640.0).last(), Some(&(95.0, true, "after exit".to_owned())));
    }

    #[test]
    fn a_name_alone_is_better_than_none() {
        let phases = [(Phase::Running, 0, "running"), (Phase::PreStop, 5, "preStop")];
        assert_eq!(texts(&phases, 100.0), [(12.5, false, "preStop".to_owned())]);
    }
}
