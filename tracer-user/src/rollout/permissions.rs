//! What the user of a rollout may do, each with its reason.

use anyhow::{Result, bail};
use kube::Client;

use super::workload::Kind;
use crate::kube::permissions::{Permission, Scope, ask_for};

/// All that is asked of the API for a workload in one namespace and agents in another.
#[must_use]
pub fn needed(kind: Kind, namespace: &str, agents: &str, restart: bool) -> Vec<(Permission, Scope)> {
    let permission =
        |verb, group, resource, reason| Permission { verb, group, resource, reason, optional: false };
    let (workloads, logs) = (kind.resource(), "pods/log");
    let mut here = vec![
        permission("list", "apps", workloads, "how far the rollout is"),
        permission("watch", "apps", workloads, "how far the rollout is"),
        permission("list", "", "pods", "which pods the rollout ends"),
        permission("watch", "", "pods", "which pods the rollout ends"),
    ];
    if restart {
        here.push(permission("patch", "apps", workloads, "--restart"));
    }
    let there = [
        permission("list", "", "pods", "on which nodes agents run"),
        permission("watch", "", "pods", "on which nodes agents run"),
        permission("get", "", logs, "what the agents saw"),
    ];
    let in_namespace = |namespace: &str| Scope::Namespace(namespace.to_owned());
    let here = here.into_iter().map(|permission| (permission, in_namespace(namespace)));
    here.chain(there.map(|permission| (permission, in_namespace(agents)))).collect()
}

/// Asks the API whether they are there.
///
/// # Errors
/// If one is missing: names all that are.
pub async fn check(client: &Client, needed: Vec<(Permission, Scope)>) -> Result<()> {
    let answers = ask_for(client, needed).await?;
    let missing: Vec<String> = answers
        .iter()
        .filter(|answer| !answer.allowed)
        .map(|answer| {
            let Permission { verb, resource, reason, .. } = answer.permission;
            format!("{verb} {resource} {} ({reason})", answer.scope)
        })
        .collect();
    if !missing.is_empty() {
        bail!(
            "you lack permissions in the cluster: {}; docs/rollout.md has the Roles to apply",
            missing.join(", ")
        );
    }
    Ok(())
}
