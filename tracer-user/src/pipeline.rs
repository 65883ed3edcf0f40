//! All stages wired together, in one place:
//!
//! ```text
//! hooks -> record -(ring buffer)-> kernel::ring -> Bytes -> decode -> Event
//!   -> attribute -> lifecycle -> ledger -> books -> verdict -> Line -> sink
//! host and API facts -> InventoryUpdate --+
//! timer -> Tick ---------------------------+-> Tracer::step
//! kernel counters, /proc/net -> Counters --+
//! ```
//!
//! Everything between `Bytes` and `Line` is [`Tracer::step`].

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use bytes::Bytes;
use tokio::{sync::mpsc, time::MissedTickBehavior};
use tracer_common::{InitEntry, MAX_TARGETS, Mode, NODE, ScopeEntry};
use tracer_core::{
    Tracer,
    books::Reading,
    event::TargetId,
    input::{End, Input, InventoryUpdate, NewContainer, NewTarget},
    output::{AgentStarted, Body, Line, LostEvent, Subject},
    target::Rules,
    tracer::Identity,
};

use crate::{
    clock,
    host::{
        cgroup::{Cgroup, Hierarchy},
        counters::TotalsReader,
        netns,
        process::Process,
        sockets::{Connections, SocketDiag},
    },
    kernel::{
        facts::{self, Facts},
        probes::{LoadOptions, Probes, ScopeKey},
        ring::Records,
    },
    sink::Output,
};

/// How often time is told to the core.
const TICK: Duration = Duration::from_millis(20);
/// How often counters of what was missed are looked at, in ticks.
const TICKS_BETWEEN_LOOKS: u32 = 50;
/// Attempts to read both sides of the books at the same instant. On a busy target the counters change
/// all the time, but a reading takes some 50 µs.
const READING_ATTEMPTS: usize = 200;

/// How to trace.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How to load the kernel programs.
    pub load: LoadOptions,
    /// How long traffic must have stopped before the exit.
    pub quiet: Duration,
    /// How the machine is called in events; `None` for its host name.
    pub node: Option<String>,
}

/// What stays with a target while it is in scope.
struct Tracked {
    subject: Arc<Subject>,
    keys: Vec<ScopeKey>,
    inits: Vec<u32>,
    totals: Option<TotalsReader>,
    sockets: Option<SocketDiag>,
    armed: bool,
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
    /// Its network namespace's own totals; `None` if it shares the namespace.
    pub totals: Option<TotalsReader>,
    /// Its network namespace's sockets; `None` if it shares the namespace.
    pub sockets: Option<SocketDiag>,
}

/// Something to watch lines as they are made.
pub type Observer = Box<dyn FnMut(&Line)>;

/// See the module.
pub struct Pipeline {
    probes: Probes,
    records: Records,
    tracer: Tracer,
    output: Output,
    observer: Option<Observer>,
    tracked: BTreeMap<TargetId, Tracked>,
    next_target: TargetId,
    batch: Vec<Bytes>,
    lines: Vec<Line>,
    /// Targets that entered a phase since their books were read.
    phase_entered: BTreeSet<TargetId>,
    missed: u64,
    /// Records that found the ring buffer full, by slot: the programs' counters only grow.
    records_lost: BTreeMap<TargetId, u64>,
    ticks: u32,
}

