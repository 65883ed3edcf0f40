//! Pods and their containers, by the paths of their cgroups.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    cgroup::Hierarchy,
    netns,
    process::{self, Process},
};

/// What a cgroup's path says of the container in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodPath {
    /// The pod's uid, with dashes; of a static pod the hash that stands for it.
    pub pod_uid: String,
    /// The container's id; absent for the pod's own cgroup.
    pub container_id: Option<String>,
}

impl PodPath {
    /// Reads a path from the hierarchy's root: cgroupfs and systemd drivers, containerd, CRI-O and
    /// Docker, below any prefix (kind, k3s).
    #[must_use]
    pub fn parse(path: &str) -> Option<Self> {
        let mut components = path.split('/').skip_while(|component| pod_uid(component).is_none());
        let pod_uid = pod_uid(components.next()?)?;
        let container_id = match components.next() {
            None => None,
            Some(component) => Some(container_id(component)?),
        };
        Some(Self { pod_uid, container_id })
    }
}

/// `podUID`, or `kubepods-QOS-podUID.slice` with underscores for dashes; nested ones have a prefix.
fn pod_uid(component: &str) -> Option<String> {
    let name = component.strip_suffix(".slice").unwrap_or(component);
    let at = if name.starts_with("pod") { 0 } else { name.rfind("-pod")? + 1 };
    let uid = name[at + "pod".len()..].replace('_', "-");
    let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_uid =
        uid.len() == 36 && uid.split('-').map(str::len).eq([8, 4, 4, 4, 12]) && hex(&uid.replace('-', ""));
    let is_hash = uid.len() == 32 && hex(&uid);
    (is_uid || is_hash).then_some(uid)
}

/// The id itself, or `RUNTIME-ID.scope`. CRI-O's `crio-conmon-ID.scope` is no container.
fn container_id(component: &str) -> Option<String> {
    let name = component.strip_suffix(".scope").unwrap_or(component);
    let id = name.rsplit('-').next()?;
    let is_id = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_id && !name.contains("conmon")).then(|| id.to_owned())
}

/// A running container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// Its cgroup's id, as the kernel programs see it; `None` where containers are in cgroups of
    /// version 1.
    pub cgroup: Option<u64>,
    /// Its first process.
    pub init: Process,
    /// Inode of its pid namespace, if its init is the first there: then it has it for itself.
    pub pidns: Option<u32>,
}

/// A running pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its uid.
    pub uid: String,
    /// Path of its network namespace; `None` if it shares the machine's (host network).
    pub netns: Option<PathBuf>,
    /// Inode of its network namespace.
    pub netns_inode: u64,
    /// Its containers, but for the one that holds the sandbox.
    pub containers: Vec<Container>,
    /// The process that holds the sandbox (`pause`), if there is one.
    pub sandbox: Option<Process>,
}

/// What was found at one look.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Pods that run.
    pub pods: Vec<Pod>,
    /// Containers are being made that have no process of their own yet: look again soon.
    pub unsettled: bool,
}

/// Looks for pods again and again. What is known of a container is not read again: only whether it is
/// still there.
pub struct Scanner {
    hierarchy: Hierarchy,
    /// By the id of the cgroup, which is not used again.
    known: HashMap<u64, Container>,
}

impl Scanner {
    /// Looks in a hierarchy.
    #[must_use]
    pub fn new(hierarchy: Hierarchy) -> Self {
        Self { hierarchy, known: HashMap::new() }
    }

