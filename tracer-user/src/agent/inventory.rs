//! Which pods this node has, joined from their cgroups and the Kubernetes API, and what follows for
//! tracing. Pure: it is told what was seen and when, and answers with commands.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use tracer_core::{
    event::{Mono, TargetId},
    input::End,
    output::{K8s, Named, Pod as PodName, Subject, Target},
};

use crate::host::pods::{Container, Pod};

/// How long a pod is still observed after its last container has exited, if its network interface
/// stays.
const AFTER_LAST_EXIT: Duration = Duration::from_secs(30);
/// The same for a pod of the host network, which has no interface of its own.
const AFTER_LAST_EXIT_SHARED: Duration = Duration::from_secs(2);
/// Pods that are remembered after their end, so that what is left of them is not taken for new.
const REMEMBERED: usize = 1024;

/// What the API says of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Kind and name of its owner.
    pub workload: Option<(String, String)>,
    /// When it was first seen as deleted.
    pub deleted: Option<Mono>,
    /// It is meant to end by itself (a Job): no termination to judge.
    pub runs_to_completion: bool,
    /// Names of its containers by their ids.
    pub containers: BTreeMap<String, Arc<str>>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Put the pod in scope. The answer is [`Inventory::added`].
    Add(Box<Pod>, Arc<Subject>),
    /// A container of a target in scope started.
    AddContainer(TargetId, u32, Container, Arc<str>),
    /// The target's names were learned.
    Name(TargetId, Arc<Subject>),
    /// Deletion of the target was seen.
    PreStop(TargetId, Mono),
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

/// A pod in scope.
#[derive(Debug)]
struct Tracked {
    target: TargetId,
    shared_network: bool,
    /// Containers by id, with their numbers; in order of their start.
    containers: BTreeMap<String, u32>,
    /// Numbers of those of which nothing is left.
    gone: BTreeSet<u32>,
    deletion_told: bool,
    last_gone: Option<Mono>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Inventory {
    tracked: BTreeMap<String, Tracked>,
    meta: BTreeMap<String, Meta>,
    /// Pods being put in scope.
    adding: BTreeMap<String, Pod>,
    ended: VecDeque<String>,
}

impl Inventory {
    /// All pods that run now, by their cgroups.
    pub fn scanned(&mut self, pods: Vec<Pod>, now: Mono) -> Vec<Command> {
        let mut commands = Vec::new();
        let seen: BTreeSet<String> = pods.iter().map(|pod| pod.uid.clone()).collect();
        for pod in pods {
            if let Some(tracked) = self.tracked.get_mut(&pod.uid) {
                let meta = self.meta.get(&pod.uid);
                if tracked.was_restarted(&pod, meta) {
                    // A verdict on what was stopped; the pod comes into scope anew with the next scan.
                    let (target, end) = (tracked.target, End::Restarted);
                    commands.push(Command::Finish { target, interface_gone: false, end });
                    self.tracked.remove(&pod.uid);
                } else {
                    tracked.update(&pod, meta, now, &mut commands);
                }
            } else if !self.ended.contains(&pod.uid)
                && !self.adding.contains_key(&pod.uid)
                && !pod.containers.is_empty()
            {
                commands.push(Command::Add(Box::new(pod.clone()), self.subject(&pod.uid, pod.netns_inode)));
                self.adding.insert(pod.uid.clone(), pod);
            }
        }
        for (uid, tracked) in &mut self.tracked {
            if !seen.contains(uid) {
                tracked.all_gone(now, &mut commands);
            }
        }
        commands
    }

    /// A pod that was to be added is in scope, or could not be (then it is tried again).
    pub fn added(&mut self, uid: &str, target: Option<TargetId>, now: Mono) -> Vec<Command> {
        let (Some(pod), mut commands) = (self.adding.remove(uid), Vec::new()) else { return Vec::new() };
        if let Some(target) = target {
            let containers =
                pod.containers.iter().zip(0..).map(|(container, index)| (container.id.clone(), index));
            let mut tracked = Tracked {
                target,
                shared_network: pod.netns.is_none(),
                containers: containers.collect(),
                gone: BTreeSet::new(),
                deletion_told: false,
                last_gone: None,
            };
            let meta = self.meta.get(uid);
            tracked.update(&pod, meta, now, &mut commands);
            self.tracked.insert(uid.to_owned(), tracked);
        }
        commands
    }

