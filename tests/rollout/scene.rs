//! A cluster with a Deployment of two pods on two nodes, an agent on each, and what the agents said of
//! the recorded rollout. The test plays the controllers.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use lastpacket_tests::{binary, cluster::Cluster};
use serde_json::{Value, json};

/// Nothing that a test waits for takes longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// The pods of the old revision, with their nodes and agents.
pub const OLD: [(&str, &str, &str); 2] =
    [("web-old-a", "node1", "agent-1"), ("web-old-b", "node2", "agent-2")];

pub struct Scene {
    pub cluster: Cluster,
    /// What the agents say of each old pod, in order.
    said: [Said; 2],
    /// Numbers of the agents' last lines.
    seq: Mutex<[u64; 2]>,
    kubeconfig: PathBuf,
}

impl Scene {
    /// Two pods that run, and nothing else; an agent on each of these nodes.
    pub fn new(agents: &[usize]) -> Self {
        let (cluster, said) = (Cluster::new(), said());
        cluster.put("deployments", deployment());
        for (index, (name, node, agent)) in OLD.iter().enumerate() {
            cluster.put("pods", pod(name, node, "old", &said[index].uid));
            if agents.contains(&index) {
                cluster.put("pods", agent_pod(agent, node));
            }
        }
        // Somebody else's.
        cluster.put("pods", pod("other-1", "node1", "other", "uid-other"));
        cluster.edit("pods", "other-1", |pod| {
            pod["metadata"]["ownerReferences"][0]["name"] = "other-other".into();
        });
        static COUNT: Mutex<u32> = Mutex::new(0);
        let mut count = COUNT.lock().unwrap();
        *count += 1;
        let name = format!("lastpacket-rollout-{}-{}", std::process::id(), *count);
        let kubeconfig = std::env::temp_dir().join(name);
        fs::write(&kubeconfig, cluster.kubeconfig("shop")).unwrap();
        Self { cluster, said, seq: Mutex::new([0, 0]), kubeconfig }
    }

    /// Starts `lastpacket rollout` and waits until it reads the logs of so many agents.
    pub fn watch(&self, arguments: &[&str], agents: usize) -> Watch {
        let watch = self.start(arguments);
        self.wait(|requests| requests.iter().filter(|request| request.contains("/log?")).count() >= agents);
        watch
    }

    pub fn start(&self, arguments: &[&str]) -> Watch {
        let mut command = Command::new(binary::lastpacket().unwrap());
        command.arg("rollout").arg("--kubeconfig").arg(&self.kubeconfig).args(arguments);
        Watch::start(command)
    }

    /// Waits for requests.
    pub fn wait(&self, wanted: impl Fn(&[String]) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !wanted(&self.cluster.requests()) {
            assert!(Instant::now() < deadline, "not asked for: {:#?}", self.cluster.requests());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The Deployment has another template, and its first new pod comes.
    pub fn begin(&self) {
        self.cluster.edit("deployments", "web", |deployment| {
            deployment["metadata"]["generation"] = 2.into();
            deployment["spec"]["template"]["metadata"]["annotations"] = json!({"version": "2"});
        });
        self.new_pods(1);
    }

    /// So many new pods are there.
    pub fn new_pods(&self, count: usize) {
        for (index, (_, node, _)) in OLD.iter().enumerate().take(count) {
            let (name, uid) = (format!("web-new-{index}"), format!("uid-new-{index}"));
            self.cluster.put("pods", pod(&name, node, "new", &uid));
        }
    }

    /// An old pod is being deleted.
    pub fn terminate(&self, index: usize) {
        self.cluster.edit("pods", OLD[index].0, |pod| {
            pod["metadata"]["deletionTimestamp"] = "2026-11-21T08:05:00Z".into();
            pod["metadata"]["deletionGracePeriodSeconds"] = 15.into();
        });
    }

    /// An old pod is gone from the API.
    pub fn remove(&self, index: usize) {
        self.cluster.delete("pods", OLD[index].0);
    }

    /// A pod's agent says what it has to say of it; each line may be changed, or left out.
    pub fn say(&self, index: usize, mut change: impl FnMut(&mut Value) -> bool) {
        for line in &self.said[index].lines {
            let mut line = line.clone();
            let seq = {
                let mut seq = self.seq.lock().unwrap();
                seq[index] += 1;
                seq[index]
            };
            line["seq"] = seq.into();
            if line["type"] == "verdict" {
                line["evidence"] = json!({"first_seq": 1, "last_seq": seq - 1});
            }
            if change(&mut line) {
                self.cluster.log(OLD[index].2, &line.to_string());
            }
        }
    }

    /// The whole way of an old pod.
    pub fn end(&self, index: usize, change: impl FnMut(&mut Value) -> bool) {
        self.terminate(index);
        self.say(index, change);
        self.remove(index);
    }

    /// The Deployment says that all is done.
    pub fn complete(&self) {
        self.new_pods(2);
        self.observe(2);
    }

    /// The Deployment says that it is at work.
    pub fn at_work(&self) {
        self.observe(1);
    }

    fn observe(&self, updated: i32) {
        self.cluster.edit("deployments", "web", |deployment| {
            deployment["status"]["observedGeneration"] = deployment["metadata"]["generation"].clone();
            deployment["status"]["updatedReplicas"] = updated.into();
        });
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.kubeconfig);
    }
}

/// All as it was said.
pub fn as_recorded(_: &mut Value) -> bool {
    true
}

/// As if nothing had been lost.
pub fn drained(line: &mut Value) -> bool {
    if line["type"] == "verdict" {
        line["result"] = "drained".into();
        (line["lost"], line["doubts"]) = (0.into(), 0.into());
        (line["losses"], line["findings"], line["reasons"]) = (json!([]), json!([]), json!([]));
    }
    true
}

/// What an agent says of one of the recorded pods.
struct Said {
    uid: String,
    lines: Vec<Value>,
}

/// Of both pods: a replay of the recording, which takes a while, made once (`cargo xtask bless`).
fn said() -> [Said; 2] {
    let lines: Vec<Value> = include_str!("../fixtures/rollout/agents.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    OLD.map(|(_, node, _)| {
        let lines: Vec<Value> = lines.iter().filter(|line| line["node"] == node).cloned().collect();
        Said { uid: lines[0]["k8s"]["pod"]["uid"].as_str().unwrap().to_owned(), lines }
    })
}

