//! What the API server holds of the workload, its pods and the agents.

use serde_json::{Value, json};

/// What is rolled out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Deployment,
    StatefulSet,
    DaemonSet,
}

impl Kind {
    /// As the command line names the workload.
    pub fn workload(self) -> &'static str {
        match self {
            Self::Deployment => "deployment/web",
            Self::StatefulSet => "statefulset/web",
            Self::DaemonSet => "daemonset/web",
        }
    }

    pub fn collection(self) -> &'static str {
        match self {
            Self::Deployment => "deployments",
            Self::StatefulSet => "statefulsets",
            Self::DaemonSet => "daemonsets",
        }
    }

    /// The owner in events.
    pub fn in_events(self) -> &'static str {
        match self {
            Self::Deployment => "deployment",
            Self::StatefulSet => "statefulset",
            Self::DaemonSet => "daemonset",
        }
    }

    /// The pods of the old revision and those that replace them, in the order of their turns: a
    /// StatefulSet begins with the last, and each new pod has the name of the old one.
    pub fn pods(self) -> [(&'static str, &'static str); 2] {
        match self {
            Self::Deployment => [("web-old-a", "web-new-0"), ("web-old-b", "web-new-1")],
            Self::StatefulSet => [("web-1", "web-1"), ("web-0", "web-0")],
            Self::DaemonSet => [("web-4fz7k", "web-b8xw2"), ("web-9xq2m", "web-t6v5n")],
        }
    }

    /// New pods come before the old ones go.
    pub fn surges(self) -> bool {
        self == Self::Deployment
    }

    /// The workload with two pods that run.
    pub fn object(self) -> Value {
        let template = json!({"metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "server"}]}});
        let spec = json!({"replicas": 2, "selector": {"matchLabels": {"app": "web"}},
            "serviceName": "web", "template": template});
        let mut object = json!({
            "kind": format!("{self:?}"), "apiVersion": "apps/v1",
            "metadata": {"name": "web", "namespace": "shop", "generation": 1},
            "spec": spec, "status": {},
        });
        self.observe(&mut object, 2);
        object
    }

    /// The controller has seen what is wanted, and so many pods are new; all are ready.
    pub fn observe(self, object: &mut Value, updated: i32) {
        let generation = object["metadata"]["generation"].clone();
        let newest = if generation == 1 { "old" } else { "new" };
        object["status"] = match self {
            Self::Deployment => json!({"observedGeneration": generation, "replicas": 2,
                "updatedReplicas": updated, "readyReplicas": 2, "availableReplicas": 2}),
            Self::StatefulSet => json!({"observedGeneration": generation, "replicas": 2,
                "updatedReplicas": updated, "readyReplicas": 2, "availableReplicas": 2,
                "currentRevision": if updated == 2 { newest } else { "old" }, "updateRevision": newest}),
            Self::DaemonSet => json!({"observedGeneration": generation, "desiredNumberScheduled": 2,
                "currentNumberScheduled": 2, "numberMisscheduled": 0, "numberReady": 2,
                "updatedNumberScheduled": updated, "numberAvailable": 2}),
        };
    }

    /// A pod of the workload.
    pub fn pod(self, name: &str, node: &str, revision: &str, uid: &str) -> Value {
        let (label, owner, owner_name) = match self {
            Self::Deployment => ("pod-template-hash", "ReplicaSet".to_owned(), format!("web-{revision}")),
            Self::StatefulSet | Self::DaemonSet => {
                ("controller-revision-hash", format!("{self:?}"), "web".to_owned())
            }
        };
        let created = if revision == "new" { "2026-11-21T08:04:50Z" } else { "2026-11-21T08:00:00Z" };
        json!({
            "kind": "Pod", "apiVersion": "v1",
            "metadata": {"name": name, "namespace": "shop", "uid": uid, "creationTimestamp": created,
                "labels": {"app": "web", label: revision},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": owner, "controller": true,
                    "name": owner_name, "uid": revision}]},
            "spec": {"nodeName": node, "containers": [{"name": "server"}]},
            "status": {"phase": "Running"},
        })
    }
}

pub fn agent_pod(name: &str, node: &str) -> Value {
    json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "lastpacket", "uid": name,
            "labels": {"app.kubernetes.io/name": "lastpacket"}},
        "spec": {"nodeName": node, "containers": [{"name": "agent"}]},
        "status": {"phase": "Running"},
    })
}
