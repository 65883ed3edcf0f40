//! One pod in scope: its containers as they come and go, and when its observation ends.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tracer_core::{
    event::{Mono, TargetId},
    input::{Declared, End},
    verdict::Gap,
};

use super::{Command, View};
use crate::{
    agent::meta::{Meta, declared, has_foreign_network},
    host::pods::{Container, Pod},
};

/// How long a pod is still observed after its last container has exited, if its network interface
/// stays.
const AFTER_LAST_EXIT: Duration = Duration::from_secs(30);
/// The same for a pod of the host network: no interface of its own tells that it is over, and clients
/// that come after it are refused by the node.
const AFTER_LAST_EXIT_SHARED: Duration = Duration::from_secs(10);
/// Longer than most pods take from their deletion to their exit.
const LONG_GRACE: Duration = Duration::from_secs(15 * 60);
/// How long after a container was replaced what clients meet still belongs to that: until the new one
/// listens they are refused.
const AFTER_REPLACEMENT: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub(super) struct Tracked {
    pub(super) target: TargetId,
    pub(super) netns: u64,
    shared_network: bool,
    /// Containers by id, with their numbers; in order of their start.
    containers: BTreeMap<String, u32>,
    /// Numbers of those of which nothing is left.
    gone: BTreeSet<u32>,
    deletion_told: bool,
    class_told: bool,
    last_gone: Option<Mono>,
    /// When another container took the place of one that was to last.
    replaced: Option<Mono>,
    from_start: Option<Mono>,
}

impl Tracked {
    /// `from_start` is when it came into scope, if it was there before the agent.
    pub(super) fn new(target: TargetId, pod: &Pod, from_start: Option<Mono>) -> Self {
        let containers =
            pod.containers.iter().zip(0..).map(|(container, index)| (container.id.clone(), index));
        Self {
            target,
            netns: pod.netns_inode,
            shared_network: pod.netns.is_none(),
            containers: containers.collect(),
            gone: BTreeSet::new(),
            deletion_told: false,
            class_told: false,
            last_gone: None,
            replaced: None,
            from_start,
        }
    }

    /// The containers that run now.
    pub(super) fn update(&mut self, pod: &Pod, meta: Option<&Meta>, now: Mono, commands: &mut Vec<Command>) {
        for container in &pod.containers {
            if !self.containers.contains_key(&container.id) {
                let index = self.containers.len() as u32;
                self.containers.insert(container.id.clone(), index);
                let declared = declared(meta, container);
                commands.push(Command::AddContainer(self.target, index, container.clone(), declared));
            }
        }
        let vanished: Vec<u32> = self.vanished(pod).map(|(_, index)| index).collect();
        self.gone_from_host(&vanished, now, commands);
        self.deleted(meta.and_then(|meta| meta.deleted), commands);
    }