    /// What the API says of a pod now.
    pub fn described(&mut self, uid: &str, mut meta: Meta) -> Vec<Command> {
        let mut commands = Vec::new();
        if let Some(known) = self.meta.get(uid) {
            // The first sight of the deletion counts.
            meta.deleted = known.deleted.or(meta.deleted);
        }
        let renamed = self
            .meta
            .get(uid)
            .is_none_or(|known| (&known.name, &known.workload) != (&meta.name, &meta.workload));
        let deleted = meta.deleted;
        self.meta.insert(uid.to_owned(), meta);
        if renamed && let Some(target) = self.tracked.get(uid).map(|tracked| tracked.target) {
            commands.push(Command::Name(target, self.subject(uid, 0)));
        }
        if let Some(tracked) = self.tracked.get_mut(uid) {
            tracked.deleted(deleted, &mut commands);
        }
        commands
    }

    /// The API no longer knows a pod. A forced deletion removes the object while containers still run:
    /// what is known of it is kept until it has ended.
    pub fn forgotten(&mut self, uid: &str, now: Mono) -> Vec<Command> {
        let mut commands = Vec::new();
        match self.tracked.get_mut(uid) {
            Some(tracked) => tracked.deleted(Some(now), &mut commands),
            None => drop(self.meta.remove(uid)),
        }
        commands
    }

    /// Looks whether observation of targets in scope ends. `is_gone` says whether nothing is left of
    /// any container, by the kernel's events; `has_interface` whether the network interface is there.
    pub fn ends(
        &mut self,
        now: Mono,
        is_gone: impl Fn(TargetId) -> bool,
        has_interface: impl Fn(TargetId) -> bool,
    ) -> Vec<Command> {
        let mut commands = Vec::new();
        for (uid, tracked) in &mut self.tracked {
            let gone = is_gone(tracked.target) || tracked.gone.len() == tracked.containers.len();
            if gone {
                tracked.last_gone.get_or_insert(now);
            } else {
                tracked.last_gone = None;
            }
            let interface_gone = !tracked.shared_network && !has_interface(tracked.target);
            let meta = self.meta.get(uid);
            let linger = if tracked.shared_network { AFTER_LAST_EXIT_SHARED } else { AFTER_LAST_EXIT };
            let over = tracked.last_gone.is_some_and(|gone| now >= gone + linger.as_nanos() as u64);
            if interface_gone || over {
                let by_itself = meta.is_some_and(|meta| meta.runs_to_completion && meta.deleted.is_none());
                let end = if by_itself { End::NotTerminated } else { End::Terminated };
                commands.push(Command::Finish { target: tracked.target, interface_gone, end });
            }
        }
        self.forget(&commands);
        commands
    }

    fn forget(&mut self, commands: &[Command]) {
        for command in commands {
            let Command::Finish { target, .. } = command else { continue };
            let uids = self.tracked.iter().filter(|(_, tracked)| tracked.target == *target);
            for uid in uids.map(|(uid, _)| uid.clone()).collect::<Vec<_>>() {
                self.tracked.remove(&uid);
                self.meta.remove(&uid);
                self.ended.push_back(uid);
            }
        }
        while self.ended.len() > REMEMBERED {
            self.ended.pop_front();
        }
    }

    /// The target of a pod in scope.
    #[must_use]
    pub fn target(&self, uid: &str) -> Option<TargetId> {
        self.tracked.get(uid).map(|tracked| tracked.target)
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
        subject(self.meta.get(uid), uid, netns)
    }

