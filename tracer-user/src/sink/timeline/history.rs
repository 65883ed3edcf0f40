//! What is remembered of one target for its picture: in bounded memory, however long it is traced.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
};

use tracer_core::{
    event::Mono,
    output::{ConnectionEvent, Network, PhaseEvent, ResetEvent},
    words::{Confidence, Direction, Ending, Hop, Origin, Phase, Role},
};

use super::{names, series::Series};

/// Containers that have a lane; restarted ones keep theirs.
const MAX_LANES: usize = 64;
/// Losses remembered, so that several resets of a connection are told as one loss.
const MAX_TOLD: usize = 256;

/// Both ends of a connection.
type Tuple = (SocketAddr, SocketAddr);

/// A container's way through its phases.
#[derive(Debug)]
pub(super) struct Lane {
    /// The container.
    pub(super) name: String,
    /// Its phases with their beginnings and names.
    pub(super) phases: Vec<(Phase, Mono, String)>,
}

/// A loss, as it is told.
#[derive(Clone, Debug)]
pub(super) struct Loss {
    pub(super) ending: Ending,
    pub(super) confidence: Confidence,
    pub(super) container: Arc<str>,
    pub(super) network: Network,
    /// The kernel's reason for the reset.
    pub(super) reason: Option<Arc<str>>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct History {
    /// Its name.
    pub(super) name: String,
    /// One per container.
    pub(super) lanes: Vec<Lane>,
    /// Connections of clients, and losses.
    pub(super) series: Series,
    /// When the termination began, and what began it.
    pub(super) began: Option<(Mono, String)>,
    /// When anything happened last.
    pub(super) last: Mono,
    /// Losses told: certain or likely, and possible.
    pub(super) lost: (u64, u64),
    /// New connections of clients.
    pub(super) opened: u64,
    /// Resets that harmed nobody.
    pub(super) harmless: BTreeMap<&'static str, u64>,
    told: HashMap<Tuple, Confidence>,
    told_order: VecDeque<Tuple>,
}

impl History {
    /// Of a target that is traced from this time on.
    pub(super) fn new(name: &str, time: Mono) -> Self {
        Self {
            name: names::clean(name),
            lanes: Vec::new(),
            series: Series::new(time),
            began: None,
            last: time,
            lost: (0, 0),
            opened: 0,
            harmless: BTreeMap::new(),
            told: HashMap::new(),
            told_order: VecDeque::new(),
        }
    }

    /// A container entered a phase.
    pub(super) fn phase(&mut self, time: Mono, event: &PhaseEvent) {
        let signal = event.signal.as_ref().map(|signal| names::clean(&signal.name));
        let name = names::phase(event.phase, signal.as_deref()).to_owned();
        self.last = self.last.max(time);
        if event.phase != Phase::Running && self.began.is_none() {
            self.began = Some((time, name.clone()));
            self.series.keep_all();
        }
        let container = names::clean(&event.container.name);
        let begin = (event.phase, time, name);
        // One that runs again has a new lane: phases of a lane only go forward.
        let known = self.lanes.iter().rposition(|lane| lane.name == container);
        let known = known.filter(|_| event.phase != Phase::Running).and_then(|at| self.lanes.get_mut(at));
        if let Some(lane) = known {
            lane.phases.push(begin);
        } else if self.lanes.len() < MAX_LANES {
            self.lanes.push(Lane { name: container, phases: vec![begin] });
        }
    }

    /// A connection was opened or found.
    pub(super) fn opened(&mut self, time: Mono, event: &ConnectionEvent) {
        self.told.remove(&tuple(&event.network));
        if of_client(event) {
            self.last = self.last.max(time);
            let new = event.opened_mono_ns.is_some();
            self.opened += u64::from(new);
            self.series.opened(event.opened_mono_ns.unwrap_or(time), new);
        }
    }

