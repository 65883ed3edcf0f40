//! The whole core behind one function: [`Tracer::step`].

use std::{collections::BTreeMap, sync::Arc};

use tracer_common::NODE;

use crate::{
    books::RunRecords,
    decode::{Undecodable, decode},
    event::{Event, EventKind, Mono, TargetId},
    input::{Clock, End, Input, InventoryUpdate},
    jiffies::Jiffies,
    output::{Agent, Body, Line, LostEvent, SCHEMA, TargetEnded, TargetStarted, Timestamp},
    target::{Rules, Target},
    verdict::Verdict,
};

/// Who writes the lines.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Name of the machine.
    pub node: Arc<str>,
    /// Different for every run.
    pub run_id: Arc<str>,
}

/// From inputs to lines. Knows all targets of a run.
#[derive(Debug)]
pub struct Tracer {
    targets: BTreeMap<TargetId, Target>,
    rules: Rules,
    scribe: Scribe,
    jiffies: Jiffies,
    /// What the kernel cannot show, as the run said at its start; every verdict says so too.
    cannot_show: Vec<String>,
    records: RunRecords,
    /// How many unattributed records were told.
    unattributed_told: u64,
}

/// Gives lines their number, times and names.
#[derive(Debug)]
struct Scribe {
    schema: Arc<str>,
    identity: Identity,
    seq: u64,
    clock: Clock,
}

impl Scribe {
    fn line(&mut self, mono: Mono, subject: Option<Arc<crate::output::Subject>>, body: Body) -> Line {
        self.seq += 1;
        // Wall time is derived from one pair of readings: a step of the wall clock moves all later
        // events alike, and never their order.
        let since = mono.cast_signed().wrapping_sub(self.clock.mono.cast_signed());
        Line {
            schema: self.schema.clone(),
            time: Timestamp(self.clock.wall.wrapping_add(since)),
            mono_ns: mono,
            node: self.identity.node.clone(),
            agent: Agent { run_id: self.identity.run_id.clone() },
            seq: self.seq,
            subject,
            body,
        }
    }
}

impl Tracer {
    /// A tracer without targets. `clock` is read once, now.
    #[must_use]
    pub fn new(identity: Identity, rules: Rules, clock: Clock) -> Self {
        let scribe = Scribe { schema: SCHEMA.into(), identity, seq: 0, clock };
        Self {
            targets: BTreeMap::new(),
            rules,
            scribe,
            jiffies: Jiffies::default(),
            cannot_show: Vec::new(),
            records: RunRecords::default(),
            unattributed_told: 0,
        }
    }

    /// Takes one input and adds the lines that follow from it to `out`.
    pub fn step(&mut self, input: Input, out: &mut Vec<Line>) {
        match input {
            Input::Record(bytes) => match decode(&bytes) {
                Ok(event) => self.event(&event, out),
                Err(error) => self.lost_record(error, out),
            },
            Input::Inventory(update) => self.inventory(update, out),
            Input::Counters { target, reading } => {
                if let Some(target) = self.targets.get_mut(&target) {
                    target.read_counters(*reading);
                }
            }
            Input::Tick(clock) => self.tick(clock, out),
        }
    }

    /// Writes a line that is about the run as a whole.
    pub fn announce(&mut self, mono: Mono, body: Body, out: &mut Vec<Line>) {
        if let Body::AgentStarted(started) = &body {
            self.cannot_show.clone_from(&started.cannot_show);
        }
        out.push(self.scribe.line(mono, None, body));
    }

    /// Whether nothing is left of any container of a target.
    #[must_use]
    pub fn is_gone(&self, target: TargetId) -> bool {
        self.targets.get(&target).is_none_or(Target::is_gone)
    }

    /// Whether termination of a target has begun.
    #[must_use]
    pub fn is_terminating(&self, target: TargetId) -> bool {
        self.targets.get(&target).is_some_and(Target::is_terminating)
    }

    /// Whether a container of a target is ending and not gone yet.
    #[must_use]
    pub fn is_ending(&self, target: TargetId) -> bool {
        self.targets.get(&target).is_some_and(Target::is_ending)
    }

