//! Recordings of real pod terminations (`tests/recordings`): what the kernel, the node, the API and the
//! clients told, each with its time.

mod api;
mod host;
pub mod records;

use std::{
    collections::HashMap,
    fs::File,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use flate2::read::GzDecoder;
use serde_json::Value;
use tracer_core::books::Totals;

pub use self::api::deleted_pod;
use self::records::{number, text};

/// A folder of `tests/recordings/kubernetes-1.36`.
pub struct Recording {
    folder: PathBuf,
    /// What the kernel told, in order of time.
    pub kernel: Vec<Value>,
    counters: Value,
}

/// A request that failed for the client.
#[derive(Clone, Debug)]
pub struct ClientFailure {
    /// The client's end.
    pub local: SocketAddr,
    /// When the request began, and when its failure was seen.
    pub time: (u64, u64),
    /// The whole line.
    pub line: Value,
}

/// The kernel's own totals of a pod's network namespace.
#[derive(Clone, Copy, Debug)]
pub struct Readings {
    /// The namespace.
    pub netns: u64,
    /// The process that holds the sandbox.
    pub pause: u32,
    /// When they were read first, and what.
    pub before: (u64, Totals),
    /// When they were read last, and what.
    pub after: (u64, Totals),
}

impl Recording {
    /// Reads a recording by its name.
    pub fn read(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings/kubernetes-1.36").join(name);
        let kernel = lines_gz(&folder.join("kernel.jsonl.gz"));
        let counters = json(&folder.join("counters.json"));
        Self { folder, kernel, counters }
    }

    /// The client's failures.
    pub fn failures(&self) -> Vec<ClientFailure> {
        let Ok(file) = File::open(self.folder.join("client.jsonl")) else { return Vec::new() };
        let lines =
            BufReader::new(file).lines().map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
        lines
            .filter(|line| line["line"] == "request_failed")
            .map(|line| ClientFailure {
                local: line["local"].as_str().unwrap().parse().unwrap(),
                time: (number(&line["start_mono_ns"]), number(&line["mono_ns"])),
                line,
            })
            .collect()
    }

    /// The kernel's totals of the pods, by their uids.
    pub fn readings(&self) -> HashMap<String, Readings> {
        let pods = self.counters["pods"].as_array().unwrap().iter();
        let readings = |pod: &Value| Readings {
            netns: number(&pod["netns"]),
            pause: number(&pod["pause_pid"]) as u32,
            before: (number(&pod["first_mono_ns"]), totals(&pod["before"])),
            after: (number(&pod["after_mono_ns"]), totals(&pod["after"])),
        };
        pods.map(|pod| (text(&pod["pod_uid"]), readings(pod))).collect()
    }

    /// The node's own network namespace.
    pub fn node_netns(&self) -> u64 {
        number(&self.counters["node_netns"])
    }

    /// Names of reset reasons.
    pub fn reset_reasons(&self) -> HashMap<i32, Arc<str>> {
        let resets = self.kernel.iter().filter(|line| line["ev"] == "reset_sent");
        resets.map(|line| (number(&line["reason"]) as i32, text(&line["reason_name"]).into())).collect()
    }

    /// The kubelet's connections: its end, from when until when.
    pub fn kubelet_connections(&self) -> Vec<(SocketAddr, u64, u64)> {
        let mut open: HashMap<String, u64> = HashMap::new();
        let mut connections = Vec::new();
        let node = self.node_netns();
        for line in self.kernel.iter().filter(|line| line["ev"] == "state" && line["netns"] == node) {
            let (sk, time) = (text(&line["sk"]), number(&line["mono_ns"]));
            if line["comm"] == "kubelet" && line["new"] == 2 {
                open.insert(sk, time);
            } else if line["new"] == 7
                && let Some(since) = open.remove(&sk)
            {
                let end = format!("{}:{}", text(&line["local"]), line["local_port"]);
                connections.push((end.parse().unwrap(), since, time));
            }
        }
        connections
    }
}

fn totals(totals: &Value) -> Totals {
    Totals {
        active_opens: number(&totals["ActiveOpens"]),
        passive_opens: number(&totals["PassiveOpens"]),
        estab_resets: number(&totals["EstabResets"]),
        current_established: number(&totals["CurrEstab"]),
        resets_sent: number(&totals["OutRsts"]),
        listen_overflows: number(&totals["ListenOverflows"]),
        listen_drops: number(&totals["ListenDrops"]),
        aborts_failed: number(&totals["TCPAbortFailed"]),
    }
}

fn json(path: &Path) -> Value {
    serde_json::from_reader(File::open(path).unwrap()).unwrap()
}

fn lines_gz(path: &Path) -> Vec<Value> {
    let file = BufReader::new(GzDecoder::new(File::open(path).unwrap()));
    file.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect()
}
