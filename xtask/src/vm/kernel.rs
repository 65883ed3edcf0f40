//! Debian's kernels: which ones, their packages, and what of these a machine is started with.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::archive::{Archive, Mirrors, Suite};
use crate::shell;

/// Debian's name for the current kernel for virtual machines: the smallest image, which boots fastest.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// A kernel of the matrix: its version as users name it, and the suites that have it, the best first.
pub(crate) struct Choice {
    /// `5.10`, or `newest`.
    pub name: &'static str,
    suites: &'static [Suite],
}

const fn main(name: &'static str) -> Suite {
    Suite { name, security: false }
}

const fn security(name: &'static str) -> Suite {
    Suite { name, security: true }
}

/// The matrix.
pub(crate) const KERNELS: [Choice; 4] = [
    Choice { name: "5.10", suites: &[security("bullseye-security"), main("bullseye")] },
    Choice { name: "6.1", suites: &[security("bookworm-security"), main("bookworm")] },
    Choice {
        name: "6.12",
        suites: &[main("bookworm-backports"), security("trixie-security"), main("trixie")],
    },
    Choice { name: "newest", suites: &[main("trixie-backports"), main("sid")] },
];

/// Modules that tests need, with those that they depend on; what a kernel has built in, it has no
/// module for.
const MODULES: [&str; 12] = [
    "veth",
    "dummy",
    "bridge",
    "af_packet",
    "tcp_diag",
    "inet_diag",
    "sch_netem",
    "nf_tables",
    "nft_reject_inet",
    "nft_compat",
    "ip_tables",
    "ipt_REJECT",
];

/// A kernel that is ready to be started.
pub(crate) struct Kernel {
    /// As in the matrix.
    pub name: &'static str,
    /// Its image.
    pub image: PathBuf,
    /// Modules in the order in which they load: name and content.
    pub modules: Vec<(String, Vec<u8>)>,
}

impl Choice {
    /// Finds the packages, downloads what is missing, checks all by hash, and unpacks them.
    pub(crate) fn prepare(&self, folder: &Path) -> Result<Kernel> {
        let folder = folder.join(self.name);
        let packages = folder.join("packages");
        if let Err(missing) = verify(&packages) {
            eprintln!("    downloading {} ({missing:#})", self.name);
            self.download(&folder, &packages)?;
            verify(&packages)?;
        }
        let root = folder.join("root");
        unpack(&packages, &root)?;
        let image =
            find(&root, &|name| name.starts_with("vmlinuz")).context("the packages hold no kernel image")?;
        Ok(Kernel { name: self.name, image, modules: modules(&root)? })
    }

    fn download(&self, folder: &Path, packages: &Path) -> Result<()> {
        if packages.exists() {
            fs::remove_dir_all(packages).context("cannot clear the downloads")?;
        }
        fs::create_dir_all(packages).context("cannot make a folder for downloads")?;
        let mirrors = Mirrors::of_machine()?;
        let mut refused = Vec::new();
        for suite in self.suites {
            let attempt = Archive::open(&folder.join("apt"), &mirrors, *suite)
                .and_then(|archive| self.download_from(&archive, packages));
            match attempt {
                Ok(()) => return Ok(()),
                Err(error) => refused.push(format!("{}: {error:#}", suite.name)),
            }
        }
        bail!("no suite has kernel {}:\n{}", self.name, refused.join("\n"))
    }

    fn download_from(&self, archive: &Archive, folder: &Path) -> Result<()> {
        let meta = archive.show(PACKAGE).context("it has no kernel for virtual machines")?;
        let version = meta.get("Version")?;
        ensure!(self.accepts(version), "its kernel is {version}");
        // The image may be split into several packages, which depend on each other.
        let mut wanted: BTreeMap<String, String> = BTreeMap::new();
        let mut open: Vec<String> = meta.depends().into_iter().map(str::to_owned).collect();
        while let Some(name) = open.pop() {
            // Packages of this very kernel carry its version in their names.
            let own = name.starts_with("linux-") && name.contains(|c: char| c.is_ascii_digit());
            if !own || wanted.contains_key(&name) {
                continue;
            }
            let fields = archive.show(&name).with_context(|| format!("it has no package {name}"))?;
            open.extend(fields.depends().into_iter().map(str::to_owned));
            let file = format!("{}  {name}.deb", fields.get("SHA256")?);
            wanted.insert(name, file);
        }
        let names: Vec<String> = wanted.keys().cloned().collect();
        archive.download(&names, folder)?;
        for name in wanted.keys() {
            let prefix = format!("{name}_");
            let file = find(folder, &|file| file.starts_with(&prefix))
                .with_context(|| format!("{name} was not downloaded"))?;
            fs::rename(file, folder.join(format!("{name}.deb"))).context("cannot rename a download")?;
        }
        let list: Vec<String> = wanted.into_values().collect();
        fs::write(folder.join("SHA256SUMS"), list.join("\n") + "\n").context("cannot write SHA256SUMS")
    }

