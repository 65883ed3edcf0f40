//! A cluster with a workload of two pods on two nodes, an agent on each, and what the agents said of the
//! recorded rollout. The test plays the controllers.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use lastpacket_tests::{binary, cluster::Cluster};
use serde_json::{Value, json};

use super::{
    objects::{Kind, agent_pod},
    said,
    watch::{PATIENCE, Watch},
};

/// The nodes of the old pods, with their agents.
pub const NODES: [(&str, &str); 2] = [("node1", "agent-1"), ("node2", "agent-2")];

pub struct Scene {
    pub cluster: Cluster,
    kind: Kind,
    /// Numbers of the agents' last lines.
    seq: Mutex<[u64; 2]>,
    kubeconfig: PathBuf,
}

impl Scene {
    /// A Deployment of two pods that run, and nothing else; an agent on each of these nodes.
    pub fn new(agents: &[usize]) -> Self {
        Self::of(Kind::Deployment, agents)
    }

    pub fn of(kind: Kind, agents: &[usize]) -> Self {
        let cluster = Cluster::new();
        cluster.put(kind.collection(), kind.object());
        for (index, (node, agent)) in NODES.into_iter().enumerate() {
            cluster.put("pods", kind.pod(kind.pods()[index].0, node, "old", said::UIDS[index]));
            if agents.contains(&index) {
                cluster.put("pods", agent_pod(agent, node));
            }
        }
        // Somebody else's.
        cluster.put("pods", kind.pod("other-1", "node1", "other", "uid-other"));
        cluster.edit("pods", "other-1", |pod| {
            pod["metadata"]["ownerReferences"][0]["name"] = "other-other".into();
        });
        static COUNT: Mutex<u32> = Mutex::new(0);
        let mut count = COUNT.lock().unwrap();
        *count += 1;
        let name = format!("lastpacket-rollout-{}-{}", std::process::id(), *count);
        let kubeconfig = std::env::temp_dir().join(name);
        fs::write(&kubeconfig, cluster.kubeconfig("shop")).unwrap();
        Self { cluster, kind, seq: Mutex::new([0, 0]), kubeconfig }
    }

    /// Watches the workload, and waits until the logs of so many agents are read.
    pub fn watch(&self, options: &[&str], agents: usize) -> Watch {
        let watch = self.start(&[&[self.kind.workload()], options].concat());
        let deadline = Instant::now() + PATIENCE;
        let read = || self.cluster.requests().iter().filter(|request| request.contains("/log?")).count();
        while read() < agents {
            watch.ensure_running();
            assert!(Instant::now() < deadline, "not asked for: {:#?}", self.cluster.requests());
            thread::sleep(Duration::from_millis(20));
        }
        watch
    }

    pub fn start(&self, arguments: &[&str]) -> Watch {
        let mut command = Command::new(binary::lastpacket().unwrap());
        command.arg("rollout").arg("--kubeconfig").arg(&self.kubeconfig).args(arguments);
        Watch::start(command)
    }

    /// The name of an old pod.
    pub fn old(&self, index: usize) -> &'static str {
        self.kind.pods()[index].0
    }

    /// The workload is changed in place.
    pub fn edit(&self, edit: impl FnOnce(&mut Value)) {
        self.cluster.edit(self.kind.collection(), "web", edit);
    }

    /// A rollout of both pods, one after the other.
    pub fn roll(&self, watch: &Watch, change: fn(&mut Value) -> bool) {
        self.begin();
        self.at_work();
        for index in 0..NODES.len() {
            self.end(index, change);
            watch.wait_for(self.old(index));
        }
        self.complete();
    }

    /// The workload has another template; where that is the way, the first new pod comes.
    pub fn begin(&self) {
        self.edit(|object| {
            object["metadata"]["generation"] = 2.into();
            object["spec"]["template"]["metadata"]["annotations"] = json!({"version": "2"});
        });
        if self.kind.surges() {
            self.new_pod(0);
        }
    }

    /// A new pod is there, and its agent says so.
    fn new_pod(&self, index: usize) {
        let (name, (node, agent)) = (self.kind.pods()[index].1, NODES[index]);
        self.cluster.put("pods", self.kind.pod(name, node, "new", &format!("uid-new-{index}")));
        for mut line in said::of_new_pod(self.kind, index) {
            line["seq"] = self.next_seq(index).into();
            self.cluster.log(agent, &line.to_string());
        }
    }

    fn next_seq(&self, index: usize) -> u64 {
        let mut seq = self.seq.lock().unwrap();
        seq[index] += 1;
        seq[index]
    }

    /// An old pod is being deleted.
    pub fn terminate(&self, index: usize) {
        self.cluster.edit("pods", self.old(index), |pod| {
            pod["metadata"]["deletionTimestamp"] = "2026-11-21T08:05:00Z".into();
            pod["metadata"]["deletionGracePeriodSeconds"] = 15.into();
        });
    }

    /// An old pod is gone from the API; where that is the way, the new one comes.
    pub fn remove(&self, index: usize) {
        self.cluster.delete("pods", self.old(index));
        if !self.kind.surges() {
            self.new_pod(index);
        }
    }

    /// A pod's agent says what it has to say of it; each line may be changed, or left out. The first
    /// is number 1 of those that are said of this pod.
    pub fn say(&self, index: usize, mut change: impl FnMut(&mut Value) -> bool) {
        let mut first = None;
        for mut line in said::of_pod(self.kind, index) {
            let seq = self.next_seq(index);
            line["seq"] = seq.into();
            let first = *first.get_or_insert(seq);
            if line["type"] == "verdict" {
                line["evidence"] = json!({"first_seq": first, "last_seq": seq - 1});
            }
            if change(&mut line) {
                self.cluster.log(NODES[index].1, &line.to_string());
            }
        }
    }

    /// The whole way of an old pod.
    pub fn end(&self, index: usize, change: impl FnMut(&mut Value) -> bool) {
        self.terminate(index);
        self.say(index, change);
        self.remove(index);
    }

    /// The workload says that all is done.
    pub fn complete(&self) {
        if self.kind.surges() {
            self.new_pod(1);
        }
        self.observe(2);
    }

    /// The workload says that it is at work.
    pub fn at_work(&self) {
        self.observe(1);
    }

    fn observe(&self, updated: i32) {
        let kind = self.kind;
        self.edit(|object| kind.observe(object, updated));
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.kubeconfig);
    }
}
