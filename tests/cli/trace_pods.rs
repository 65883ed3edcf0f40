//! `lastpacket trace --pod`, `--selector` and `--container`, with cgroups as a kubelet makes them and an
//! API server that the test writes to.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use lastpacket_tests::{cluster::Cluster, events::Events, needs, netns::Namespace, process::Resident, run};
use libtest_mimic::Trial;
use serde_json::json;
use tracer_core::{
    output::{Body, K8s, Line},
    words,
};

use crate::program::{self, ensure_one_sentence, lastpacket};

pub fn trials() -> Vec<Trial> {
    vec![
        needs::live("trace_pods::by_uid_without_api", by_uid),
        needs::live("trace_pods::by_name", by_name),
        needs::live("trace_pods::by_labels", by_labels),
        needs::live("trace_pods::by_the_beginning_of_a_containers_id", by_container),
        needs::live("trace_pods::pods_that_are_not_here", not_here),
        needs::live("trace_pods::an_id_that_fits_several", ambiguous),
    ]
}

/// A pod of this node with one container, which does nothing but live.
struct Pod {
    uid: String,
    container: String,
    root: PathBuf,
    resident: Option<Resident>,
    _namespace: Namespace,
}

impl Pod {
    /// Pods of one test have different numbers.
    fn new(number: u8) -> Result<Self> {
        // Unlike those of other tests that run now.
        let process = std::process::id();
        let uid = format!("{process:08x}-0000-4000-8000-{number:012x}");
        let container = format!("{process:08x}{number:056x}");
        let namespace = Namespace::new()?;
        let resident = Resident::of(&namespace)?;
        let root = cgroups()?.join(format!("trace-pods-{process}-{number}"));
        let folder = root.join(format!("kubepods/burstable/pod{uid}/{container}"));
        fs::create_dir_all(&folder)?;
        let pod = Self { uid, container, root, resident: Some(resident), _namespace: namespace };
        let pid = pod.resident.as_ref().context("it lives")?.pid();
        fs::write(folder.join("cgroup.procs"), pid.to_string())?;
        Ok(pod)
    }

    fn terminate(&mut self) -> Result<()> {
        self.resident.take().context("it lives")?.terminate()?;
        Ok(())
    }

    /// As the API describes it.
    fn put(&self, cluster: &Cluster, name: &str) {
        cluster.put(
            "pods",
            json!({
                "kind": "Pod", "apiVersion": "v1",
                "metadata": {"name": name, "namespace": "shop", "uid": self.uid, "labels": {"app": "web"}},
                "spec": {"nodeName": "node1", "containers": [{"name": "server"}]},
                "status": {"phase": "Running", "containerStatuses": [{
                    "name": "server", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                    "containerID": format!("containerd://{}", self.container)}]},
            }),
        );
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.resident.take();
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.last().cloned() {
            let below = fs::read_dir(&folder).into_iter().flatten().flatten();
            let below = below.map(|entry| entry.path()).find(|path| path.is_dir());
            if let Some(below) = below.filter(|_| folders.len() < 8) {
                folders.push(below);
            } else {
                let _ = fs::remove_dir(&folder);
                folders.pop();
            }
        }
    }
}

fn cgroups() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mount = mounts.find(|words| words[2] == "cgroup2").context("no cgroup v2 hierarchy is mounted")?;
    Ok(PathBuf::from(mount[1]))
}

/// A kubeconfig in a file, removed at the end.
struct Kubeconfig(PathBuf);

impl Kubeconfig {
    fn of(cluster: &Cluster) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("lastpacket-trace-{}", std::process::id()));
        fs::write(&path, cluster.kubeconfig("shop"))?;
        Ok(Self(path))
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

