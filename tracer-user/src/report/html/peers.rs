//! A lane for each peer: its connections as bars, its losses and resets as marks.
//!
//! Where there are more connections than can be told apart, their number over time is drawn instead,
//! and the page says so. Marks that lie on each other are one, with their number.

use std::collections::{BTreeMap, HashSet};

use tracer_core::{
    event::Mono,
    words::{Direction, Ending},
};

use super::{
    super::model::{Connection, Loss, Mark, Pod, Whose},
    Limits,
    axis::{Axis, Percent},
};
use crate::sink::names;

/// Rows of bars that a lane may have.
const ROWS: usize = 14;
/// Height of a row, and of a bar in it, in pixels.
const ROW: usize = 8;
const BAR: usize = 6;
/// Height of the row of marks.
const MARKS: usize = 16;
/// Height of a lane that shows numbers over time.
const HILL: usize = 40;
/// Bars of connections that a lane may have.
const BARS: usize = 1_500;
/// The least width of a bar, so that it can be seen.
const LEAST: f64 = 0.25;

/// A lane of connections.
pub(super) struct PeerLane {
    pub(super) label: String,
    pub(super) note: String,
    pub(super) height: usize,
    pub(super) groups: Vec<Group>,
    pub(super) marks: Vec<Sign>,
    /// Its connections are drawn as their number over time.
    pub(super) condensed: bool,
    pub(super) connections: usize,
    /// Peers that share it; 0 if it is one's own.
    pub(super) joined: usize,
}

/// Bars of one colour.
pub(super) struct Group {
    pub(super) class: &'static str,
    pub(super) fill: &'static str,
    pub(super) bars: Vec<Bar>,
}

/// A connection, or a column of a hill.
pub(super) struct Bar {
    pub(super) x: Percent,
    pub(super) width: Percent,
    pub(super) y: usize,
    pub(super) height: usize,
    pub(super) title: String,
}

/// A mark.
pub(super) struct Sign {
    pub(super) x: Percent,
    pub(super) y: usize,
    pub(super) symbol: &'static str,
    pub(super) class: &'static str,
    pub(super) title: String,
}

/// How a connection or a mark is shown; in the order of drawing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Colour {
    Aside,
    Harmless,
    Open,
    Peer,
    Doubt,
    Lost,
}

impl Colour {
    fn class(self) -> &'static str {
        ["c-aside", "c-well", "c-open", "c-peer", "c-doubt", "c-lost"][self as usize]
    }

    /// Where styles are blocked.
    fn fill(self) -> &'static str {
        ["#9aa4b2", "#4a90c2", "#6cb08a", "#8a6fc1", "#d99a1c", "#d0342c"][self as usize]
    }
}

/// The lanes of a pod within these limits: the first ones may have bars.
pub(super) fn lanes(pod: &Pod, axis: Axis, mut limits: Limits) -> Vec<PeerLane> {
    let mut gathered: BTreeMap<u32, Gathered> = BTreeMap::new();
    for connection in &pod.connections {
        gathered.entry(connection.peer).or_default().connections.push(connection);
    }
    for mark in &pod.marks {
        gathered.entry(mark.peer).or_default().marks.push(mark);
    }
    let mut gathered: Vec<(Option<u32>, Gathered)> =
        gathered.into_iter().map(|(peer, of)| (Some(peer), of)).collect();
    gathered.sort_by_cached_key(|(_, of)| std::cmp::Reverse(of.weight()));
    let mut joined = 0;
    if gathered.len() > limits.lanes {
        let others = gathered.split_off(limits.lanes - 1);
        joined = others.len();
        gathered
            .push((None, others.into_iter().map(|(_, of)| of).reduce(Gathered::join).unwrap_or_default()));
    }
    let lane = |(peer, of): (Option<u32>, Gathered)| {
        let lane = of.lane(pod, peer, joined, axis, limits);
        limits.bars -= if lane.condensed { 0 } else { lane.connections };
        lane
    };
    gathered.into_iter().map(lane).collect()
}

/// All of one peer.
#[derive(Default)]
struct Gathered<'a> {
    connections: Vec<&'a Connection>,
    marks: Vec<&'a Mark>,
}

impl<'a> Gathered<'a> {
    /// Clients first, those that lost most before others.
    fn weight(&self) -> (bool, usize, usize) {
        let losses = self.ends().filter(|end| end.confidence.is_some()).count();
        let client = self.is_client();
        (client, losses, self.connections.len() + self.marks.len())
    }

    fn is_client(&self) -> bool {
        self.connections.is_empty() || self.connections.iter().any(|other| other.whose == Whose::Client)
    }

    fn join(mut self, other: Gathered<'a>) -> Self {
        self.connections.extend(other.connections);
        self.marks.extend(other.marks);
        self
    }

    fn ends(&self) -> impl Iterator<Item = Loss> {
        let of_marks = self.marks.iter().filter_map(|mark| mark.end);
        self.connections.iter().filter_map(|connection| connection.end).chain(of_marks)
    }

