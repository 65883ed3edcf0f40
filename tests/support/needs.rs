//! What live tests need of the machine; without it they are skipped, or fail where they must run.

use std::{process::Command, sync::OnceLock};

use anyhow::{Context, Result, anyhow};
use libtest_mimic::Trial;
use nix::unistd::geteuid;
use serde_json::Value;

use crate::binary;

static MISSING: OnceLock<Option<String>> = OnceLock::new();

/// A test that needs root and a kernel that can be traced. Without them it is ignored, or fails if
/// `LASTPACKET_REQUIRE_LIVE` is 1.
pub fn live(name: impl Into<String>, test: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    let missing = MISSING.get_or_init(|| what_is_missing().err().map(|error| format!("{error:#}")));
    let Some(missing) = missing else { return anywhere(name, test) };
    let required = std::env::var_os("LASTPACKET_REQUIRE_LIVE").is_some_and(|value| value == "1");
    anywhere(name, move || Err(anyhow!("cannot run here: {missing}"))).with_ignored_flag(!required)
}

/// A test that runs on any machine.
pub fn anywhere(name: impl Into<String>, test: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    Trial::test(name, move || test().map_err(|error| format!("{error:#}").into()))
}

/// Says on stderr why live tests are skipped, if they are.
pub fn explain_skips() {
    if let Some(Some(missing)) = MISSING.get() {
        eprintln!("live tests cannot run here: {missing}");
    }
}

fn what_is_missing() -> Result<()> {
    if !geteuid().is_root() {
        return Err(anyhow!("they need root"));
    }
    let checked = Command::new(binary::lastpacket()?).args(["check", "--format", "json"]).output()?;
    let answer: Value = serde_json::from_slice(&checked.stdout).context("`lastpacket check` gave no JSON")?;
    if answer["possible"] == true {
        return Ok(());
    }
    let conditions = answer["conditions"].as_array().cloned().unwrap_or_default();
    let missing: Vec<String> = conditions
        .iter()
        .filter(|condition| condition["status"] == "missing")
        .map(ToString::to_string)
        .collect();
    Err(anyhow!("`lastpacket check` says: {}", missing.join("; ")))
}
