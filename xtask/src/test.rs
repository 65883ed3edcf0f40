//! `cargo xtask test`: everything that CI runs.

use std::process::Command;

use anyhow::{Result, bail};

use crate::steps::Steps;
use crate::{demo, failures, lint, programs, setup, shell, vm};

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
    steps.step("programs", programs::install_all)?;
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
