//! Recorded kernel events as the records that the kernel programs would have sent for them.

use std::net::IpAddr;

use serde_json::Value;
use tracer_common::{
    Counters, ExitRecord, GoneRecord, Header, Kind, NODE, Pod, ResetRecord, Segment, SegmentClass,
    SignalRecord, SockKind, Socket, StateRecord, Task, Tuple,
};

/// A pod in scope: which records are its own, and what the kernel programs counted of it.
pub struct InScope {
    /// Its slot.
    pub target: u32,
    /// Its network namespace.
    pub netns: u64,
    /// Others share that: its sockets are told by their cgroups.
    pub shared: bool,
    /// Process and cgroup ids of its containers' inits, by number.
    pub inits: Vec<(u32, u64)>,
    /// What was counted.
    pub counted: Counters,
}

impl InScope {
    /// A line as a record of this pod, if it is one, counted as the kernel programs count.
    pub fn record(&mut self, line: &Value) -> Option<bytes::Bytes> {
        let container = |pid: &Value| self.inits.iter().position(|(init, _)| pid == *init);
        let in_cgroup = |name: &str| self.inits.iter().any(|(_, cgroup)| line[name] == *cgroup);
        let here = line["netns"] == self.netns;
        let its_socket = here && (!self.shared || in_cgroup("sk_cgroup"));
        let its_task = if self.shared { in_cgroup("cgroup") } else { here };
        let (kind, bytes) = match line["ev"].as_str()? {
            "state" if its_socket => {
                let record = state_record(self.target, line);
                self.counted
                    .count_state(record.old.into(), record.new.into(), || number(&line["segs_out"]) as u32);
                (Kind::STATE, bytes(&record))
            }
            "reset_sent" if its_socket => {
                self.counted.resets_sent += 1;
                (Kind::RESET_SENT, bytes(&reset_record(self.target, Kind::RESET_SENT, line)))
            }
            "reset_received" if its_socket => {
                self.counted.resets_received += 1;
                (Kind::RESET_RECEIVED, bytes(&reset_record(self.target, Kind::RESET_RECEIVED, line)))
            }
            "signal" => {
                let container = container(&line["target_pid"])?;
                (Kind::SIGNAL, bytes(&signal_record(self.target, container as u32, line)))
            }
            "exit" if line["group_dead"] == 1 => {
                let init = container(&line["pid"]);
                if !its_task && init.is_none() {
                    return None;
                }
                (Kind::EXIT, bytes(&exit_record(self.target, init.map(|index| index as u32), line)))
            }
            _ => return None,
        };
        self.counted.records[kind as usize] += 1;
        Some(bytes)
    }

    /// The init of a container told its parent that it is gone.
    pub fn gone(&mut self, container: u32, time: u64) -> bytes::Bytes {
        self.counted.records[Kind::GONE as usize] += 1;
        let pid = self.inits[container as usize].0;
        bytes(&GoneRecord {
            header: Header { time_ns: time, kind: Kind::GONE, target: self.target },
            pid,
            container,
        })
    }
}

/// A change of a probe's socket, from the kubelet's side.
pub fn probe(line: &Value) -> bytes::Bytes {
    bytes(&state_record(NODE, line))
}

/// A reset to a segment that met no full socket of the machine's own network namespace.
pub fn reset_by_node(line: &Value) -> bytes::Bytes {
    bytes(&reset_record(NODE, Kind::RESET_SENT, line))
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
        orphan: number(&line["orphan"]) as u32,
        reserved: 0,
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

pub(super) fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

pub(super) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn bytes(record: &impl Pod) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(record.as_bytes())
}
