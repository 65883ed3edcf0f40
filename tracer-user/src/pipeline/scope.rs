//! What is in scope: targets and their containers come, are armed, and end with a verdict.

use std::sync::Arc;

use anyhow::{Context, Result};
use tracer_common::{InitEntry, MAX_TARGETS, Mode, NODE, ScopeEntry};
use tracer_core::{
    event::TargetId,
    input::{End, Input, InventoryUpdate, NewContainer, NewTarget},
    output::Subject,
};

use super::Pipeline;
use crate::{
    clock,
    host::{
        cgroup::Cgroup,
        counters::TotalsReader,
        netns,
        process::Process,
        sockets::{Connections, SocketDiag},
    },
    kernel::probes::ScopeKey,
};

/// What stays with a target while it is in scope.
pub(super) struct Tracked {
    pub(super) subject: Arc<Subject>,
    keys: Vec<ScopeKey>,
    inits: Vec<u32>,
    pub(super) totals: Option<TotalsReader>,
    sockets: Option<SocketDiag>,
    pub(super) armed: bool,
}

/// A target to put in scope.
pub struct TargetSpec {
    /// What the core is told of it; its id is given by the pipeline.
    pub new: NewTarget,
    /// From now on everything of it is recorded; else it is only counted, until it is terminated.
    pub armed: bool,
    /// Its containers, as far as they run already; their target is filled in.
    pub containers: Vec<NewContainer>,
    /// What the kernel programs look for.
    pub keys: Vec<ScopeKey>,
    /// Its network namespace's own totals; `None` if it shares the namespace, or they cannot be read.
    pub totals: Option<TotalsReader>,
    /// Its network namespace's sockets, of which those in its cgroups count where it shares the namespace;
    /// `None` if they cannot be listed.
    pub sockets: Option<SocketDiag>,
}

impl Pipeline {
    /// What the kernel programs look for: the network namespace; or, where a target shares it, the
    /// cgroup in it.
    ///
    /// # Errors
    /// If the scope table is full.
    pub fn scope_keys(
        &mut self,
        identity: netns::Identity,
        shared: Option<&Cgroup>,
    ) -> Result<Vec<ScopeKey>> {
        match shared {
            None => Ok(vec![ScopeKey::Netns(self.probes.netns_key(identity))]),
            Some(cgroup) => self.shared_keys(identity, std::iter::once(cgroup.id)),
        }
    }

    /// The same for a target with several cgroups in the machine's network namespace.
    ///
    /// # Errors
    /// If the scope table is full.
    pub fn shared_keys(
        &mut self,
        identity: netns::Identity,
        cgroups: impl Iterator<Item = u64>,
    ) -> Result<Vec<ScopeKey>> {
        let netns = ScopeKey::Netns(self.probes.netns_key(identity));
        self.probes.scope(netns, ScopeEntry { target: NODE, mode: Mode::BY_CGROUP })?;
        Ok(cgroups.map(ScopeKey::Cgroup).collect())
    }

    /// Puts a target in scope: from now on it is counted and, if armed, recorded.
    ///
    /// # Errors
    /// If there are too many targets.
    pub fn add_target(&mut self, mut spec: TargetSpec) -> Result<TargetId> {
        let id = self.free_slot()?;
        spec.new.id = id;
        let subject = Arc::clone(&spec.new.subject);
        self.input(Input::Inventory(InventoryUpdate::Target(Box::new(spec.new))));
        if let Some(sockets) = &mut spec.sockets {
            sockets.restrict(cgroups_of(&spec.keys));
        }
        self.tell_listening(id, spec.sockets.as_ref());
        let tracked = Tracked {
            subject,
            keys: spec.keys,
            inits: Vec::new(),
            totals: spec.totals,
            sockets: spec.sockets,
            armed: false,
        };
        for key in &tracked.keys {
            self.probes.scope(*key, ScopeEntry { target: id, mode: Mode::KNOWN })?;
        }
        self.tracked.insert(id, tracked);
        for container in spec.containers {
            self.register(NewContainer { target: id, ..container })?;
        }
        self.read_books(id)?;
        if spec.armed {
            self.arm(id)?;
        }
        self.deliver()?;
        Ok(id)
    }

    /// From now on everything of a target is recorded. The kernel programs arm a target by themselves
    /// when its container gets a stop signal; then this only finds the connections that exist.
    ///
    /// # Errors
    /// If the target cannot be put in scope.
    pub fn arm(&mut self, target: TargetId) -> Result<()> {
        let Some(tracked) = self.tracked.get_mut(&target).filter(|tracked| !tracked.armed) else {
            return Ok(());
        };
        tracked.armed = true;
        let (keys, mut sockets) = (tracked.keys.clone(), tracked.sockets.take());
        if let Some(sockets) = &mut sockets {
            sockets.restrict(cgroups_of(&keys));
        }
        self.tell_listening(target, sockets.as_ref());
        for key in keys {
            self.probes.scope(key, ScopeEntry { target, mode: Mode::ARMED })?;
        }
        self.tell_connections(target, sockets.as_ref());
        Ok(())
    }

    /// Whether a target's network interface is there, as far as that can be told.
    #[must_use]
    pub fn has_interface(&self, target: TargetId) -> bool {
        let totals = self.tracked.get(&target).and_then(|tracked| tracked.totals.as_ref());
        totals.and_then(|totals| totals.has_interface().ok()).unwrap_or(true)
    }

