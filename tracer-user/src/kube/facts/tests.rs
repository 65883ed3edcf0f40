//! Pods as the API writes them, read.

use serde_json::{Value, json};

use super::*;
use crate::kube::facts::{ContainerKind, PreStop};

fn read(metadata: &Value, spec: &Value, status: &Value) -> PodFacts {
    let mut pod = json!({
        "metadata": {"name": "web-6f4757996f-nhzkf", "namespace": "shop", "uid": "u-1"},
        "spec": {"containers": [{"name": "server"}]},
        "status": status,
    });
    for (part, more) in [("metadata", metadata), ("spec", spec)] {
        pod[part].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    }
    PodFacts::read(&serde_json::from_value(pod).unwrap()).unwrap()
}

fn owned_by(kind: &str, name: &str, labels: &Value) -> Option<Workload> {
    let owner = json!([
        {"apiVersion": "v1", "kind": "Other", "name": "no-controller", "uid": "o"},
        {"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": "o", "controller": true}
    ]);
    read(&json!({"ownerReferences": owner, "labels": labels}), &json!({}), &json!({})).workload
}

#[test]
fn a_deployment_is_found_behind_its_replica_set() {
    let workload = |kind: &str, name: &str| Some(Workload { kind: kind.into(), name: name.into() });
    let hash = json!({"pod-template-hash": "6f4757996f"});
    assert_eq!(owned_by("ReplicaSet", "web-6f4757996f", &hash), workload("Deployment", "web"));
    assert_eq!(owned_by("ReplicaSet", "web", &json!({})), workload("ReplicaSet", "web"));
    assert_eq!(owned_by("StatefulSet", "db", &json!({})), workload("StatefulSet", "db"));
}

#[test]
fn a_deletion_was_asked_for_its_grace_period_before_the_deadline() {
    let deleted = json!({"deletionTimestamp": "2026-11-21T08:01:59Z", "deletionGracePeriodSeconds": 10});
    let deletion = read(&deleted, &json!({}), &json!({})).deletion.unwrap();
    assert_eq!(deletion.deadline - deletion.requested, 10_000_000_000);
    assert_eq!(deletion.deadline, 1_795_248_119_000_000_000);
}

#[test]
fn a_static_pod_is_known_to_the_node_by_its_hash() {
    let mirror = json!({"annotations": {
        "kubernetes.io/config.hash": "b5b9c5a4", "kubernetes.io/config.mirror": "b5b9c5a4"}});
    assert_eq!(read(&mirror, &json!({}), &json!({})).cgroup_uid, "b5b9c5a4");
    let no_mirror = json!({"annotations": {"kubernetes.io/config.hash": "b5b9c5a4"}});
    assert_eq!(read(&no_mirror, &json!({}), &json!({})).cgroup_uid, "u-1");
}

#[test]
fn containers_of_every_kind() {
    let spec = json!({
        "containers": [{"name": "server", "lifecycle": {
            "preStop": {"sleep": {"seconds": 3}}, "stopSignal": "SIGUSR1"}}],
        "initContainers": [
            {"name": "setup"},
            {"name": "mesh", "restartPolicy": "Always", "lifecycle": {"preStop": {"exec": {}}}}],
        "ephemeralContainers": [{"name": "debug"}],
    });
    let status = json!({
        "phase": "Running",
        "podIPs": [{"ip": "10.244.0.5"}, {"ip": "fd00::5"}],
        "containerStatuses": [{
            "name": "server", "image": "", "imageID": "", "ready": true, "restartCount": 2,
            "containerID": "containerd://abc", "state": {"running": {}},
            "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled", "containerID": "containerd://old"}}}],
        "initContainerStatuses": [{
            "name": "mesh", "image": "", "imageID": "", "ready": true, "restartCount": 0,
            "containerID": "cri-o://def", "stopSignal": "SIGQUIT", "state": {"running": {}}}],
    });
    let pod = read(&json!({}), &spec, &status);
    let kinds: Vec<_> =
        pod.containers.iter().map(|container| (container.name.as_str(), container.kind)).collect();
    assert_eq!(
        kinds,
        [
            ("server", ContainerKind::Main),
            ("setup", ContainerKind::Init),
            ("mesh", ContainerKind::Sidecar),
            ("debug", ContainerKind::Ephemeral)
        ]
    );
    let (server, mesh) = (&pod.containers[0], &pod.containers[2]);
    assert_eq!((server.id.as_deref(), server.pre_stop), (Some("abc"), Some(PreStop::Sleep(3))));
    assert_eq!((server.stop_signal.as_deref(), server.restart_count), (Some("SIGUSR1"), 2));
    let exit = server.last_exit.as_ref().unwrap();
    assert_eq!(
        (exit.code, exit.reason.as_deref(), exit.id.as_deref()),
        (137, Some("OOMKilled"), Some("old"))
    );
    assert_eq!((mesh.id.as_deref(), mesh.stop_signal.as_deref()), (Some("def"), Some("SIGQUIT")));
    assert_eq!(mesh.pre_stop, Some(PreStop::Exec));
    assert_eq!(pod.ips, ["10.244.0.5".parse::<IpAddr>().unwrap(), "fd00::5".parse().unwrap()]);
}

#[test]
fn pods_that_end_by_themselves() {
    for (policy, ends) in [("Always", false), ("OnFailure", true), ("Never", true)] {
        let pod = read(&json!({}), &json!({"restartPolicy": policy}), &json!({}));
        assert_eq!(pod.run_to_completion, ends, "{policy}");
    }
    assert_eq!(read(&json!({}), &json!({}), &json!({})).grace_seconds, 30);
}
