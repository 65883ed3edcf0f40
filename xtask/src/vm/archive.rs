//! Debian's archive through a private apt: packages of other releases, without touching the machine's own
//! configuration.
//!
//! Mirrors are read from the machine's apt, so that no host is written here. apt itself checks the
//! signatures of the lists and the hashes of what it downloads.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell;

/// Debian's keys, from package debian-archive-keyring.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A suite of Debian's archive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Suite {
    /// Its name.
    pub name: &'static str,
    /// It is in the security archive, not in the main one.
    pub security: bool,
}

/// The machine's mirrors of Debian's archives.
pub(crate) struct Mirrors {
    main: String,
    security: String,
}

impl Mirrors {
    /// Reads them from the machine's own apt configuration.
    pub(crate) fn of_machine() -> Result<Self> {
        let format = "$(REPO_URI) $(ORIGIN) $(LABEL)";
        let targets = shell::capture(Command::new("apt-get").args(["indextargets", "--format", format]))?;
        let labelled = |label: &str| {
            targets.lines().find_map(|line| {
                let (uri, origin) = line.split_once(' ')?;
                (origin == label).then(|| uri.trim_end_matches('/').to_owned())
            })
        };
        let main = labelled("Debian Debian")
            .context("apt knows no mirror of Debian: run `apt-get update`, or run this on Debian")?;
        let security = labelled("Debian Debian-Security").unwrap_or_else(|| format!("{main}-security"));
        Ok(Self { main, security })
    }

    /// The mirror of the main archive.
    pub(crate) fn main(&self) -> &str {
        &self.main
    }

    /// Where a suite may be: at the mirror, or, for a release that is no longer mirrored, in the archive
    /// of releases beside it.
    fn of(&self, suite: Suite) -> Vec<String> {
        let mirror = if suite.security { &self.security } else { &self.main };
        let mut places = vec![mirror.clone()];
        places.extend(archive_of(mirror));
        places
    }
}

/// The archive of old releases has the mirror's path, and the name `archive` in the mirror's domain.
fn archive_of(mirror: &str) -> Option<String> {
    let (scheme, rest) = mirror.split_once("://")?;
    let (host, path) = rest.split_once('/')?;
    let (_, domain) = host.split_once('.')?;
    Some(format!("{scheme}://archive.{domain}/{path}"))
}

/// One suite's packages, as a private apt sees them.
pub(crate) struct Archive {
    folder: PathBuf,
}

impl Archive {
    /// Reads a suite's lists into `folder`, from the first place that has it.
    pub(crate) fn open(folder: &Path, mirrors: &Mirrors, suite: Suite) -> Result<Self> {
        let archive = Self { folder: folder.to_owned() };
        let mut refused = Vec::new();
        for place in mirrors.of(suite) {
            archive.configure(&place, suite)?;
            match shell::capture(archive.apt("apt-get").arg("update")) {
                Ok(_) => return Ok(archive),
                Err(error) => refused.push(format!("{error:#}")),
            }
        }
        bail!("no mirror has {}:\n{}", suite.name, refused.join("\n"))
    }

    fn configure(&self, place: &str, suite: Suite) -> Result<()> {
        if self.folder.exists() {
            fs::remove_dir_all(&self.folder).context("cannot clear the private apt")?;
        }
        for part in [
            "etc/apt.conf.d",
            "etc/preferences.d",
            "etc/sources.list.d",
            "lists/partial",
            "cache/archives/partial",
        ] {
            fs::create_dir_all(self.folder.join(part)).context("cannot make the private apt")?;
        }
        let source = format!("deb [arch=amd64 signed-by={KEYRING}] {place} {} main\n", suite.name);
        fs::write(self.folder.join("etc/sources.list"), source)
            .context("cannot write the private apt's sources")?;
        fs::write(self.folder.join("status"), "").context("cannot write the private apt's status")
    }

    /// A command of apt that sees nothing but this suite. The machine's own settings of how to reach
    /// mirrors (proxies) stay in force.
    fn apt(&self, program: &str) -> Command {
        let set = |name: &str, value: &str| format!("{name}={}", self.folder.join(value).display());
        let mut command = Command::new(program);
        for setting in [
            set("Dir::Etc::sourcelist", "etc/sources.list"),
            set("Dir::Etc::sourceparts", "etc/sources.list.d"),
            set("Dir::Etc::preferencesparts", "etc/preferences.d"),
            set("Dir::State::lists", "lists"),
            set("Dir::State::status", "status"),
            set("Dir::Cache", "cache"),
        ] {
            command.args(["-o", &setting]);
        }
        // A release that is no longer supported has lists that are no longer valid, and no others.
        command.args(["-o", "Acquire::Check-Valid-Until=false", "-o", "APT::Sandbox::User=root"]);
        command.args(["-o", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false"]);
        command.args(["-o", "Acquire::Languages=none", "-o", "APT::Update::Error-Mode=any"]);
        command.args(["-o", "APT::Update::Post-Invoke-Success=", "-o", "APT::Update::Post-Invoke="]);
        command
    }

    /// A package's fields (`Version`, `Depends`, `SHA256`, …); `None` if the suite has no such package.
    pub(crate) fn show(&self, package: &str) -> Option<Fields> {
        let show = shell::capture(self.apt("apt-cache").args(["show", "--no-all-versions", package])).ok()?;
        (!show.trim().is_empty()).then_some(Fields(show))
    }

    /// Downloads packages into a folder.
    pub(crate) fn download(&self, packages: &[String], folder: &Path) -> Result<()> {
        shell::capture(self.apt("apt-get").arg("download").args(packages).current_dir(folder)).map(drop)
    }
}

/// What the lists say of a package.
pub(crate) struct Fields(String);

impl Fields {
    /// A field's value.
    pub(crate) fn get(&self, name: &str) -> Result<&str> {
        let line = self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.with_context(|| format!("the archive's lists give no {name}"))
    }

    /// Names of the packages that it depends on; of alternatives the first.
    pub(crate) fn depends(&self) -> Vec<&str> {
        let depends = self.get("Depends").unwrap_or_default();
        depends.split(',').filter_map(|one| one.split_whitespace().next()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_of_releases_is_beside_the_mirror() {
        assert_eq!(
            archive_of("http://mirror.example.org/debian").as_deref(),
            Some("http://archive.example.org/debian")
        );
        assert_eq!(archive_of("file:/srv/mirror"), None);
    }

    #[test]
    fn dependencies_are_names_without_versions_and_alternatives() {
        let fields =
            Fields("Package: x\nDepends: kmod, linux-base (>= 4.3~), a (= 1) | b\nVersion: 2-1\n".to_owned());
        assert_eq!(fields.depends(), ["kmod", "linux-base", "a"]);
        assert_eq!(fields.get("Version").unwrap(), "2-1");
        assert!(fields.get("SHA256").is_err());
    }
}
