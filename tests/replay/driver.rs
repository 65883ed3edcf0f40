//! A recording as the agent would have lived through it: the node's cgroups and the API's objects go to
//! its follower, the kernel's events to the core, in the order in which they were recorded.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use anyhow::{Context, Result};
use lastpacket_tests::{
    api_client::{fast, updates_of},
    api_server::ApiServer,
    recording::{
        Readings, Recording,
        records::{self, InScope},
    },
};
use serde_json::Value;
use tracer_core::{
    Tracer,
    books::{CurrEstabRule, Reading, Totals},
    event::TargetId,
    input::{Clock, End, Input, InventoryUpdate, NewContainer, NewTarget, Timeouts},
    output::{Line, Subject},
    target::Rules,
    tracer::Identity,
};
use tracer_user::{
    agent::{
        follow::{Follower, Tracing},
        inventory::View,
    },
    host::pods::Pod,
    kube::watch::{ApiUpdate, Update},
};

const SECOND: u64 = 1_000_000_000;
const MILLISECOND: u64 = 1_000_000;
/// How long the agent goes on after the last event.
const LINGER: u64 = 12 * SECOND;
/// How many times as fast as it was recorded the API plays.
const SPEED: f64 = 10.0;

/// What came of a recording.
pub struct Replay {
    /// What was recorded.
    pub recording: Recording,
    /// What the agent wrote.
    pub lines: Vec<Line>,
}

impl Replay {
    /// Lives through a recording.
    pub async fn of(name: &str) -> Self {
        let recording = Recording::read(name);
        let server = ApiServer::play(name, SPEED).await;
        let updates = recording.stamped(updates_of(&server, fast()).await);
        let lines = Node::new(&recording).live(updates);
        Self { recording, lines }
    }
}

/// What happens next.
enum Happening<'a> {
    Kernel(&'a Value),
    Api(ApiUpdate),
    Gone(u32),
    Look,
    LookForEnds,
    Tick,
}

/// The node as the follower sees it: the core, with records and readings of the recording.
struct Node<'a> {
    recording: &'a Recording,
    readings: HashMap<String, Readings>,
    tracer: Tracer,
    lines: Vec<Line>,
    in_scope: BTreeMap<TargetId, InScope>,
    now: u64,
    last_target: TargetId,
    /// Pods that were in scope.
    added: HashSet<String>,
}

impl<'a> Node<'a> {
    fn new(recording: &'a Recording) -> Self {
        let rules = Rules {
            quiet: SECOND,
            reset_reasons: recording.reset_reasons(),
            // The kernel of the recordings, 6.18.
            curr_estab: Some(CurrEstabRule::EstablishedAndCloseWait),
        };
        let identity = Identity { node: "node1".into(), run_id: "replay".into() };
        Self {
            recording,
            readings: recording.readings(),
            tracer: Tracer::new(identity, rules, Clock::default()),
            lines: Vec::new(),
            in_scope: BTreeMap::new(),
            now: 0,
            last_target: 0,
            added: HashSet::new(),
        }
    }

    fn live(mut self, updates: Vec<(u64, ApiUpdate)>) -> Vec<Line> {
        let containers = self.recording.containers();
        let mut follower = Follower::default();
        let mut probes = HashSet::new();
        for (time, happening) in self.happenings(updates) {
            self.now = time;
            let done = match happening {
                Happening::Kernel(line) => {
                    self.kernel(line, &mut probes);
                    Ok(())
                }
                Happening::Gone(pid) => {
                    self.gone(pid);
                    Ok(())
                }
                Happening::Api(what) => {
                    follower.told(Update { received: Clock { mono: time, wall: 0 }, what }, &mut self)
                }
                Happening::Look => {
                    let pods = self.recording.pods_at(&containers, time);
                    follower.scanned(&pods, time, &mut self)
                }
                Happening::LookForEnds => follower.look_for_ends(time, &mut self),
                Happening::Tick => {
                    self.step(Input::Tick(Clock { mono: time, wall: 0 }));
                    Ok(())
                }
            };
            done.expect("a replay needs no IO");
        }
        let left: Vec<TargetId> = self.in_scope.keys().copied().collect();
        for target in left {
            let end = if self.tracer.is_gone(target) { End::Terminated } else { End::NotTerminated };
            self.finish(target, false, end).expect("a replay needs no IO");
        }
        self.lines
    }

