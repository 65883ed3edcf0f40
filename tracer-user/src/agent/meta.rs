//! What the API says of a pod, as far as the inventory needs it.

use std::{collections::BTreeMap, sync::Arc};

use tracer_core::event::Mono;

use crate::kube::facts::{ContainerKind, PodFacts};

/// What the API says of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Kind and name of its owner.
    pub workload: Option<(String, String)>,
    /// When it was first seen as deleted.
    pub deleted: Option<Mono>,
    /// It is meant to end by itself (a Job): no termination to judge.
    pub runs_to_completion: bool,
    /// Its RuntimeClass.
    pub runtime_class: Option<String>,
    /// Its containers by their ids: names, and whether they end before the pod does (init containers,
    /// ephemeral ones).
    pub containers: BTreeMap<String, (Arc<str>, bool)>,
}

impl Meta {
    /// Of a pod that was described at this time.
    #[must_use]
    pub fn new(pod: &PodFacts, received: Mono) -> Self {
        let passing = |kind| matches!(kind, ContainerKind::Init | ContainerKind::Ephemeral);
        let containers = pod.containers.iter().filter_map(|container| {
            Some((container.id.clone()?, (container.name.as_str().into(), passing(container.kind))))
        });
        Self {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            workload: pod.workload.as_ref().map(|workload| (workload.kind.clone(), workload.name.clone())),
            deleted: pod.deletion.map(|_| received),
            runs_to_completion: pod.run_to_completion,
            runtime_class: pod.runtime_class.clone(),
            containers: containers.collect(),
        }
    }
}

/// Parts of the names of runtimes that give a pod a network of its own, in a kernel of its own.
const FOREIGN: [&str; 6] = ["gvisor", "runsc", "kata", "firecracker", "qemu", "cloud-hyperviso"];

/// Whether a RuntimeClass or program of this name has a network that the host's kernel does not see.
#[must_use]
pub fn has_foreign_network(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    FOREIGN.iter().any(|part| name.contains(part))
}