    fn accepts(&self, version: &str) -> bool {
        self.name == "newest" || version.starts_with(&format!("{}.", self.name))
    }
}

/// Checks what was downloaded against the hashes from the archive's signed lists.
fn verify(packages: &Path) -> Result<()> {
    ensure!(packages.join("SHA256SUMS").exists(), "not downloaded yet");
    shell::capture(Command::new("sha256sum").args(["--check", "--quiet", "SHA256SUMS"]).current_dir(packages))
        .map(drop)
}

fn unpack(packages: &Path, root: &Path) -> Result<()> {
    if root.exists() {
        fs::remove_dir_all(root).context("cannot clear the unpacked packages")?;
    }
    for entry in fs::read_dir(packages).context("cannot list the packages")? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            shell::capture(Command::new("dpkg-deb").arg("--extract").arg(path).arg(root))?;
        }
    }
    Ok(())
}

/// The modules that tests need and those that they depend on, in the order in which they load.
fn modules(root: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut loaded = Vec::new();
    for name in MODULES {
        add_module(root, name, &mut loaded)?;
    }
    Ok(loaded)
}

fn add_module(root: &Path, name: &str, loaded: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    if loaded.iter().any(|(other, _)| other == name) {
        return Ok(());
    }
    // A file's name may have dashes where the module's has underscores.
    let is_it = |file: &str| file.split_once(".ko").is_some_and(|(stem, _)| stem.replace('-', "_") == name);
    let Some(path) = find(root, &is_it) else { return Ok(()) };
    let content = read_module(&path)?;
    for dependency in dependencies(&content) {
        add_module(root, &dependency, loaded)?;
    }
    loaded.push((name.to_owned(), content));
    Ok(())
}

fn read_module(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_some_and(|extension| extension == "xz") {
        let output = Command::new("xz").args(["--decompress", "--stdout"]).arg(path).output();
        let output = output.context("cannot run xz")?;
        ensure!(output.status.success(), "cannot decompress {}", path.display());
        return Ok(output.stdout);
    }
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// What a module says itself of the modules it depends on (`.modinfo`: strings that end with 0).
fn dependencies(module: &[u8]) -> Vec<String> {
    let key = b"\0depends=";
    let Some(at) = module.windows(key.len()).position(|window| window == key) else { return Vec::new() };
    let value = module[at + key.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(value);
    names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

/// The first file below a folder whose name fits.
fn find(folder: &Path, fits: &dyn Fn(&str) -> bool) -> Option<PathBuf> {
    let mut below = Vec::new();
    for entry in fs::read_dir(folder).ok()?.flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            below.push(path);
        } else if entry.file_name().to_str().is_some_and(fits) {
            return Some(path);
        }
    }
    below.iter().find_map(|path| find(path, fits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_names_its_dependencies() {
        assert_eq!(
            dependencies(b"x\0license=GPL\0depends=nf_tables,x-tables\0name=y\0"),
            ["nf_tables", "x_tables"]
        );
        assert!(dependencies(b"\0depends=\0").is_empty());
        assert!(dependencies(b"").is_empty());
    }

    #[test]
    fn a_suite_with_another_kernel_is_passed_over() {
        let [old, .., newest] = KERNELS;
        assert!(old.accepts("5.10.262-1") && !old.accepts("5.100.1-1"));
        assert!(newest.accepts("7.3.4-1~bpo13+1"));
    }
}
