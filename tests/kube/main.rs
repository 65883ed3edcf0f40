//! The real client against a Kubernetes API server that plays recordings: what it tells of each, and
//! that it recovers from every fault without losing anything.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test a panic is the failure's message")]

mod faults;
mod permissions;
mod recordings;

use std::{collections::BTreeMap, fmt::Write};

use lastpacket_tests::api_client::{fast, updates_of};
use tracer_user::kube::{
    facts::{Conditions, PodFacts},
    watch::{ApiUpdate, Update, Watched},
};

fn pods(updates: &[Update]) -> impl Iterator<Item = &PodFacts> {
    updates.iter().filter_map(|update| match &update.what {
        ApiUpdate::Pod(facts) => Some(&**facts),
        _ => None,
    })
}

fn names(updates: &[Update]) -> BTreeMap<String, String> {
    pods(updates).map(|pod| (pod.uid.clone(), pod.name.clone())).collect()
}

/// Pods in the API at the end, with whether they were deleted.
fn left(updates: &[Update]) -> BTreeMap<String, bool> {
    let mut left = BTreeMap::new();
    for update in updates {
        match &update.what {
            ApiUpdate::Pod(pod) => drop(left.insert(pod.uid.clone(), pod.deletion.is_some())),
            ApiUpdate::PodGone { uid } => assert!(left.remove(uid).is_some(), "{uid} was never there"),
            _ => {}
        }
    }
    left
}

/// What a person would note of the updates of one collection.
fn noted(updates: &[Update], of: Watched) -> String {
    let names = names(updates);
    let mut text = String::new();
    for update in updates {
        let line = match &update.what {
            ApiUpdate::Pod(pod) if of == Watched::Pods => pod_line(pod),
            ApiUpdate::PodGone { uid } if of == Watched::Pods => format!("{} gone", names[uid]),
            ApiUpdate::Endpoint(change) if of == Watched::EndpointSlices => {
                let pod = change.endpoint.pod_uid.as_ref().and_then(|uid| names.get(uid));
                let (before, after) = (conditions(change.before), conditions(change.after));
                format!(
                    "{} {}: {before} -> {after}",
                    change.endpoint.service,
                    pod.map_or("?", String::as_str)
                )
            }
            ApiUpdate::Synced(watched) if of == *watched => "synced".to_owned(),
            ApiUpdate::Away { watched, .. } if of == *watched => "away".to_owned(),
            ApiUpdate::Back(watched) if of == *watched => "back".to_owned(),
            _ => continue,
        };
        writeln!(text, "{line}").unwrap();
    }
    text
}

fn pod_line(pod: &PodFacts) -> String {
    let mut line = format!("{} {}", pod.name, pod.phase);
    if let Some(workload) = &pod.workload {
        write!(line, ", {} {}", workload.kind, workload.name).unwrap();
    }
    if let Some(deletion) = pod.deletion {
        write!(line, ", deleted with {} s", deletion.grace_seconds).unwrap();
    }
    for container in &pod.containers {
        let id = container.id.as_ref().map_or("-", |id| &id[..6]);
        write!(line, "; {} {:?} {id}", container.name, container.kind).unwrap();
        if container.running {
            line.push_str(" running");
        }
        if let Some(pre_stop) = container.pre_stop {
            write!(line, ", preStop {pre_stop:?}").unwrap();
        }
        if container.restart_count > 0 {
            write!(line, ", restarted {}", container.restart_count).unwrap();
        }
        if let Some(exit) = &container.last_exit {
            write!(line, ", exited {} {}", exit.code, exit.reason.as_deref().unwrap_or("-")).unwrap();
        }
    }
    line
}

fn conditions(conditions: Option<Conditions>) -> String {
    let Some(conditions) = conditions else { return "none".to_owned() };
    let named = [
        (conditions.ready, "ready"),
        (conditions.serving, "serving"),
        (conditions.terminating, "terminating"),
    ];
    let words: Vec<&str> = named.iter().filter(|(is, _)| *is).map(|(_, name)| *name).collect();
    if words.is_empty() { "not ready".to_owned() } else { words.join("+") }
}
