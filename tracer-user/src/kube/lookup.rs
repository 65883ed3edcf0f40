//! Pods that a user names, by the API.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::ListParams};

use super::facts::PodFacts;

/// A pod, and the node that it runs on.
pub type Located = (PodFacts, Option<String>);

/// The pod of this name.
///
/// # Errors
/// If the API does not answer.
pub async fn pod(client: &Client, namespace: &str, name: &str) -> Result<Option<Located>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pod = pods
        .get_opt(name)
        .await
        .with_context(|| format!("cannot ask the Kubernetes API for pod {namespace}/{name}"))?;
    Ok(pod.as_ref().and_then(located))
}

/// The pods of all namespaces that a label selector selects.
///
/// # Errors
/// If the API does not answer.
pub async fn selected(client: &Client, selector: &str) -> Result<Vec<Located>> {
    let pods: Api<Pod> = Api::all(client.clone());
    let list = pods
        .list(&ListParams::default().labels(selector))
        .await
        .with_context(|| format!("cannot ask the Kubernetes API for pods with the labels {selector}"))?;
    Ok(list.items.iter().filter_map(located).collect())
}

fn located(pod: &Pod) -> Option<Located> {
    Some((PodFacts::read(pod)?, pod.spec.as_ref()?.node_name.clone()))
}
