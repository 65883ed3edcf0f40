//! Which pods this node has, joined from their cgroups and the Kubernetes API, and what follows for
//! tracing. Pure: it is told what was seen and when, and answers with commands.

mod tracked;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use tracer_core::{
    event::{Mono, TargetId},
    input::{Declared, End},
    output::Subject,
    verdict::Gap,
};

use self::tracked::Tracked;
use super::meta::{self, Meta};
use crate::host::pods::{Container, Pod};

/// Pods that are remembered after their end, so that what is left of them is not taken for new.
const REMEMBERED: usize = 1024;

/// How long it takes to put all pods of a node in scope that were there before the agent.
const FIRST_LOOK: Mono = 1_000_000_000;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Put the pod in scope. The answer is [`Inventory::added`].
    Add(Box<Pod>, Arc<Subject>),
    /// A container of a target in scope started.
    AddContainer(TargetId, u32, Container, Declared),
    /// Names were learned.
    Name {
        /// Whose.
        target: TargetId,
        /// How it is called.
        subject: Arc<Subject>,
        /// What is declared of its containers, by number.
        containers: Vec<(u32, Declared)>,
    },
    /// Deletion of the target was seen.
    PreStop(TargetId, Mono),
    /// Its verdict cannot be better than unproven.
    Doubt(TargetId, Gap),
    /// The host found that nothing of a container is left.
    ContainerGone(TargetId, u32),
    /// Observation of the target ends.
    Finish {
        /// Whose.
        target: TargetId,
        /// Its interface is gone.
        interface_gone: bool,
        /// Why.
        end: End,
    },
}

/// What tracing knows of targets.
pub trait View {
    /// Whether nothing is left of any container, by the kernel's events.
    fn is_gone(&self, target: TargetId) -> bool;
    /// Whether its network interface is there.
    fn has_interface(&self, target: TargetId) -> bool;
    /// Whether anything of it is ending.
    fn is_terminating(&self, target: TargetId) -> bool;
    /// Whether a container of it is ending and not gone yet.
    fn is_ending(&self, target: TargetId) -> bool;
    /// Whether the first process of a container of it has exited and others may be left.
    fn is_exiting(&self, target: TargetId) -> bool;
    /// Whether anybody meant to end a container of it.
    fn was_stopped(&self, target: TargetId) -> bool;
    /// Whether a container ended by itself and as it was meant to.
    fn completed(&self, target: TargetId, container: u32) -> bool;
}

/// See the module.
#[derive(Debug, Default)]
pub struct Inventory {
    tracked: BTreeMap<String, Tracked>,
    meta: BTreeMap<String, Meta>,
    /// Pods being put in scope.
    adding: BTreeMap<String, Pod>,
    /// Pods whose observation ended, with the containers that they had.
    ended: VecDeque<(String, BTreeSet<String>)>,
    /// The API has told what there was when it was first asked.
    complete: bool,
    /// When the node was looked at first.
    started: Option<Mono>,
}

impl Inventory {
    /// All pods that run now, by their cgroups.
    pub fn scanned(&mut self, pods: &[Pod], now: Mono, view: &impl View) -> Vec<Command> {
        let mut commands = Vec::new();
        self.started.get_or_insert(now);
        for pod in pods {
            let meta = self.meta.get(&pod.uid);
            let Some(tracked) = self.tracked.get_mut(&pod.uid) else {
                self.found(pod, &mut commands);
                continue;
            };
            match tracked.ended_early(pod, meta, now, view) {
                None => tracked.update(pod, meta, now, &mut commands),
                Some(end) => {
                    // A verdict on what ended; what runs is observed anew.
                    let target = tracked.target;
                    commands.push(Command::Finish { target, interface_gone: false, end });
                    self.tracked.remove(&pod.uid);
                    self.found(pod, &mut commands);
                }
            }
        }
        let seen: BTreeSet<&str> = pods.iter().map(|pod| pod.uid.as_str()).collect();
        for (_, tracked) in self.tracked.iter_mut().filter(|(uid, _)| !seen.contains(uid.as_str())) {
            tracked.all_gone(now, &mut commands);
        }
        commands
    }

    /// A pod that is not in scope: put it there, unless it is what is left of one that ended.
    fn found(&mut self, pod: &Pod, commands: &mut Vec<Command>) {
        let ended = self.ended.iter().find(|(uid, _)| *uid == pod.uid);
        let is_new = |container: &Container| ended.is_none_or(|(_, old)| !old.contains(&container.id));
        if pod.containers.iter().any(is_new) && !self.adding.contains_key(&pod.uid) {
            commands.push(Command::Add(Box::new(pod.clone()), self.subject(&pod.uid, pod.netns_inode)));
            self.adding.insert(pod.uid.clone(), pod.clone());
        }
    }

