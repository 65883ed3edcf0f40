//! Recordings of real pod terminations (`tests/recordings`) as inputs of the core: what the kernel
//! programs would have sent for the same kernel events.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::File,
    io::{BufRead, BufReader},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use flate2::read::GzDecoder;
use serde_json::Value;
use tracer_common::{
    Counters, ExitRecord, GoneRecord, Header, Kind, NODE, Pod, ResetRecord, Segment, SegmentClass,
    SignalRecord, SockKind, Socket, StateRecord, Task, Tuple,
};
use tracer_core::{
    books::{Reading, Totals},
    input::{Clock, Input, InventoryUpdate, NewContainer, NewTarget, Timeouts},
    lifecycle::Source,
    output::{K8s, Pod as PodName, Subject, Target},
};

/// A folder of `tests/recordings/kubernetes-1.36`.
pub struct Recording {
    folder: PathBuf,
    kernel: Vec<Value>,
}

/// A request that failed for the client.
#[derive(Clone, Debug)]
pub struct ClientFailure {
    /// The client's end.
    pub local: SocketAddr,
    /// When the failure was seen.
    pub time: u64,
    /// The whole line.
    pub line: Value,
}

/// Inputs with the times at which they happened.
pub type TimedInputs = Vec<(u64, Input)>;

impl Recording {
    /// Reads a recording by its name.
    pub fn read(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings/kubernetes-1.36").join(name);
        let kernel = lines_gz(&folder.join("kernel.jsonl.gz"));
        Self { folder, kernel }
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_reader(File::open(self.folder.join(name)).unwrap()).unwrap()
    }

