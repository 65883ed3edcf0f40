//! The program under test: built once by Cargo, or named by `LASTPACKET_BIN`.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context, Result, anyhow, ensure};

static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();

/// Where the `lastpacket` binary is.
///
/// # Errors
/// If it cannot be built.
pub fn lastpacket() -> Result<&'static Path> {
    let found = BINARY.get_or_init(|| match std::env::var_os("LASTPACKET_BIN") {
        Some(path) => Ok(path.into()),
        None => build().map_err(|error| format!("{error:#}")),
    });
    found.as_deref().map_err(|error| anyhow!("{error}"))
}

/// Tests cannot depend on another package's binary, and Cargo knows best where it puts it.
fn build() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--package", "tracer-user", "--bin", "lastpacket", "--message-format", "json"]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let built = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().context("cannot run cargo")?;
    ensure!(built.status.success(), "cannot build lastpacket:\n{}", String::from_utf8_lossy(&built.stderr));
    let messages = String::from_utf8(built.stdout)?;
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find_map(|message| message.get("executable")?.as_str().map(PathBuf::from))
        .context("cargo named no executable")
}
