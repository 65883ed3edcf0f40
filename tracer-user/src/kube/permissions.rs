//! The permissions that an agent needs, each with its reason, and whether it has them.

use anyhow::{Context, Result};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::{Api, Client, api::PostParams};

/// A permission, in all namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permission {
    /// What to do.
    pub verb: &'static str,
    /// The API group; empty for the core's.
    pub group: &'static str,
    /// With what.
    pub resource: &'static str,
    /// What for.
    pub reason: &'static str,
    /// Without it the agent still gives its verdicts.
    pub optional: bool,
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
    /// Whether it is there.
    pub allowed: bool,
}

/// Asks the API for each permission.
///
/// # Errors
/// If the API cannot be asked.
pub async fn ask(client: &Client) -> Result<Vec<Answer>> {
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let mut answers = Vec::new();
    for permission in PERMISSIONS {
        let review = SelfSubjectAccessReview { spec: spec(permission), ..Default::default() };
        let answer = reviews
            .create(&PostParams::default(), &review)
            .await
            .context("cannot ask the Kubernetes API for permissions")?;
        answers.push(Answer { permission, allowed: answer.status.is_some_and(|status| status.allowed) });
    }
    Ok(answers)
}

fn spec(permission: Permission) -> SelfSubjectAccessReviewSpec {
    let attributes = ResourceAttributes {
        verb: Some(permission.verb.to_owned()),
        group: Some(permission.group.to_owned()),
        resource: Some(permission.resource.to_owned()),
        ..ResourceAttributes::default()
    };
    SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), non_resource_attributes: None }
}