    /// The client's failures.
    pub fn failures(&self) -> Vec<ClientFailure> {
        let Ok(file) = File::open(self.folder.join("client.jsonl")) else { return Vec::new() };
        BufReader::new(file)
            .lines()
            .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap())
            .filter(|line| line["line"] == "request_failed")
            .map(|line| ClientFailure {
                local: line["local"].as_str().unwrap().parse().unwrap(),
                time: line["mono_ns"].as_u64().unwrap(),
                line,
            })
            .collect()
    }

    /// The pods of the recording, by slot, with the uids that name them.
    pub fn pods(&self) -> Vec<(u32, String)> {
        let counters = self.json("counters.json");
        let pods = counters["pods"].as_array().unwrap();
        pods.iter().enumerate().map(|(index, pod)| (index as u32 + 1, text(&pod["pod_uid"]))).collect()
    }

    /// All that the core is told, in order of time, without the ends of the targets.
    pub fn inputs(&self) -> TimedInputs {
        let counters = self.json("counters.json");
        let mut inputs = TimedInputs::new();
        for (slot, uid) in self.pods() {
            let pod = &counters["pods"][slot as usize - 1];
            self.pod_inputs(slot, &uid, pod, &mut inputs);
        }
        self.probe_inputs(counters["node_netns"].as_u64().unwrap(), &mut inputs);
        let (first, last) = (inputs.iter().map(|(time, _)| *time).min().unwrap(), self.last_time());
        let ticks = (first..last + 1_000_000_000).step_by(20_000_000);
        inputs.extend(ticks.map(|time| (time, Input::Tick(Clock { mono: time, wall: 0 }))));
        inputs.sort_by_key(|(time, _)| *time);
        inputs
    }

    /// When the last kernel event was.
    pub fn last_time(&self) -> u64 {
        self.kernel.last().map_or(0, |line| line["mono_ns"].as_u64().unwrap())
    }

    /// One pod: its containers, its deletion, its records, its books.
    fn pod_inputs(&self, slot: u32, uid: &str, pod: &Value, inputs: &mut TimedInputs) {
        let netns = pod["netns"].as_u64().unwrap();
        let (start, end) = (pod["first_mono_ns"].as_u64().unwrap(), pod["after_mono_ns"].as_u64().unwrap());
        let containers = self.containers(uid);
        inputs.push((
            start - 2,
            Input::Inventory(InventoryUpdate::Target(Box::new(target(slot, uid, netns, start)))),
        ));
        inputs.push((start - 1, reading(slot, Counters::default(), &pod["before"])));
        let mut counted = Counters::default();
        for (index, container) in containers.iter().enumerate() {
            let time = if container.from_start { start } else { self.first_seen(container).max(start) };
            inputs.push((
                time,
                Input::Inventory(InventoryUpdate::Container(container.input(slot, index as u32, time))),
            ));
            if let Some(time) = self.gone(container) {
                let record = GoneRecord {
                    header: Header { time_ns: time, kind: Kind::GONE, target: slot },
                    pid: container.pid,
                    container: index as u32,
                };
                counted.records[Kind::GONE as usize] += 1;
                inputs.push((time, Input::Record(bytes(&record))));
            }
        }
        if let Some(time) = self.deleted(uid) {
            let update =
                InventoryUpdate::PreStop { target: slot, container: None, time, source: Source::Api };
            inputs.push((time, Input::Inventory(update)));
        }
        for line in
            self.kernel.iter().filter(|line| (start..=end).contains(&line["mono_ns"].as_u64().unwrap_or(0)))
        {
            if let Some(record) = record(slot, netns, line, &containers, &mut counted) {
                inputs.push((line["mono_ns"].as_u64().unwrap(), Input::Record(record)));
            }
        }
        inputs.push((end, reading(slot, counted, &pod["after"])));
    }

    /// The kubelet's connections: told at the change after SYN_SENT, when the port is known.
    fn probe_inputs(&self, node_netns: u64, inputs: &mut TimedInputs) {
        let mut waiting = HashSet::new();
        for line in self.kernel.iter().filter(|line| line["ev"] == "state" && line["netns"] == node_netns) {
            if line["comm"] == "kubelet" && line["new"] == 2 {
                waiting.insert(text(&line["sk"]));
            } else if waiting.remove(&text(&line["sk"])) {
                let record = state_record(NODE, line);
                inputs.push((record.header.time_ns, Input::Record(bytes(&record))));
            }
        }
    }

    fn containers(&self, uid: &str) -> Vec<Container> {
        let mut found: BTreeMap<u64, Container> = BTreeMap::new();
        for (name, from_start) in [("host-before.json", true), ("host-after.json", false)] {
            for cgroup in self.json(name)["cgroups"].as_array().unwrap() {
                if !text(&cgroup["cgroup_path"]).contains(uid) {
                    continue;
                }
                let processes = cgroup["procs"].as_array().unwrap().iter();
                let init = processes.filter(|process| process["comm"] != "pause").find(|process| {
                    process["nspid"].as_array().and_then(|pids| pids.last()).is_some_and(|pid| pid == "1")
                });
                if let Some(init) = init {
                    found.entry(cgroup["cgroup_id"].as_u64().unwrap()).or_insert(Container {
                        cgroup: cgroup["cgroup_id"].as_u64().unwrap(),
                        name: text(&init["comm"]),
                        pid: init["pid"].as_u64().unwrap() as u32,
                        pidns: init["pidns"].as_u64().unwrap() as u32,
                        from_start,
                    });
                }
            }
        }
        found.into_values().collect()
    }

    fn first_seen(&self, container: &Container) -> u64 {
        let is_its =
            |line: &&Value| line["sk_cgroup"] == container.cgroup || line["cgroup"] == container.cgroup;
        self.kernel.iter().find(is_its).map_or(0, |line| line["mono_ns"].as_u64().unwrap())
    }

    /// After the last act of a process of the container, once its init has exited.
    fn gone(&self, container: &Container) -> Option<u64> {
        let exits =
            |line: &&Value| line["ev"] == "exit" && line["pid"] == container.pid && line["group_dead"] == 1;
        let exit = self.kernel.iter().find(exits)?["mono_ns"].as_u64()?;
        let is_its_act = |line: &&Value| line["cgroup"] == container.cgroup && line["exiting"] == 1;
        let acts = self.kernel.iter().filter(is_its_act).filter_map(|line| line["mono_ns"].as_u64());
        Some(acts.fold(exit, u64::max) + 1)
    }

    fn deleted(&self, uid: &str) -> Option<u64> {
        lines_gz(&self.folder.join("pods.jsonl.gz")).iter().find_map(|line| {
            let metadata = &line["event"]["object"]["metadata"];
            let deleted = metadata["uid"] == uid && !metadata["deletionTimestamp"].is_null();
            deleted.then(|| line["recv_mono_ns"].as_u64()).flatten()
        })
    }
}

