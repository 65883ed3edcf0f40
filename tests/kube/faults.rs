//! Faults of the API and the way to it: each ends in recovery, and in the end all is known that there
//! is to know.

use std::time::Duration;

use lastpacket_tests::api_server::{ApiServer, Collection, Fault, Verb};
use tracer_user::kube::{
    list_watch::Timing,
    watch::{ApiUpdate, Update, Watched},
};

use super::{fast, left, names, noted, pods, updates_of};

const RECORDING: &str = "rollout-restart-under-load";
const SPEED: f64 = 10.0;

/// Plays the recording with these faults, and checks that nothing is missing in the end.
async fn recovers(faults: &[(Collection, Verb, Fault)], timing: Timing) -> (ApiServer, Vec<Update>) {
    let server = ApiServer::play(RECORDING, SPEED).await;
    for (collection, verb, fault) in faults {
        server.fault(*collection, *verb, *fault);
    }
    let updates = updates_of(&server, timing).await;
    nothing_is_missing(&updates);
    (server, updates)
}

/// Two pods were replaced by two others.
fn nothing_is_missing(updates: &[Update]) {
    let names = names(updates);
    assert_eq!(names.len(), 4, "{names:?}");
    let deleted: Vec<_> = pods(updates).filter(|pod| pod.deletion.is_some()).map(|pod| &pod.uid).collect();
    let left = left(updates);
    assert_eq!(left.len(), 2, "{left:?}");
    for (uid, name) in &names {
        let replaced = name.starts_with("web-6f4757996f");
        assert_eq!(left.contains_key(uid), !replaced, "{name}");
        assert_eq!(deleted.contains(&uid), replaced, "{name}");
    }
    let endpoints = noted(updates, Watched::EndpointSlices);
    for (uid, name) in &names {
        let is_its = |line: &&str| line.contains(name.as_str());
        let last = endpoints.lines().rfind(is_its).unwrap();
        let expected = if left.contains_key(uid) { "-> ready+serving" } else { "-> none" };
        assert!(last.ends_with(expected), "{name}: {endpoints}");
    }
}

fn away(updates: &[Update]) -> Vec<&str> {
    let reasons = updates.iter().filter_map(|update| match &update.what {
        ApiUpdate::Away { reason, .. } => Some(reason.as_str()),
        _ => None,
    });
    reasons.collect()
}

