//! The node's cgroups as a look at any time of a recording would have found them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use serde_json::Value;
use tracer_user::host::{
    pods::{Container, Pod, PodPath},
    process::Process,
};

use super::{
    Recording, json,
    records::{number, text},
};

/// A container, and from when until when it was there.
pub struct Lived {
    uid: String,
    container: Container,
    netns: u64,
    /// When its program ran.
    pub from: u64,
    /// When nothing of it was left.
    pub until: u64,
}

impl Recording {
    /// All containers that there were, sandboxes too.
    pub fn containers(&self) -> Vec<Lived> {
        let before = json(&self.folder.join("host-before.json"));
        let before =
            before["cgroups"].as_array().unwrap().iter().filter_map(|cgroup| self.there_before(cgroup));
        let made = self.kernel.iter().filter(|line| line["ev"] == "cgroup_mkdir");
        before.chain(made.filter_map(|line| self.made_during(line))).collect()
    }

    /// The pods that a look at this time finds.
    pub fn pods_at(&self, containers: &[Lived], time: u64) -> Vec<Pod> {
        let mut pods: BTreeMap<&str, Vec<&Lived>> = BTreeMap::new();
        for lived in containers.iter().filter(|lived| lived.from <= time && time < lived.until) {
            pods.entry(&lived.uid).or_default().push(lived);
        }
        pods.into_iter().map(|(uid, lived)| self.pod(uid, &lived)).collect()
    }

    fn pod(&self, uid: &str, lived: &[&Lived]) -> Pod {
        let (sandbox, containers): (Vec<&Lived>, Vec<&Lived>) =
            lived.iter().partition(|lived| lived.container.init.comm == "pause");
        let netns = lived[0].netns;
        let path = lived[0].container.init.netns_path();
        Pod {
            uid: uid.to_owned(),
            netns: (netns != self.node_netns()).then_some(path),
            netns_inode: netns,
            containers: containers.iter().map(|lived| lived.container.clone()).collect(),
            sandbox: sandbox.first().map(|lived| lived.container.init.clone()),
        }
    }

    fn there_before(&self, cgroup: &Value) -> Option<Lived> {
        let path = PodPath::parse(cgroup["cgroup_path"].as_str()?)?;
        let id = path.container_id?;
        let is_init = |process: &&Value| {
            process["nspid"].as_array().and_then(|pids| pids.last()).is_some_and(|pid| pid == "1")
        };
        let init = cgroup["procs"].as_array()?.iter().find(is_init)?;
        let numbers =
            (number(&cgroup["cgroup_id"]), number(&init["pid"]) as u32, number(&init["pidns"]) as u32);
        Some(self.lived(path.pod_uid, id, numbers, (&text(&init["comm"]), number(&init["netns"])), 0))
    }

    /// A container that was made: its init is the first that runs a program of its own there.
    fn made_during(&self, made: &Value) -> Option<Lived> {
        let path = PodPath::parse(made["path"].as_str()?)?;
        let id = path.container_id?;
        let cgroup = number(&made["id"]);
        let runs = |line: &&Value| {
            line["ev"] == "exec" && line["cgroup"] == cgroup && !text(&line["filename"]).starts_with("runc")
        };
        let exec = self.kernel.iter().find(runs)?;
        // Its pid namespace was not recorded: one that nobody else has.
        let numbers = (cgroup, number(&exec["pid"]) as u32, cgroup as u32);
        let (comm, netns) = (text(&exec["filename"]), number(&exec["netns"]));
        Some(self.lived(path.pod_uid, id, numbers, (&comm, netns), number(&exec["mono_ns"])))
    }

    fn lived(
        &self,
        uid: String,
        id: String,
        (cgroup, pid, pidns): (u64, u32, u32),
        (comm, netns): (&str, u64),
        from: u64,
    ) -> Lived {
        let init = Process {
            pid,
            parent: 1,
            comm: comm.to_owned(),
            netns,
            pidns: pidns.into(),
            cgroup: None,
            is_namespace_init: true,
        };
        let container = Container { id, cgroup: Some(cgroup), init, pidns: Some(pidns) };
        let until = self.gone(cgroup, pid).unwrap_or(u64::MAX);
        Lived { uid, container, netns, from, until }
    }

    /// After the last act of a process of the container, once its init has exited.
    fn gone(&self, cgroup: u64, pid: u32) -> Option<u64> {
        let exits = |line: &&Value| line["ev"] == "exit" && line["pid"] == pid && line["group_dead"] == 1;
        let exit = number(&self.kernel.iter().find(exits)?["mono_ns"]);
        let is_its_act = |line: &&Value| line["cgroup"] == cgroup && line["exiting"] == 1;
        let acts = self.kernel.iter().filter(is_its_act).map(|line| number(&line["mono_ns"]));
        Some(acts.fold(exit, u64::max) + 1)
    }

    /// The addresses of a network namespace, as its sockets show them.
    pub fn addresses(&self, netns: u64) -> Vec<IpAddr> {
        let states = self.kernel.iter().filter(|line| line["ev"] == "state" && line["netns"] == netns);
        let local: BTreeSet<IpAddr> = states.filter_map(|line| text(&line["local"]).parse().ok()).collect();
        local.into_iter().filter(|address| !address.is_unspecified()).collect()
    }

    /// Ports that a pod's containers took connections on, in whatever namespace.
    pub fn listening_of(&self, pod: &Pod) -> Vec<u16> {
        let cgroups: Vec<u64> = pod.containers.iter().filter_map(|container| container.cgroup).collect();
        let accepts =
            self.kernel.iter().filter(|line| line["ev"] == "state" && line["old"] == 10 && line["new"] == 3);
        let own = accepts.filter(|line| cgroups.contains(&number(&line["sk_cgroup"])));
        own.map(|line| number(&line["local_port"]) as u16).collect::<BTreeSet<u16>>().into_iter().collect()
    }

    /// When the init of each container was gone, by its process id.
    pub fn gone_inits(&self, containers: &[Lived]) -> HashMap<u32, u64> {
        containers.iter().map(|lived| (lived.container.init.pid, lived.until)).collect()
    }

    /// When a pod's network interface went: after the last event in its network namespace, if the
    /// process that held the sandbox has exited.
    pub fn interface_gone(&self, netns: u64, pause: u32) -> Option<u64> {
        let exits = |line: &&Value| line["ev"] == "exit" && line["pid"] == pause && line["group_dead"] == 1;
        let exit = number(&self.kernel.iter().find(exits)?["mono_ns"]);
        let acts =
            self.kernel.iter().filter(|line| line["netns"] == netns).map(|line| number(&line["mono_ns"]));
        Some(acts.fold(exit, u64::max) + 1)
    }
}
