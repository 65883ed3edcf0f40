//! The newest Debian's tracing tools, in a folder of their own: the machine's are too old for its kernel.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::{apt, shell, vm::archive::Mirrors};

const SUITE: &str = "sid";
const PACKAGES: &str = "libbpf-tools,bpftrace";

/// See the module.
pub(crate) struct Toolbox {
    root: PathBuf,
}

impl Toolbox {
    /// Makes it once, in `target/`.
    pub(crate) fn prepare() -> Result<Self> {
        let root = shell::workspace()?.join("target/toolbox");
        if !root.join("usr/bin/bpftrace").is_file() {
            if shell::find("debootstrap").is_none() {
                apt::install(&["debootstrap"])?;
            }
            eprintln!("    toolbox     {PACKAGES} of Debian {SUITE}, about a minute");
            let mirror = Mirrors::of_machine()?;
            let mut debootstrap = Command::new("debootstrap");
            debootstrap.args(["--variant=minbase", &format!("--include={PACKAGES}"), SUITE]);
            shell::capture(debootstrap.arg(&root).arg(mirror.main())).context("cannot make the toolbox")?;
        }
        Ok(Self { root })
    }

    /// A command in it. Its mounts are in a mount namespace that ends with it.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let enter = "mount --rbind /sys \"$0/sys\" && mount --rbind /proc \"$0/proc\" \
                     && mount -t tracefs tracefs \"$0/sys/kernel/tracing\" && exec chroot \"$0\" \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", enter]).arg(&self.root).args(words);
        command
    }
}
