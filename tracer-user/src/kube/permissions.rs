//! Permissions, each with its reason, and whether one has them; those that an agent needs.

use anyhow::{Context, Result};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::{Api, Client, api::PostParams};

/// A permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permission {
    /// What to do.
    pub verb: &'static str,
    /// The API group; empty for the core's.
    pub group: &'static str,
    /// With what; a subresource as `pods/log`.
    pub resource: &'static str,
    /// What for.
    pub reason: &'static str,
    /// Without it the agent still gives its verdicts.
    pub optional: bool,
}

/// Where a permission is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In all namespaces.
    Everywhere,
    /// In one.
    Namespace(String),
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Everywhere => f.write_str("in all namespaces"),
            Self::Namespace(namespace) => write!(f, "in namespace {namespace}"),
        }
    }
}

/// All that an agent asks the API for. Asking for one's own permissions needs none.
pub const PERMISSIONS: [Permission; 5] = [
    Permission {
        verb: "list",
        group: "",
        resource: "pods",
        reason: "names, containers and hooks of the node's pods",
        optional: false,
    },
    Permission {
        verb: "watch",
        group: "",
        resource: "pods",
        reason: "the moment at which a pod is deleted",
        optional: false,
    },
    Permission {
        verb: "list",
        group: "discovery.k8s.io",
        resource: "endpointslices",
        reason: "which Services send traffic to the node's pods",
        optional: false,
    },
    Permission {
        verb: "watch",
        group: "discovery.k8s.io",
        resource: "endpointslices",
        reason: "the moment at which load balancers are told of a termination",
        optional: false,
    },
    Permission {
        verb: "create",
        group: "events.k8s.io",
        resource: "events",
        reason: "a Warning on pods that cut traffic",
        optional: true,
    },
];

/// Whether a permission is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Which.
    pub permission: Permission,
    /// Where.
    pub scope: Scope,
    /// Whether it is there.
    pub allowed: bool,
}

/// Asks the API for each permission of an agent.
///
/// # Errors
/// If the API cannot be asked.
pub async fn ask(client: &Client) -> Result<Vec<Answer>> {
    ask_for(client, PERMISSIONS.map(|permission| (permission, Scope::Everywhere)).to_vec()).await
}

/// Asks the API for each of these permissions.
///
/// # Errors
/// If the API cannot be asked.
pub async fn ask_for(client: &Client, permissions: Vec<(Permission, Scope)>) -> Result<Vec<Answer>> {
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let mut answers = Vec::new();
    for (permission, scope) in permissions {
        let review = SelfSubjectAccessReview { spec: spec(permission, &scope), ..Default::default() };
        let answer = reviews
            .create(&PostParams::default(), &review)
            .await
            .context("cannot ask the Kubernetes API for permissions")?;
        let allowed = answer.status.is_some_and(|status| status.allowed);
        answers.push(Answer { permission, scope, allowed });
    }
    Ok(answers)
}

fn spec(permission: Permission, scope: &Scope) -> SelfSubjectAccessReviewSpec {
    let (resource, subresource) = match permission.resource.split_once('/') {
        Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
        None => (permission.resource, None),
    };
    let namespace = match scope {
        Scope::Everywhere => None,
        Scope::Namespace(namespace) => Some(namespace.clone()),
    };
    let attributes = ResourceAttributes {
        verb: Some(permission.verb.to_owned()),
        group: Some(permission.group.to_owned()),
        resource: Some(resource.to_owned()),
        subresource,
        namespace,
        ..ResourceAttributes::default()
    };
    SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), non_resource_attributes: None }
}
