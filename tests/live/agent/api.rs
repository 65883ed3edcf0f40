//! The agent with a Kubernetes API: what it tells there, and what it can prove after it was killed.

use std::{fs, io::Write, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use lastpacket_tests::{
    api_server::ApiServer,
    events::Events,
    kernel_objects,
    netns::{Family, Link},
    recording,
    run::{self, Running},
};
use nix::sys::signal::Signal;
use tempfile::NamedTempFile;
use tokio::runtime::Runtime;
use tracer_core::{
    lifecycle::Source,
    output::Body,
    words::{self, Phase},
};

use super::pod::{Pod, client, listener};
use crate::{children::Holder, scene::pause};

/// The API says of a pod here what it said of one in this recording.
const RECORDING: &str = "delete-graceful-under-load";

/// An API, and a way there.
struct Api {
    runtime: Runtime,
    server: ApiServer,
    kubeconfig: NamedTempFile,
}

impl Api {
    fn start() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let server = runtime.block_on(ApiServer::play(RECORDING, 1.0));
        let mut kubeconfig = NamedTempFile::new()?;
        write!(
            kubeconfig,
            "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
             contexts: [{{name: test, context: {{cluster: test, user: test}}}}]\n\
             clusters: [{{name: test, cluster: {{server: '{}'}}}}]\nusers: [{{name: test, user: {{}}}}]\n",
            server.config().cluster_url
        )?;
        Ok(Self { runtime, server, kubeconfig })
    }

    fn agent(&self, more: &[&str]) -> Result<Running> {
        let kubeconfig = self.kubeconfig.path().to_str().context("no text")?;
        let mut arguments = vec!["agent", "--kubeconfig", kubeconfig, "--node-name", "node1"];
        arguments.extend(["--format", "json", "--listen", "127.0.0.1:0"]);
        arguments.extend(more);
        run::start(&arguments)
    }
}

/// A server with one client that waits to be accepted.
fn server(pod: &Pod, link: &Link) -> Result<Holder> {
    let holder = Holder::start(&link.server, "hold", 0, listener(link, Family::V4)?)?;
    pod.take(holder.pid())?;
    Ok(holder)
}

/// The pod is named by the API, its deletion is seen there, and a loss is told there, unless that is
/// switched off.
pub fn cut(posts: bool) -> Result<()> {
    let (api, link) = (Api::start()?, Link::new()?);
    let pod = Pod::with_uid(&recording::deleted_pod(RECORDING))?;
    let holder = server(&pod, &link)?;
    let mut agent = api.agent(if posts { &[] } else { &["--no-warnings"] })?;
    agent.wait_for_line(1, |line| {
        pod.is_of(line) && matches!(&line.body, Body::Phase(phase) if phase.phase == Phase::PreStop)
    })?;
    let (waiting, _) = client(&link, Family::V4)?;
    holder.stop()?;
    pause(300);
    drop(waiting);
    link.client.ip("link del vA")?;
    agent.wait_for_line(1, |line| pod.is_of(line) && matches!(line.body, Body::Verdict(_)))?;
    pause(500);
    let posted = api.server.posted();
    agent.signal(Signal::SIGTERM)?;
    let lines = pod.lines(&agent.finish()?.lines);
    let verdict = lines.verdict()?;
    ensure!(verdict.result == words::Result::Cut, "{verdict:#?}");
    let named = lines.last().and_then(|line| line.subject.as_ref()).context("no subject")?;
    ensure!(named.target.name.starts_with("default/py-"), "{named:?}");
    let phase =
        lines.phases().into_iter().find(|event| event.phase == Phase::PreStop).context("no preStop")?;
    ensure!(phase.source == Source::Api && !phase.container.name.is_empty(), "{phase:?}");
    if !posts {
        ensure!(posted.is_empty(), "{posted:?}");
        return Ok(());
    }
    let event = posted.first().context("nothing was posted")?;
    ensure!(event["reason"] == "TrafficCut" && event["type"] == "Warning", "{event}");
    ensure!(event["regarding"]["name"].as_str().is_some_and(|name| name.starts_with("py-")), "{event}");
    api.runtime.shutdown_background();
    Ok(())
}

/// An agent is killed between deletion and stop signal. Nothing of it stays in the kernel; the next one
/// judges the pod, but cannot prove anything.
pub fn restarted() -> Result<()> {
    let (api, link) = (Api::start()?, Link::new()?);
    let pod = Pod::with_uid(&recording::deleted_pod(RECORDING))?;
    let holder = server(&pod, &link)?;
    let mut first = api.agent(&[])?;
    first.wait_for_line(1, |line| {
        pod.is_of(line) && matches!(&line.body, Body::Phase(phase) if phase.phase == Phase::PreStop)
    })?;
    let objects = kernel_objects::of(first.pid())?;
    ensure!(objects.len() > 5, "only {objects:?}");
    first.signal(Signal::SIGKILL)?;
    first.finish()?;
    let mut second = api.agent(&[])?;
    second.wait_for_line(1, |line| {
        pod.is_of(line) && matches!(&line.body, Body::Phase(phase) if phase.phase == Phase::PreStop)
    })?;
    for _ in 0..100 {
        if objects.iter().all(|object| !object.exists()) {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    let left: Vec<_> = objects.iter().filter(|object| object.exists()).collect();
    ensure!(left.is_empty(), "the killed agent left {left:?}");
    holder.stop()?;
    pause(300);
    link.client.ip("link del vA")?;
    second.wait_for_line(1, |line| pod.is_of(line) && matches!(line.body, Body::Verdict(_)))?;
    second.signal(Signal::SIGTERM)?;
    let lines = pod.lines(&second.finish()?.lines);
    let verdict = lines.verdict()?;
    ensure!(verdict.result == words::Result::Unproven, "{verdict:#?}");
    ensure!(verdict.reasons.iter().any(|reason| reason.contains("began after")), "{:?}", verdict.reasons);
    let pinned = fs::read_dir("/sys/fs/bpf").map(Iterator::count).unwrap_or(0);
    ensure!(pinned == 0, "{pinned} objects are pinned");
    Ok(())
}