    fn vanished<'a>(&'a self, pod: &'a Pod) -> impl Iterator<Item = (&'a str, u32)> {
        let runs = |id: &str| pod.containers.iter().any(|container| container.id == id);
        self.containers.iter().map(|(id, index)| (id.as_str(), *index)).filter(move |(id, _)| !runs(id))
    }

    /// Whether observation ends though the pod goes on: a container was replaced by another (as when a
    /// liveness probe fails), or one that was to end before the pod did. Not while the pod is deleted.
    pub(super) fn ended_early(
        &mut self,
        pod: &Pod,
        meta: Option<&Meta>,
        now: Mono,
        view: &impl View,
    ) -> Option<End> {
        if self.deletion_told || meta.is_some_and(|meta| meta.deleted.is_some()) || pod.containers.is_empty()
        {
            return None;
        }
        let passing = |id: &str, index| {
            let by_api = meta.and_then(|meta| meta.containers.get(id)).map(|known| known.passing);
            by_api.unwrap_or_else(|| view.completed(self.target, index))
        };
        let (passed, ended): (Vec<_>, Vec<_>) =
            self.vanished(pod).map(|(id, index)| passing(id, index)).partition(|passing| *passing);
        let is_new = |container: &Container| !self.containers.contains_key(&container.id);
        if !ended.is_empty() && pod.containers.iter().any(is_new) {
            self.replaced = Some(now);
        }
        if let Some(replaced) = self.replaced {
            let over = now >= replaced + AFTER_REPLACEMENT.as_nanos() as u64 && !view.is_ending(self.target);
            over.then_some(End::Restarted)
        } else if ended.is_empty() && !passed.is_empty() && !view.was_stopped(self.target) {
            Some(End::NotTerminated)
        } else {
            None
        }
    }

    /// Nothing of it is there any more.
    pub(super) fn all_gone(&mut self, now: Mono, commands: &mut Vec<Command>) {
        let all: Vec<u32> = self.containers.values().copied().collect();
        self.gone_from_host(&all, now, commands);
    }

    fn gone_from_host(&mut self, indices: &[u32], now: Mono, commands: &mut Vec<Command>) {
        for index in indices {
            if self.gone.insert(*index) {
                self.last_gone = Some(now);
                commands.push(Command::ContainerGone(self.target, *index));
            }
        }
    }

    /// It was deleted.
    pub(super) fn deleted(&mut self, time: Option<Mono>, commands: &mut Vec<Command>) {
        if let Some(time) = time.filter(|_| !self.deletion_told) {
            self.deletion_told = true;
            commands.push(Command::PreStop(self.target, time));
        }
    }

    /// A network that is not the host kernel's, by what the API says.
    pub(super) fn doubt_class(&mut self, meta: Option<&Meta>, commands: &mut Vec<Command>) {
        let class =
            meta.and_then(|meta| meta.runtime_class.as_deref()).filter(|class| has_foreign_network(class));
        if let Some(class) = class.filter(|_| !self.class_told) {
            self.class_told = true;
            let gap = Gap::ForeignNetwork(format!("the RuntimeClass {class}"));
            commands.push(Command::Doubt(self.target, gap));
        }
    }

    /// The same, or by the programs that run in its cgroups.
    pub(super) fn doubt_network(&mut self, pod: &Pod, meta: Option<&Meta>, commands: &mut Vec<Command>) {
        self.doubt_class(meta, commands);
        let inits = pod.containers.iter().map(|container| &container.init).chain(&pod.sandbox);
        let foreign = inits.map(|init| init.comm.as_str()).find(|comm| has_foreign_network(comm));
        if let Some(comm) = foreign.filter(|_| !self.class_told) {
            self.class_told = true;
            commands.push(Command::Doubt(self.target, Gap::ForeignNetwork(comm.to_owned())));
        }
    }

    /// Whether its termination may have begun before it came into scope: without the API only a signal
    /// tells when that was, and the agent may have been started after it.
    pub(super) fn may_be_late(&self, meta: Option<&Meta>, now: Mono, view: &impl View) -> bool {
        let soon = |since: Mono| now < since + LONG_GRACE.as_nanos() as u64;
        meta.is_none() && self.from_start.is_some_and(soon) && !view.was_stopped(self.target)
    }

    /// Whether observation ends now: whether the interface is gone, and why.
    pub(super) fn end(&mut self, meta: Option<&Meta>, now: Mono, view: &impl View) -> Option<(bool, End)> {
        if !view.is_terminating(self.target) && self.gone.is_empty() {
            return None;
        }
        let gone = view.is_gone(self.target) || self.gone.len() == self.containers.len();
        self.last_gone = self.last_gone.or(Some(now)).filter(|_| gone);
        let interface_gone = !self.shared_network && !view.has_interface(self.target);
        let linger = if self.shared_network { AFTER_LAST_EXIT_SHARED } else { AFTER_LAST_EXIT };
        let over = self.last_gone.is_some_and(|gone| now >= gone + linger.as_nanos() as u64);
        if !interface_gone && !over {
            return None;
        }
        let deleted = meta.is_none_or(|meta| meta.deleted.is_some());
        let by_itself = !deleted && meta.is_some_and(|meta| meta.runs_to_completion);
        // Its sandbox stays, and nobody deleted it: the kubelet waits before it starts it again.
        let restarts = !deleted && !interface_gone && !self.shared_network;
        let end = match (by_itself && !view.was_stopped(self.target), restarts) {
            (true, _) => End::NotTerminated,
            (false, true) => End::Restarted,
            (false, false) => End::Terminated,
        };
        Some((interface_gone, end))
    }

    /// What is declared of its containers, by number.
    pub(super) fn declared(&self, meta: Option<&Meta>) -> Vec<(u32, Declared)> {
        let known = |(id, index): (&String, &u32)| Some((*index, meta?.containers.get(id)?.declared.clone()));
        self.containers.iter().filter_map(known).collect()
    }

    /// The ids of all containers that it had.
    pub(super) fn into_container_ids(self) -> BTreeSet<String> {
        self.containers.into_keys().collect()
    }
}
