//! What the page shows of one pod.

use tracer_core::{
    output::Timestamp,
    verdict::{LossCount, PeerSummary, Verdict},
};

use super::{
    super::{
        model::{Lane, Pod},
        summary,
    },
    Limits,
    axis::{Axis, Tick},
    bands::{Band, Label, bands, labels},
    peers::{PeerLane, lanes},
};
use crate::sink::names;

/// Pixels of a plot on a wide page and on a narrow one.
const WIDE: f64 = 640.0;
const NARROW: f64 = 320.0;
/// Rows of a table.
const ROWS: usize = 100;

/// One pod.
pub(super) struct PodView<'a> {
    pub(super) pod: &'a Pod,
    pub(super) number: usize,
    pub(super) open: bool,
    pub(super) name: String,
    pub(super) word: &'static str,
    pub(super) quiet: String,
    pub(super) took: String,
    pub(super) why: String,
    /// What happened at 0.
    pub(super) zero: String,
    pub(super) ticks: Vec<Tick>,
    pub(super) containers: Vec<ContainerLane>,
    pub(super) peers: Vec<PeerLane>,
    pub(super) condensed: Option<String>,
    pub(super) losses: Vec<[String; 5]>,
    pub(super) events: Vec<[String; 2]>,
    pub(super) clients: Vec<[String; 5]>,
}

/// A container's lane.
pub(super) struct ContainerLane {
    pub(super) name: String,
    pub(super) way_out: String,
    pub(super) bands: Vec<Band>,
    pub(super) wide: Vec<Label>,
    pub(super) narrow: Vec<Label>,
}

impl<'a> PodView<'a> {
    /// A pod within these limits.
    pub(super) fn of(pod: &'a Pod, number: usize, open: bool, limits: Limits) -> Self {
        let axis = Axis::of(pod);
        let peers = lanes(pod, axis, limits);
        let zero = match pod.first_phase() {
            Some((name, time)) => format!("0 is {name}, {}", moment(pod.wall(time))),
            None if pod.time.0 == 0 => "no event of it was read".to_owned(),
            None => format!("0 is the first event, {}", moment(pod.time)),
        };
        Self {
            pod,
            number,
            open,
            name: summary::full_name(pod),
            word: summary::word(pod.result),
            quiet: summary::quiet(pod),
            took: summary::span(pod.took()),
            why: pod.reasons.join("; "),
            zero,
            ticks: axis.ticks(),
            containers: pod.lanes.iter().map(|lane| ContainerLane::of(pod, lane, axis)).collect(),
            condensed: condensed(&peers),
            peers,
            losses: pod.verdict.as_ref().map_or(Vec::new(), losses),
            events: events(pod),
            clients: pod.verdict.as_ref().map_or(Vec::new(), |verdict| clients(pod, verdict)),
        }
    }

    /// For readers that see no picture.
    pub(super) fn described(&self) -> String {
        let containers = names::count(self.containers.len() as u64, "container", "containers");
        let connections: usize = self.peers.iter().map(|lane| lane.connections).sum();
        format!(
            "{}: {containers}, {connections} connections of {} lanes of peers; the tables below tell the same",
            self.name,
            self.peers.len()
        )
    }
}

/// Wall time, as exact as people need it.
fn moment(time: Timestamp) -> String {
    let text: String = time.to_string().chars().take(23).collect();
    text + "Z"
}

impl ContainerLane {
    fn of(pod: &Pod, lane: &Lane, axis: Axis) -> Self {
        let bands = bands(lane, axis);
        Self {
            name: names::clean(&lane.name),
            way_out: summary::way_out(pod, lane),
            wide: labels(lane, &bands, WIDE),
            narrow: labels(lane, &bands, NARROW),
            bands,
        }
    }
}

/// What the picture leaves out.
fn condensed(lanes: &[PeerLane]) -> Option<String> {
    let hills: usize = lanes.iter().filter(|lane| lane.condensed).map(|lane| lane.connections).sum();
    let mut told = Vec::new();
    if hills > 0 {
        told.push(format!("{hills} connections are drawn as their number over time, not one by one"));
    }
    if let Some(lane) = lanes.iter().find(|lane| lane.joined > 0) {
        told.push(format!("{} peers share the last lane", lane.joined));
    }
    (!told.is_empty())
        .then(|| format!("Condensed: {}. Marks that lie on each other are one.", told.join("; ")))
}

fn losses(verdict: &Verdict) -> Vec<[String; 5]> {
    let row = |loss: &LossCount| {
        [
            loss.count.to_string(),
            loss.ending.to_string(),
            summary::phase_of(verdict, loss),
            loss.confidence.to_string(),
            summary::clients(loss),
        ]
    };
    verdict.losses.iter().map(row).collect()
}

/// What the API and hooks did, in their order.
fn events(pod: &Pod) -> Vec<[String; 2]> {
    let zero = pod.began.unwrap_or(pod.span.0);
    let endpoints = pod.endpoints.iter().map(|change| (change.time, change.text.clone()));
    let hooks = pod.hooks.iter().map(|hook| {
        let took = names::seconds(
            hook.ended_mono_ns.unwrap_or(hook.started_mono_ns).cast_signed()
                - hook.started_mono_ns.cast_signed(),
        );
        let (command, status) = (&hook.process.command, names::status(&hook.status));
        (
            hook.started_mono_ns,
            format!("{command} from outside ran in {} for {took:.3} s: {status}", hook.container.name),
        )
    });
    let mut all: Vec<_> = endpoints.chain(hooks).collect();
    all.sort_by_key(|(time, _)| *time);
    all.into_iter().take(ROWS).map(|(time, text)| [names::since(zero, time), text]).collect()
}

/// Who the clients were and how long they kept coming.
fn clients(pod: &Pod, verdict: &Verdict) -> Vec<[String; 5]> {
    let zero = pod.began;
    let row = |peer: &PeerSummary| {
        let since = |time: Option<u64>| {
            zero.zip(time).map_or("–".to_owned(), |(zero, time)| names::since(zero, time))
        };
        [
            peer.address.map_or("others".to_owned(), |address| address.to_string()),
            peer.connections.to_string(),
            since(peer.last_after_mono_ns),
            peer.lost.to_string(),
            peer.doubts.to_string(),
        ]
    };
    verdict.peers.each.iter().take(ROWS).chain(&verdict.peers.others).map(row).collect()
}