    fn lane(&self, pod: &Pod, peer: Option<u32>, joined: usize, axis: Axis, limits: Limits) -> PeerLane {
        let address = peer.and_then(|peer| pod.peers.get(peer as usize));
        let shown = self.shown(axis);
        let label = address.map_or(format!("{joined} other peers"), ToString::to_string);
        let most = limits.bars.min(BARS);
        let rows = if shown.connections.len() > most { None } else { shown.rows(axis) };
        let condensed = rows.is_none() && !shown.connections.is_empty();
        let (groups, top) = match rows {
            Some((rows, used)) => (shown.bars(pod, axis, &rows), used * ROW),
            None => (shown.hill(axis, limits.columns), HILL),
        };
        let marks = shown.marks(pod, axis, limits.places, top + MARKS / 2);
        let height = top + if marks.is_empty() { 4 } else { MARKS };
        let connections = shown.connections.len();
        let joined = if peer.is_some() { 0 } else { joined };
        PeerLane {
            label,
            note: self.note(),
            height: height.max(20),
            groups,
            marks,
            condensed,
            connections,
            joined,
        }
    }

    /// What lies in the picture.
    fn shown(&self, axis: Axis) -> Self {
        let connections = self.connections.iter().filter(|one| one.to.is_none_or(|to| to >= axis.from));
        let marks = self.marks.iter().filter(|mark| mark.time >= axis.from);
        Self { connections: connections.copied().collect(), marks: marks.copied().collect() }
    }

    fn note(&self) -> String {
        let mut notes = vec![names::count(self.connections.len() as u64, "connection", "connections")];
        let whose = self.connections.first().map(|connection| connection.whose);
        notes.extend(match whose.filter(|_| !self.is_client()) {
            Some(Whose::Checker) => Some("health checks".to_owned()),
            Some(Whose::Own) => Some("opened by the pod".to_owned()),
            Some(Whose::Inside) => Some("within the pod".to_owned()),
            _ => None,
        });
        notes.join(", ")
    }

    /// The row of each connection such that none lie on each other; `None` if there are too many.
    fn rows(&self, axis: Axis) -> Option<(Vec<usize>, usize)> {
        let mut order: Vec<usize> = (0..self.connections.len()).collect();
        order.sort_by_key(|at| self.connections[*at].from);
        let mut ends: Vec<f64> = Vec::new();
        let mut rows = vec![0; self.connections.len()];
        for at in order {
            let (x, width) = extent(self.connections[at], axis);
            let row = ends.iter().position(|end| *end < x.0).unwrap_or(ends.len());
            if row == ROWS {
                return None;
            }
            let end = x.0 + width.0 + 0.1;
            match ends.get_mut(row) {
                Some(free) => *free = end,
                None => ends.push(end),
            }
            rows[at] = row;
        }
        Some((rows, ends.len()))
    }

    fn bars(&self, pod: &Pod, axis: Axis, rows: &[usize]) -> Vec<Group> {
        let mut groups: BTreeMap<Colour, Vec<Bar>> = BTreeMap::new();
        for (connection, row) in self.connections.iter().zip(rows) {
            let (x, width) = extent(connection, axis);
            let title = told(pod, connection, axis);
            let bar = Bar { x, width, y: row * ROW + 1, height: BAR, title };
            groups.entry(colour(connection)).or_default().push(bar);
        }
        let group = |(colour, bars): (Colour, _)| Group { class: colour.class(), fill: colour.fill(), bars };
        groups.into_iter().map(group).collect()
    }

    /// The number of open connections over time.
    fn hill(&self, axis: Axis, columns: usize) -> Vec<Group> {
        let mut changes = vec![0_i64; columns + 1];
        for connection in &self.connections {
            changes[place(axis.at(connection.from), columns)] += 1;
            if let Some(to) = connection.to {
                // It counts as open in the column of its end.
                changes[place(axis.at(to), columns) + 1] -= 1;
            }
        }
        let mut open = 0;
        let levels: Vec<i64> = changes[..columns]
            .iter()
            .map(|change| {
                open += change;
                open
            })
            .collect();
        let most = levels.iter().copied().max().unwrap_or(0).max(1);
        let width = 100.0 / columns as f64;
        let bar = |(at, level): (usize, &i64)| {
            let height = usize::try_from((level * HILL as i64 + most - 1) / most).unwrap_or(0);
            let x = Percent(at as f64 * width);
            let time = axis.from + ((axis.to - axis.from) as f64 * x.0 / 100.0) as Mono;
            let title = format!("{level} open at {}", axis.since(time));
            Bar { x, width: Percent(width), y: HILL - height, height, title }
        };
        let shown = levels.iter().enumerate().filter(|(_, level)| **level > 0);
        let colour = if self.is_client() { Colour::Harmless } else { Colour::Aside };
        let (class, fill) = (colour.class(), colour.fill());
        vec![Group { class, fill, bars: shown.map(bar).collect() }]
    }