    /// The pods that run now.
    pub fn look(&mut self) -> Found {
        let root = self.hierarchy.folder.clone();
        let mut seen: BTreeMap<String, Vec<Container>> = BTreeMap::new();
        let (mut known, mut unsettled) = (HashMap::new(), false);
        walk(&root, &root, &mut |path, folder| {
            let Some(PodPath { pod_uid, container_id: Some(id) }) = PodPath::parse(path) else { return };
            match self.container(id, folder) {
                Some((cgroup, container)) => {
                    known.insert(cgroup, container.clone());
                    seen.entry(pod_uid).or_default().push(container);
                }
                None => unsettled |= is_new(folder),
            }
        });
        self.known = known;
        let own = netns::machine_inode().unwrap_or_default();
        Found {
            pods: seen.into_iter().filter_map(|(uid, containers)| pod(uid, containers, own)).collect(),
            unsettled,
        }
    }

    fn container(&self, id: String, folder: &Path) -> Option<(u64, Container)> {
        let cgroup = folder.metadata().ok()?.ino();
        let pids = pids(folder);
        if let Some(container) = self.known.get(&cgroup) {
            return (!pids.is_empty()).then(|| (cgroup, container.clone()));
        }
        let init = init_of(&pids).filter(|init| !is_runtime(&init.comm))?;
        let shared = process::machine_pidns().ok() == Some(init.pidns);
        let pidns = (init.is_namespace_init && !shared).then(|| u32::try_from(init.pidns).ok()).flatten();
        let id_for_kernel = self.hierarchy.is_version_2.then_some(cgroup);
        Some((cgroup, Container { id, cgroup: id_for_kernel, init, pidns }))
    }
}

/// Before it runs the container's program, its first process is the runtime's: `runc:[2:INIT]`, `crun`,
/// or a copy of the runtime that has no name but a descriptor's number.
fn is_runtime(comm: &str) -> bool {
    let prefixes = ["runc", "crun", "youki"];
    prefixes.iter().any(|prefix| comm.starts_with(prefix))
        || comm == "exe"
        || comm.bytes().all(|byte| byte.is_ascii_digit())
}

/// How long a container may be without a process before it is taken for one that has ended.
const SETTLES_WITHIN: Duration = Duration::from_secs(2);

fn is_new(folder: &Path) -> bool {
    let made = folder.metadata().and_then(|metadata| metadata.created().or_else(|_| metadata.modified()));
    made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age < SETTLES_WITHIN))
}

/// Calls for every cgroup with its path from the mount point, until a container's: what is below
/// belongs to the container.
fn walk(mount_point: &Path, folder: &Path, visit: &mut impl FnMut(&str, &Path)) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        let folder = entry.path();
        let Ok(path) = folder.strip_prefix(mount_point) else { continue };
        let path = format!("/{}", path.to_string_lossy());
        visit(&path, &folder);
        if PodPath::parse(&path).is_none_or(|pod| pod.container_id.is_none()) {
            walk(mount_point, &folder, visit);
        }
    }
}

