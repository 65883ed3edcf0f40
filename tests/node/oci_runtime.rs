//! Stands between containerd and runc: this program, called as the OCI runtime, adapts a container's
//! bundle and becomes runc. Resource limits are taken out: they need controllers and rights that a machine
//! for tests may lack, and are not what is tested. What shares the node's network gets the machine's: that is
//! the one that an agent knows as such.

use std::{
    convert::Infallible,
    env,
    fs::{self, File},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use lastpacket_tests::programs;
use nix::sched::{CloneFlags, setns};
use serde_json::Value;

/// The word by which this program knows its role.
const ROLE: &str = "oci-runtime";

/// Tells where the machine's network namespace is: these tests' own, unlike containerd's.
const NETWORK: &str = "LASTPACKET_TEST_NETWORK";

/// What the runtime was called with, if this process is it.
pub fn arguments() -> Option<Vec<String>> {
    let mut words = env::args().skip(1);
    (words.next()? == ROLE).then(|| words.collect())
}

/// Makes an executable that plays the role: containerd gives its runtime no arguments of ours.
pub fn install(folder: &Path) -> Result<PathBuf> {
    let path = folder.join("runtime");
    let this = env::current_exe()?;
    let network = format!("/proc/{}/ns/net", std::process::id());
    let script = format!("#!/bin/sh\n{NETWORK}={network} exec '{}' {ROLE} \"$@\"\n", this.display());
    fs::write(&path, script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// Does what is said above.
pub fn run(arguments: &[String]) -> Result<Infallible> {
    let bundle = arguments.iter().position(|word| word == "--bundle").and_then(|at| arguments.get(at + 1));
    if let Some(bundle) = bundle.filter(|_| arguments.iter().any(|word| word == "create")) {
        let path = Path::new(bundle).join("config.json");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut config = serde_json::from_str(&text)?;
        if !has_own_network(&config) {
            let path = env::var_os(NETWORK).context("nobody said which network is the machine's")?;
            let machine = File::open(path).context("cannot open the machine's network")?;
            setns(machine, CloneFlags::CLONE_NEWNET).context("cannot enter the machine's network")?;
        }
        adapt(&mut config);
        fs::write(&path, config.to_string()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let runc = programs::find("runc")?;
    Err(Command::new(runc).args(arguments).exec()).context("cannot run runc")
}

fn has_own_network(config: &Value) -> bool {
    let namespaces = config["linux"]["namespaces"].as_array();
    namespaces.is_some_and(|all| all.iter().any(|namespace| namespace["type"] == "network"))
}

fn adapt(config: &mut Value) {
    if let Some(resources) = config["linux"]["resources"].as_object_mut() {
        resources.retain(|name, _| name == "devices");
    }
    if let Some(process) = config["process"].as_object_mut() {
        process.remove("oomScoreAdj");
        process.remove("rlimits");
    }
}
