//! Whose event it is: the target, and what Kubernetes knows of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whose event it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Subject {
    /// The target, as the user named it.
    pub target: Target,
    /// What Kubernetes knows of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub k8s: Option<K8s>,
}

/// A target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Target {
    /// Its name.
    pub name: String,
    /// Inode of its network namespace.
    pub netns: u64,
}

/// Names of Kubernetes, as in the OpenTelemetry semantic conventions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct K8s {
    /// The namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Named>,
    /// The pod.
    pub pod: Pod,
    /// The Deployment that owns it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployment: Option<Named>,
    /// The StatefulSet that owns it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statefulset: Option<Named>,
    /// The DaemonSet that owns it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub daemonset: Option<Named>,
    /// The Job that owns it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<Named>,
}

/// Something with a name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Named {
    /// Its name.
    pub name: String,
}

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pod {
    /// Its name, once the API told it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its uid.
    pub uid: String,
}