struct Container {
    cgroup: u64,
    name: String,
    pid: u32,
    pidns: u32,
    from_start: bool,
}

impl Container {
    fn input(&self, target: u32, container: u32, time: u64) -> NewContainer {
        NewContainer {
            target,
            container,
            name: self.name.as_str().into(),
            pid: self.pid,
            pidns: Some(self.pidns),
            cgroup: Some(self.cgroup),
            stop_signal: None,
            time,
        }
    }
}

fn target(id: u32, uid: &str, netns: u64, time: u64) -> NewTarget {
    let k8s = K8s { pod: PodName { name: None, uid: uid.to_owned() }, ..K8s::default() };
    NewTarget {
        id,
        subject: Arc::new(Subject { target: Target { name: uid.to_owned(), netns }, k8s: Some(k8s) }),
        time,
        addresses: Vec::new(),
        checkers: Vec::new(),
        one_way: Vec::new(),
        shared_network: false,
        late: false,
        timeouts: Timeouts::default(),
    }
}

fn reading(target: u32, counters: Counters, totals: &Value) -> Input {
    let get = |name: &str| totals[name].as_u64().unwrap_or(0);
    let totals = Totals {
        active_opens: get("ActiveOpens"),
        passive_opens: get("PassiveOpens"),
        estab_resets: get("EstabResets"),
        current_established: get("CurrEstab"),
        resets_sent: get("OutRsts"),
        listen_overflows: get("ListenOverflows"),
        listen_drops: get("ListenDrops"),
        aborts_failed: get("TCPAbortFailed"),
    };
    Input::Counters { target, reading: Box::new(Reading { counters, totals: Some(totals), missed: Some(0) }) }
}

/// A line as a record of this pod, if it is one, counted as the kernel programs count.
fn record(
    slot: u32,
    netns: u64,
    line: &Value,
    containers: &[Container],
    counted: &mut Counters,
) -> Option<bytes::Bytes> {
    let container = |pid: &Value| containers.iter().position(|container| pid == container.pid);
    let here = line["netns"] == netns;
    let (kind, bytes) = match line["ev"].as_str()? {
        "state" if here => {
            let record = state_record(slot, line);
            counted.count_state(record.old.into(), record.new.into(), || number(&line["segs_out"]) as u32);
            (Kind::STATE, bytes(&record))
        }
        "reset_sent" if here => {
            counted.resets_sent += 1;
            (Kind::RESET_SENT, bytes(&reset_record(slot, Kind::RESET_SENT, line)))
        }
        "reset_received" if here => {
            counted.resets_received += 1;
            (Kind::RESET_RECEIVED, bytes(&reset_record(slot, Kind::RESET_RECEIVED, line)))
        }
        "signal" => {
            let container = container(&line["target_pid"])?;
            (Kind::SIGNAL, bytes(&signal_record(slot, container as u32, line)))
        }
        "exit" if line["group_dead"] == 1 => {
            let init = container(&line["pid"]);
            if !here && init.is_none() {
                return None;
            }
            (Kind::EXIT, bytes(&exit_record(slot, init.map(|index| index as u32), line)))
        }
        _ => return None,
    };
    counted.records[kind as usize] += 1;
    Some(bytes)
}

fn state_record(target: u32, line: &Value) -> StateRecord {
    StateRecord {
        header: header(target, Kind::STATE, line),
        task: task(line),
        socket: socket(line),
        tuple: tuple(line),
        old: number(&line["old"]) as u8,
        new: number(&line["new"]) as u8,
        ..StateRecord::default()
    }
}

fn reset_record(target: u32, kind: u32, line: &Value) -> ResetRecord {
    let segment = line["segment"].as_object().map(|_| segment(&line["segment"])).unwrap_or_default();
    ResetRecord {
        header: header(target, kind, line),
        task: task(line),
        socket: socket(line),
        tuple: tuple(line),
        segment,
        reason: line["reason"].as_i64().map_or(-1, |reason| reason as i32),
        sock_kind: match line["sk_state"].as_u64() {
            None => SockKind::NONE,
            Some(6) => SockKind::TIME_WAIT,
            Some(12) => SockKind::REQUEST,
            Some(_) => SockKind::FULL,
        },
        ..ResetRecord::default()
    }
}

