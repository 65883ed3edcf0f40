//! What the clients saw beside what the agent told: every failure is a loss, every loss that is more
//! than possible a failure, and no probe is ever one.

use std::{collections::BTreeMap, net::SocketAddr};

use lastpacket_tests::recording::ClientFailure;
use tracer_core::{
    output::{Body, Endpoint},
    words::{Confidence, Ending},
};

use crate::driver::Replay;

const SECOND: u64 = 1_000_000_000;

/// A loss that was told.
#[derive(Clone, Copy, Debug)]
struct Loss {
    time: u64,
    peer: SocketAddr,
    ending: Ending,
    confidence: Confidence,
}

/// The surest loss of every connection.
fn losses(replay: &Replay) -> Vec<Loss> {
    let mut surest: BTreeMap<SocketAddr, Loss> = BTreeMap::new();
    for line in &replay.lines {
        let (peer, ending, confidence) = match &line.body {
            Body::Reset(reset) => (reset.network.peer, reset.ending, reset.confidence),
            Body::ConnectionClosed(closed) => {
                let end = closed.end.as_ref().unwrap();
                (closed.network.peer, Some(end.ending), end.confidence)
            }
            _ => continue,
        };
        if let (Some(ending), Some(confidence)) = (ending, confidence) {
            let loss = Loss { time: line.mono_ns, peer: address(peer), ending, confidence };
            let entry = surest.entry(loss.peer).or_insert(loss);
            // A reset tells when the client's request was lost, the close before it only when it raced.
            if confidence >= entry.confidence {
                *entry = loss;
            }
        }
    }
    surest.into_values().collect()
}

fn address(endpoint: Endpoint) -> SocketAddr {
    SocketAddr::new(endpoint.address, endpoint.port)
}

/// In runs without address translation every failure has a loss on its connection, and every certain
/// or likely loss a failure.
pub fn by_tuple(name: &str, replay: &Replay) {
    let (losses, failures) = (losses(replay), replay.recording.failures());
    for failure in &failures {
        let explained = losses.iter().any(|loss| loss.peer == failure.local);
        assert!(explained, "{name}: not explained: {}", failure.line);
    }
    for loss in losses.iter().filter(|loss| loss.confidence > Confidence::Possible) {
        let seen = failures.iter().any(|failure| failure.local == loss.peer);
        assert!(seen, "{name}: no client saw {}: {} ({})", loss.peer, loss.ending, loss.confidence);
    }
}

/// With masqueraded ports: every failure has a loss of its own within the time of its request, and
/// every certain or likely loss a failure of its own.
pub fn by_time(name: &str, replay: &Replay) {
    let (losses, failures) = (losses(replay), replay.recording.failures());
    let fits = |failure: &ClientFailure, loss: &Loss| {
        let (began, seen) = failure.time;
        began <= loss.time && loss.time <= seen + SECOND / 100
    };
    if let Some(index) = without_partner(failures.len(), losses.len(), |a, b| fits(&failures[a], &losses[b]))
    {
        panic!("{name}: not explained: {}", failures[index].line);
    }
    let sure: Vec<&Loss> = losses.iter().filter(|loss| loss.confidence > Confidence::Possible).collect();
    if let Some(index) = without_partner(sure.len(), failures.len(), |a, b| fits(&failures[b], sure[a])) {
        panic!("{name}: no client saw {:?}", sure[index]);
    }
}

/// One of the first that gets no partner among the second when each may have one: an augmenting path
/// is looked for from each in turn (Kuhn).
fn without_partner(first: usize, second: usize, fits: impl Fn(usize, usize) -> bool) -> Option<usize> {
    fn find(
        one: usize,
        partners: &mut [Option<usize>],
        tried: &mut [bool],
        fits: &impl Fn(usize, usize) -> bool,
    ) -> bool {
        for other in 0..partners.len() {
            if fits(one, other) && !std::mem::replace(&mut tried[other], true) {
                let current = partners[other];
                if current.is_none_or(|rival| find(rival, partners, tried, fits)) {
                    partners[other] = Some(one);
                    return true;
                }
            }
        }
        false
    }
    let mut partners = vec![None; second];
    (0..first).find(|one| !find(*one, &mut partners, &mut vec![false; second], &fits))
}

/// The kubelet's connections were recorded on the node's side, by its name.
pub fn no_probe_is_a_loss(replay: &Replay) {
    let probes = replay.recording.kubelet_connections();
    assert!(!probes.is_empty(), "the kubelet probes in every recording");
    for loss in losses(replay) {
        let of_probe = |(end, since, until): &(SocketAddr, u64, u64)| {
            *end == loss.peer && (*since..*until + SECOND).contains(&loss.time)
        };
        assert!(!probes.iter().any(of_probe), "a probe is a loss: {loss:?}");
    }
}

/// Where the kernel's totals could be read at the end.
pub fn books_balance(name: &str, replay: &Replay) {
    for verdict in replay.verdicts() {
        let unbalanced: Vec<_> = verdict.books.iter().filter(|book| !book.balanced).collect();
        assert!(unbalanced.is_empty(), "{name}: {unbalanced:?}");
    }
}
