//! Stands between containerd and runc: this program, called as the OCI runtime, adapts a container's
//! bundle and becomes runc. Resource limits are taken out: they need controllers and rights that a machine
//! for tests may lack, and are not what is tested.

use std::{
    convert::Infallible,
    env, fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use lastpacket_tests::programs;
use serde_json::Value;

/// The word by which this program knows its role.
const ROLE: &str = "oci-runtime";

/// What the runtime was called with, if this process is it.
pub fn arguments() -> Option<Vec<String>> {
    let mut words = env::args().skip(1);
    (words.next()? == ROLE).then(|| words.collect())
}

/// Makes an executable that plays the role: containerd gives its runtime no arguments of ours.
pub fn install(folder: &Path) -> Result<PathBuf> {
    let path = folder.join("runtime");
    let this = env::current_exe()?;
    fs::write(&path, format!("#!/bin/sh\nexec '{}' {ROLE} \"$@\"\n", this.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// Does what is said above.
pub fn run(arguments: &[String]) -> Result<Infallible> {
    let bundle = arguments.iter().position(|word| word == "--bundle").and_then(|at| arguments.get(at + 1));
    if let Some(bundle) = bundle.filter(|_| arguments.iter().any(|word| word == "create")) {
        adapt(&Path::new(bundle).join("config.json"))?;
    }
    let runc = programs::find("runc")?;
    Err(Command::new(runc).args(arguments).exec()).context("cannot run runc")
}

fn adapt(path: &Path) -> Result<()> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut config: Value = serde_json::from_str(&text)?;
    if let Some(resources) = config["linux"]["resources"].as_object_mut() {
        resources.retain(|name, _| name == "devices");
    }
    if let Some(process) = config["process"].as_object_mut() {
        process.remove("oomScoreAdj");
        process.remove("rlimits");
    }
    fs::write(path, config.to_string()).with_context(|| format!("cannot write {}", path.display()))
}