fn segment(segment: &Value) -> Segment {
    let payload = number(&segment["payload_len"]) as u32;
    let class = match (payload, segment["payload0"].as_u64()) {
        (0, _) => SegmentClass::NONE,
        (_, Some(21)) | (24, Some(23)) => SegmentClass::TLS_ALERT,
        (..=64, _) => SegmentClass::SMALL,
        _ => SegmentClass::DATA,
    };
    Segment { payload, present: 1, flags: number(&segment["flags"]) as u8, class, reserved: 0 }
}

fn signal_record(target: u32, container: u32, line: &Value) -> SignalRecord {
    SignalRecord {
        header: header(target, Kind::SIGNAL, line),
        sender: Task {
            cgroup: number(&line["sender_cgroup"]),
            pid: number(&line["sender_pid"]) as u32,
            ..Task::default()
        },
        cgroup: number(&line["target_cgroup"]),
        pid: number(&line["target_pid"]) as u32,
        container,
        signal: number(&line["sig"]) as u32,
        code: line["code"].as_i64().unwrap_or(0) as i32,
        result: line["result"].as_i64().unwrap_or(0) as i32,
        target_exiting: number(&line["target_exiting"]) as u32,
        ..SignalRecord::default()
    }
}

fn exit_record(target: u32, init: Option<u32>, line: &Value) -> ExitRecord {
    let group = number(&line["group_exit_code"]) as u32;
    ExitRecord {
        header: header(target, Kind::EXIT, line),
        task: task(line),
        status: if group == 0 { number(&line["exit_code"]) as u32 } else { group },
        is_init: u32::from(init.is_some()),
        container: init.unwrap_or(0),
        reserved: 0,
    }
}

fn header(target: u32, kind: u32, line: &Value) -> Header {
    Header { time_ns: number(&line["mono_ns"]), kind, target }
}

fn task(line: &Value) -> Task {
    let flag = |name: &str, flag: u32| if line[name] == 1 { flag } else { 0 };
    Task {
        cgroup: number(&line["cgroup"]),
        pid: number(&line["pid"]) as u32,
        tid: number(&line["tid"]) as u32,
        flags: flag("exiting", tracer_common::task_flags::PF_EXITING)
            | flag("kthread", tracer_common::task_flags::PF_KTHREAD),
        ..Task::default()
    }
}

fn socket(line: &Value) -> Socket {
    Socket {
        sk: line["sk"].as_str().map_or(0, |sk| u64::from_str_radix(sk, 16).unwrap()),
        cgroup: number(&line["sk_cgroup"]),
        bytes_received: number(&line["bytes_received"]),
        bytes_acked: number(&line["bytes_acked"]),
        unread: number(&line["unread_raw"]) as u32,
        unacked: number(&line["unacked_raw"]) as u32,
        last_send: number(&line["lsndtime"]) as u32,
        last_receive: number(&line["lrcvtime"]) as u32,
        jiffies: number(&line["jiffies"]) as u32,
        // Not recorded: as if none of it was sent.
        unsent: number(&line["unacked_raw"]) as u32,
        state: number(&line["sk_state"]) as u8,
        shutdown: number(&line["shutdown"]) as u8,
        orphan: number(&line["orphan"]) as u8,
        reserved: [0; 5],
    }
}

fn tuple(line: &Value) -> Tuple {
    let address = |name: &str| match text(&line[name]).parse::<IpAddr>().unwrap() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    Tuple {
        local: address("local"),
        peer: address("remote"),
        local_port: number(&line["local_port"]) as u16,
        peer_port: number(&line["remote_port"]) as u16,
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn bytes(record: &impl Pod) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(record.as_bytes())
}

fn lines_gz(path: &Path) -> Vec<Value> {
    let file = BufReader::new(GzDecoder::new(File::open(path).unwrap()));
    file.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect()
}

/// Names of reset reasons in a recording.
pub fn reset_reasons(recording: &Recording) -> HashMap<i32, Arc<str>> {
    let resets = recording.kernel.iter().filter(|line| line["ev"] == "reset_sent");
    resets.map(|line| (line["reason"].as_i64().unwrap() as i32, text(&line["reason_name"]).into())).collect()
}
