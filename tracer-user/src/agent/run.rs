//! The agent's wiring: what the node and the API tell goes through the inventory to the pipeline.

use std::{cell::RefCell, collections::BTreeMap, path::PathBuf, rc::Rc, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use kube::Client;
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval},
};
use tracer_core::{
    event::TargetId,
    input::{InventoryUpdate, NewContainer, NewTarget, Timeouts},
    lifecycle::Source,
    output::{Body, EndpointEvent, Line, Subject},
    words,
};

use super::inventory::{Command, Inventory, Meta};
use crate::{
    clock,
    host::{
        cgroup,
        netns::{self, Netns},
        pods::{self, Container, Pod},
        process,
    },
    kube::{
        facts::{EndpointChange, PodFacts},
        list_watch::Timing,
        warning,
        watch::{ApiUpdate, Update, Watched, watch},
    },
    pipeline::{Pipeline, TargetSpec},
    serve::Readiness,
};

/// How often cgroups are looked through, whether or not anything told of a change.
const SCAN: Duration = Duration::from_secs(5);
/// A change that the API or the kernel tells is looked at after this time, and others with it.
const SCAN_SOON: Duration = Duration::from_millis(50);
/// How often it is looked whether observation of a pod ends.
const ENDS: Duration = Duration::from_millis(100);

/// How the agent runs.
pub struct Settings {
    /// The node's name in the API.
    pub node: String,
    /// Health checkers' addresses.
    pub checkers: Vec<tracer_core::input::Network>,
    /// Ports whose protocol never answers.
    pub one_way: Vec<u16>,
    /// The API; `None` to go without.
    pub client: Option<Client>,
    /// Post a Warning Event on pods that were cut.
    pub warnings: bool,
}

/// What happened that the agent must act on.
enum Happening {
    Scanned(Vec<Pod>),
    Api(Box<Update>),
    LookForEnds,
}

/// Follows all pods of the node until `stop` is done. `observe` sees every line.
///
/// # Errors
/// If there is no cgroup v2 hierarchy, or the pipeline fails.
pub async fn run(
    mut pipeline: Pipeline,
    settings: Settings,
    readiness: Arc<Readiness>,
    mut observe: impl FnMut(&Line) + 'static,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let root = cgroup::mount_point().context("no cgroup v2 hierarchy is mounted; run `lastpacket check`")?;
    let (happen, mut happenings) = mpsc::channel(256);
    let (scan_soon, soon) = watch::channel(());
    tokio::spawn(scan_regularly(root, soon, happen.clone()));
    if let Some(client) = settings.client.clone() {
        tokio::spawn(follow_api(client, settings.node.clone(), happen.clone()));
    } else {
        readiness.inventory_complete(true);
    }
    let cuts = Rc::new(RefCell::new(Vec::new()));
    let collected = Rc::clone(&cuts);
    pipeline.observe(Box::new(move |line| {
        collect(&collected, line);
        observe(line);
    }));
    let inventory = Inventory::default();
    let mut agent = Agent { inventory, pods: BTreeMap::new(), cuts, settings, scan_soon };
    readiness.hooks_attached(true);
    let mut ends = interval(ENDS);
    ends.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stop = std::pin::pin!(stop);
    loop {
        let (_keep, mut none) = mpsc::channel(1);
        let next = async {
            tokio::select! {
                happening = happenings.recv() => happening,
                _ = ends.tick() => Some(Happening::LookForEnds),
                () = &mut stop => None,
            }
        };
        let Some(happening) = pipeline.run(&mut none, next).await? else { break };
        agent.act(&mut pipeline, happening, &readiness)?;
    }
    pipeline.close()
}

struct Agent {
    inventory: Inventory,
    /// What the API said last of each pod, by the uid in its cgroups' paths.
    pods: BTreeMap<String, PodFacts>,
    cuts: Rc<RefCell<Vec<Cut>>>,
    settings: Settings,
    scan_soon: watch::Sender<()>,
}

/// A verdict that is told to the API too.
struct Cut {
    uid: String,
    note: String,
}