    /// Whether the first process of a container of a target has exited and others may be left.
    #[must_use]
    pub fn is_exiting(&self, target: TargetId) -> bool {
        self.targets.get(&target).is_some_and(Target::is_exiting)
    }

    /// Whether anybody meant to end a container of a target.
    #[must_use]
    pub fn was_stopped(&self, target: TargetId) -> bool {
        self.targets.get(&target).is_some_and(Target::was_stopped)
    }

    /// Whether a container of a target ended by itself and as it was meant to.
    #[must_use]
    pub fn completed(&self, target: TargetId, container: u32) -> bool {
        self.targets.get(&target).is_some_and(|target| target.completed(container))
    }

    /// What became of all records until now.
    #[must_use]
    pub fn records(&self) -> RunRecords {
        self.records
    }

    fn lost_record(&mut self, error: Undecodable, out: &mut Vec<Line>) {
        self.records.undecodable += 1;
        let (stage, reason) = ("decode".to_owned(), error.word().to_owned());
        let lost = LostEvent { stage, reason, hook: None, count: 1 };
        self.announce(self.scribe.clock.mono, Body::Lost(lost), out);
    }

    fn event(&mut self, event: &Event, out: &mut Vec<Line>) {
        let Self { targets, rules, scribe, jiffies, records, .. } = self;
        records.decoded += 1;
        if let EventKind::State(change) = &event.kind {
            jiffies.observe(event.time, change.socket.jiffies);
        }
        let time = event.time;
        if event.target == NODE {
            self.node_event(event, out);
            return;
        }
        let Some(target) = targets.get_mut(&event.target) else {
            // A record that was under way when its target's verdict was given.
            records.unattributed += 1;
            return;
        };
        records.attributed += 1;
        target.count_record();
        with(target, scribe, out, |target, emit| match &event.kind {
            EventKind::State(change) => target.state(time, change, jiffies, emit),
            EventKind::ResetSent(reset) => target.reset_sent(time, reset, rules, emit),
            EventKind::ResetReceived(reset) => target.reset_received(time, reset, emit),
            EventKind::Signal(signal) => target.signal(time, signal, emit),
            EventKind::Exec(exec) => target.exec(time, exec),
            EventKind::Exit(exit) => target.exit(time, exit, emit),
            EventKind::Gone(gone) => target.init_gone(time, gone, emit),
            EventKind::Oom(oom) => target.oom(time, oom, emit),
        });
    }

    /// What belongs to no target by itself: a probe, known by the address that it goes to; a reset to a
    /// segment that met no socket of the machine's own namespace, known by who listened there last.
    fn node_event(&mut self, event: &Event, out: &mut Vec<Line>) {
        let Self { targets, rules, scribe, .. } = self;
        self.records.attributed += 1;
        match &event.kind {
            EventKind::State(change) => {
                let tuple = change.tuple.mirrored();
                let probed = targets.values_mut().filter(|target| target.has_address(tuple.local_ip()));
                probed.for_each(|target| target.probe(event.time, tuple));
            }
            EventKind::ResetSent(reset) => {
                let mut owners: Vec<_> = targets
                    .values_mut()
                    .filter(|target| target.listened_in_shared(reset.tuple.local_port))
                    .collect();
                // Of two, the one that goes: its successor listens.
                owners.sort_by_key(|target| !target.is_terminating());
                // Resets of the machine's own ports are nobody's here.
                if let Some(target) = owners.first_mut() {
                    with(target, scribe, out, |target, emit| {
                        target.reset_sent(event.time, reset, rules, emit);
                    });
                }
            }
            _ => {
                self.records.attributed -= 1;
                self.records.unattributed += 1;
            }
        }
    }