    /// Name of a container: by the API, or the beginning of its id.
    #[must_use]
    pub fn container_name(&self, uid: &str, container: &Container) -> Arc<str> {
        container_name(self.meta.get(uid), container)
    }
}

impl Tracked {
    fn update(&mut self, pod: &Pod, meta: Option<&Meta>, now: Mono, commands: &mut Vec<Command>) {
        for container in &pod.containers {
            if !self.containers.contains_key(&container.id) {
                let index = self.containers.len() as u32;
                self.containers.insert(container.id.clone(), index);
                let name = container_name(meta, container);
                commands.push(Command::AddContainer(self.target, index, container.clone(), name));
            }
        }
        let running: BTreeSet<&str> = pod.containers.iter().map(|container| container.id.as_str()).collect();
        let vanished = self.containers.iter().filter(|(id, _)| !running.contains(id.as_str()));
        let vanished: Vec<u32> = vanished.map(|(_, index)| *index).collect();
        self.gone_from_host(&vanished, now, commands);
        self.deleted(meta.and_then(|meta| meta.deleted), commands);
    }

    /// A container of a pod that nobody deleted was replaced by another.
    fn was_restarted(&self, pod: &Pod, meta: Option<&Meta>) -> bool {
        let deleted = self.deletion_told || meta.is_some_and(|meta| meta.deleted.is_some());
        let is_new = |container: &Container| !self.containers.contains_key(&container.id);
        let is_running = |id: &String| pod.containers.iter().any(|container| container.id == *id);
        !deleted && pod.containers.iter().any(is_new) && self.containers.keys().any(|id| !is_running(id))
    }

