//! Debian packages, installed without starting their services.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell;

/// Debian's switch: with this script, a package's installation starts no service.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Whether packages can be installed here without asking for a password.
pub(crate) fn is_usable() -> bool {
    shell::find("apt-get").is_some()
        && (shell::is_root() || shell::capture(Command::new("sudo").args(["-n", "true"])).is_ok())
}

/// Installs packages. Where that fails, the package lists may be old, or, in a fresh image, missing.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let _quiet = Quiet::start()?;
    if attempt(packages).is_ok() {
        return Ok(());
    }
    shell::capture(apt_get().arg("update"))?;
    attempt(packages)
}

fn attempt(packages: &[&str]) -> Result<()> {
    shell::capture(apt_get().args(["install", "-y", "--no-install-recommends"]).args(packages)).map(drop)
}

fn apt_get() -> Command {
    let (program, prefix) = if shell::is_root() { ("env", None) } else { ("sudo", Some(["-n", "env"])) };
    let mut command = Command::new(program);
    command.args(prefix.into_iter().flatten()).args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    command
}

/// Keeps services from starting while it lives. Without root, only compilers are installed, which have none.
struct Quiet {
    ours: bool,
}

impl Quiet {
    fn start() -> Result<Quiet> {
        let ours = shell::is_root() && !Path::new(POLICY).exists();
        if ours {
            fs::write(POLICY, "#!/bin/sh\nexit 101\n").context(POLICY)?;
            fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755)).context(POLICY)?;
        }
        Ok(Quiet { ours })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if self.ours && fs::remove_file(POLICY).is_err() {
            eprintln!("    left behind: {POLICY}, which keeps services from starting; remove it");
        }
    }
}
