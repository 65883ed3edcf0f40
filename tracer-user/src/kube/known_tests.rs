//! What is known: what changed goes on, what vanished is told.

use serde_json::{Value, json};

use super::*;

fn pod(uid: &str, metadata: &Value) -> Pod {
    let mut pod = json!({
        "metadata": {"name": uid, "namespace": "shop", "uid": uid},
        "spec": {"containers": [{"name": "server"}]},
    });
    pod["metadata"].as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
    serde_json::from_value(pod).unwrap()
}

fn deleted(time: &str, grace: i64) -> Value {
    json!({"deletionTimestamp": format!("2026-11-21T08:01:{time}Z"), "deletionGracePeriodSeconds": grace})
}

fn gone(uid: &str) -> ApiUpdate {
    ApiUpdate::PodGone { uid: uid.to_owned() }
}

#[test]
fn a_pod_that_says_nothing_new_is_not_told() {
    let mut pods = Pods::default();
    let told = |updates: Vec<ApiUpdate>| updates.len();
    assert_eq!(told(pods.step(Change::Applied(pod("a", &json!({}))))), 1);
    assert_eq!(told(pods.step(Change::Applied(pod("a", &json!({"resourceVersion": "2"}))))), 0);
    assert_eq!(told(pods.step(Change::Applied(pod("a", &deleted("59", 10))))), 1);
}

#[test]
fn pods_that_a_new_list_does_not_name_are_gone() {
    let mut pods = Pods::default();
    for uid in ["a", "b"] {
        pods.step(Change::Applied(pod(uid, &json!({}))));
    }
    assert_eq!(pods.step(Change::ListStarts), []);
    assert_eq!(pods.step(Change::Listed(pod("b", &json!({})))), []);
    assert_eq!(pods.step(Change::ListEnds), [gone("a"), ApiUpdate::Synced(Watched::Pods)]);
    assert_eq!(pods.step(Change::Deleted(pod("b", &json!({})))), [gone("b")]);
}

#[test]
fn the_first_request_for_deletion_counts() {
    let mut pods = Pods::default();
    pods.step(Change::Applied(pod("a", &deleted("59", 10))));
    let updates = pods.step(Change::Deleted(pod("a", &deleted("55", 0))));
    let [ApiUpdate::Pod(facts), ApiUpdate::PodGone { .. }] = &updates[..] else { panic!("{updates:?}") };
    let deletion = facts.deletion.unwrap();
    assert_eq!((deletion.deadline - deletion.requested, deletion.grace_seconds), (6_000_000_000, 0));
}

fn slice(name: &str, endpoints: &[(&str, bool)]) -> EndpointSlice {
    let endpoints: Vec<_> = endpoints
        .iter()
        .map(|(address, ready)| {
            json!({"addresses": [address], "conditions": {"ready": ready}, "nodeName": "node1"})
        })
        .collect();
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "endpoints": endpoints,
    }))
    .unwrap()
}

/// Addresses with `ready` before and after.
fn changes(updates: &[ApiUpdate]) -> Vec<(String, Option<bool>, Option<bool>)> {
    let changes = updates.iter().filter_map(|update| match update {
        ApiUpdate::Endpoint(change) => Some((
            change.endpoint.address.to_string(),
            change.before.map(|conditions| conditions.ready),
            change.after.map(|conditions| conditions.ready),
        )),
        _ => None,
    });
    changes.collect()
}

#[test]
fn an_endpoint_is_added_changed_and_removed() {
    let mut endpoints = Endpoints::new("node1".to_owned());
    let mut step = |change| changes(&endpoints.step(change));
    let ip = || "10.0.0.1".to_owned();
    assert_eq!(step(Change::Applied(slice("s", &[("10.0.0.1", true)]))), [(ip(), None, Some(true))]);
    assert_eq!(step(Change::Applied(slice("s", &[("10.0.0.1", true)]))), []);
    assert_eq!(step(Change::Applied(slice("s", &[("10.0.0.1", false)]))), [(ip(), Some(true), Some(false))]);
    assert_eq!(step(Change::Applied(slice("s", &[]))), [(ip(), Some(false), None)]);
    assert!(endpoints.slices.is_empty());
}

#[test]
fn an_endpoint_that_moves_to_another_slice_does_not_change() {
    let mut endpoints = Endpoints::new("node1".to_owned());
    endpoints.step(Change::Applied(slice("old", &[("10.0.0.1", true)])));
    assert_eq!(changes(&endpoints.step(Change::Applied(slice("new", &[("10.0.0.1", true)])))), []);
    assert_eq!(changes(&endpoints.step(Change::Deleted(slice("old", &[])))), []);
    assert_eq!(endpoints.slices.len(), 1);
}

#[test]
fn slices_that_a_new_list_does_not_name_are_gone() {
    let mut endpoints = Endpoints::new("node1".to_owned());
    endpoints.step(Change::Applied(slice("s", &[("10.0.0.1", true)])));
    endpoints.step(Change::ListStarts);
    let updates = endpoints.step(Change::ListEnds);
    assert_eq!(changes(&updates), [("10.0.0.1".to_owned(), Some(true), None)]);
    assert_eq!(updates.last(), Some(&ApiUpdate::Synced(Watched::EndpointSlices)));
}