fn pids(folder: &Path) -> Vec<u32> {
    let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// The first process of a container: that of its pid namespace, or, where a pod shares one, the one
/// whose parent is not in it. So are commands that are executed in it later; they are newer.
fn init_of(pids: &[u32]) -> Option<Process> {
    first_of(&pids.iter().filter_map(|pid| Process::read(*pid).ok()).collect::<Vec<_>>())
}

fn first_of(processes: &[Process]) -> Option<Process> {
    let is_within = |pid: u32| processes.iter().any(|process| process.pid == pid);
    let outside = processes.iter().filter(|process| !is_within(process.parent));
    let first = processes.iter().find(|process| process.is_namespace_init);
    first.or_else(|| outside.min_by_key(|process| process.pid)).cloned()
}

fn pod(uid: String, containers: Vec<Container>, own: u64) -> Option<Pod> {
    // All common runtimes hold the sandbox by a program of this name.
    let (sandbox, containers): (Vec<_>, Vec<_>) =
        containers.into_iter().partition(|container| container.init.comm == "pause");
    let sandbox = sandbox.into_iter().next().map(|container| container.init);
    let holder = sandbox.as_ref().or_else(|| containers.first().map(|container| &container.init))?;
    let (netns_inode, path) = (holder.netns, holder.netns_path());
    Some(Pod { uid, netns: (netns_inode != own).then_some(path), netns_inode, containers, sandbox })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "6386bd3b778164426f73c7634a774200021c71f9607a03c2a3ac087315dab266";
    const UID: &str = "bb601fd9-f9ed-4145-b00b-9bb822c68598";

    fn assert_container(path: &str) {
        let found = PodPath::parse(path);
        let expected = PodPath { pod_uid: UID.to_owned(), container_id: Some(ID.to_owned()) };
        assert_eq!(found, Some(expected), "{path}");
    }

    #[test]
    fn paths_of_all_drivers_runtimes_and_prefixes() {
        let underscored = UID.replace('-', "_");
        for qos in ["", "/burstable", "/besteffort"] {
            assert_container(&format!("/kubepods{qos}/pod{UID}/{ID}"));
            assert_container(&format!("/docker/{ID}/kubelet/kubepods{qos}/pod{UID}/{ID}"));
            assert_container(&format!("/k3s/kubepods{qos}/pod{UID}/{ID}"));
        }
        for (qos, dash) in [
            ("", ""),
            ("kubepods-burstable.slice/", "burstable-"),
            ("kubepods-besteffort.slice/", "besteffort-"),
        ] {
            for runtime in ["cri-containerd", "crio", "docker"] {
                assert_container(&format!(
                    "/kubepods.slice/{qos}kubepods-{dash}pod{underscored}.slice/{runtime}-{ID}.scope"
                ));
            }
        }
        assert_container(&format!(
            "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{underscored}.slice/cri-containerd-{ID}.scope"
        ));
        assert_container(&format!("/kubepods/pod{UID}/{ID}/init.scope"));
    }

    fn process(pid: u32, parent: u32, is_namespace_init: bool) -> Process {
        let comm = "web".to_owned();
        Process { pid, parent, comm, netns: 1, pidns: 2, cgroup: None, is_namespace_init }
    }

    #[test]
    fn the_first_process_with_a_pid_namespace_of_its_own_and_in_a_shared_one() {
        let pid = |processes: &[Process]| first_of(processes).map(|process| process.pid);
        let (worker, executed) = (process(30, 20, false), process(25, 5, false));
        assert_eq!(pid(&[worker.clone(), executed.clone(), process(20, 5, true)]), Some(20));
        assert_eq!(pid(&[worker, executed, process(20, 5, false)]), Some(20), "shareProcessNamespace");
        assert_eq!(pid(&[]), None);
    }

    #[test]
    fn a_runtime_that_makes_a_container_is_not_its_init() {
        for comm in ["runc:[1:CHILD]", "runc:[2:INIT]", "crun", "exe", "6"] {
            assert!(is_runtime(comm), "{comm}");
        }
        for comm in ["pause", "nginx", "python3", "7z"] {
            assert!(!is_runtime(comm), "{comm}");
        }
    }

    #[test]
    fn what_is_no_container() {
        for path in [
            "/",
            "/kubepods",
            "/kubepods.slice/kubepods-burstable.slice",
            "/system.slice/containerd.service",
            "/user.slice/user-1000.slice/podman",
            &format!("/kubepods.slice/kubepods-pod{}.slice/crio-conmon-{ID}.scope", UID.replace('-', "_")),
        ] {
            assert_eq!(PodPath::parse(path), None, "{path}");
        }
        let pod = PodPath::parse(&format!("/kubepods/burstable/pod{UID}"));
        assert_eq!(pod, Some(PodPath { pod_uid: UID.to_owned(), container_id: None }));
    }

    #[test]
    fn static_pods_are_named_by_a_hash() {
        let hash = "b5b9c5a4dd5e6cba5b5a7f0f6b3d5e0a";
        let found = PodPath::parse(&format!("/kubepods/burstable/pod{hash}/{ID}"));
        assert_eq!(found.map(|pod| pod.pod_uid), Some(hash.to_owned()));
    }
}