fn deployment() -> Value {
    json!({
        "kind": "Deployment", "apiVersion": "apps/v1",
        "metadata": {"name": "web", "namespace": "shop", "generation": 1},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "server"}]}}},
        "status": {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2,
            "availableReplicas": 2},
    })
}

fn pod(name: &str, node: &str, revision: &str, uid: &str) -> Value {
    json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "shop", "uid": uid,
            "creationTimestamp": if revision == "new" { "2026-11-21T08:04:50Z" } else { "2026-11-21T08:00:00Z" },
            "labels": {"app": "web", "pod-template-hash": revision},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "controller": true,
                "name": format!("web-{revision}"), "uid": revision}]},
        "spec": {"nodeName": node, "containers": [{"name": "server"}]},
        "status": {"phase": "Running"},
    })
}

fn agent_pod(name: &str, node: &str) -> Value {
    json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "lastpacket", "uid": name,
            "labels": {"app.kubernetes.io/name": "lastpacket"}},
        "spec": {"nodeName": node, "containers": [{"name": "agent"}]},
        "status": {"phase": "Running"},
    })
}

/// A run of `lastpacket rollout`; dropping it kills it.
pub struct Watch {
    child: Child,
    stdout: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<String>>,
}

/// How it ended.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// The JSON lines that it wrote.
    pub fn lines(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Watch {
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = Arc::new(Mutex::new(String::new()));
        let (pipe, seen) = (child.stdout.take().unwrap(), Arc::clone(&stdout));
        let reader = thread::spawn(move || {
            for line in BufReader::new(pipe).lines() {
                *seen.lock().unwrap() += &(line.unwrap() + "\n");
            }
            String::new()
        });
        let mut errors = child.stderr.take().unwrap();
        let stderr = thread::spawn(move || {
            let mut text = String::new();
            errors.read_to_string(&mut text).unwrap();
            text
        });
        Self { child, stdout, readers: vec![reader, stderr] }
    }

    /// Waits until it has written this.
    pub fn wait_for(&self, words: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.stdout.lock().unwrap().contains(words) {
            assert!(
                !self.readers[0].is_finished(),
                "it ended before {words}: {}",
                self.stdout.lock().unwrap()
            );
            assert!(Instant::now() < deadline, "{words} is not in: {}", self.stdout.lock().unwrap());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end: {}", self.stdout.lock().unwrap());
            thread::sleep(Duration::from_millis(20));
        };
        let stderr = self.readers.drain(..).map(|reader| reader.join().unwrap()).collect();
        let stdout = self.stdout.lock().unwrap().clone();
        Ended { status, stdout, stderr }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