impl Agent {
    fn act(&mut self, pipeline: &mut Pipeline, happening: Happening, readiness: &Readiness) -> Result<()> {
        let now = clock::mono_ns();
        let commands = match happening {
            Happening::Scanned(pods) => self.inventory.scanned(pods, now),
            Happening::Api(update) => self.api(pipeline, *update, readiness)?,
            Happening::LookForEnds => self.inventory.ends(
                now,
                |target| pipeline.is_gone(target),
                |target| pipeline.has_interface(target),
            ),
        };
        for command in commands {
            self.carry_out(pipeline, command)?;
        }
        self.post_cuts();
        Ok(())
    }

    fn api(
        &mut self,
        pipeline: &mut Pipeline,
        update: Update,
        readiness: &Readiness,
    ) -> Result<Vec<Command>> {
        match update.what {
            ApiUpdate::Pod(pod) => {
                let known = self.pods.insert(pod.cgroup_uid.clone(), (*pod).clone());
                if known.is_none() {
                    // Its containers start now.
                    self.scan_soon.send_replace(());
                }
                Ok(self.inventory.described(&pod.cgroup_uid, meta(&pod, update.received.mono)))
            }
            ApiUpdate::PodGone { uid } => {
                let cgroup_uid = self
                    .pods
                    .iter()
                    .find(|(_, pod)| pod.uid == uid)
                    .map(|(cgroup_uid, _)| cgroup_uid.clone());
                Ok(self.inventory.forgotten(&cgroup_uid.unwrap_or(uid), update.received.mono))
            }
            ApiUpdate::Endpoint(change) => {
                let target = change.endpoint.pod_uid.as_ref().and_then(|uid| self.inventory.target(uid));
                if let Some(target) = target {
                    let endpoint = endpoint(&change);
                    pipeline.update(InventoryUpdate::Endpoint {
                        target,
                        time: update.received.mono,
                        endpoint,
                    })?;
                }
                Ok(Vec::new())
            }
            ApiUpdate::Synced(Watched::Pods) => {
                readiness.inventory_complete(true);
                Ok(Vec::new())
            }
            ApiUpdate::Synced(_) | ApiUpdate::Away { .. } | ApiUpdate::Back(_) => Ok(Vec::new()),
        }
    }

    fn carry_out(&mut self, pipeline: &mut Pipeline, command: Command) -> Result<()> {
        match command {
            Command::Add(pod, subject) => {
                let added = self.add(pipeline, &pod, subject);
                let target =
                    added.map_err(|error| log::warn!("cannot trace pod {}: {error:#}", pod.uid)).ok();
                for command in self.inventory.added(&pod.uid, target, clock::mono_ns()) {
                    self.carry_out(pipeline, command)?;
                }
                Ok(())
            }
            Command::AddContainer(target, index, container, name) => {
                pipeline.add_container(new_container(target, index, &container, name)?)
            }
            Command::Name(target, subject) => pipeline.update(InventoryUpdate::Named { target, subject }),
            Command::PreStop(target, time) => pipeline.update(InventoryUpdate::PreStop {
                target,
                container: None,
                time,
                source: Source::Api,
            }),
            Command::ContainerGone(target, container) => {
                let time = clock::mono_ns();
                pipeline.update(InventoryUpdate::ContainerGone { target, container, time })
            }
            Command::Finish { target, interface_gone, end } => pipeline.finish(target, interface_gone, end),
        }
    }

    /// Puts a pod in scope: counted from now on, recorded once it is terminated.
    fn add(&self, pipeline: &mut Pipeline, pod: &Pod, subject: Arc<Subject>) -> Result<TargetId> {
        let mut containers = Vec::new();
        for (container, index) in pod.containers.iter().zip(0..) {
            let name = self.inventory.container_name(&pod.uid, container);
            containers.push(new_container(0, index, container, name)?);
        }
        let path = pod.netns.clone().unwrap_or_else(netns::machine_path);
        let inside = Netns::open(path)?.look()?;
        let (shared, keys) = match &pod.netns {
            Some(_) => (false, pipeline.scope_keys(inside.identity, None)?),
            None => (
                true,
                pipeline
                    .shared_keys(inside.identity, pod.containers.iter().map(|container| container.cgroup))?,
            ),
        };
        pipeline.add_target(TargetSpec {
            new: NewTarget {
                id: 0,
                subject,
                time: clock::mono_ns(),
                addresses: inside.addresses,
                checkers: self.settings.checkers.clone(),
                one_way: self.settings.one_way.clone(),
                shared_network: shared,
                timeouts: Timeouts::default(),
                late: self.pods.get(&pod.uid).is_some_and(|pod| pod.deletion.is_some()),
            },
            armed: false,
            containers,
            keys,
            totals: inside.totals.filter(|_| !shared),
            sockets: inside.sockets.filter(|_| !shared),
        })
    }

