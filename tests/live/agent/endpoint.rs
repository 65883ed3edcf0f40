//! A pod behind a Service, as the API describes it: its endpoint, and the signal that stops it.

use std::io::Write;

use anyhow::{Result, bail, ensure};
use lastpacket_tests::{
    cluster::Cluster,
    events::{Events, ensure_balanced},
    netns::{Family, Link},
    process,
    run::{self, Running},
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tracer_core::{
    output::{Body, Line},
    words::{self, Phase},
};

use super::pod::{Pod, client, listener};
use crate::{children::Holder, scene::pause};

const NODE: &str = "node1";
/// No runtime stops by it unless it is declared. (SIGHUP would be ignored under nohup.)
const STOP_SIGNAL: Signal = Signal::SIGALRM;

/// Nobody deletes the pod: it is stopped as under node pressure, by the signal that it declares, while a
/// client still comes. Its endpoint is still ready then, unless it went `in_time`.
pub fn stopped(in_time: bool) -> Result<()> {
    let (cluster, link, pod) = (Cluster::new(), Link::new()?, Pod::new()?);
    cluster.put("pods", described(&pod));
    cluster.put("endpointslices", slice(&pod, true));
    let mut holder = Holder::start(&link.server, "hold", 1, listener(&link, Family::V4)?)?;
    pod.take(holder.pid())?;
    let mut kubeconfig = NamedTempFile::new()?;
    kubeconfig.write_all(cluster.kubeconfig("shop").as_bytes())?;
    let mut agent = agent(&kubeconfig)?;
    agent.wait_for_lines(1, |line| pod.is_of(line) && matches!(line.body, Body::TargetStarted(_)))?;
    wait_for_watches(&cluster)?;
    let (answered, _) = client(&link, Family::V4)?;
    holder.wait_until_taken()?;
    pause(300);
    if in_time {
        cluster.put("endpointslices", slice(&pod, false));
        agent.wait_for_lines(1, |line| {
            pod.is_of(line) && matches!(&line.body, Body::Endpoint(event) if event.present && !event.ready)
        })?;
    }
    process::signal(holder.pid(), STOP_SIGNAL)?;
    pause(300);
    let (refused, _) = client(&link, Family::V4)?;
    ensure!(refused.is_none(), "something listens");
    drop(answered);
    link.client.ip("link del vA")?;
    agent.wait_for_lines(1, |line| pod.is_of(line) && matches!(line.body, Body::Verdict(_)))?;
    agent.signal(Signal::SIGTERM)?;
    let all = agent.finish()?.lines;
    ensure_found(&pod.lines(&all), in_time)
}

fn ensure_found(lines: &[Line], in_time: bool) -> Result<()> {
    let verdict = lines.verdict()?;
    ensure!(verdict.result == words::Result::Cut, "{verdict:#?}");
    ensure_balanced(verdict)?;
    let phases: Vec<_> = lines.phases().iter().map(|event| event.phase).collect();
    ensure!(phases == [Phase::Running, Phase::StopSignal, Phase::Exiting, Phase::AfterExit], "{phases:?}");
    let signal = verdict.containers[0].phases[1].signal.as_ref().map(|signal| signal.name.as_str());
    ensure!(signal == Some(STOP_SIGNAL.as_str()), "{signal:?}");
    let ids: Vec<_> = verdict.findings.iter().map(|finding| finding.id.as_str()).collect();
    ensure!(ids.contains(&"endpoint-removed-late") != in_time, "{ids:?}");
    // The kubelet may have waited by itself: without a deletion nobody knows.
    ensure!(ids.contains(&"pre-stop-too-short") && !ids.contains(&"pre-stop-missing"), "{ids:?}");
    for finding in &verdict.findings {
        let known = |seq: &u64| lines.iter().any(|line| line.seq == *seq);
        ensure!(!finding.evidence.is_empty() && finding.evidence.iter().all(known), "{finding:#?}");
    }
    Ok(())
}

fn agent(kubeconfig: &NamedTempFile) -> Result<Running> {
    let path = kubeconfig.path().to_string_lossy().into_owned();
    let arguments = ["agent", "--kubeconfig", &path, "--node-name", NODE, "--no-warnings"];
    run::start(&[&arguments[..], &["--format", "json", "--listen", "127.0.0.1:0"]].concat())
}

/// Whoever watches has read what there was.
fn wait_for_watches(cluster: &Cluster) -> Result<()> {
    let watched = |what: &str| {
        let is_watch = |request: &String| request.contains(what) && request.contains("watch=");
        cluster.requests().iter().any(is_watch)
    };
    for _ in 0..400 {
        if watched("/pods?") && watched("/endpointslices?") {
            return Ok(());
        }
        pause(50);
    }
    bail!("the agent watches nothing: {:?}", cluster.requests())
}

fn described(pod: &Pod) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "shop", "name": "web-1", "uid": pod.uid()},
        "spec": {"nodeName": NODE, "containers": [{
            "name": "web", "lifecycle": {"stopSignal": STOP_SIGNAL.as_str()},
        }]},
        "status": {"phase": "Running", "podIP": Family::V4.server().to_string(), "containerStatuses": [{
            "name": "web", "containerID": format!("containerd://{}", pod.container_id()),
            "image": "web", "imageID": "", "ready": true, "restartCount": 0,
            "state": {"running": {}},
        }]},
    })
}

fn slice(pod: &Pod, ready: bool) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "namespace": "shop", "name": "web-x",
            "labels": {"kubernetes.io/service-name": "web"},
        },
        "endpoints": [{
            "addresses": [Family::V4.server().to_string()], "nodeName": NODE,
            "conditions": {"ready": ready, "serving": ready, "terminating": false},
            "targetRef": {"kind": "Pod", "namespace": "shop", "name": "web-1", "uid": pod.uid()},
        }],
        "ports": [],
    })
}
