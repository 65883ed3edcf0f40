//! What the API says of a pod, as far as the inventory needs it.

use std::{collections::BTreeMap, sync::Arc};

use tracer_core::{
    event::Mono,
    input::Declared,
    output::{K8s, Named, Pod as PodName, Subject, Target},
    signals,
};

use crate::{
    host::pods::Container,
    kube::facts::{ContainerFacts, ContainerKind, PodFacts},
};

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
    /// Its containers by their ids.
    pub containers: BTreeMap<String, ContainerMeta>,
}

/// What the API says of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerMeta {
    /// What tracing is told.
    pub declared: Declared,
    /// It ends before the pod does: an init container, or an ephemeral one.
    pub passing: bool,
}

impl ContainerMeta {
    fn new(container: &ContainerFacts) -> Self {
        let stop_signal = container.stop_signal.as_deref().and_then(signals::number);
        Self {
            declared: Declared { name: container.name.as_str().into(), stop_signal },
            passing: matches!(container.kind, ContainerKind::Init | ContainerKind::Ephemeral),
        }
    }
}

impl Meta {
    /// Of a pod that was described at this time.
    #[must_use]
    pub fn new(pod: &PodFacts, received: Mono) -> Self {
        let containers = pod
            .containers
            .iter()
            .filter_map(|container| Some((container.id.clone()?, ContainerMeta::new(container))));
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

/// How a pod is named in events: by the API, or by its uid until the API answers.
#[must_use]
pub fn subject(meta: Option<&Meta>, uid: &str, netns: u64) -> Arc<Subject> {
    let named = |name: &str| Some(Named { name: name.to_owned() });
    let owner = |kind: &str| {
        let (owner, name) = meta?.workload.as_ref()?;
        if owner == kind { named(name) } else { None }
    };
    let k8s = K8s {
        namespace: meta.and_then(|meta| named(&meta.namespace)),
        pod: PodName { name: meta.map(|meta| meta.name.clone()), uid: uid.to_owned() },
        deployment: owner("Deployment"),
        statefulset: owner("StatefulSet"),
        daemonset: owner("DaemonSet"),
        job: owner("Job"),
    };
    let name = meta.map_or_else(|| uid.to_owned(), |meta| format!("{}/{}", meta.namespace, meta.name));
    Arc::new(Subject { target: Target { name, netns }, k8s: Some(k8s) })
}

/// What the API says of a container; until then the beginning of its id is its name.
#[must_use]
pub fn declared(meta: Option<&Meta>, container: &Container) -> Declared {
    let known = meta.and_then(|meta| meta.containers.get(&container.id));
    known.map_or_else(
        || Declared { name: container.id.chars().take(12).collect::<String>().into(), stop_signal: None },
        |known| known.declared.clone(),
    )
}

/// Parts of the names of runtimes that give a pod a network of its own, in a kernel of its own.
const FOREIGN: [&str; 6] = ["gvisor", "runsc", "kata", "firecracker", "qemu", "cloud-hyperviso"];

/// Whether a RuntimeClass or program of this name has a network that the host's kernel does not see.
#[must_use]
pub fn has_foreign_network(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    FOREIGN.iter().any(|part| name.contains(part))
}