    fn all_gone(&mut self, now: Mono, commands: &mut Vec<Command>) {
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

    fn deleted(&mut self, time: Option<Mono>, commands: &mut Vec<Command>) {
        if let Some(time) = time.filter(|_| !self.deletion_told) {
            self.deletion_told = true;
            commands.push(Command::PreStop(self.target, time));
        }
    }
}

/// How a pod is named in events: by the API, or by its uid until the API answers.
#[must_use]
pub fn subject(meta: Option<&Meta>, uid: &str, netns: u64) -> Arc<Subject> {
    let named = |name: &str| Some(Named { name: name.to_owned() });
    let owner = |kind: &str| {
        let (owner, name) = meta?.workload.as_ref()?;
        if owner == kind { named(name) } else { None }
    };
    let k8s = K8s {
        namespace: meta.and_then(|meta| named(&meta.namespace)),
        pod: PodName { name: meta.map(|meta| meta.name.clone()), uid: uid.to_owned() },
        deployment: owner("Deployment"),
        statefulset: owner("StatefulSet"),
        daemonset: owner("DaemonSet"),
        job: owner("Job"),
    };
    let name = meta.map_or_else(|| uid.to_owned(), |meta| format!("{}/{}", meta.namespace, meta.name));
    Arc::new(Subject { target: Target { name, netns }, k8s: Some(k8s) })
}

/// Name of a container: by the API, or the beginning of its id.
#[must_use]
pub fn container_name(meta: Option<&Meta>, container: &Container) -> Arc<str> {
    let named = meta.and_then(|meta| meta.containers.get(&container.id).cloned());
    named.unwrap_or_else(|| container.id.chars().take(12).collect::<String>().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::process::Process;

    const SECOND: Mono = 1_000_000_000;

    fn container(id: &str) -> Container {
        let init = Process {
            pid: 100,
            parent: 1,
            comm: "web".to_owned(),
            netns: 7,
            pidns: 8,
            cgroup: None,
            is_namespace_init: true,
        };
        Container { id: id.to_owned(), cgroup: 9, init }
    }

    fn pod(ids: &[&str]) -> Pod {
        Pod {
            uid: "uid".to_owned(),
            netns: Some("/proc/100/ns/net".into()),
            netns_inode: 7,
            containers: ids.iter().map(|id| container(id)).collect(),
            sandbox: None,
        }
    }

    fn meta() -> Meta {
        Meta { namespace: "shop".to_owned(), name: "web-1".to_owned(), ..Meta::default() }
    }

    /// An inventory with one pod in scope as target 1.
    fn inventory(ids: &[&str]) -> Inventory {
        let mut inventory = Inventory::default();
        let commands = inventory.scanned(vec![pod(ids)], 0);
        assert!(matches!(commands.as_slice(), [Command::Add(..)]), "{commands:?}");
        assert!(inventory.added("uid", Some(1), 0).is_empty());
        inventory
    }

    #[test]
    fn a_pod_is_added_once_and_again_if_it_could_not_be() {
        let mut inventory = Inventory::default();
        assert_eq!(inventory.scanned(vec![pod(&["a"])], 0).len(), 1);
        assert!(inventory.scanned(vec![pod(&["a"])], 1).is_empty(), "it is being added");
        inventory.added("uid", None, 2);
        assert_eq!(inventory.scanned(vec![pod(&["a"])], 3).len(), 1);
        inventory.added("uid", Some(1), 4);
        assert!(inventory.scanned(vec![pod(&["a"])], 5).is_empty());
    }

    #[test]
    fn names_come_with_the_api_and_outlive_its_object() {
        let mut inventory = inventory(&["a"]);
        let commands = inventory.described("uid", meta());
        let [Command::Name(1, subject)] = commands.as_slice() else { panic!("{commands:?}") };
        assert_eq!(subject.target.name, "shop/web-1");
        assert_eq!(inventory.forgotten("uid", 5), [Command::PreStop(1, 5)], "a forced deletion");
        assert_eq!(inventory.subject("uid", 7).target.name, "shop/web-1");
    }

    #[test]
    fn deletion_is_told_once_with_its_first_sight() {
        let mut inventory = inventory(&["a"]);
        inventory.described("uid", meta());
        let deleted = |time| Meta { deleted: Some(time), ..meta() };
        assert_eq!(inventory.described("uid", deleted(5)), [Command::PreStop(1, 5)]);
        assert!(inventory.described("uid", deleted(6)).is_empty());
    }

    #[test]
    fn a_restart_gives_a_verdict_and_the_pod_comes_into_scope_anew() {
        let mut inventory = inventory(&["a"]);
        let commands = inventory.scanned(vec![pod(&["b"])], 5);
        assert_eq!(commands, [Command::Finish { target: 1, interface_gone: false, end: End::Restarted }]);
        assert!(matches!(inventory.scanned(vec![pod(&["b"])], 6).as_slice(), [Command::Add(..)]));
    }

    #[test]
    fn containers_come_and_go_while_a_pod_starts_and_stops() {
        let mut inventory = inventory(&["a"]);
        let commands = inventory.scanned(vec![pod(&["a", "b"])], 5);
        assert!(matches!(commands.as_slice(), [Command::AddContainer(1, 1, ..)]), "{commands:?}");
        inventory.described("uid", Meta { deleted: Some(6), ..meta() });
        assert_eq!(inventory.scanned(vec![pod(&["b"])], 7), [Command::ContainerGone(1, 0)]);
        assert_eq!(inventory.scanned(vec![], 8), [Command::ContainerGone(1, 1)]);
    }

    #[test]
    fn the_end_comes_with_the_interface_or_some_time_after_the_last_exit() {
        let mut one = inventory(&["a"]);
        assert!(one.ends(0, |_| false, |_| true).is_empty());
        let finish = |interface_gone| Command::Finish { target: 1, interface_gone, end: End::Terminated };
        assert_eq!(one.ends(1, |_| true, |_| false), [finish(true)]);
        assert!(one.scanned(vec![pod(&["a"])], 2).is_empty(), "what is left of it is not new");

        let mut other = inventory(&["a"]);
        assert!(other.ends(0, |_| true, |_| true).is_empty());
        assert!(other.ends(29 * SECOND, |_| true, |_| true).is_empty());
        assert_eq!(other.ends(30 * SECOND, |_| true, |_| true), [finish(false)]);
        assert!(other.is_empty());
    }

    #[test]
    fn a_job_that_ends_by_itself_was_not_terminated() {
        let mut inventory = inventory(&["a"]);
        inventory.described("uid", Meta { runs_to_completion: true, ..meta() });
        let commands = inventory.ends(1, |_| true, |_| false);
        assert_eq!(commands, [Command::Finish { target: 1, interface_gone: true, end: End::NotTerminated }]);
    }
}