    /// All that happened, in order. The node is looked at when a container came or went, as the
    /// kernel's events let the agent do it, and as often as it does.
    fn happenings(&self, updates: Vec<(u64, ApiUpdate)>) -> Vec<(u64, Happening<'a>)> {
        let time_of = |line: &Value| line["mono_ns"].as_u64().unwrap();
        let (first, last) = (self.first_time(), time_of(self.recording.kernel.last().unwrap()) + LINGER);
        let containers = self.recording.containers();
        let kernel = self.recording.kernel.iter().filter(|line| time_of(line) >= first);
        let mut all: Vec<(u64, Happening)> =
            kernel.map(|line| (time_of(line), Happening::Kernel(line))).collect();
        all.extend(updates.into_iter().map(|(time, what)| (time.max(first), Happening::Api(what))));
        for (pid, time) in self.recording.gone_inits(&containers).into_iter().filter(|(_, time)| *time < last)
        {
            all.push((time, Happening::Gone(pid)));
        }
        let mut looks: BTreeSet<u64> = (first..last).step_by(SECOND as usize).collect();
        for lived in &containers {
            looks.extend([lived.from.max(first), lived.until].into_iter().filter(|time| *time < last));
        }
        // A new pod is in scope from its first reading on.
        looks.extend(self.readings.values().map(|readings| readings.before.0.max(first)));
        all.extend(looks.into_iter().map(|time| (time, Happening::Look)));
        all.extend(
            (first..last).step_by(100 * MILLISECOND as usize).map(|time| (time, Happening::LookForEnds)),
        );
        all.extend((first..last).step_by(20 * MILLISECOND as usize).map(|time| (time, Happening::Tick)));
        all.sort_by_key(|(time, _)| *time);
        all
    }

    /// When the pods that were there at the beginning had been read: the agent comes then.
    fn first_time(&self) -> u64 {
        let first = self.recording.kernel[0]["mono_ns"].as_u64().unwrap();
        let early =
            self.readings.values().map(|readings| readings.before.0).filter(|time| *time < first + SECOND);
        early.max().unwrap_or(first)
    }

    fn step(&mut self, input: Input) {
        self.tracer.step(input, &mut self.lines);
    }

    /// A kernel event, as the kernel programs tell it.
    fn kernel(&mut self, line: &Value, probes: &mut HashSet<String>) {
        let on_node = line["netns"] == self.recording.node_netns();
        let sk = line["sk"].as_str().unwrap_or_default().to_owned();
        if line["ev"] == "state" && line["new"] == 2 && line["comm"] == "kubelet" {
            probes.insert(sk);
        } else if line["ev"] == "state" && probes.remove(&sk) {
            self.step(Input::Record(records::probe(line)));
            return;
        }
        let records: Vec<_> = self.in_scope.values_mut().filter_map(|pod| pod.record(line)).collect();
        let not_full = matches!(line["sk_state"].as_u64(), None | Some(6 | 12));
        if line["ev"] == "reset_sent" && on_node && not_full && self.in_scope.values().any(|pod| pod.shared) {
            self.step(Input::Record(records::reset_by_node(line)));
        }
        for record in records {
            self.step(Input::Record(record));
        }
    }

    fn gone(&mut self, pid: u32) {
        let time = self.now;
        let is_its = |pod: &&mut InScope| pod.inits.iter().any(|(init, _)| *init == pid);
        let Some(pod) = self.in_scope.values_mut().find(is_its) else { return };
        let container = pod.inits.iter().position(|(init, _)| *init == pid).unwrap();
        let record = pod.gone(container as u32, time);
        self.step(Input::Record(record));
    }

