//! The workload whose rollout is watched, and how far it is. Pure.
//!
//! When a rollout is complete is what `kubectl rollout status` waits for (`k8s.io/kubectl`,
//! `polymorphichelpers/rollout_status.go`).

use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, StatefulSet},
    core::v1::PodTemplateSpec,
};
use tracer_core::output::{K8s, Named};

/// What can be rolled out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A Deployment.
    Deployment,
    /// A StatefulSet.
    StatefulSet,
    /// A DaemonSet.
    DaemonSet,
}

impl Kind {
    /// As the API writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
        }
    }

    /// The API's resource.
    #[must_use]
    pub fn resource(self) -> &'static str {
        match self {
            Self::Deployment => "deployments",
            Self::StatefulSet => "statefulsets",
            Self::DaemonSet => "daemonsets",
        }
    }
}

/// Which workload, as the user named it: `deployment/web`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
}

impl std::str::FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error =
            || format!("{text} is no workload; write deployment/NAME, statefulset/NAME or daemonset/NAME");
        let (kind, name) = text.split_once('/').ok_or_else(error)?;
        let kind = match kind.to_ascii_lowercase().as_str() {
            "deployment" | "deployments" | "deploy" | "deployment.apps" => Kind::Deployment,
            "statefulset" | "statefulsets" | "sts" | "statefulset.apps" => Kind::StatefulSet,
            "daemonset" | "daemonsets" | "ds" | "daemonset.apps" => Kind::DaemonSet,
            _ => return Err(error()),
        };
        if name.is_empty() || name.contains('/') {
            return Err(error());
        }
        Ok(Self { kind, name: name.to_owned() })
    }
}

impl Name {
    /// Whether a pod is the workload's, by the names that its agent knows.
    #[must_use]
    pub fn owns(&self, namespace: &str, k8s: &K8s) -> bool {
        let owner = match self.kind {
            Kind::Deployment => &k8s.deployment,
            Kind::StatefulSet => &k8s.statefulset,
            Kind::DaemonSet => &k8s.daemonset,
        };
        let is = |named: &Option<Named>, name: &str| named.as_ref().is_some_and(|named| named.name == name);
        is(owner, &self.name) && is(&k8s.namespace, namespace)
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.kind.name().to_ascii_lowercase(), self.name)
    }
}

/// How far a workload's rollout is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// What its pods are made by: another one begins a rollout.
    pub template: PodTemplateSpec,
    /// Pods that it is to have.
    pub desired: i32,
    /// Pods of the newest template.
    pub updated: i32,
    /// Pods that are ready.
    pub ready: i32,
    /// Pods that are available.
    pub available: i32,
    /// All pods are of the newest template and available, and no others are left but those that end.
    pub complete: bool,
    /// Why the rollout does not go on.
    pub failed: Option<String>,
    /// Why there are no rollouts to watch.
    pub refused: Option<String>,
}

/// What has rollouts.
pub trait Workload {
    /// How far it is.
    fn status(&self) -> Status;
}

/// The controller has seen what is wanted.
fn observed(generation: Option<i64>, observed: Option<i64>) -> bool {
    observed.unwrap_or(0) >= generation.unwrap_or(0)
}

const ON_DELETE: &str = "its update strategy is OnDelete: it rolls out as somebody deletes its pods";

impl Workload for Deployment {
    fn status(&self) -> Status {
        let (spec, status) = (self.spec.clone().unwrap_or_default(), self.status.clone().unwrap_or_default());
        let desired = spec.replicas.unwrap_or(1);
        let updated = status.updated_replicas.unwrap_or(0);
        let available = status.available_replicas.unwrap_or(0);
        let stuck = status.conditions.iter().flatten().find(|condition| {
            condition.type_ == "Progressing"
                && condition.reason.as_deref() == Some("ProgressDeadlineExceeded")
        });
        let seen = observed(self.metadata.generation, status.observed_generation);
        let none_left = status.replicas.unwrap_or(0) <= updated;
        Status {
            template: spec.template,
            desired,
            updated,
            ready: status.ready_replicas.unwrap_or(0),
            available,
            complete: seen && updated >= desired && none_left && available >= updated,
            failed: stuck
                .filter(|_| seen)
                .map(|_| "it exceeded its progress deadline (ProgressDeadlineExceeded)".to_owned()),
            refused: spec
                .paused
                .unwrap_or(false)
                .then(|| "it is paused; resume it with `kubectl rollout resume`".to_owned()),
        }
    }
}

