//! The core against recordings of real pod terminations: its verdicts, and whether every client
//! failure is explained.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test a panic is the failure's message")]

use std::{collections::BTreeMap, net::SocketAddr};

use lastpacket_tests::recording::{Recording, reset_reasons};
use tracer_core::{
    Tracer,
    books::CurrEstabRule,
    input::{Clock, End, Input, InventoryUpdate},
    output::{Body, Endpoint, Line},
    target::Rules,
    tracer::Identity,
    verdict::Verdict,
    words::{Confidence, Ending, Result},
};

const SECOND: u64 = 1_000_000_000;

struct Replay {
    lines: Vec<Line>,
}

impl Replay {
    fn run(recording: &Recording) -> Self {
        let rules = Rules {
            quiet: SECOND,
            reset_reasons: reset_reasons(recording),
            // The kernel of the recordings, 6.18.
            curr_estab: Some(CurrEstabRule::EstablishedAndCloseWait),
        };
        let identity = Identity { node: "node".into(), run_id: "replay".into() };
        let mut tracer = Tracer::new(identity, rules, Clock::default());
        let mut lines = Vec::new();
        for (_, input) in recording.inputs() {
            tracer.step(input, &mut lines);
        }
        for (target, _) in recording.pods() {
            let (time, terminated) = (recording.last_time() + SECOND, tracer.is_gone(target));
            let end = if terminated { End::Terminated } else { End::NotTerminated };
            let update = InventoryUpdate::Finished { target, time, interface_gone: terminated, end };
            tracer.step(Input::Inventory(update), &mut lines);
        }
        Self { lines }
    }

    fn verdicts(&self) -> Vec<&Verdict> {
        let verdicts = self.lines.iter().filter_map(|line| match &line.body {
            Body::Verdict(verdict) => Some(&**verdict),
            _ => None,
        });
        verdicts.collect()
    }

    /// The surest loss of every connection, by the client's end.
    fn losses(&self) -> BTreeMap<SocketAddr, (Ending, Confidence)> {
        let mut losses = BTreeMap::new();
        for line in &self.lines {
            let (peer, ending, confidence) = match &line.body {
                Body::Reset(reset) => (reset.network.peer, reset.ending, reset.confidence),
                Body::ConnectionClosed(closed) => {
                    let end = closed.end.as_ref().unwrap();
                    (closed.network.peer, Some(end.ending), end.confidence)
                }
                _ => continue,
            };
            if let (Some(ending), Some(confidence)) = (ending, confidence) {
                let entry = losses.entry(address(peer)).or_insert((ending, confidence));
                if confidence > entry.1 {
                    *entry = (ending, confidence);
                }
            }
        }
        losses
    }
}

fn address(endpoint: Endpoint) -> SocketAddr {
    SocketAddr::new(endpoint.address, endpoint.port)
}

/// In runs without address translation every failure has a loss on its connection, and every certain
/// or likely loss a failure.
fn every_failure_is_explained_and_no_loss_is_invented(name: &str) {
    let recording = Recording::read(name);
    let losses = Replay::run(&recording).losses();
    let failures = recording.failures();
    for failure in &failures {
        assert!(losses.contains_key(&failure.local), "{name}: not explained: {}", failure.line);
    }
    for (peer, (ending, confidence)) in &losses {
        let seen = failures.iter().any(|failure| failure.local == *peer);
        assert!(
            seen || *confidence == Confidence::Possible,
            "{name}: no client saw {peer}: {ending} ({confidence})"
        );
    }
}

#[test]
fn a_graceful_deletion() {
    every_failure_is_explained_and_no_loss_is_invented("delete-graceful-under-load");
}

#[test]
fn a_deletion_with_an_ignored_stop_signal() {
    every_failure_is_explained_and_no_loss_is_invented("delete-sigterm-ignored-under-load");
}

#[test]
fn a_forced_deletion() {
    every_failure_is_explained_and_no_loss_is_invented("force-delete-under-load");
}

#[test]
fn a_restart_by_liveness() {
    every_failure_is_explained_and_no_loss_is_invented("liveness-restart-under-load");
}

#[test]
fn a_deletion_of_a_tls_server() {
    every_failure_is_explained_and_no_loss_is_invented("tls-nginx-delete-under-load");
}

#[test]
fn books_balance_in_every_pod_of_every_recording() {
    for name in [
        "delete-graceful-under-load",
        "delete-sigterm-ignored-under-load",
        "force-delete-under-load",
        "idle-delete",
        "liveness-restart-under-load",
        "rollout-restart-under-load",
        "sidecar-delete-under-load",
        "tls-nginx-delete-under-load",
    ] {
        for verdict in Replay::run(&Recording::read(name)).verdicts() {
            let unbalanced: Vec<_> = verdict.books.iter().filter(|book| !book.balanced).collect();
            assert!(unbalanced.is_empty(), "{name}: {unbalanced:?}");
        }
    }
}

#[test]
fn a_pod_with_probes_alone_is_idle() {
    let replay = Replay::run(&Recording::read("idle-delete"));
    let results: Vec<_> = replay.verdicts().iter().map(|verdict| verdict.result).collect();
    assert_eq!(results, [Result::Idle], "{:#?}", replay.verdicts());
    assert!(replay.losses().is_empty(), "{:?}", replay.losses());
}
