//! Watches a rollout through the Kubernetes API, and starts one.

use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use k8s_openapi::{
    NamespaceResourceScope,
    api::apps::v1::{DaemonSet, Deployment, StatefulSet},
    jiff,
    serde::de::DeserializeOwned,
};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use super::{
    follow::{follow_agents, follow_pods, follow_workload},
    input::{Input, Patience},
    join::{Join, News},
    total::{End, Total},
    workload::{Kind, Name, Workload},
};
use crate::{
    clock,
    kube::list_watch::{ListWatch, Timing},
};

/// Label of the agents' pods, as `deploy/manifest.yaml` sets it.
const AGENTS: &str = "app.kubernetes.io/name=lastpacket";
/// What `kubectl rollout restart` sets.
const RESTARTED: &str = "kubectl.kubernetes.io/restartedAt";
/// From how long before the watch agents' lines are read: clocks differ.
const BEFORE: Duration = Duration::from_secs(60);
/// How often it is looked whether the watch ends.
const TICK: Duration = Duration::from_millis(100);

/// Which rollout, and how to watch it.
pub struct Settings {
    /// The workload.
    pub name: Name,
    /// Its namespace.
    pub namespace: String,
    /// The agents' namespace.
    pub agents: String,
    /// Start a rollout.
    pub restart: bool,
    /// How long to wait for what.
    pub patience: Patience,
    /// How to follow the API.
    pub timing: Timing,
}

/// Watches until all is told. `tell` gets the news as they come, `show` how it stands.
///
/// # Errors
/// If there is no such workload, or none that can be watched.
pub async fn watch(
    client: Client,
    settings: Settings,
    stop: impl Future<Output = ()>,
    tell: impl FnMut(News) -> Result<()>,
    show: impl FnMut(String),
) -> Result<Total> {
    match settings.name.kind {
        Kind::Deployment => watch_kind::<Deployment>(client, settings, stop, tell, show).await,
        Kind::StatefulSet => watch_kind::<StatefulSet>(client, settings, stop, tell, show).await,
        Kind::DaemonSet => watch_kind::<DaemonSet>(client, settings, stop, tell, show).await,
    }
}

async fn watch_kind<K>(
    client: Client,
    settings: Settings,
    stop: impl Future<Output = ()>,
    mut tell: impl FnMut(News) -> Result<()>,
    mut show: impl FnMut(String),
) -> Result<Total>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Workload
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + 'static,
{
    let Settings { name, namespace, agents, mut restart, patience, timing } = settings;
    let workloads: Api<K> = Api::namespaced(client.clone(), &namespace);
    ensure_watchable(&workloads, &name, &namespace).await?;
    let (inputs, mut happenings) = mpsc::channel(1024);
    let of_name = Some(format!("metadata.name={}", name.name));
    let mut tasks = Tasks::default();
    tasks.spawn(follow_workload(ListWatch::new(workloads.clone(), of_name, timing), inputs.clone()));
    let pods = ListWatch::new(Api::namespaced(client.clone(), &namespace), None, timing);
    tasks.spawn(follow_pods(pods, name.clone(), inputs.clone()));
    let mut join = Join::new(name.clone(), namespace, patience, Instant::now());
    let mut reading = false;
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stop = std::pin::pin!(stop);
    loop {
        let input = tokio::select! {
            Some(input) = happenings.recv() => input,
            _ = tick.tick() => Input::Tick,
            () = &mut stop => return end(join, &End::Interrupted, tell),
        };
        join.step(input, Instant::now()).into_iter().try_for_each(&mut tell)?;
        if !reading && join.knows_rollout() {
            reading = true;
            let list = ListWatch::new(Api::namespaced(client.clone(), &agents), None, timing)
                .labelled(AGENTS.to_owned());
            let api = Api::namespaced(client.clone(), &agents);
            tasks.spawn(follow_agents(list, api, since(&join), timing.first_wait, inputs.clone()));
        }
        if join.is_ready() && !join.has_agents() {
            bail!(
                "no agent runs in namespace {agents}, so that nothing could be proven; give --agents, or install it as docs/operations.md says"
            );
        }
        if restart && join.is_ready() {
            restart = false;
            start(&workloads, &name).await?;
        }
        show(join.state());
        if let Some(why) = join.end(Instant::now()) {
            return end(join, &why, tell);
        }
    }
}

fn end(join: Join, why: &End, tell: impl FnMut(News) -> Result<()>) -> Result<Total> {
    let (rows, total) = join.finish(why);
    rows.into_iter().map(|row| News::Row(Box::new(row))).try_for_each(tell)?;
    Ok(total)
}

/// From how long ago the agents' lines are wanted.
fn since(join: &Join) -> Duration {
    let began = join.since().map_or(0, |since| clock::now().wall.saturating_sub(since.0));
    BEFORE + Duration::from_nanos(u64::try_from(began).unwrap_or(0))
}

/// Tasks that end with the watch.
#[derive(Default)]
struct Tasks(Vec<JoinHandle<()>>);

impl Tasks {
    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.push(tokio::spawn(task));
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

async fn ensure_watchable<K>(workloads: &Api<K>, name: &Name, namespace: &str) -> Result<()>
where
    K: Resource + Workload + Clone + DeserializeOwned + Debug,
{
    let params = kube::api::ListParams::default().fields(&format!("metadata.name={}", name.name));
    let found = workloads
        .list(&params)
        .await
        .with_context(|| format!("cannot ask the Kubernetes API for {name} in namespace {namespace}"))?;
    let Some(workload) = found.items.first() else {
        bail!(
            "there is no {name} in namespace {namespace}; give --namespace, or look with `kubectl get {}`",
            name.kind.resource()
        );
    };
    if let Some(reason) = workload.status().refused {
        bail!("{name} cannot be watched: {reason}");
    }
    Ok(())
}

/// Begins a rollout as `kubectl rollout restart` does.
async fn start<K>(workloads: &Api<K>, name: &Name) -> Result<()>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let now = jiff::Timestamp::now().to_string();
    let patch = json!({"spec": {"template": {"metadata": {"annotations": {RESTARTED: now}}}}});
    workloads
        .patch(&name.name, &PatchParams::default(), &Patch::Strategic(patch))
        .await
        .with_context(|| format!("cannot restart {name}"))?;
    Ok(())
}
