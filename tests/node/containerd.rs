//! A containerd of the node's own: its configuration, its start, its images.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use lastpacket_tests::{netns::Namespace, programs};

use crate::{cri::Cri, network::POD_SUBNET, oci_runtime};

/// All that it keeps; in memory, and gone with the node's mounts.
const FOLDER: &str = "/run/containerd/node-test";
/// Where distributions install CNI's plugins.
const PLUGINS: [&str; 3] = ["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"];
/// It starts within this time, or not at all.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running containerd.
pub struct Containerd {
    daemon: Child,
    folder: PathBuf,
}

impl Containerd {
    /// Starts it in the node's network namespace.
    pub fn start(node: &Namespace, sandbox_image: &str) -> Result<Self> {
        let folder = PathBuf::from(FOLDER);
        let networks = folder.join("net.d");
        fs::create_dir_all(&networks)?;
        fs::write(networks.join("10-ptp.conflist"), network(&folder))?;
        fs::write(folder.join("config.toml"), config(&folder, &networks, sandbox_image)?)?;
        let log = File::create(folder.join("log"))?;
        let program = programs::find("containerd")?;
        let mut command = Command::new(program);
        command.arg("--config").arg(folder.join("config.toml")).stdin(Stdio::null());
        command.stdout(log.try_clone()?).stderr(log);
        let daemon = node.enter(|| command.spawn().context("cannot run containerd"))?;
        Ok(Self { daemon, folder })
    }

    /// Waits until it takes a kubelet's calls and has a network for pods.
    pub fn client(&mut self) -> Result<Cri> {
        let (socket, began) = (self.socket(), Instant::now());
        loop {
            let ready = Cri::connect(&socket).and_then(|cri| cri.ensure_ready().map(|()| cri));
            match ready {
                Ok(cri) => return Ok(cri),
                Err(error) if began.elapsed() > PATIENCE => {
                    bail!("containerd does not get ready: {error:#}; its log ends:\n{}", self.log())
                }
                Err(_) => thread::sleep(Duration::from_millis(100)),
            }
            if let Some(status) = self.daemon.try_wait()? {
                bail!("containerd ended ({status}); its log ends:\n{}", self.log());
            }
        }
    }

    /// Takes an OCI archive's image.
    pub fn import(&self, archive: &Path) -> Result<()> {
        let mut ctr = Command::new(programs::find("ctr")?);
        ctr.arg("--address").arg(self.socket()).args(["--namespace", "k8s.io", "images", "import"]);
        let done = ctr.args(["--snapshotter", "native"]).arg(archive).output().context("cannot run ctr")?;
        let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        ensure!(done.status.success(), "cannot import {}: {out}{err}", archive.display());
        Ok(())
    }

    /// The last lines of its log.
    pub fn log(&self) -> String {
        let text = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }

    /// A folder for whatever else the node keeps.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    /// Ends it; the guardian ends what it leaves.
    pub fn end(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

fn network(folder: &Path) -> String {
    let data = folder.join("addresses");
    format!(
        r#"{{"cniVersion": "0.4.0", "name": "node-test", "plugins": [{{"type": "ptp", "ipMasq": false, "ipam":
        {{"type": "host-local", "subnet": "{POD_SUBNET}", "dataDir": "{}", "routes": [{{"dst": "0.0.0.0/0"}}]}}}}]}}"#,
        data.display()
    )
}

fn config(folder: &Path, networks: &Path, sandbox_image: &str) -> Result<String> {
    let plugins = PLUGINS.iter().find(|plugins| Path::new(plugins).join("ptp").exists());
    let plugins = plugins.with_context(|| format!("no CNI plugin `ptp` in {PLUGINS:?}"))?;
    let runtime = oci_runtime::install(folder)?;
    let (folder, networks, runtime) = (folder.display(), networks.display(), runtime.display());
    Ok(format!(
        r#"version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.tracing"]

[grpc]
address = "{folder}/socket"

[plugins."io.containerd.internal.v1.opt"]
path = "{folder}/opt"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{sandbox_image}"
netns_mounts_under_state_dir = true
# Without CAP_SYS_RESOURCE nobody may lower it.
restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".containerd]
# Works on any file system.
snapshotter = "native"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
BinaryName = "{runtime}"
SystemdCgroup = false

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{networks}"
"#
    ))
}
