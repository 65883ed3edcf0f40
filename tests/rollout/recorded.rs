//! What the agents of two nodes say of the recorded rollout: the recording through the core, with the
//! names of the scene.

use lastpacket_tests::recording::{Recording, reset_reasons};
use serde_json::{Value, json};
use tracer_core::{
    Tracer,
    input::{Clock, End, Input, InventoryUpdate},
    output::{Body, Line},
    target::Rules,
    tracer::Identity,
};

use crate::scene::OLD;

const SECOND: u64 = 1_000_000_000;

/// All lines but those of single connections.
pub fn agents_lines() -> String {
    let recording = Recording::read("rollout-restart-under-load");
    let rules = Rules { quiet: SECOND, reset_reasons: reset_reasons(&recording), curr_estab: None };
    let identity = Identity { node: "node".into(), run_id: "run".into() };
    let mut tracer = Tracer::new(identity, rules, Clock::default());
    let mut lines = Vec::new();
    for (_, input) in recording.inputs() {
        tracer.step(input, &mut lines);
    }
    for (target, _) in recording.pods() {
        let time = recording.last_time() + SECOND;
        let update = InventoryUpdate::Finished { target, time, interface_gone: true, end: End::Terminated };
        tracer.step(Input::Inventory(update), &mut lines);
    }
    let told = lines.iter().filter(|line| {
        !matches!(line.body, Body::ConnectionOpened(_) | Body::ConnectionClosed(_) | Body::Reset(_))
    });
    // Pods of the new revision run on.
    let ended = lines.iter().filter(|line| matches!(line.body, Body::Verdict(_)));
    let ended: Vec<&str> = ended.filter_map(uid).collect();
    told.filter_map(|line| Some(named(line, &ended)?.to_string() + "\n")).collect()
}

fn uid(line: &Line) -> Option<&str> {
    Some(&line.subject.as_ref()?.k8s.as_ref()?.pod.uid)
}

fn named(line: &Line, ended: &[&str]) -> Option<Value> {
    let uid = uid(line)?;
    let (pod, node, agent) = OLD.get(ended.iter().position(|known| *known == uid)?)?;
    let mut line = serde_json::to_value(line).unwrap();
    line["node"] = (*node).into();
    line["agent"]["run_id"] = (*agent).into();
    line["target"]["name"] = format!("shop/{pod}").into();
    line["k8s"]["namespace"] = json!({"name": "shop"});
    line["k8s"]["pod"]["name"] = (*pod).into();
    line["k8s"]["deployment"] = json!({"name": "web"});
    Some(line)
}
