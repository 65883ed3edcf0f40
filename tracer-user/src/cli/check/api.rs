//! Conditions of the Kubernetes API: whether it is reached, and what an agent may do there.

use std::{path::Path, time::Duration};

use tokio::time::timeout;

use crate::{
    cli::options::runtime,
    kernel::preflight::{Condition, Status},
    kube::{
        client,
        permissions::{self, Answer},
    },
};

/// How long to wait for the API.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks the API, where there is one: by a kubeconfig, or within a pod. A machine without Kubernetes has
/// no conditions here.
pub(super) fn check(kubeconfig: Option<&Path>) -> Vec<Condition> {
    let in_cluster = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    if kubeconfig.is_none() && !in_cluster && std::env::var_os("KUBECONFIG").is_none() {
        return Vec::new();
    }
    let asked = runtime().and_then(|runtime| {
        runtime.block_on(async {
            let client = client::client(kubeconfig).await?;
            timeout(PATIENCE, permissions::ask(&client)).await?
        })
    });
    match asked {
        Ok(answers) => answers.iter().map(condition).collect(),
        Err(error) => vec![Condition::not(
            Status::Limited,
            "Kubernetes API",
            format!("{error:#}: pods are named by their uids"),
            "give --kubeconfig, or run with the service account of deploy/manifest.yaml",
        )],
    }
}

fn condition(answer: &Answer) -> Condition {
    let permission = answer.permission;
    let name = format!("API {} {}", permission.verb, permission.resource);
    if answer.allowed {
        return Condition::ok(&name, permission.reason);
    }
    let found = format!("forbidden, needed for {}", permission.reason);
    let remedy = if permission.optional {
        "grant it as deploy/manifest.yaml does, or run the agent with --no-warnings"
    } else {
        "grant it as deploy/manifest.yaml does, by its ClusterRole"
    };
    Condition::not(Status::Limited, &name, found, remedy)
}