    /// Losses and resets. A connection whose end is told by a reset has one mark.
    fn marks(&self, pod: &Pod, axis: Axis, among: usize, y: usize) -> Vec<Sign> {
        let mut places: BTreeMap<(usize, Colour, String), Vec<(Mono, String)>> = BTreeMap::new();
        let mut put = |time: Mono, colour: Colour, what: String, who: String| {
            places.entry((place(axis.at(time), among), colour, what)).or_default().push((time, who));
        };
        for connection in &self.connections {
            let loss = connection.end.filter(|end| end.confidence.is_some());
            if let (Some(loss), Some(to)) = (loss, connection.to) {
                put(to, loss_colour(loss), loss_words(loss), who(pod, connection.peer, connection.peer_port));
            }
        }
        let lost = self.connections.iter().filter(|one| one.end.is_some_and(|end| end.confidence.is_some()));
        let lost: HashSet<(u16, u16)> = lost.map(|one| (one.peer_port, one.port)).collect();
        for mark in &self.marks {
            let told = mark.end.is_some_and(|end| end.confidence.is_some() && end.ending != Ending::Refused);
            if !(told && lost.contains(&(mark.peer_port, mark.port))) {
                let (colour, what) = reset_words(mark);
                put(mark.time, colour, what, who(pod, mark.peer, mark.peer_port));
            }
        }
        places.into_iter().map(|((_, colour, what), at)| sign(colour, &what, &at, axis, y)).collect()
    }
}

fn sign(colour: Colour, what: &str, at: &[(Mono, String)], axis: Axis, y: usize) -> Sign {
    let first = at.iter().map(|(time, _)| *time).min().unwrap_or(0);
    let last = at.iter().map(|(time, _)| *time).max().unwrap_or(0);
    let who = at.first().map_or("", |(_, who)| who);
    let title = match at.len() {
        1 => format!("{what}: {who} at {}", axis.since(first)),
        count => {
            format!("{count} × {what}: {who} and others, {} to {}", axis.since(first), axis.since(last))
        }
    };
    let symbol = match colour {
        Colour::Lost => "cross",
        Colour::Doubt => "query",
        _ => "dot",
    };
    Sign { x: axis.at(first), y, symbol, class: colour.class(), title }
}

fn loss_colour(loss: Loss) -> Colour {
    match (loss.is_sure(), loss.confidence) {
        (true, _) => Colour::Lost,
        (false, Some(_)) => Colour::Doubt,
        (false, None) => Colour::Harmless,
    }
}

fn loss_words(loss: Loss) -> String {
    match loss.confidence {
        Some(confidence) => format!("{}, {confidence} loss", loss.ending),
        None => loss.ending.to_string(),
    }
}

fn reset_words(mark: &Mark) -> (Colour, String) {
    let reason = mark.reason.as_ref().map_or(String::new(), |reason| format!(" ({})", names::clean(reason)));
    match (mark.direction, mark.end) {
        (Direction::Received, _) => (Colour::Peer, format!("reset received{reason}")),
        (Direction::Sent, Some(end)) => {
            (loss_colour(end), format!("reset sent, {}{reason}", loss_words(end)))
        }
        (Direction::Sent, None) => (Colour::Harmless, format!("reset sent{reason}")),
    }
}

fn colour(connection: &Connection) -> Colour {
    let end = connection.end.map_or(Colour::Open, |end| match (end.ending, loss_colour(end)) {
        (Ending::PeerReset | Ending::TimedOut, _) => Colour::Peer,
        (_, colour) => colour,
    });
    if connection.whose == Whose::Client || end >= Colour::Doubt { end } else { Colour::Aside }
}

/// From where to where; what began before the picture begins at its edge.
fn extent(connection: &Connection, axis: Axis) -> (Percent, Percent) {
    let (x, end) = (axis.at(connection.from), axis.at(connection.to.unwrap_or(axis.to)));
    (Percent(x.0.min(100.0 - LEAST)), Percent((end.0 - x.0).max(LEAST)))
}

fn place(at: Percent, of: usize) -> usize {
    ((at.0 / 100.0 * of as f64) as usize).min(of - 1)
}

fn who(pod: &Pod, peer: u32, port: u16) -> String {
    let address = pod.peers.get(peer as usize);
    address.map_or(String::new(), |address| std::net::SocketAddr::new(*address, port).to_string())
}

/// All that is known of a connection.
fn told(pod: &Pod, connection: &Connection, axis: Axis) -> String {
    let who = who(pod, connection.peer, connection.peer_port);
    let from = if connection.found { "found open" } else { "opened" };
    let end = match (connection.end, connection.to) {
        (Some(end), Some(to)) => {
            let took = names::seconds(to.cast_signed() - connection.from.cast_signed());
            let (received, acked) = connection.bytes;
            format!(
                "{} at {} after {took:.3} s, {received} bytes in, {acked} out",
                loss_words(end),
                axis.since(to)
            )
        }
        _ => "still open".to_owned(),
    };
    format!("{who} → port {}: {from} at {}, {end}", connection.port, axis.since(connection.from))
}
