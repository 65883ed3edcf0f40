//! `cargo xtask bless`: golden files are written anew from what is made now.

use anyhow::Result;

use crate::shell;

/// Runs the tests that compare with golden files (they have `golden` in their names) so that they write
/// them. Look at the difference before you commit it.
pub(crate) fn run() -> Result<()> {
    let mut cargo = shell::cargo()?;
    cargo
        .args(["test", "--workspace", "--lib", "--test", "kube", "--test", "replay", "golden"])
        .env("UPDATE", "1");
    shell::run(&mut cargo)?;
    let mut cargo = shell::cargo()?;
    cargo.args(["test", "--workspace", "--test", "report", "golden"]).env("UPDATE", "1");
    shell::run(&mut cargo)?;
    let mut cargo = shell::cargo()?;
    cargo.args(["test", "--workspace", "--test", "rollout", "golden"]).env("UPDATE", "1");
    shell::run(&mut cargo)
}
