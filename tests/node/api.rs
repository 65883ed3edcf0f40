//! What the Kubernetes API says of the node's pods while they are deleted.

use std::{
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use lastpacket_tests::api_server::{ApiServer, Playlist};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::{images, pod::Pod};

/// When the pods are deleted, from when the API begins to be watched.
const DELETION: Duration = Duration::from_millis(2500);
/// The endpoints change so much later.
const PROPAGATION: Duration = Duration::from_millis(80);
/// The kubelet has the objects removed so much later: no case takes longer.
const REMOVAL: Duration = Duration::from_secs(12);
/// Of the pods, in seconds.
pub const GRACE: Duration = Duration::from_secs(5);

/// An API server that will tell that pods are deleted.
pub struct Api {
    server: ApiServer,
    kubeconfig: PathBuf,
    _runtime: Runtime,
}

impl Api {
    /// Knows these pods, all of the Deployment `web`.
    pub fn of(pods: &[Pod], folder: &std::path::Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let mut version = 100;
        let mut next = || {
            version += 1;
            version
        };
        let items: Vec<Value> = pods.iter().map(|pod| object(pod, next(), None)).collect();
        let slices = [slice(pods, next(), true)];
        let deadline = SystemTime::now().duration_since(UNIX_EPOCH)? + DELETION + GRACE;
        let deleted = |pod, version| (DELETION, "MODIFIED", object(pod, version, Some(deadline)));
        let mut events: Vec<_> = pods.iter().map(|pod| deleted(pod, next())).collect();
        let changed = [
            (DELETION + PROPAGATION, "MODIFIED", slice(pods, next(), false)),
            (DELETION + REMOVAL, "MODIFIED", slice(&[], next(), false)),
        ];
        let removed = |pod, version| (DELETION + REMOVAL, "DELETED", object(pod, version, Some(deadline)));
        events.extend(pods.iter().map(|pod| removed(pod, next())));
        let (pods, slices) = (Playlist::written(&items, &events), Playlist::written(&slices, &changed));
        let server = runtime.block_on(ApiServer::written(pods, slices));
        let kubeconfig = folder.join("kubeconfig");
        fs::write(&kubeconfig, config(server.url()))?;
        Ok(Self { server, kubeconfig, _runtime: runtime })
    }

    /// The options by which an agent reaches it.
    pub fn options(&self) -> Result<[&str; 2]> {
        Ok(["--kubeconfig", self.kubeconfig.to_str().context("no path")?])
    }

    /// Waits until the pods are deleted.
    pub fn wait_for_deletion(&self) -> Result<()> {
        // The agent may follow a pod by its cgroup before it has asked the API.
        let deadline = Instant::now() + DELETION + REMOVAL;
        let at = loop {
            match self.server.at(DELETION) {
                Some(at) => break at,
                None if Instant::now() > deadline => bail!("the agent does not watch the API"),
                None => thread::sleep(Duration::from_millis(20)),
            }
        };
        thread::sleep(at.saturating_duration_since(Instant::now()));
        Ok(())
    }

    /// What the agent posted.
    pub fn posted(&self) -> Vec<Value> {
        self.server.posted()
    }
}

fn config(url: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": url}}],
        "users": [{"name": "test", "user": {}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    })
    .to_string()
}

fn object(pod: &Pod, version: u64, deadline: Option<Duration>) -> Value {
    let containers: Vec<_> =
        pod.containers.iter().map(|c| json!({"name": c.plan.name, "image": c.plan.image})).collect();
    let statuses = pod.containers.iter().map(|container| {
        json!({"name": container.plan.name, "image": container.plan.image, "imageID": "", "ready": true,
            "restartCount": container.attempt, "containerID": format!("containerd://{}", container.id),
            "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}})
    });
    let mut object = json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": pod.name, "namespace": "shop", "uid": pod.uid(),
            "resourceVersion": version.to_string(), "labels": {"pod-template-hash": "5d9f"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d9f",
                "uid": "6ead3a4c-6f24-4c96-8998-0038d50cb026", "controller": true}]},
        "spec": {"nodeName": "node1", "containers": containers,
            "terminationGracePeriodSeconds": GRACE.as_secs()},
        "status": {"phase": "Running", "podIP": pod.address(), "podIPs": [{"ip": pod.address()}],
            "containerStatuses": statuses.collect::<Vec<_>>()},
    });
    if let Some(deadline) = deadline {
        object["metadata"]["deletionTimestamp"] = date(deadline).into();
        object["metadata"]["deletionGracePeriodSeconds"] = GRACE.as_secs().into();
    }
    object
}

fn slice(pods: &[Pod], version: u64, ready: bool) -> Value {
    let endpoints = pods.iter().map(|pod| {
        json!({"addresses": [pod.address()], "nodeName": "node1",
            "conditions": {"ready": ready, "serving": true, "terminating": !ready},
            "targetRef": {"kind": "Pod", "namespace": "shop", "name": pod.name, "uid": pod.uid()}})
    });
    json!({
        "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "addressType": "IPv4",
        "metadata": {"name": "web-abcde", "namespace": "shop", "resourceVersion": version.to_string(),
            "uid": "bc4dc0ef-0335-407d-a2d4-b4b8dad658db", "labels": {"kubernetes.io/service-name": "web"}},
        "endpoints": endpoints.collect::<Vec<_>>(),
        "ports": [{"name": "", "protocol": "TCP", "port": images::NGINX_PORT}],
    })
}

/// RFC 3339 in whole seconds, as the API has it.
fn date(since_1970: Duration) -> String {
    let nanoseconds = i64::try_from(since_1970.as_secs()).unwrap_or(0) * 1_000_000_000;
    let text = tracer_core::output::Timestamp(nanoseconds).to_string();
    text.replace(".000000000", "")
}
