//! What is in a test machine: an initramfs with busybox, lastpacket, tests, and the programs that they run.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::cpio::Cpio;
use super::kernel::Kernel;
use crate::shell;

/// Programs that live tests, and whoever looks around in a machine, run: those that are here.
const PROGRAMS: [&str; 10] =
    ["nginx", "haproxy", "curl", "ip", "ss", "tcpdump", "tc", "unshare", "nsenter", "umount"];

/// What live tests read, at the place where they were built.
const DATA: &str = "tests/recordings";

/// Busybox's names that the programs above do not take.
const APPLETS: [&str; 43] = [
    "sh", "mount", "mkdir", "mv", "rm", "cp", "ln", "ls", "cat", "echo", "hostname", "uname", "insmod",
    "lsmod", "sleep", "kill", "poweroff", "sync", "cut", "grep", "sed", "awk", "head", "tail", "sort", "seq",
    "wc", "true", "false", "test", "ps", "id", "env", "date", "dmesg", "nc", "timeout", "touch", "chmod",
    "chown", "mktemp", "tr", "setsid",
];

/// Users that servers change to.
const USERS: &str = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n\
                     haproxy:x:107:107::/:/bin/sh\ntcpdump:x:108:108::/:/bin/sh\n";
const GROUPS: &str =
    "root:x:0:\nadm:x:4:\nwww-data:x:33:\nnogroup:x:65534:\nhaproxy:x:107:\ntcpdump:x:108:\n";

/// What runs in a machine.
pub(crate) struct Payload {
    /// The binary under test.
    pub lastpacket: PathBuf,
    /// Test binaries; each is at `/tests/NAME`.
    pub tests: Vec<(String, PathBuf)>,
    /// The script that runs them.
    pub command: String,
}

/// Makes a machine's initramfs.
pub(crate) fn make(kernel: &Kernel, payload: &Payload) -> Result<Vec<u8>> {
    let mut image = Image::default();
    for folder in
        ["proc", "sys", "dev", "tmp", "run", "root", "mnt", "etc/netns", "var/log/nginx", "var/lib/nginx"]
    {
        image.cpio.folder(folder);
    }
    image.cpio.device("dev/console", 5, 1);
    image.cpio.device("dev/null", 1, 3);
    image.cpio.file("init", 0o755, include_bytes!("init.sh"));
    image.cpio.file("command", 0o755, payload.command.as_bytes());
    image.cpio.file("etc/passwd", 0o644, USERS.as_bytes());
    image.cpio.file("etc/group", 0o644, GROUPS.as_bytes());
    image.cpio.file("etc/hosts", 0o644, b"127.0.0.1 localhost\n::1 localhost\n");
    image.busybox()?;
    image.program(&payload.lastpacket, "usr/bin/lastpacket")?;
    for (name, path) in &payload.tests {
        image.program(path, &format!("tests/{name}"))?;
    }
    for program in PROGRAMS {
        if let Some(path) = shell::find(program) {
            image.program(&path, &format!("usr/bin/{program}"))?;
        }
    }
    image.folder(&shell::workspace()?.join(DATA))?;
    for (place, (name, content)) in kernel.modules.iter().enumerate() {
        // By number, because the shell's pattern sorts them.
        image.cpio.file(&format!("modules/{place:02}-{name}.ko"), 0o644, content);
    }
    Ok(image.cpio.finish())
}

#[derive(Default)]
struct Image {
    cpio: Cpio,
    libraries: BTreeSet<PathBuf>,
}

impl Image {
    fn busybox(&mut self) -> Result<()> {
        let busybox = shell::find("busybox").context("busybox is missing: install busybox-static")?;
        self.program(&busybox, "bin/busybox")?;
        for applet in APPLETS {
            self.cpio.link(&format!("bin/{applet}"), "busybox");
        }
        // Scripts and tests name these by path.
        self.cpio.link("usr/bin/env", "/bin/busybox");
        if shell::find("ip").is_none() {
            self.cpio.link("bin/ip", "busybox");
        }
        Ok(())
    }

    /// All of a folder, where it is here.
    fn folder(&mut self, folder: &Path) -> Result<()> {
        let listed = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
        for entry in listed {
            let path = entry?.path();
            if path.is_dir() {
                self.folder(&path)?;
                continue;
            }
            let content = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            self.cpio.file(&path.to_string_lossy(), 0o644, &content);
        }
        Ok(())
    }

    /// A program, and the libraries that it loads.
    fn program(&mut self, from: &Path, to: &str) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.cpio.file(to, 0o755, &content);
        for library in libraries(from) {
            if self.libraries.insert(library.clone()) {
                let content =
                    fs::read(&library).with_context(|| format!("cannot read {}", library.display()))?;
                let mode = fs::metadata(&library)?.permissions().mode() & 0o777;
                self.cpio.file(&library.to_string_lossy(), mode, &content);
            }
        }
        Ok(())
    }
}

/// Libraries that a program loads, and the loader itself; none for a static one.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let listed =
        shell::capture(Command::new("ldd").arg(program).env_remove("LD_LIBRARY_PATH")).unwrap_or_default();
    listed.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}
