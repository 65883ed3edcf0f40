//! Follows a node's pods: what the node and the API tell goes through the inventory to tracing.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use anyhow::Result;
use tracer_core::{
    event::{Mono, TargetId},
    input::{Declared, End, InventoryUpdate, NewContainer},
    lifecycle::Source,
    output::{EndpointEvent, Subject},
};

use super::{
    inventory::{Command, Inventory, View},
    meta::Meta,
};
use crate::{
    host::pods::{Container, Pod},
    kube::{
        facts::{EndpointChange, PodFacts},
        watch::{ApiUpdate, Update, Watched},
    },
};

/// What tracing is told.
pub trait Tracing: View {
    /// Puts a pod in scope with these containers: counted from now on, recorded once it is terminated.
    ///
    /// # Errors
    /// If it is gone already, or there are too many.
    fn add(&mut self, pod: &Pod, subject: Arc<Subject>, containers: Vec<NewContainer>) -> Result<TargetId>;
    /// A container of a pod in scope started.
    ///
    /// # Errors
    /// If there are too many.
    fn add_container(&mut self, container: NewContainer) -> Result<()>;
    /// A fact.
    ///
    /// # Errors
    /// If the output cannot be written.
    fn update(&mut self, update: InventoryUpdate) -> Result<()>;
    /// Observation of a pod ends.
    ///
    /// # Errors
    /// If the output cannot be written.
    fn finish(&mut self, target: TargetId, interface_gone: bool, end: End) -> Result<()>;
}

/// See the module.
#[derive(Debug, Default)]
pub struct Follower {
    inventory: Inventory,
    /// What the API said last of each pod, by the uid in its cgroups' paths.
    pods: BTreeMap<String, PodFacts>,
    /// Of these, the ones that the API no longer knows.
    gone: Vec<String>,
    /// Endpoints that lead to a pod, by the uid that the API calls it by, and since when they are so.
    endpoints: BTreeMap<String, Endpoints>,
    /// All endpoints that there were at the beginning are known.
    endpoints_complete: bool,
}

/// By Service and address.
type Endpoints = BTreeMap<(String, IpAddr), (Mono, EndpointEvent)>;

impl Follower {
    /// All pods that run now, by their cgroups.
    ///
    /// # Errors
    /// If the output cannot be written.
    pub fn scanned(&mut self, pods: &[Pod], now: Mono, tracing: &mut impl Tracing) -> Result<()> {
        let commands = self.inventory.scanned(pods, now, tracing);
        self.carry_out(commands, now, tracing)
    }

    /// Looks whether observation of pods ends.
    ///
    /// # Errors
    /// If the output cannot be written.
    pub fn look_for_ends(&mut self, now: Mono, tracing: &mut impl Tracing) -> Result<()> {
        let commands = self.inventory.ends(now, tracing);
        self.carry_out(commands, now, tracing)
    }

    /// The API told something.
    ///
    /// # Errors
    /// If the output cannot be written.
    pub fn told(&mut self, update: Update, tracing: &mut impl Tracing) -> Result<()> {
        let now = update.received.mono;
        let commands = match update.what {
            ApiUpdate::Pod(pod) => {
                let uid = pod.cgroup_uid.clone();
                let commands = self.inventory.described(&uid, Meta::new(&pod, now));
                self.pods.insert(uid.clone(), *pod);
                self.tell_endpoints(&uid, tracing)?;
                commands
            }
            ApiUpdate::PodGone { uid } => {
                let uid = self.cgroup_uid(&uid);
                let commands = self.inventory.forgotten(&uid, now);
                self.gone.push(uid);
                commands
            }
            ApiUpdate::Endpoint(change) => {
                self.endpoint(&change, now, tracing)?;
                Vec::new()
            }
            ApiUpdate::Synced(Watched::Pods) => {
                self.inventory.complete();
                Vec::new()
            }
            ApiUpdate::Synced(Watched::EndpointSlices) => {
                self.endpoints_complete = true;
                Vec::new()
            }
            ApiUpdate::Away { .. } | ApiUpdate::Back(_) => Vec::new(),
        };
        self.carry_out(commands, now, tracing)
    }

    /// What the API said last of a pod, by the uid in its cgroups' paths.
    #[must_use]
    pub fn pod(&self, uid: &str) -> Option<&PodFacts> {
        self.pods.get(uid)
    }

    /// Forgets pods that the API no longer knows and that have ended.
    pub fn forget_ended(&mut self) {
        for uid in self.gone.extract_if(.., |uid| self.inventory.target(uid).is_none()) {
            self.pods.remove(&uid);
        }
    }

