//! Follows what a rollout consists of through the Kubernetes API: the workload, its pods, the agents' pods.

use std::{collections::BTreeMap, fmt::Debug, time::Duration};

use k8s_openapi::{api::core::v1::Pod, serde::de::DeserializeOwned};
use kube::{Api, Resource};
use tokio::sync::mpsc;

use super::{
    input::{Input, Pod as PodState},
    logs::{self, Log},
    workload::{Name, Workload},
};
use crate::kube::{
    facts::PodFacts,
    list_watch::{Change, ListWatch},
};

/// On pods: which template they were made by.
const REVISIONS: [&str; 2] = ["pod-template-hash", "controller-revision-hash"];

/// Tells how far the workload is.
pub(super) async fn follow_workload<K>(mut list_watch: ListWatch<K>, tell: mpsc::Sender<Input>)
where
    K: Resource + Workload + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut there = false;
    loop {
        let input = match list_watch.next().await.1 {
            Change::Listed(workload) | Change::Applied(workload) => {
                there = true;
                Input::Workload(Box::new(workload.status()))
            }
            Change::ListStarts => {
                there = false;
                continue;
            }
            Change::ListEnds if there => continue,
            Change::ListEnds | Change::Deleted(_) => Input::WorkloadGone,
            Change::Away(reason) => {
                log::warn!("no news of the workload from the Kubernetes API: {reason}");
                continue;
            }
            Change::Back => continue,
        };
        if tell.send(input).await.is_err() {
            return;
        }
    }
}

/// Tells pods of the workload; of a new list also which of them are gone.
pub(super) async fn follow_pods(mut list_watch: ListWatch<Pod>, name: Name, tell: mpsc::Sender<Input>) {
    let mut known: BTreeMap<String, bool> = BTreeMap::new();
    loop {
        let mut inputs = Vec::new();
        match list_watch.next().await.1 {
            Change::ListStarts => known.values_mut().for_each(|listed| *listed = false),
            Change::Listed(pod) | Change::Applied(pod) => {
                if let Some(pod) = pod_of(&pod, &name) {
                    known.insert(pod.uid.clone(), true);
                    inputs.push(Input::Pod(pod));
                }
            }
            Change::Deleted(pod) => {
                let uid = pod.metadata.uid.clone().unwrap_or_default();
                if known.remove(&uid).is_some() {
                    inputs.push(Input::PodGone { uid });
                }
            }
            Change::ListEnds => {
                let gone = known.iter().filter(|(_, listed)| !**listed);
                inputs.extend(gone.map(|(uid, _)| Input::PodGone { uid: uid.clone() }));
                known.retain(|_, listed| *listed);
                inputs.push(Input::PodsComplete);
            }
            Change::Away(reason) => log::warn!("no news of pods from the Kubernetes API: {reason}"),
            Change::Back => {}
        }
        for input in inputs {
            if tell.send(input).await.is_err() {
                return;
            }
        }
    }
}

/// What is needed of a pod, if it is the workload's.
fn pod_of(pod: &Pod, name: &Name) -> Option<PodState> {
    let facts = PodFacts::read(pod)?;
    let owner = facts.workload.as_ref()?;
    if owner.kind != name.kind.name() || owner.name != name.name {
        return None;
    }
    let labels = pod.metadata.labels.as_ref();
    let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0.as_nanosecond());
    Some(PodState {
        created: created.and_then(|ns| i64::try_from(ns).ok()).unwrap_or(0),
        revision: labels.and_then(|labels| REVISIONS.iter().find_map(|label| labels.get(*label).cloned())),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        deleted: facts.deletion.is_some(),
        ended: matches!(facts.phase.as_str(), "Succeeded" | "Failed"),
        uid: facts.uid,
        cgroup_uid: facts.cgroup_uid,
        name: facts.name,
    })
}

/// Tells on which nodes agents are, and reads their logs while they are.
pub(super) async fn follow_agents(
    mut list_watch: ListWatch<Pod>,
    pods: Api<Pod>,
    since: Duration,
    pause: Duration,
    tell: mpsc::Sender<Input>,
) {
    let mut readers: BTreeMap<String, Reader> = BTreeMap::new();
    loop {
        let mut inputs = Vec::new();
        match list_watch.next().await.1 {
            Change::ListStarts => readers.values_mut().for_each(|reader| reader.listed = false),
            Change::Listed(pod) | Change::Applied(pod) => {
                let (Some(name), Some(node)) =
                    (pod.metadata.name.clone(), pod.spec.and_then(|spec| spec.node_name))
                else {
                    continue;
                };
                if let Some(reader) = readers.get_mut(&name) {
                    reader.listed = true;
                    continue;
                }
                inputs.push(Input::AgentCame { node: node.clone(), pod: name.clone() });
                let log = Log { pods: pods.clone(), pod: name.clone(), node: node.clone(), since, pause };
                // It ends by itself when the pod is gone and all of its log is read.
                tokio::spawn(logs::follow(log, tell.clone()));
                readers.insert(name, Reader { node, listed: true });
            }
            Change::Deleted(pod) => {
                let name = pod.metadata.name.clone().unwrap_or_default();
                inputs.extend(readers.remove(&name).map(|reader| reader.left(name)));
            }
            Change::ListEnds => {
                let gone: Vec<String> = readers
                    .iter()
                    .filter(|(_, reader)| !reader.listed)
                    .map(|(name, _)| name.clone())
                    .collect();
                for name in gone {
                    inputs.extend(readers.remove(&name).map(|reader| reader.left(name)));
                }
                inputs.push(Input::AgentsComplete);
            }
            Change::Away(reason) => log::warn!("no news of agents from the Kubernetes API: {reason}"),
            Change::Back => {}
        }
        for input in inputs {
            if tell.send(input).await.is_err() {
                return;
            }
        }
    }
}

/// An agent whose log is read.
struct Reader {
    node: String,
    listed: bool,
}

impl Reader {
    fn left(&self, pod: String) -> Input {
        Input::AgentLeft { node: self.node.clone(), pod }
    }
}