impl Pipeline {
    /// Loads the kernel programs and starts the core; nothing is in scope yet.
    ///
    /// # Errors
    /// If the kernel refuses, or lacks something: the message names the remedy.
    pub fn start(settings: &Settings, output: Output) -> Result<Self> {
        let facts =
            Facts::of_running_kernel().context("tracing needs the kernel's BTF; run `lastpacket check`")?;
        let (mut probes, records) = Probes::load(&facts, settings.load)?;
        if settings.load.kernel_log {
            crate::kernel::log::follow(probes.ebpf_mut())?;
        }
        let reset_reasons =
            facts.reset_reasons.iter().map(|(value, name)| (*value, name.as_str().into())).collect();
        let quiet = u64::try_from(settings.quiet.as_nanos()).unwrap_or(u64::MAX);
        let identity = Identity { node: node_name(settings.node.as_deref())?, run_id: run_id()? };
        let tracer = Tracer::new(identity, Rules { quiet, reset_reasons }, clock::now());
        let mut pipeline = Self {
            probes,
            records,
            tracer,
            output,
            observer: None,
            tracked: BTreeMap::new(),
            next_target: 1,
            batch: Vec::new(),
            lines: Vec::new(),
            phase_entered: BTreeSet::new(),
            missed: 0,
            records_lost: BTreeMap::new(),
            ticks: 0,
        };
        pipeline.missed = pipeline.missed_now();
        let mut started = pipeline.agent_started(&facts)?;
        if settings.load.inventory && !Hierarchy::of_containers()?.is_version_2 {
            started.cannot_show.push(
                "which container of a pod a connection belongs to, and host-network pods (cgroup version 1)"
                    .to_owned(),
            );
        }
        pipeline.announce(Body::AgentStarted(started))?;
        Ok(pipeline)
    }

    /// Shows every line to an observer too.
    pub fn observe(&mut self, observer: Observer) {
        self.observer = Some(observer);
    }

    fn agent_started(&self, facts: &Facts) -> Result<AgentStarted> {
        Ok(AgentStarted {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: facts::release()?,
            hooks: self.probes.attached().iter().map(|hook| hook.name.to_owned()).collect(),
            cannot_show: facts.cannot_show(self.probes.refused()),
        })
    }

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

    /// From now on connections that these processes make are probes.
    ///
    /// # Errors
    /// If there are too many.
    pub fn set_probers(&mut self, pids: &[u32]) -> Result<()> {
        self.probes.set_probers(pids)
    }

    /// Cgroups that are made or entered from now on; of use once, and with
    /// [`LoadOptions::inventory`].
    ///
    /// # Errors
    /// If they were taken before.
    pub fn take_cgroups(&mut self) -> Result<Records> {
        self.probes.take_cgroups()
    }

    /// The core, to look at.
    #[must_use]
    pub fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    /// Whether nothing is left of any container of a target.
    #[must_use]
    pub fn is_gone(&self, target: TargetId) -> bool {
        self.tracer.is_gone(target)
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

    /// Names of a target were learned, deletion was seen, or the like.
    ///
    /// # Errors
    /// If the output cannot be written.
    pub fn update(&mut self, update: InventoryUpdate) -> Result<()> {
        if let InventoryUpdate::Named { target, subject, .. } = &update
            && let Some(tracked) = self.tracked.get_mut(target)
        {
            tracked.subject = Arc::clone(subject);
        }
        self.input(Input::Inventory(update));
        self.read_books_of_phases()?;
        self.deliver()
    }

    /// Whether a target's network interface is there, as far as that can be told.
    #[must_use]
    pub fn has_interface(&self, target: TargetId) -> bool {
        let totals = self.tracked.get(&target).and_then(|tracked| tracked.totals.as_ref());
        totals.and_then(|totals| totals.has_interface().ok()).unwrap_or(true)
    }

    /// Listeners are told before records come, so that the roles of connections are known.
    fn tell_listening(&mut self, target: TargetId, sockets: Option<&SocketDiag>) {
        let listening = sockets.map(SocketDiag::listening).transpose().unwrap_or_else(|error| {
            log::warn!("{error:#}: roles of connections that exist already are not known");
            None
        });
        self.tell_existing(target, listening.unwrap_or_default(), Vec::new(), 0);
    }

    /// Connections are dumped when the target is in scope, and told when the records of what changed
    /// meanwhile were taken: so none is missed, and none is there twice.
    fn tell_connections(&mut self, target: TargetId, sockets: Option<&SocketDiag>) {
        let Some(sockets) = sockets else { return };
        let dump = sockets.connections();
        self.drain();
        match dump.and_then(|connections| Ok((connections, sockets.udp_sockets()?))) {
            Ok((connections, udp)) => self.tell_existing(target, Vec::new(), connections, udp as u64),
            Err(error) => log::warn!("{error:#}: connections that exist already are found when they change"),
        }
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
        let entry = InitEntry { netns, cgroup, target: container.target, container: container.container };
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

    /// Lets records, updates and time flow until `until` is done.
    ///
    /// # Errors
    /// If the ring buffer cannot be read or the output cannot be written.
    pub async fn run<T>(
        &mut self,
        updates: &mut mpsc::Receiver<InventoryUpdate>,
        until: impl Future<Output = T>,
    ) -> Result<T> {
        let mut until = pin!(until);
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                done = &mut until => {
                    while let Ok(update) = updates.try_recv() {
                        self.input(Input::Inventory(update));
                    }
                    self.drain();
                    self.deliver()?;
                    return Ok(done);
                }
                Some(update) = updates.recv() => self.input(Input::Inventory(update)),
                ready = self.records.ready() => { ready?; self.drain(); }
                _ = ticks.tick() => self.tick(),
            }
            self.read_books_of_phases()?;
            self.deliver()?;
        }
    }