    /// Whether a container of a pod in scope has exited and others of it may be left.
    #[must_use]
    pub fn any_exiting(&self, view: &impl View) -> bool {
        self.inventory.any_exiting(view)
    }

    /// Pods in scope.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inventory.len()
    }

    /// Whether no pod is in scope.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inventory.is_empty()
    }

    /// The uid in the paths of a pod's cgroups.
    fn cgroup_uid(&self, uid: &str) -> String {
        let known = self.pods.iter().find(|(_, pod)| pod.uid == uid);
        known.map_or_else(|| uid.to_owned(), |(cgroup_uid, _)| cgroup_uid.clone())
    }

    fn endpoint(&mut self, change: &EndpointChange, time: Mono, tracing: &mut impl Tracing) -> Result<()> {
        let Some(uid) = change.endpoint.pod_uid.clone() else { return Ok(()) };
        let event = endpoint_event(change);
        let key = (event.service.clone(), event.address);
        if event.present {
            self.endpoints.entry(uid.clone()).or_default().insert(key, (time, event.clone()));
        } else if let Some(of_pod) = self.endpoints.get_mut(&uid) {
            of_pod.remove(&key);
            self.endpoints.retain(|_, of_pod| !of_pod.is_empty());
        }
        let Some(target) = self.inventory.target(&self.cgroup_uid(&uid)) else { return Ok(()) };
        let initial = !self.endpoints_complete;
        tracing.update(InventoryUpdate::Endpoint { target, time, endpoint: event, initial })
    }

    /// What is known of the endpoints of a pod that is new, or whose name is.
    fn tell_endpoints(&self, cgroup_uid: &str, tracing: &mut impl Tracing) -> Result<()> {
        let uid = self.pods.get(cgroup_uid).map_or(cgroup_uid, |pod| &pod.uid);
        let Some(target) = self.inventory.target(cgroup_uid) else { return Ok(()) };
        for (time, endpoint) in self.endpoints.get(uid).into_iter().flat_map(BTreeMap::values) {
            let (time, endpoint) = (*time, endpoint.clone());
            tracing.update(InventoryUpdate::Endpoint { target, time, endpoint, initial: true })?;
        }
        Ok(())
    }

    fn carry_out(&mut self, commands: Vec<Command>, now: Mono, tracing: &mut impl Tracing) -> Result<()> {
        for command in commands {
            match command {
                Command::Add(pod, subject) => self.add(&pod, subject, now, tracing)?,
                Command::AddContainer(target, index, container, declared) => {
                    tracing.add_container(new_container(target, index, &container, declared, now))?;
                }
                Command::Name { target, subject, containers } => {
                    tracing.update(InventoryUpdate::Named { target, subject, containers })?;
                }
                Command::PreStop(target, time) => tracing.update(InventoryUpdate::PreStop {
                    target,
                    container: None,
                    time,
                    source: Source::Api,
                })?,
                Command::Doubt(target, gap) => tracing.update(InventoryUpdate::Doubted { target, gap })?,
                Command::ContainerGone(target, container) => {
                    tracing.update(InventoryUpdate::ContainerGone { target, container, time: now })?;
                }
                Command::Finish { target, interface_gone, end } => {
                    tracing.finish(target, interface_gone, end)?;
                }
            }
        }
        Ok(())
    }

    /// A pod that cannot be put in scope now is tried again at the next look.
    fn add(&mut self, pod: &Pod, subject: Arc<Subject>, now: Mono, tracing: &mut impl Tracing) -> Result<()> {
        let new = |(container, index)| {
            let declared = self.inventory.declared(&pod.uid, container);
            new_container(0, index, container, declared, now)
        };
        let containers = pod.containers.iter().zip(0..).map(new).collect();
        let added = tracing.add(pod, subject, containers);
        let target = added.map_err(|error| log::warn!("cannot trace pod {}: {error:#}", pod.uid)).ok();
        let commands = self.inventory.added(&pod.uid, target, now);
        self.carry_out(commands, now, tracing)?;
        self.tell_endpoints(&pod.uid, tracing)
    }
}

fn new_container(
    target: TargetId,
    container: u32,
    found: &Container,
    declared: Declared,
    time: Mono,
) -> NewContainer {
    NewContainer {
        target,
        container,
        name: declared.name,
        pid: found.init.pid,
        pidns: found.pidns,
        cgroup: found.cgroup,
        stop_signal: declared.stop_signal,
        time,
    }
}

fn endpoint_event(change: &EndpointChange) -> EndpointEvent {
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
