//! A Warning Event on a pod that cut traffic, for people who look at the pod and not at metrics.

use anyhow::{Context, Result};
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};

use super::facts::PodFacts;

/// Why the Event is there, for machines.
pub const REASON: &str = "TrafficCut";
/// Who reports.
const CONTROLLER: &str = "lastpacket.dev/agent";
/// What the API takes (validation of `events.k8s.io/v1`).
const LONGEST_NOTE: usize = 1024;

/// Posts a Warning on a pod, which may be gone already.
///
/// # Errors
/// If the API does not take it.
pub async fn post(client: &Client, node: &str, pod: &PodFacts, note: &str, wall_ns: i64) -> Result<()> {
    let event = event(node, pod, note, wall_ns)?;
    let events: Api<Event> = Api::namespaced(client.clone(), &pod.namespace);
    let posted = events.create(&PostParams::default(), &event).await;
    posted.map(|_| ()).with_context(|| format!("cannot post an Event on pod {}/{}", pod.namespace, pod.name))
}

fn event(node: &str, pod: &PodFacts, note: &str, wall_ns: i64) -> Result<Event> {
    let time = Timestamp::from_nanosecond(i128::from(wall_ns)).context("no such time")?;
    Ok(Event {
        metadata: ObjectMeta {
            // Unique as the recorders of Kubernetes make it.
            name: Some(format!("{}.{wall_ns:x}", pod.name)),
            namespace: Some(pod.namespace.clone()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(time)),
        regarding: Some(ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(pod.name.clone()),
            namespace: Some(pod.namespace.clone()),
            uid: Some(pod.uid.clone()),
            ..ObjectReference::default()
        }),
        type_: Some("Warning".to_owned()),
        reason: Some(REASON.to_owned()),
        action: Some("Terminating".to_owned()),
        note: Some(shortened(note)),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(node.to_owned()),
        ..Event::default()
    })
}

/// As much as the API takes.
fn shortened(note: &str) -> String {
    let mut size = 0;
    note.chars()
        .take_while(|char| {
            size += char.len_utf8();
            size <= LONGEST_NOTE
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_as_long_as_the_api_takes() {
        assert_eq!(shortened("cut"), "cut");
        assert_eq!(shortened(&"é".repeat(1000)).len(), 1024);
        assert_eq!(shortened(&"€".repeat(1000)).len(), 1023);
    }
}
