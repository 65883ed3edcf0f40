//! A pod as the API describes it: who it is, whose it is, and whether it was deleted.

use std::net::IpAddr;

use k8s_openapi::{
    api::core::v1::{Pod, PodStatus},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};

use super::container::{ContainerFacts, containers};

/// On the API's copy of a static pod: the name of the original.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// On the same: the uid of the original, by which the node names its cgroup.
const CONFIG_HASH: &str = "kubernetes.io/config.hash";
/// On pods of a Deployment's ReplicaSet: what the ReplicaSet's name ends with.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFacts {
    /// Its uid.
    pub uid: String,
    /// The uid in the paths of its cgroups: another one for static pods.
    pub cgroup_uid: String,
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// It shares the node's network namespace.
    pub host_network: bool,
    /// Its addresses, once it has some; the node's on the host network.
    pub ips: Vec<IpAddr>,
    /// What owns it.
    pub workload: Option<Workload>,
    /// It was deleted.
    pub deletion: Option<Deletion>,
    /// The grace period that it asks for.
    pub grace_seconds: u64,
    /// It ends by itself, as Jobs do.
    pub run_to_completion: bool,
    /// Its RuntimeClass: the network may not be the host kernel's.
    pub runtime_class: Option<String>,
    /// Its containers: main ones, init containers and sidecars, ephemeral ones.
    pub containers: Vec<ContainerFacts>,
    /// `Pending`, `Running`, `Succeeded`, `Failed`.
    pub phase: String,
    /// Why it is in that phase, such as `Evicted`.
    pub reason: Option<String>,
}

/// What owns a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// `Deployment`, `StatefulSet`, `DaemonSet`, `Job`, or whatever the controller calls itself.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// A deletion, in the API's whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// When it was asked for, in nanoseconds since 1970.
    pub requested: i64,
    /// When the pod must be gone (`deletionTimestamp`), in nanoseconds since 1970.
    pub deadline: i64,
    /// The time between.
    pub grace_seconds: u64,
}

impl PodFacts {
    /// Reads a pod; `None` for one that the API could not have stored.
    #[must_use]
    pub fn read(pod: &Pod) -> Option<Self> {
        let metadata = &pod.metadata;
        let (spec, status) = (pod.spec.as_ref()?, pod.status.as_ref());
        let uid = metadata.uid.clone()?;
        let workload = workload(metadata);
        let is_job = workload.as_ref().is_some_and(|workload| workload.kind == "Job");
        Some(Self {
            cgroup_uid: cgroup_uid(metadata).unwrap_or_else(|| uid.clone()),
            uid,
            name: metadata.name.clone()?,
            namespace: metadata.namespace.clone()?,
            host_network: spec.host_network.unwrap_or(false),
            ips: status.map(ips).unwrap_or_default(),
            workload,
            deletion: deletion(metadata),
            grace_seconds: seconds(spec.termination_grace_period_seconds.unwrap_or(30)),
            run_to_completion: is_job
                || matches!(spec.restart_policy.as_deref(), Some("Never" | "OnFailure")),
            runtime_class: spec.runtime_class_name.clone(),
            containers: containers(spec, status),
            phase: status.and_then(|status| status.phase.clone()).unwrap_or_default(),
            reason: status.and_then(|status| status.reason.clone()),
        })
    }
}

/// Nanoseconds since 1970.
pub(super) fn wall_ns(time: &Time) -> i64 {
    i64::try_from(time.0.as_nanosecond()).unwrap_or(i64::MAX)
}

fn seconds(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn cgroup_uid(metadata: &ObjectMeta) -> Option<String> {
    let annotations = metadata.annotations.as_ref()?;
    annotations.get(MIRROR)?;
    annotations.get(CONFIG_HASH).cloned()
}

fn ips(status: &PodStatus) -> Vec<IpAddr> {
    let all = status.pod_ips.iter().flatten().filter_map(|ip| ip.ip.parse().ok());
    let mut all: Vec<IpAddr> = all.collect();
    if all.is_empty() {
        all.extend(status.pod_ip.as_ref().and_then(|ip| ip.parse::<IpAddr>().ok()));
    }
    all
}

/// The controller. A Deployment's pods are owned by its ReplicaSet, whose name is the Deployment's
/// with the hash of the pod template.
fn workload(metadata: &ObjectMeta) -> Option<Workload> {
    let owner = metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))?;
    let hash = metadata.labels.as_ref().and_then(|labels| labels.get(TEMPLATE_HASH));
    let deployment = hash.and_then(|hash| owner.name.strip_suffix(hash)?.strip_suffix('-'));
    match (owner.kind.as_str(), deployment) {
        ("ReplicaSet", Some(name)) => Some(Workload { kind: "Deployment".to_owned(), name: name.to_owned() }),
        (kind, _) => Some(Workload { kind: kind.to_owned(), name: owner.name.clone() }),
    }
}

/// `deletionTimestamp` is when the pod must be gone: the request came the grace period earlier
/// (API reference, `ObjectMeta`).
fn deletion(metadata: &ObjectMeta) -> Option<Deletion> {
    let deadline = wall_ns(metadata.deletion_timestamp.as_ref()?);
    let grace_seconds = seconds(metadata.deletion_grace_period_seconds.unwrap_or(0));
    let grace = i64::try_from(grace_seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000_000);
    Some(Deletion { requested: deadline.saturating_sub(grace), deadline, grace_seconds })
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
