//! `cargo xtask lint`: format, clippy, licences and sources of dependencies.

use anyhow::Result;

use crate::shell;
use crate::steps::Steps;

/// Lints the workspace.
pub(crate) fn run() -> Result<()> {
    let mut steps = Steps::default();
    all(&mut steps)?;
    steps.summary();
    Ok(())
}

/// The steps of linting, for other verbs to begin with.
pub(crate) fn all(steps: &mut Steps) -> Result<()> {
    steps.step("format", || cargo(&["fmt", "--all", "--check"]))?;
    let clippy = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    steps.step("clippy", || cargo(&clippy))?;
    if shell::find("cargo-deny").is_none() {
        eprintln!("    licences and sources: left out, cargo-deny is not installed");
        return Ok(());
    }
    steps.step("deny", || cargo(&["deny", "check", "licenses", "bans", "sources"]))
}

fn cargo(args: &[&str]) -> Result<()> {
    shell::run(shell::cargo()?.args(args))
}
