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

mod books;
mod scope;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    future::Future,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use bytes::Bytes;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tracer_core::{
    Tracer,
    event::TargetId,
    input::{Input, InventoryUpdate},
    output::{AgentStarted, Body, Line},
    target::Rules,
    tracer::Identity,
};

pub use self::scope::TargetSpec;
use self::scope::Tracked;
use crate::{
    clock,
    host::cgroup::Hierarchy,
    kernel::{
        facts::{self, Facts},
        probes::{LoadOptions, Probes},
        ring::Records,
    },
    sink::Output,
};

/// How often time is told to the core while a target is armed. The programs wake nobody for records of
/// connections: they wait for this.
const TICK: Duration = Duration::from_millis(20);
/// How often else: a pod that is only known sends no records.
const IDLE_TICK: Duration = Duration::from_millis(200);
/// How often counters of what was missed are looked at.
const LOOK: Duration = Duration::from_secs(1);

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
    /// Events that the kernel did not show, by hook.
    missed: HashMap<&'static str, u64>,
    unattributed: u64,
    /// Records that found the ring buffer full, by slot: the programs' counters only grow.
    records_lost: BTreeMap<TargetId, u64>,
    next_tick: Instant,
    next_look: Instant,
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
        let rules = Rules { quiet, reset_reasons, curr_estab: facts.curr_estab };
        let tracer = Tracer::new(identity, rules, clock::now());
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
            missed: HashMap::new(),
            unattributed: 0,
            records_lost: BTreeMap::new(),
            next_tick: Instant::now(),
            next_look: Instant::now() + LOOK,
        };
        pipeline.missed = pipeline.probes.missed().cloned().unwrap_or_default();
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

    /// Whether termination of a target has begun.
    #[must_use]
    pub fn is_terminating(&self, target: TargetId) -> bool {
        self.tracer.is_terminating(target)
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
                ready = self.records.ready() => {
                    ready?;
                    self.drain();
                    // A target may have been armed by its own signal.
                    self.next_tick = self.next_tick.min(Instant::now() + TICK);
                }
                () = sleep_until(self.next_tick) => self.tick(),
            }
            self.read_books_of_phases()?;
            self.deliver()?;
        }
    }

    /// Writes a line that is about the run as a whole.
    ///
    /// # Errors
    /// If the output cannot be written.
    pub fn announce(&mut self, body: Body) -> Result<()> {
        self.add_line(body);
        self.deliver()
    }

    /// Writes all that is queued, and what was lost until now.
    ///
    /// # Errors
    /// If the output cannot be written.
    pub fn close(mut self) -> Result<()> {
        self.deliver()?;
        self.tell_dropped();
        Ok(self.output.finish(self.lines)?)
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
        self.show(first);
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
        let now = Instant::now();
        let armed = self.tracked.values().any(|tracked| tracked.armed);
        self.next_tick = now + if armed { TICK } else { IDLE_TICK };
        if now >= self.next_look {
            self.next_look = now + LOOK;
            self.tell_missed();
        }
    }

    /// A line of no input.
    fn add_line(&mut self, body: Body) {
        let first = self.lines.len();
        self.tracer.announce(clock::mono_ns(), body, &mut self.lines);
        self.show(first);
    }

    fn show(&mut self, first: usize) {
        if let Some(observer) = &mut self.observer {
            self.lines[first..].iter().for_each(observer);
        }
    }

    fn deliver(&mut self) -> Result<()> {
        Ok(self.output.send(self.lines.drain(..))?)
    }
}

fn node_name(given: Option<&str>) -> Result<Arc<str>> {
    if let Some(name) = given {
        return Ok(name.into());
    }
    let name = nix::unistd::gethostname().context("cannot read the machine's name")?;
    Ok(name.to_string_lossy().into())
}

/// The kernel's own random UUID.
fn run_id() -> Result<Arc<str>> {
    let path = "/proc/sys/kernel/random/uuid";
    Ok(std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?.trim_end().into())
}
