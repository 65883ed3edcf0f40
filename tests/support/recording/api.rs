//! When the recording's own client received what ours tells of the same bytes.

use k8s_openapi::api::{core::v1::Pod, discovery::v1::EndpointSlice};
use serde_json::Value;
use tracer_user::kube::{
    facts::{PodFacts, endpoints_of_node},
    watch::{ApiUpdate, Update, Watched},
};

use super::{
    Recording, lines_gz,
    records::{number, text},
};

/// The node of the recordings.
const NODE: &str = "node1";
const SERVICE: &str = "kubernetes.io/service-name";

impl Recording {
    /// Gives updates of a replay, at whatever speed, the times of the recording; what was there when it
    /// began has the time 0. The order within each collection stays.
    pub fn stamped(&self, updates: Vec<Update>) -> Vec<(u64, ApiUpdate)> {
        let pods = lines_gz(&self.folder.join("pods.jsonl.gz"));
        let slices = lines_gz(&self.folder.join("endpointslices.jsonl.gz"));
        let (mut next_pod, mut next_slice) = (0, 0);
        let (mut pods_listed, mut slices_listed) = (false, false);
        let mut stamped: Vec<(u64, ApiUpdate)> = Vec::new();
        for Update { what, .. } in updates {
            let time = match &what {
                ApiUpdate::Synced(Watched::Pods) => {
                    pods_listed = true;
                    Some(0)
                }
                ApiUpdate::Synced(Watched::EndpointSlices) => {
                    slices_listed = true;
                    Some(0)
                }
                ApiUpdate::Pod(_) if !pods_listed => Some(0),
                ApiUpdate::Endpoint(_) if !slices_listed => Some(0),
                ApiUpdate::Pod(facts) => find(&pods, &mut next_pod, |event| says(event, facts)),
                ApiUpdate::PodGone { uid } => find(&pods, &mut next_pod, |event| {
                    event["type"] == "DELETED" && event["object"]["metadata"]["uid"] == **uid
                }),
                ApiUpdate::Endpoint(change) => find(&slices, &mut next_slice, |event| {
                    let Ok(slice) = serde_json::from_value::<EndpointSlice>(event["object"].clone()) else {
                        return false;
                    };
                    let known = endpoints_of_node(&slice, NODE);
                    let service = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE));
                    slice.metadata.namespace.as_deref() == Some(&change.endpoint.namespace)
                        && service == Some(&change.endpoint.service)
                        && known.get(&change.endpoint).copied() == change.after
                }),
                _ => None,
            };
            let time = time.unwrap_or_else(|| panic!("no event of the recording tells {what:?}"));
            stamped.push((time, what));
        }
        stamped.sort_by_key(|(time, _)| *time);
        stamped
    }
}

/// Uid of the pod that is deleted in a recording.
pub fn deleted_pod(name: &str) -> String {
    let recording = Recording::read(name);
    let pods = lines_gz(&recording.folder.join("pods.jsonl.gz"));
    let deleted = |line: &&Value| !line["event"]["object"]["metadata"]["deletionTimestamp"].is_null();
    text(&pods.iter().find(deleted).expect("a pod is deleted")["event"]["object"]["metadata"]["uid"])
}

/// The time of the first event from the last found one on that is wanted.
fn find(lines: &[Value], next: &mut usize, wanted: impl Fn(&Value) -> bool) -> Option<u64> {
    let at = lines.iter().skip(*next).position(|line| wanted(&line["event"]))? + *next;
    *next = at;
    Some(number(&lines[at]["recv_mono_ns"]))
}

fn says(event: &Value, facts: &PodFacts) -> bool {
    let Ok(pod) = serde_json::from_value::<Pod>(event["object"].clone()) else { return false };
    let Some(mut read) = PodFacts::read(&pod) else { return false };
    // Of several deletions the first request is kept.
    if let (Some(read), Some(told)) = (&mut read.deletion, &facts.deletion) {
        read.requested = told.requested;
    }
    read == *facts
}