impl Workload for StatefulSet {
    fn status(&self) -> Status {
        let (spec, status) = (self.spec.clone().unwrap_or_default(), self.status.clone().unwrap_or_default());
        let strategy = spec.update_strategy.unwrap_or_default();
        let desired = spec.replicas.unwrap_or(1);
        let updated = status.updated_replicas.unwrap_or(0);
        let ready = status.ready_replicas.unwrap_or(0);
        let seen = status.observed_generation.is_some_and(|generation| generation > 0)
            && observed(self.metadata.generation, status.observed_generation);
        let partition = strategy.rolling_update.and_then(|update| update.partition).unwrap_or(0);
        let replaced = if partition > 0 {
            updated >= desired - partition
        } else {
            status.update_revision == status.current_revision
        };
        Status {
            template: spec.template,
            desired,
            updated,
            ready,
            available: status.available_replicas.unwrap_or(0),
            complete: seen && ready >= desired && replaced,
            failed: None,
            refused: if strategy.type_.as_deref() == Some("OnDelete") {
                Some(ON_DELETE.to_owned())
            } else {
                (partition >= desired && partition > 0).then(|| all_kept(partition, desired))
            },
        }
    }
}

fn all_kept(partition: i32, desired: i32) -> String {
    format!(
        "its partition of {partition} keeps all of its {desired} pods as they are; lower \
         spec.updateStrategy.rollingUpdate.partition"
    )
}

impl Workload for DaemonSet {
    fn status(&self) -> Status {
        let (spec, status) = (self.spec.clone().unwrap_or_default(), self.status.clone().unwrap_or_default());
        let desired = status.desired_number_scheduled;
        let updated = status.updated_number_scheduled.unwrap_or(0);
        let available = status.number_available.unwrap_or(0);
        let strategy = spec.update_strategy.and_then(|strategy| strategy.type_);
        let seen = observed(self.metadata.generation, status.observed_generation);
        Status {
            template: spec.template,
            desired,
            updated,
            ready: status.number_ready,
            available,
            complete: seen && updated >= desired && available >= desired,
            failed: None,
            refused: (strategy.as_deref() == Some("OnDelete")).then(|| ON_DELETE.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<K: serde::de::DeserializeOwned>(json: serde_json::Value) -> K {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn workloads_are_named_as_kubectl_names_them() {
        for text in ["deployment/web", "deploy/web", "deployment.apps/web", "Deployment/web"] {
            assert_eq!(text.parse(), Ok(Name { kind: Kind::Deployment, name: "web".to_owned() }), "{text}");
        }
        assert_eq!("sts/db".parse::<Name>().unwrap().to_string(), "statefulset/db");
        for text in ["web", "pod/web", "deployment/", "deployment/a/b"] {
            assert!(text.parse::<Name>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_deployment_is_complete_when_its_controller_has_seen_and_done_all() {
        let deployment = |observed: i64, replicas: i32, updated: i32, available: i32| -> Status {
            read::<Deployment>(serde_json::json!({
                "metadata": {"generation": 2},
                "spec": {"replicas": 3, "selector": {}, "template": {}},
                "status": {"observedGeneration": observed, "replicas": replicas,
                    "updatedReplicas": updated, "availableReplicas": available},
            }))
            .status()
        };
        assert!(deployment(2, 3, 3, 3).complete);
        assert!(!deployment(1, 3, 3, 3).complete, "the controller has not seen the change");
        assert!(!deployment(2, 3, 2, 3).complete, "one is not updated");
        assert!(!deployment(2, 4, 3, 4).complete, "an old one is left");
        assert!(!deployment(2, 3, 3, 2).complete, "one is not available");
    }

    #[test]
    fn what_stands_in_the_way_is_told() {
        let stuck: Deployment = read(serde_json::json!({
            "spec": {"selector": {}, "template": {}},
            "status": {"conditions": [
                {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]},
        }));
        assert!(stuck.status().failed.is_some_and(|reason| reason.contains("progress deadline")));
        let paused: Deployment =
            read(serde_json::json!({"spec": {"paused": true, "selector": {}, "template": {}}}));
        assert!(paused.status().refused.is_some_and(|reason| reason.contains("kubectl rollout resume")));
        let manual: DaemonSet = read(serde_json::json!({
            "spec": {"updateStrategy": {"type": "OnDelete"}, "selector": {}, "template": {}}}));
        assert!(manual.status().refused.is_some());
    }

    #[test]
    fn a_stateful_set_is_complete_when_its_revisions_meet() {
        let set = |current: &str, ready: i32, partition: i32| -> bool {
            read::<StatefulSet>(serde_json::json!({
                "metadata": {"generation": 2},
                "spec": {"replicas": 3, "selector": {}, "serviceName": "db", "template": {},
                    "updateStrategy": {"rollingUpdate": {"partition": partition}}},
                "status": {"observedGeneration": 2, "replicas": 3, "readyReplicas": ready,
                    "updatedReplicas": 2, "currentRevision": current, "updateRevision": "b"},
            }))
            .status()
            .complete
        };
        assert!(set("b", 3, 0));
        assert!(!set("a", 3, 0));
        assert!(!set("b", 2, 0));
        assert!(set("a", 3, 1), "a partition leaves one as it is");
    }
}
