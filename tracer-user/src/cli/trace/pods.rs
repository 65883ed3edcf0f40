//! Pods as targets: found on this node by their cgroups, named by the Kubernetes API.

use std::path::Path;

use anyhow::{Context, Result, bail};

use super::{Arguments, Found, Member};
use crate::{
    agent::meta::{Meta, declared, subject},
    clock,
    host::{
        cgroup::{Cgroup, Hierarchy},
        netns,
        pods::{Container, Pod, Scanner},
    },
    kube::{
        client,
        facts::PodFacts,
        lookup::{self, Located},
    },
};

/// As many characters of an id tell it from all others.
const SHORTEST_ID: usize = 8;
const WITHOUT_API: &str = "pods are named by the Kubernetes API; give --kubeconfig, \
    or name the pod by its uid (--pod) or by a container's id (--container)";

/// The pods of this node that the arguments name.
///
/// # Errors
/// If one of them is not there, or a name fits several.
pub(super) async fn find(arguments: &Arguments) -> Result<Vec<Found>> {
    if arguments.pod.is_empty() && arguments.selector.is_none() && arguments.container.is_empty() {
        return Ok(Vec::new());
    }
    let hierarchy = Hierarchy::of_containers().context("pods are found by their cgroups")?;
    let node = Scanner::new(hierarchy).look().pods;
    let mut found = Vec::new();
    for name in &arguments.pod {
        found.push(match name.split_once('/') {
            Some((namespace, name)) => by_name(&node, arguments, namespace, name).await?,
            None => target(by_uid(&node, name)?, None)?,
        });
    }
    if let Some(selector) = &arguments.selector {
        found.extend(by_selector(&node, arguments, selector).await?);
    }
    for id in &arguments.container {
        found.push(target(by_container(&node, id)?, None)?);
    }
    Ok(found)
}

async fn by_name(node: &[Pod], arguments: &Arguments, namespace: &str, name: &str) -> Result<Found> {
    let client = client::client(arguments.kubeconfig.as_deref()).await.context(WITHOUT_API)?;
    let Some((facts, home)) = lookup::pod(&client, namespace, name).await? else {
        bail!("there is no pod {namespace}/{name}; look with `kubectl get pods --namespace {namespace}`");
    };
    match of_uid(node, &facts.cgroup_uid) {
        Some(pod) => target(pod, Some(&facts)),
        None => bail!(
            "no container of pod {namespace}/{name} runs on this node; it is on {}",
            home.as_deref().unwrap_or("none yet")
        ),
    }
}

async fn by_selector(node: &[Pod], arguments: &Arguments, selector: &str) -> Result<Vec<Found>> {
    let client = client::client(arguments.kubeconfig.as_deref()).await.context(WITHOUT_API)?;
    let all: Vec<Located> = lookup::selected(&client, selector).await?;
    let here = all.iter().filter_map(|(facts, _)| Some((of_uid(node, &facts.cgroup_uid)?, facts)));
    let found = here.map(|(pod, facts)| target(pod, Some(facts))).collect::<Result<Vec<_>>>()?;
    if found.is_empty() {
        bail!("none of the {} pods with the labels {selector} runs on this node", all.len());
    }
    Ok(found)
}

fn by_uid<'node>(node: &'node [Pod], uid: &str) -> Result<&'node Pod> {
    match of_uid(node, uid) {
        Some(pod) => Ok(pod),
        None => bail!(
            "no pod with the uid {uid} runs on this node; give NAMESPACE/NAME, or a uid of {}",
            uids(node.iter())
        ),
    }
}

fn of_uid<'node>(node: &'node [Pod], uid: &str) -> Option<&'node Pod> {
    node.iter().find(|pod| pod.uid == uid && !pod.containers.is_empty())
}

fn by_container<'node>(node: &'node [Pod], id: &str) -> Result<&'node Pod> {
    // As the API writes it: containerd://ID.
    let id = id.rsplit("://").next().unwrap_or(id);
    if id.len() < SHORTEST_ID {
        bail!("{id} is too short for a container's id; give {SHORTEST_ID} characters of it or more");
    }
    let is_it = |container: &Container| container.id.starts_with(id);
    let found: Vec<&Pod> = node.iter().filter(|pod| pod.containers.iter().any(is_it)).collect();
    match found.as_slice() {
        [pod] => Ok(*pod),
        [] => bail!("no container {id} of a pod runs on this node; look with `crictl ps`"),
        several => bail!(
            "the container id {id} fits pods {}; give more characters of it",
            uids(several.iter().copied())
        ),
    }
}

fn uids<'pod>(pods: impl Iterator<Item = &'pod Pod>) -> String {
    let uids: Vec<&str> = pods.map(|pod| pod.uid.as_str()).collect();
    if uids.is_empty() { "which there is none".to_owned() } else { uids.join(", ") }
}

fn target(pod: &Pod, facts: Option<&PodFacts>) -> Result<Found> {
    let meta: Option<Meta> = facts.map(|facts| Meta::new(facts, clock::mono_ns()));
    let mut containers = Vec::new();
    for container in &pod.containers {
        let (declared, init) = (declared(meta.as_ref(), container), container.init.clone());
        containers.push(Member { declared, init, cgroup: Some(cgroup_of(container)?) });
    }
    Ok(Found {
        subject: subject(meta.as_ref(), &pod.uid, pod.netns_inode),
        netns: pod.netns.clone().unwrap_or_else(netns::machine_path),
        containers,
        late: meta.is_some_and(|meta| meta.deleted.is_some()),
    })
}

/// The container's own cgroup: its init may be in one below.
fn cgroup_of(container: &Container) -> Result<Cgroup> {
    let path = container.init.cgroup.as_deref().unwrap_or_default();
    let begin = path.find(&container.id).unwrap_or(path.len());
    let end = path[begin..].find('/').map_or(path.len(), |length| begin + length);
    Cgroup::open(Path::new(&path[..end]))
}