    fn inventory(&mut self, update: InventoryUpdate, out: &mut Vec<Line>) {
        match update {
            InventoryUpdate::Target(new) => {
                let (id, time, late) = (new.id, new.time, new.late);
                self.targets.insert(id, Target::new(*new));
                self.with(id, out, |_, _, emit| {
                    emit(time, Body::TargetStarted(TargetStarted { late }));
                });
            }
            InventoryUpdate::Named { target, subject, containers } => {
                if let Some(target) = self.targets.get_mut(&target) {
                    target.rename(subject, containers);
                }
            }
            InventoryUpdate::Container(new) => {
                self.with(new.target, out, |target, _, emit| target.add_container(new, emit));
            }
            InventoryUpdate::Existing { target, time, listening, connections, udp_sockets } => {
                self.with(target, out, |target, _, emit| {
                    target.existing(time, &listening, &connections, udp_sockets, emit);
                });
            }
            InventoryUpdate::Unlisted { target } => {
                self.with(target, out, |target, _, _| target.unlisted());
            }
            InventoryUpdate::Endpoint { target, time, endpoint, initial } => {
                self.with(target, out, |target, _, emit| target.endpoint(time, endpoint, initial, emit));
            }
            InventoryUpdate::Doubted { target, gap } => {
                self.with(target, out, |target, _, _| target.doubt(gap));
            }
            InventoryUpdate::PreStop { target, container, time, source } => {
                self.with(target, out, |target, _, emit| target.pre_stop(container, time, source, emit));
            }
            InventoryUpdate::ContainerGone { target, container, time } => {
                let source = crate::lifecycle::Source::Host;
                self.with(target, out, |target, _, emit| {
                    target.container_gone(container, time, source, emit);
                });
            }
            InventoryUpdate::Finished { target, time, interface_gone, end } => {
                self.finish(target, time, interface_gone, end, out);
            }
        }
    }

    fn finish(&mut self, id: TargetId, time: Mono, interface_gone: bool, end: End, out: &mut Vec<Line>) {
        self.with(id, out, |target, rules, emit| target.finish(time, interface_gone, rules, emit));
        let Some(target) = self.targets.remove(&id) else { return };
        let body = if end == End::NotTerminated {
            let reason = if target.is_gone() {
                "it ended by itself, as it is meant to"
            } else {
                "it still runs: nothing was terminated while it was traced"
            };
            Body::TargetEnded(TargetEnded { reason: reason.to_owned() })
        } else {
            let cannot_show = self.cannot_show.clone();
            let verdict = target.verdict(&self.rules, end, self.records, self.scribe.seq);
            Body::Verdict(Box::new(Verdict { cannot_show, ..verdict }))
        };
        out.push(self.scribe.line(time, Some(target.subject.clone()), body));
    }

    fn tick(&mut self, clock: Clock, out: &mut Vec<Line>) {
        let Self { targets, rules, scribe, .. } = self;
        for target in targets.values_mut() {
            with(target, scribe, out, |target, emit| target.tick(clock.mono, rules, emit));
        }
        self.tell_unattributed(clock.mono, out);
    }

    fn tell_unattributed(&mut self, mono: Mono, out: &mut Vec<Line>) {
        let count = self.records.unattributed - self.unattributed_told;
        self.unattributed_told += count;
        if count > 0 {
            let reason = "the verdict of its target was given already".to_owned();
            let lost = LostEvent { stage: "attribute".to_owned(), reason, hook: None, count };
            self.announce(mono, Body::Lost(lost), out);
        }
    }

    fn with(
        &mut self,
        id: TargetId,
        out: &mut Vec<Line>,
        act: impl FnOnce(&mut Target, &Rules, &mut crate::target::Emit<'_>),
    ) {
        let Self { targets, rules, scribe, .. } = self;
        if let Some(target) = targets.get_mut(&id) {
            with(target, scribe, out, |target, emit| act(target, rules, emit));
        }
    }
}

/// Lets a target act, and writes what it tells as lines about it.
fn with(
    target: &mut Target,
    scribe: &mut Scribe,
    out: &mut Vec<Line>,
    act: impl FnOnce(&mut Target, &mut crate::target::Emit<'_>),
) {
    let subject = target.subject.clone();
    let first = out.len();
    act(target, &mut |time, body| {
        let line = scribe.line(time, Some(subject.clone()), body);
        let seq = line.seq;
        out.push(line);
        seq
    });
    if target.first_seq.is_none() {
        target.first_seq = out.get(first).map(|line| line.seq);
    }
}