    /// A connection ended; the loss, if it is one.
    pub(super) fn closed(&mut self, time: Mono, event: &ConnectionEvent) -> Option<Loss> {
        if of_client(event) {
            self.last = self.last.max(time);
            self.series.closed(time);
        }
        let end = event.end.as_ref()?;
        self.lost(
            time,
            Loss {
                ending: end.ending,
                confidence: end.confidence?,
                container: event.container.name.clone(),
                network: event.network,
                reason: None,
            },
        )
    }

    /// A reset; the loss, if it is one that was not told before.
    pub(super) fn reset(&mut self, time: Mono, event: &ResetEvent) -> Option<Loss> {
        let Some((ending, confidence)) = event.ending.zip(event.confidence) else {
            self.harmless_reset(event);
            return None;
        };
        self.lost(
            time,
            Loss {
                ending,
                confidence,
                container: event.container.name.clone(),
                network: event.network,
                reason: event.reason.clone(),
            },
        )
    }

    fn harmless_reset(&mut self, event: &ResetEvent) {
        let what = match (event.direction, event.ending) {
            (Direction::Received, _) => "received",
            (Direction::Sent, Some(ending)) => ending.word(),
            // The connection's own end tells what it meant.
            (Direction::Sent, None) => return,
        };
        *self.harmless.entry(what).or_default() += 1;
    }

    /// A loss is told once; again only if it turns out to be surer. A refused connection is a new one
    /// each time.
    fn lost(&mut self, time: Mono, loss: Loss) -> Option<Loss> {
        if loss.ending != Ending::Refused {
            let tuple = tuple(&loss.network);
            match self.told.insert(tuple, loss.confidence) {
                Some(known) if known >= loss.confidence => {
                    self.told.insert(tuple, known);
                    return None;
                }
                Some(_) => {}
                None => self.told_order.push_back(tuple),
            }
            if self.told_order.len() > MAX_TOLD {
                self.told_order.pop_front().and_then(|oldest| self.told.remove(&oldest));
            }
        }
        match loss.confidence {
            Confidence::Possible => self.lost.1 += 1,
            Confidence::Likely | Confidence::Certain => self.lost.0 += 1,
        }
        self.last = self.last.max(time);
        self.series.lost(time, loss.confidence);
        Some(loss)
    }
}

fn tuple(network: &Network) -> Tuple {
    let [local, peer] = [network.local, network.peer].map(|end| SocketAddr::new(end.address, end.port));
    (local, peer)
}

/// A client's connection from outside the pod: no health checker's, not the pod's own.
fn of_client(event: &ConnectionEvent) -> bool {
    let checker = matches!(event.origin, Origin::Checker | Origin::KubeletProbe);
    event.role == Role::Server && event.hop == Hop::External && !checker
}

#[cfg(test)]
mod tests {
    use tracer_core::output::{Endpoint, NetworkType};

    use super::*;

    fn loss(ending: Ending, confidence: Confidence) -> Loss {
        let end = |port| Endpoint { address: [10, 0, 0, 1].into(), port };
        let network = Network { kind: NetworkType::Ipv4, local: end(80), peer: end(40000) };
        Loss { ending, confidence, container: "app".into(), network, reason: None }
    }

    #[test]
    fn a_loss_is_told_again_only_if_it_is_surer() {
        let mut history = History::new("app", 0);
        assert!(history.lost(1, loss(Ending::Unanswered, Confidence::Possible)).is_some());
        assert!(history.lost(2, loss(Ending::LateData, Confidence::Certain)).is_some());
        assert!(history.lost(3, loss(Ending::LateData, Confidence::Certain)).is_none());
        assert!(history.lost(4, loss(Ending::LateData, Confidence::Possible)).is_none());
    }

    #[test]
    fn every_refused_connection_is_a_loss_also_from_the_same_port() {
        let mut history = History::new("app", 0);
        for time in 0..3 {
            assert!(history.lost(time, loss(Ending::Refused, Confidence::Certain)).is_some());
        }
        assert_eq!(history.lost, (3, 0));
    }
}