    /// Runs until nothing is left of any container of these targets, or `until` is done.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_until_gone(
        &mut self,
        targets: &[TargetId],
        updates: &mut mpsc::Receiver<InventoryUpdate>,
        until: impl Future<Output = ()>,
    ) -> Result<bool> {
        let mut until = pin!(until);
        while !targets.iter().all(|target| self.tracer.is_gone(*target)) {
            let step = async {
                tokio::select! {
                    () = &mut until => true,
                    () = tokio::time::sleep(TICK) => false,
                }
            };
            if self.run(updates, step).await? {
                return Ok(false);
            }
        }
        Ok(true)
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
            for pid in tracked.inits {
                self.probes.forget_init(pid);
            }
        }
        let time = clock::mono_ns();
        self.input(Input::Inventory(InventoryUpdate::Finished { target, time, interface_gone, end }));
        self.deliver_surely()
    }

    /// Writes a line that is about the run as a whole.
    ///
    /// # Errors
    /// If the output cannot be written.
    pub fn announce(&mut self, body: Body) -> Result<()> {
        self.tracer.announce(clock::mono_ns(), body, &mut self.lines);
        self.deliver_surely()
    }

    /// Writes all that is queued, and what was lost until now.
    ///
    /// # Errors
    /// If the output cannot be written.
    pub fn close(mut self) -> Result<()> {
        self.deliver_surely()?;
        Ok(self.output.finish()?)
    }

    // ---- the stages ----

    fn input(&mut self, input: Input) {
        let first = self.lines.len();
        self.tracer.step(input, &mut self.lines);
        let entered = self.lines[first..].iter().filter(|line| matches!(line.body, Body::Phase(_)));
        let targets = entered.filter_map(|line| line.subject.as_ref()).filter_map(|subject| {
            self.tracked.iter().find(|(_, tracked)| Arc::ptr_eq(&tracked.subject, subject)).map(|(id, _)| *id)
        });
        self.phase_entered.extend(targets);
        if let Some(observer) = &mut self.observer {
            self.lines[first..].iter().for_each(observer);
        }
    }

    /// Records that are there now go through the core.
    fn drain(&mut self) {
        loop {
            let mut batch = std::mem::take(&mut self.batch);
            self.records.take(&mut batch);
            let more = !batch.is_empty();
            for record in batch.drain(..) {
                self.input(Input::Record(record));
            }
            self.batch = batch;
            if !more {
                return;
            }
        }
    }

    fn tick(&mut self) {
        self.drain();
        self.input(Input::Tick(clock::now()));
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(TICKS_BETWEEN_LOOKS) {
            self.tell_missed();
        }
    }

    /// Tells events that the kernel did not show, and records that found the ring buffer full.
    fn tell_missed(&mut self) {
        let missed = self.missed_now();
        let before = std::mem::replace(&mut self.missed, missed);
        self.tell_lost("kernel", "skipped", missed.saturating_sub(before));
        // Only what is armed sends records, and the node.
        let sends = self.tracked.iter().filter(|(_, tracked)| tracked.armed).map(|(id, _)| *id);
        let lost = sends.chain([NODE]).filter_map(|target| {
            let counters = self.probes.counters(target).ok()?;
            Some((target, counters.records_lost.iter().sum::<u64>()))
        });
        let mut new = 0;
        for (target, lost) in lost.collect::<Vec<_>>() {
            new += lost - self.records_lost.insert(target, lost).unwrap_or_default().min(lost);
        }
        self.tell_lost("ring_buffer", "full", new);
    }

    fn tell_lost(&mut self, stage: &str, reason: &str, count: u64) {
        if count > 0 {
            let lost = LostEvent { stage: stage.to_owned(), reason: reason.to_owned(), count };
            self.tracer.announce(clock::mono_ns(), Body::Lost(lost), &mut self.lines);
        }
    }

    /// What only counters tell (connections that the kernel dropped, resets whose records were lost)
    /// belongs to the phase that it happened in: read them whenever one begins.
    fn read_books_of_phases(&mut self) -> Result<()> {
        while let Some(target) = self.phase_entered.pop_first() {
            if self.tracked.contains_key(&target) {
                self.read_books(target)?;
            }
            if self.tracer.is_terminating(target) {
                self.arm(target)?;
            }
        }
        Ok(())
    }

    fn missed_now(&self) -> u64 {
        self.probes.missed().values().sum()
    }

    /// Reads both sides of a target's books at the same instant: the programs' counters must not
    /// change while the kernel's totals are read. All records counted by then are drained first.
    fn read_books(&mut self, target: TargetId) -> Result<()> {
        let mut reading = Reading::default();
        for _ in 0..READING_ATTEMPTS {
            let before = self.probes.counters(target)?;
            self.drain();
            let totals = self.tracked.get(&target).and_then(|tracked| tracked.totals.as_ref());
            let totals = totals.map(TotalsReader::read).transpose().unwrap_or_else(|error| {
                log::warn!("{error:#}");
                None
            });
            reading = Reading { counters: self.probes.counters(target)?, totals, missed: self.missed_now() };
            if reading.counters == before {
                break;
            }
        }
        self.input(Input::Counters { target, reading: Box::new(reading) });
        Ok(())
    }

    fn deliver(&mut self) -> Result<()> {
        if !self.lines.is_empty() {
            self.output.send(std::mem::take(&mut self.lines))?;
        }
        let dropped = self.output.take_dropped();
        self.tell_lost("sink", "slow_reader", dropped);
        Ok(())
    }

    fn deliver_surely(&mut self) -> Result<()> {
        self.deliver()?;
        Ok(self.output.send_surely(std::mem::take(&mut self.lines))?)
    }
}

fn node_name(given: Option<&str>) -> Result<Arc<str>> {
    if let Some(name) = given {
        return Ok(name.into());
    }
    let name = nix::unistd::gethostname().context("cannot read the machine's name")?;
    Ok(name.to_string_lossy().into())
}

/// The cgroups of a target that shares its network namespace: only sockets in them are its own.
fn cgroups_of(keys: &[ScopeKey]) -> Vec<u64> {
    let cgroup = |key: &ScopeKey| if let ScopeKey::Cgroup(id) = key { Some(*id) } else { None };
    keys.iter().filter_map(cgroup).collect()
}

/// The kernel's own random UUID.
fn run_id() -> Result<Arc<str>> {
    let path = "/proc/sys/kernel/random/uuid";
    Ok(std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?.trim_end().into())
}
