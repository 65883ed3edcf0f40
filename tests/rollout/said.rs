//! What the agents say of the two pods of a recorded rollout.

use std::{fs::File, io::Read, path::Path, sync::LazyLock};

use flate2::read::GzDecoder;
use serde_json::{Value, json};

use super::{objects::Kind, scene::NODES};

/// The uids of the recorded pods that were terminated.
pub const UIDS: [&str; 2] = ["0ac410da-eb2f-4c3b-a3d9-b5e52ff4f954", "dbe27bcc-6f98-4394-bd6b-434b81bf39f7"];

/// A replay of the recording, with every connection.
static RECORDED: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let path = "fixtures/report/rollout-restart-under-load.jsonl.gz";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let mut text = String::new();
    GzDecoder::new(File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
});

/// All that is said of a pod, in order, by the agent of its node.
pub fn of_pod(kind: Kind, index: usize) -> Vec<Value> {
    let lines = RECORDED.iter().filter(|line| line["k8s"]["pod"]["uid"] == UIDS[index]);
    lines.map(|line| as_agent(line.clone(), kind, index, UIDS[index])).collect()
}

/// What is said of the pod that replaces it: that it runs.
pub fn of_new_pod(kind: Kind, index: usize) -> Vec<Value> {
    let mut lines = of_pod(kind, index);
    lines.retain(|line| {
        line["type"] == "target_started" || (line["type"] == "phase" && line["phase"] == "running")
    });
    for line in &mut lines {
        line["k8s"]["pod"] = json!({"uid": format!("uid-new-{index}"), "name": kind.pods()[index].1});
        line["target"]["netns"] = 1.into();
    }
    lines
}

fn as_agent(mut line: Value, kind: Kind, index: usize, uid: &str) -> Value {
    let (node, agent) = NODES[index];
    let pod = kind.pods()[index].0;
    line["node"] = node.into();
    line["agent"]["run_id"] = agent.into();
    line["target"]["name"] = format!("shop/{pod}").into();
    line["k8s"] = json!({"namespace": {"name": "shop"}, "pod": {"uid": uid, "name": pod},
        kind.in_events(): {"name": "web"}});
    line
}

/// All as it was said.
pub fn as_recorded(_: &mut Value) -> bool {
    true
}

/// As if nothing had been lost.
pub fn drained(line: &mut Value) -> bool {
    if line["type"] == "verdict" {
        line["result"] = "drained".into();
        (line["lost"], line["doubts"]) = (0.into(), 0.into());
        (line["losses"], line["findings"], line["reasons"]) = (json!([]), json!([]), json!([]));
    }
    true
}

/// As if one ending could not be told from a loss.
pub fn doubtful(line: &mut Value) -> bool {
    drained(line);
    if line["type"] == "verdict" {
        line["doubts"] = 1.into();
    }
    true
}