impl Drop for Kubeconfig {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Traces until these pods have ended; the lines.
fn trace(arguments: &[&str], pods: &mut [&mut Pod]) -> Result<Vec<Line>> {
    let arguments = [&["trace", "--linger", "100ms"], arguments].concat();
    let mut lastpacket = run::start(&arguments)?;
    lastpacket.wait_for(pods.len(), |body| matches!(body, Body::Phase(_)))?;
    for pod in pods {
        pod.terminate()?;
    }
    let run = lastpacket.finish()?;
    ensure!(run.status.success(), "{}: {}", run.status, run.stderr);
    Ok(run.lines)
}

fn verdicts(lines: &[Line]) -> Vec<(&K8s, words::Result)> {
    let of_pods = lines.iter().filter_map(|line| Some((line.subject.as_ref()?.k8s.as_ref()?, &line.body)));
    let verdicts = of_pods.filter_map(|(k8s, body)| match body {
        Body::Verdict(verdict) => Some((k8s, verdict.result)),
        _ => None,
    });
    verdicts.collect()
}

fn by_uid() -> Result<()> {
    let mut pod = Pod::new(1)?;
    let uid = pod.uid.clone();
    let lines = trace(&["--pod", &uid], &mut [&mut pod])?;
    let verdicts = verdicts(&lines);
    ensure!(verdicts.len() == 1 && verdicts[0].1 == words::Result::Idle, "{verdicts:?}");
    ensure!(verdicts[0].0.pod.uid == uid && verdicts[0].0.pod.name.is_none(), "{verdicts:?}");
    let container = &lines.verdict()?.containers[0];
    ensure!(pod.container.starts_with(&*container.name), "{}", container.name);
    Ok(())
}

fn by_name() -> Result<()> {
    let (cluster, mut pod) = (Cluster::new(), Pod::new(2)?);
    pod.put(&cluster, "web-1");
    let kubeconfig = Kubeconfig::of(&cluster)?;
    let lines = trace(&["--kubeconfig", kubeconfig.path(), "--pod", "shop/web-1"], &mut [&mut pod])?;
    let verdicts = verdicts(&lines);
    ensure!(verdicts.len() == 1, "{verdicts:?}");
    ensure!(verdicts[0].0.pod.name.as_deref() == Some("web-1"), "{verdicts:?}");
    ensure!(&*lines.verdict()?.containers[0].name == "server", "{:?}", lines.verdict()?.containers);
    Ok(())
}

fn by_labels() -> Result<()> {
    let (cluster, mut first, mut second) = (Cluster::new(), Pod::new(3)?, Pod::new(4)?);
    first.put(&cluster, "web-1");
    second.put(&cluster, "web-2");
    // One that runs elsewhere.
    first.put(&cluster, "web-3");
    cluster.edit("pods", "web-3", |pod| pod["metadata"]["uid"] = "elsewhere".into());
    let kubeconfig = Kubeconfig::of(&cluster)?;
    let arguments = ["--kubeconfig", kubeconfig.path(), "--selector", "app=web"];
    let lines = trace(&arguments, &mut [&mut first, &mut second])?;
    let mut names: Vec<_> = verdicts(&lines).iter().filter_map(|(k8s, _)| k8s.pod.name.clone()).collect();
    names.sort();
    ensure!(names == ["web-1", "web-2"], "{names:?}");
    Ok(())
}

fn by_container() -> Result<()> {
    let mut pod = Pod::new(5)?;
    let id = format!("containerd://{}", pod.container);
    let lines = trace(&["--container", &id], &mut [&mut pod])?;
    ensure!(verdicts(&lines)[0].0.pod.uid == pod.uid, "{:?}", verdicts(&lines));
    Ok(())
}

fn not_here() -> Result<()> {
    let (cluster, pod) = (Cluster::new(), Pod::new(6)?);
    pod.put(&cluster, "web-1");
    cluster.edit("pods", "web-1", |pod| {
        pod["metadata"]["uid"] = "elsewhere".into();
        pod["spec"]["nodeName"] = "node7".into();
    });
    let kubeconfig = Kubeconfig::of(&cluster)?;
    let cases: [(&[&str], &[&str]); 6] = [
        (&["--pod", "no-such-uid"], &["no pod with the uid no-such-uid runs on this node", &pod.uid]),
        (&["--pod", "shop/web-9"], &["there is no pod shop/web-9", "kubectl get pods"]),
        (&["--pod", "shop/web-1"], &["runs on this node", "node7"]),
        (&["--selector", "app=web"], &["none of the 1 pods with the labels app=web runs on this node"]),
        (&["--container", "0123456789abcdef"], &["no container 0123456789abcdef", "crictl ps"]),
        (&["--container", "0123"], &["too short"]),
    ];
    for (arguments, wanted) in cases {
        let arguments = [&["trace", "--kubeconfig", kubeconfig.path()], arguments].concat();
        ensure_one_sentence(&program::run(lastpacket(&arguments)?)?, wanted)
            .with_context(|| format!("{arguments:?}"))?;
    }
    let mut without_api = lastpacket(["trace", "--pod", "shop/web-1"])?;
    without_api.env("KUBECONFIG", "/no/such/kubeconfig").env("HOME", "/no/such/home");
    ensure_one_sentence(&program::run(without_api)?, &["--kubeconfig", "by its uid (--pod)", "--container"])
}

fn ambiguous() -> Result<()> {
    let (first, second) = (Pod::new(7)?, Pod::new(8)?);
    let ended = program::run(lastpacket(["trace", "--container", &first.container[..20]])?)?;
    ensure_one_sentence(&ended, &["fits pods", &first.uid, &second.uid, "more characters"])?;
    let twice = program::run(lastpacket(["trace", "--pod", &first.uid, "--container", &first.container])?)?;
    ensure_one_sentence(&twice, &["share a network namespace; name one of them"])
}
