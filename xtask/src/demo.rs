//! `cargo xtask demo`: two rehearsals whose verdicts are known beforehand.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{build, shell};

/// Each demo with the exit code that its verdict has.
const DEMOS: [(&str, &str, i32); 2] = [("abrupt", "cut", 1), ("graceful", "drained", 0)];

/// Builds the release binary and runs both demos.
pub(crate) fn run() -> Result<()> {
    if !shell::is_root() {
        bail!("the demo loads kernel programs and needs root: run it as root, or with `sudo -E`");
    }
    let lastpacket = build::release()?;
    DEMOS.iter().try_for_each(|(name, verdict, code)| rehearse(&lastpacket, name, verdict, *code))
}

fn rehearse(lastpacket: &Path, name: &str, verdict: &str, expected: i32) -> Result<()> {
    println!("--- rehearse --demo {name}: expects `{verdict}`");
    let status = Command::new(lastpacket)
        .args(["rehearse", "--format", "text", "--demo", name])
        .status()
        .with_context(|| format!("cannot run {}", lastpacket.display()))?;
    if status.code() != Some(expected) {
        bail!("demo `{name}` ended with {status}, but `{verdict}` is exit code {expected}");
    }
    Ok(())
}