    /// Posts a Warning on each pod that was cut. That the API does not take it changes no verdict.
    fn post_cuts(&mut self) {
        for Cut { uid, note } in self.cuts.borrow_mut().drain(..) {
            let (Some(client), Some(pod)) = (self.settings.client.clone(), self.pods.get(&uid).cloned())
            else {
                continue;
            };
            if !self.settings.warnings {
                continue;
            }
            let (node, wall) = (self.settings.node.clone(), clock::now().wall);
            tokio::spawn(async move {
                if let Err(error) = warning::post(&client, &node, &pod, &note, wall).await {
                    log::warn!("{error:#}");
                }
            });
        }
    }
}

/// Takes verdicts that are `cut` for the API.
fn collect(cuts: &Rc<RefCell<Vec<Cut>>>, line: &Line) {
    let Body::Verdict(verdict) = &line.body else { return };
    let pod = line.subject.as_ref().and_then(|subject| subject.k8s.as_ref()).map(|k8s| k8s.pod.uid.clone());
    if let (words::Result::Cut, Some(uid)) = (verdict.result, pod) {
        let findings = verdict.findings.iter().map(|finding| format!("{}: {}", finding.id, finding.text));
        let note = verdict.reasons.iter().cloned().chain(findings).collect::<Vec<_>>().join("; ");
        cuts.borrow_mut().push(Cut { uid, note });
    }
}

fn new_container(
    target: TargetId,
    container: u32,
    found: &Container,
    name: Arc<str>,
) -> Result<NewContainer> {
    let machine = process::machine_pidns()?;
    Ok(NewContainer {
        target,
        container,
        name,
        pid: found.init.pid,
        pidns: (found.init.pidns != machine && found.init.is_namespace_init)
            .then_some(u32::try_from(found.init.pidns)?),
        cgroup: Some(found.cgroup),
        stop_signal: None,
        time: clock::mono_ns(),
    })
}

fn meta(pod: &PodFacts, received: u64) -> Meta {
    let ids = pod
        .containers
        .iter()
        .filter_map(|container| Some((container.id.clone()?, container.name.as_str().into())));
    Meta {
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        workload: pod.workload.as_ref().map(|workload| (workload.kind.clone(), workload.name.clone())),
        deleted: pod.deletion.map(|_| received),
        runs_to_completion: pod.run_to_completion,
        containers: ids.collect(),
    }
}

fn endpoint(change: &EndpointChange) -> EndpointEvent {
    let now = change.after;
    EndpointEvent {
        service: format!("{}/{}", change.endpoint.namespace, change.endpoint.service),
        address: change.endpoint.address,
        present: now.is_some(),
        ready: now.is_some_and(|conditions| conditions.ready),
        serving: now.is_some_and(|conditions| conditions.serving),
        terminating: now.is_none_or(|conditions| conditions.terminating),
    }
}

/// Looks through the cgroups regularly, and soon after something told of a change.
async fn scan_regularly(root: PathBuf, mut soon: watch::Receiver<()>, happen: mpsc::Sender<Happening>) {
    loop {
        let folder = root.clone();
        let Ok(pods) = tokio::task::spawn_blocking(move || pods::scan(&folder)).await else { return };
        if happen.send(Happening::Scanned(pods)).await.is_err() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(SCAN) => {}
            Ok(()) = soon.changed() => tokio::time::sleep(SCAN_SOON).await,
        }
    }
}

async fn follow_api(client: Client, node: String, happen: mpsc::Sender<Happening>) {
    let (tell, mut updates) = mpsc::channel(256);
    tokio::spawn(watch(client, node, Timing::default(), tell));
    while let Some(update) = updates.recv().await {
        if happen.send(Happening::Api(Box::new(update))).await.is_err() {
            return;
        }
    }
}