/// Every `Away` ends with a `Back`.
fn is_back(updates: &[Update], watched: Watched) {
    let noted = noted(updates, watched);
    let marks: Vec<_> = noted.lines().filter(|line| ["away", "back"].contains(line)).collect();
    assert_eq!(marks.last(), Some(&"back"), "{noted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_cut_in_the_middle_of_a_line() {
    let cuts = [0, 3, 1].map(|after| (Collection::Pods, Verb::Watch, Fault::Cut(after)));
    let (server, updates) = recovers(&cuts, fast()).await;
    assert_eq!(away(&updates), [] as [&str; 0], "it goes on at once");
    assert_eq!(server.received(Collection::Pods, Verb::List).len(), 1, "and needs no new list");
    let (_, updates) = recovers(&[(Collection::Slices, Verb::Watch, Fault::Cut(2))], fast()).await;
    assert_eq!(away(&updates), [] as [&str; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_too_old_is_listed_again() {
    let faults = [
        (Collection::Pods, Verb::Watch, Fault::Gone(7)),
        (Collection::Pods, Verb::Watch, Fault::Status(410)),
        (Collection::Slices, Verb::Watch, Fault::Gone(2)),
    ];
    let (server, updates) = recovers(&faults, fast()).await;
    assert_eq!(server.received(Collection::Pods, Verb::List).len(), 3);
    assert_eq!(away(&updates), [] as [&str; 0], "that is nothing unusual");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_vanished_before_a_new_list_is_told_as_gone() {
    // No watch tells anything until all is over; then the version is too old.
    let faults = [
        (Collection::Pods, Verb::Watch, Fault::Silent(0)),
        (Collection::Pods, Verb::Watch, Fault::Status(410)),
    ];
    let server = ApiServer::play(RECORDING, SPEED).await;
    for (collection, verb, fault) in faults {
        server.fault(collection, verb, fault);
    }
    let updates = updates_of(&server, fast()).await;
    let left = left(&updates);
    assert_eq!((names(&updates).len(), left.len()), (4, 2), "{}", noted(&updates, Watched::Pods));
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_requests_are_repeated_when_the_server_says() {
    let faults = [(Collection::Pods, Verb::List, Fault::Status(429))];
    let (server, updates) = recovers(&faults, fast()).await;
    let lists = server.received(Collection::Pods, Verb::List);
    let waited = lists[1].at - lists[0].at;
    assert!(waited >= Duration::from_secs(1), "Retry-After: 1, waited {waited:?}");
    assert_eq!(away(&updates), [] as [&str; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forbidden_is_said_and_tried_again() {
    let faults = [
        (Collection::Pods, Verb::List, Fault::Status(403)),
        (Collection::Pods, Verb::List, Fault::Status(403)),
        (Collection::Pods, Verb::Watch, Fault::Status(403)),
    ];
    let (_, updates) = recovers(&faults, fast()).await;
    assert_eq!(away(&updates).len(), 2, "once for each time it went away");
    assert!(away(&updates)[0].starts_with("forbidden: pods is forbidden"), "{:?}", away(&updates));
    is_back(&updates, Watched::Pods);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_json_is_listed_again() {
    let faults = [
        (Collection::Pods, Verb::List, Fault::Malformed(0)),
        // The event in whose place it comes is the deletion of a pod.
        (Collection::Pods, Verb::Watch, Fault::Malformed(5)),
        (Collection::Slices, Verb::Watch, Fault::Alien(2)),
    ];
    let (server, updates) = recovers(&faults, fast()).await;
    assert_eq!(server.received(Collection::Pods, Verb::List).len(), 3);
    assert!(away(&updates).iter().all(|reason| reason.contains("not understood")), "{:?}", away(&updates));
    is_back(&updates, Watched::Pods);
    is_back(&updates, Watched::EndpointSlices);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_watch_is_opened_again() {
    let faults = [
        (Collection::Pods, Verb::Watch, Fault::Silent(4)),
        (Collection::Slices, Verb::Watch, Fault::Silent(1)),
    ];
    let timing = Timing { silence: Duration::from_millis(600), ..fast() };
    let (server, updates) = recovers(&faults, timing).await;
    assert_eq!(away(&updates), [] as [&str; 0]);
    assert_eq!(server.received(Collection::Pods, Verb::List).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_answer_is_away() {
    let timing = Timing { answer: Duration::from_millis(300), ..fast() };
    for fault in [Fault::Hang, Fault::Refuse, Fault::Status(500)] {
        let faults = [
            (Collection::Pods, Verb::List, fault),
            (Collection::Pods, Verb::List, fault),
            (Collection::Pods, Verb::Watch, fault),
        ];
        let (_, updates) = recovers(&faults, timing).await;
        assert!(!away(&updates).is_empty(), "{fault:?}");
        is_back(&updates, Watched::Pods);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_that_end_at_once_are_not_opened_in_a_rush() {
    const ENDS: usize = 12;
    let ends = [(Collection::Pods, Verb::Watch, Fault::End(0)); ENDS];
    let (server, _) = recovers(&ends, fast()).await;
    let watches = server.received(Collection::Pods, Verb::Watch);
    let took = watches[ENDS].at - watches[0].at;
    // Each lasts longer than the first wait, or half of that wait follows it.
    let least = fast().first_wait / 2 * ENDS as u32;
    assert!(took >= least, "{ENDS} watches in {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_pods_come_in_pages() {
    const PODS: usize = 5_000;
    let server = ApiServer::with_pods(PODS).await;
    server.fault(Collection::Pods, Verb::List, Fault::Status(500));
    let updates = updates_of(&server, Timing { page: 100, ..fast() }).await;
    assert_eq!((names(&updates).len(), left(&updates).len()), (PODS, PODS));
    let lists = server.received(Collection::Pods, Verb::List);
    assert_eq!(lists.len(), 1 + PODS / 100);
    assert!(lists.iter().all(|list| list.query.contains("limit=100")));
    let synced = updates.iter().filter(|update| update.what == ApiUpdate::Synced(Watched::Pods)).count();
    assert_eq!(synced, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_whose_snapshot_expires_starts_over() {
    const PODS: usize = 1_000;
    let server = ApiServer::with_pods(PODS).await;
    // Lists cannot be cut: the first page is right.
    server.fault(Collection::Pods, Verb::List, Fault::Cut(0));
    server.fault(Collection::Pods, Verb::List, Fault::Status(410));
    let updates = updates_of(&server, fast()).await;
    assert_eq!((names(&updates).len(), left(&updates).len()), (PODS, PODS));
    assert_eq!(server.received(Collection::Pods, Verb::List).len(), 4);
    assert_eq!(away(&updates), [] as [&str; 0]);
}
