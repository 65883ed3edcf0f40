//! Tests that run other programs; without them they are skipped, or fail where they must run.

use std::{env, path::PathBuf};

use anyhow::{Context, Result, anyhow};
use libtest_mimic::Trial;

use crate::needs;

/// A test that needs these programs. Where one is missing it is ignored, or fails if
/// `LASTPACKET_REQUIRE_LIVE` is 1.
pub fn with_programs(
    name: &str,
    programs: &[&str],
    test: impl FnOnce() -> Result<()> + Send + 'static,
) -> Trial {
    let missing: Vec<&str> = programs.iter().filter(|program| find(program).is_err()).copied().collect();
    if missing.is_empty() {
        return needs::anywhere(name, test);
    }
    let missing = missing.join(", ");
    eprintln!("`{name}` cannot run here: missing {missing}; `cargo xtask programs` installs it");
    let required = env::var_os("LASTPACKET_REQUIRE_LIVE").is_some_and(|value| value == "1");
    needs::anywhere(name, move || Err(anyhow!("cannot run here: missing {missing}")))
        .with_ignored_flag(!required)
}

/// Where a program is: in `PATH`, or among the tools of the workspace.
///
/// # Errors
/// If it is nowhere.
pub fn find(program: &str) -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let tools = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.tools/bin"));
    let folders = env::split_paths(&path).chain([tools]);
    let mut files = folders.map(|folder| folder.join(program));
    files.find(|file| file.is_file()).with_context(|| format!("there is no {program}"))
}