    fn readings_of(&self, target: TargetId) -> Option<Readings> {
        let netns = self.in_scope.get(&target)?.netns;
        let of_netns = self.readings.values().filter(|readings| readings.netns == netns);
        // A namespace's number is used again: the latest that had begun.
        of_netns
            .copied()
            .filter(|readings| readings.before.0 <= self.now)
            .max_by_key(|readings| readings.before.0)
    }

    fn read_books(&mut self, target: TargetId, totals: Option<Totals>) {
        let counters = self.in_scope[&target].counted;
        let reading = Box::new(Reading { counters, totals, missed: Some(0) });
        self.step(Input::Counters { target, reading });
    }
}

impl View for Node<'_> {
    fn is_gone(&self, target: TargetId) -> bool {
        self.tracer.is_gone(target)
    }

    fn has_interface(&self, target: TargetId) -> bool {
        let gone =
            self.readings_of(target).and_then(|pod| self.recording.interface_gone(pod.netns, pod.pause));
        gone.is_none_or(|gone| self.now < gone)
    }

    fn is_terminating(&self, target: TargetId) -> bool {
        self.tracer.is_terminating(target)
    }

    fn is_ending(&self, target: TargetId) -> bool {
        self.tracer.is_ending(target)
    }

    fn is_exiting(&self, target: TargetId) -> bool {
        self.tracer.is_exiting(target)
    }

    fn was_stopped(&self, target: TargetId) -> bool {
        self.tracer.was_stopped(target)
    }

    fn completed(&self, target: TargetId, container: u32) -> bool {
        self.tracer.completed(target, container)
    }
}

impl Tracing for Node<'_> {
    fn add(&mut self, pod: &Pod, subject: Arc<Subject>, containers: Vec<NewContainer>) -> Result<TargetId> {
        let readings = self.readings.get(&pod.uid).copied().context("no readings of it")?;
        let is_first = self.added.insert(pod.uid.clone());
        anyhow::ensure!(readings.before.0 <= self.now, "its counters were read later");
        self.last_target += 1;
        let (id, shared) = (self.last_target, pod.netns.is_none());
        let counted = tracer_common::Counters::default();
        let in_scope = InScope { target: id, netns: pod.netns_inode, shared, inits: Vec::new(), counted };
        self.in_scope.insert(id, in_scope);
        self.step(Input::Inventory(InventoryUpdate::Target(Box::new(NewTarget {
            id,
            subject,
            time: self.now,
            addresses: self.recording.addresses(pod.netns_inode),
            checkers: Vec::new(),
            one_way: Vec::new(),
            shared_network: shared,
            late: false,
            timeouts: Timeouts::default(),
        }))));
        for container in containers {
            self.add_container(NewContainer { target: id, ..container })?;
        }
        let listening = if shared { self.recording.listening_of(pod) } else { Vec::new() };
        self.step(Input::Inventory(InventoryUpdate::Existing {
            target: id,
            time: self.now,
            listening,
            connections: Vec::new(),
            udp_sockets: 0,
        }));
        // When a pod comes into scope again, its totals are another time's.
        self.read_books(id, Some(readings.before.1).filter(|_| is_first && !shared));
        Ok(id)
    }

    fn add_container(&mut self, container: NewContainer) -> Result<()> {
        let in_scope = self.in_scope.get_mut(&container.target).context("no such target")?;
        in_scope.inits.push((container.pid, container.cgroup.unwrap_or(0)));
        self.step(Input::Inventory(InventoryUpdate::Container(container)));
        Ok(())
    }

    fn update(&mut self, update: InventoryUpdate) -> Result<()> {
        self.step(Input::Inventory(update));
        Ok(())
    }

    /// The totals were read last when the recording ended. They stand for a pod that has ended before,
    /// as nothing changes them any more; one that goes on has none at this moment.
    fn finish(&mut self, target: TargetId, interface_gone: bool, end: End) -> Result<()> {
        let totals = self.readings_of(target).filter(|_| interface_gone).map(|readings| readings.after.1);
        self.read_books(target, totals.filter(|_| !self.in_scope[&target].shared));
        let time = self.now;
        self.step(Input::Inventory(InventoryUpdate::Finished { target, time, interface_gone, end }));
        self.in_scope.remove(&target);
        Ok(())
    }
}