    /// Listeners are told before records come, so that the roles of connections are known.
    fn tell_listening(&mut self, target: TargetId, sockets: Option<&SocketDiag>) {
        match sockets.map(SocketDiag::listening).transpose() {
            Ok(listening) => self.tell_existing(target, listening.unwrap_or_default(), Vec::new(), 0),
            Err(error) => self.tell_unlisted(target, &error),
        }
    }

    /// Connections are dumped when the target is in scope, and told when the records of what changed
    /// meanwhile were taken: so none is missed, and none is there twice.
    fn tell_connections(&mut self, target: TargetId, sockets: Option<&SocketDiag>) {
        let Some(sockets) = sockets else {
            self.input(Input::Inventory(InventoryUpdate::Unlisted { target }));
            return;
        };
        let dump = sockets.connections();
        self.drain();
        match dump.and_then(|connections| Ok((connections, sockets.udp_sockets()?))) {
            Ok((connections, udp)) => self.tell_existing(target, Vec::new(), connections, udp as u64),
            Err(error) => self.tell_unlisted(target, &error),
        }
    }

    fn tell_unlisted(&mut self, target: TargetId, error: &anyhow::Error) {
        log::warn!("{error:#}: connections that exist already are found when they change");
        self.input(Input::Inventory(InventoryUpdate::Unlisted { target }));
    }

    fn tell_existing(
        &mut self,
        target: TargetId,
        listening: Vec<u16>,
        connections: Connections,
        udp_sockets: u64,
    ) {
        let time = clock::mono_ns();
        let existing = InventoryUpdate::Existing { target, time, listening, connections, udp_sockets };
        self.input(Input::Inventory(existing));
    }

    fn free_slot(&mut self) -> Result<TargetId> {
        // A slot is not used again at once: records of its last owner may be under way.
        for _ in 1..MAX_TARGETS {
            let id = self.next_target;
            self.next_target = if id + 1 == MAX_TARGETS { 1 } else { id + 1 };
            if !self.tracked.contains_key(&id) {
                return Ok(id);
            }
        }
        anyhow::bail!("there are {MAX_TARGETS} targets already; trace fewer at once")
    }

    /// Puts a container's init in scope: its signals and its end. It must be a container of a target
    /// in scope.
    ///
    /// # Errors
    /// If there are too many containers.
    pub fn add_container(&mut self, container: NewContainer) -> Result<()> {
        self.register(container)?;
        self.deliver()
    }

    fn register(&mut self, container: NewContainer) -> Result<()> {
        let tracked = self.tracked.get_mut(&container.target).context("no such target")?;
        let key = |wanted: fn(&ScopeKey) -> Option<u64>| tracked.keys.iter().find_map(wanted).unwrap_or(0);
        let netns = key(|key| if let ScopeKey::Netns(key) = key { Some(*key) } else { None });
        // Where targets share a namespace, each container's cgroup is in scope by itself.
        let cgroup = if netns == 0 { container.cgroup.unwrap_or(0) } else { 0 };
        let entry = InitEntry {
            netns,
            cgroup,
            target: container.target,
            container: container.container,
            stop_signal: container.stop_signal.unwrap_or(0),
            reserved: 0,
        };
        tracked.inits.push(container.pid);
        let own = ScopeKey::Cgroup(cgroup);
        if cgroup != 0 && !tracked.keys.contains(&own) {
            tracked.keys.push(own);
            let mode = if tracked.armed { Mode::ARMED } else { Mode::KNOWN };
            self.probes.scope(own, ScopeEntry { target: container.target, mode })?;
        }
        let (target, number, pid) = (container.target, container.container, container.pid);
        self.probes.register_init(pid, entry)?;
        self.input(Input::Inventory(InventoryUpdate::Container(container)));
        if Process::read(pid).is_err() {
            // It may have ended before it was registered: then nothing else will tell.
            self.drain();
            let time = clock::mono_ns();
            self.input(Input::Inventory(InventoryUpdate::ContainerGone { target, container: number, time }));
        }
        Ok(())
    }

    /// Ends observation of a target: reads its books a last time, takes it out of scope and gives its
    /// verdict, if it was terminated.
    ///
    /// # Errors
    /// If the output cannot be written.
    pub fn finish(&mut self, target: TargetId, interface_gone: bool, end: End) -> Result<()> {
        self.read_books(target)?;
        self.tell_missed();
        if let Some(tracked) = self.tracked.remove(&target) {
            for key in tracked.keys {
                self.probes.unscope(key);
            }
            self.probes.forget_exchanges(target);
            for pid in tracked.inits {
                self.probes.forget_init(pid);
            }
        }
        let time = clock::mono_ns();
        self.input(Input::Inventory(InventoryUpdate::Finished { target, time, interface_gone, end }));
        self.deliver()
    }
}

/// The cgroups of a target that shares its network namespace: only sockets in them are its own.
fn cgroups_of(keys: &[ScopeKey]) -> Vec<u64> {
    let cgroup = |key: &ScopeKey| if let ScopeKey::Cgroup(id) = key { Some(*id) } else { None };
    keys.iter().filter_map(cgroup).collect()
}