    /// A pod that was to be added is in scope, or could not be (then it is tried again).
    pub fn added(&mut self, uid: &str, target: Option<TargetId>, now: Mono) -> Vec<Command> {
        let (Some(pod), mut commands) = (self.adding.remove(uid), Vec::new()) else { return Vec::new() };
        if let Some(target) = target {
            let from_start = self.started.is_some_and(|started| now <= started + FIRST_LOOK);
            let mut tracked = Tracked::new(target, &pod, from_start.then_some(now));
            let meta = self.meta.get(uid);
            if meta.is_some_and(|meta| meta.deleted.is_some()) {
                commands.push(Command::Doubt(target, Gap::Late));
            }
            tracked.doubt_network(&pod, meta, &mut commands);
            tracked.update(&pod, meta, now, &mut commands);
            self.tracked.insert(uid.to_owned(), tracked);
        }
        commands
    }

    /// What the API says of a pod now.
    pub fn described(&mut self, uid: &str, mut meta: Meta) -> Vec<Command> {
        let mut commands = Vec::new();
        let known = self.meta.get(uid);
        // The first sight of the deletion counts.
        meta.deleted = known.and_then(|known| known.deleted).or(meta.deleted);
        let names = |meta: &Meta| (meta.name.clone(), meta.workload.clone(), meta.containers.clone());
        let is_renamed = known.is_none_or(|known| names(known) != names(&meta));
        let deleted = meta.deleted;
        self.meta.insert(uid.to_owned(), meta);
        let Some((target, netns)) = self.tracked.get(uid).map(|tracked| (tracked.target, tracked.netns))
        else {
            return commands;
        };
        let (complete, meta) = (self.complete, self.meta.get(uid));
        if is_renamed {
            let containers = self.tracked.get(uid).map(|tracked| tracked.declared(meta)).unwrap_or_default();
            commands.push(Command::Name { target, subject: self.subject(uid, netns), containers });
        }
        if let Some(tracked) = self.tracked.get_mut(uid) {
            tracked.doubt_class(meta, &mut commands);
            if deleted.is_some() && !complete {
                // It was deleted before the API was asked: since when, nobody saw.
                commands.push(Command::Doubt(target, Gap::Late));
            }
            tracked.deleted(deleted, &mut commands);
        }
        commands
    }

    /// The API has told all that there is: what it tells from now on is new.
    pub fn complete(&mut self) {
        self.complete = true;
    }

    /// The API no longer knows a pod. A forced deletion removes the object while containers still run:
    /// what is known of it is kept until it has ended.
    pub fn forgotten(&mut self, uid: &str, now: Mono) -> Vec<Command> {
        let mut commands = Vec::new();
        let Some(tracked) = self.tracked.get_mut(uid) else {
            self.meta.remove(uid);
            return commands;
        };
        tracked.deleted(Some(now), &mut commands);
        if let Some(meta) = self.meta.get_mut(uid) {
            meta.deleted.get_or_insert(now);
        }
        commands
    }

    /// Looks whether observation of targets in scope ends.
    pub fn ends(&mut self, now: Mono, view: &impl View) -> Vec<Command> {
        let mut commands = Vec::new();
        let mut over = Vec::new();
        for (uid, tracked) in &mut self.tracked {
            let meta = self.meta.get(uid);
            if let Some((interface_gone, end)) = tracked.end(meta, now, view) {
                if tracked.may_be_late(meta, now, view) {
                    commands.push(Command::Doubt(tracked.target, Gap::Late));
                }
                commands.push(Command::Finish { target: tracked.target, interface_gone, end });
                over.push(uid.clone());
            }
        }
        over.iter().for_each(|uid| self.end(uid));
        commands
    }

    fn end(&mut self, uid: &str) {
        let Some(tracked) = self.tracked.remove(uid) else { return };
        if self.meta.get(uid).is_some_and(|meta| meta.deleted.is_some()) {
            self.meta.remove(uid);
        }
        self.ended.retain(|(ended, _)| ended != uid);
        self.ended.push_back((uid.to_owned(), tracked.into_container_ids()));
        while self.ended.len() > REMEMBERED {
            self.ended.pop_front();
        }
    }

    /// The target of a pod in scope.
    #[must_use]
    pub fn target(&self, uid: &str) -> Option<TargetId> {
        self.tracked.get(uid).map(|tracked| tracked.target)
    }

    /// Whether a container of a pod in scope has exited and others of it may be left.
    #[must_use]
    pub fn any_exiting(&self, view: &impl View) -> bool {
        self.tracked.values().any(|tracked| view.is_exiting(tracked.target))
    }

    /// Pods in scope.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tracked.len()
    }

    /// Whether no pod is in scope.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tracked.is_empty()
    }

    fn subject(&self, uid: &str, netns: u64) -> Arc<Subject> {
        meta::subject(self.meta.get(uid), uid, netns)
    }

    /// What is declared of a container.
    #[must_use]
    pub fn declared(&self, uid: &str, container: &Container) -> Declared {
        meta::declared(self.meta.get(uid), container)
    }
}

#[cfg(test)]
mod tests;
