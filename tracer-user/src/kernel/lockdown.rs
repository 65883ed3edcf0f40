//! Lockdown: what the kernel forbids even to root (`security/lockdown/lockdown.c`).

use std::fs;

use anyhow::{Result, bail};

const FILE: &str = "/sys/kernel/security/lockdown";
/// In this mode no program may read kernel memory (LOCKDOWN_BPF_READ_KERNEL).
const FORBIDS_TRACING: &str = "confidentiality";

/// What lifts it.
pub const REMEDY: &str =
    "boot with lockdown=integrity: reading kernel memory is forbidden in mode confidentiality";

/// The mode; `None` if there is none, or securityfs is not mounted.
#[must_use]
pub fn mode() -> Option<String> {
    selected(&fs::read_to_string(FILE).ok()?).map(str::to_owned)
}

/// Whether a mode forbids tracing.
#[must_use]
pub fn forbids_tracing(mode: &str) -> bool {
    mode == FORBIDS_TRACING
}

/// Fails if tracing is forbidden.
///
/// # Errors
/// If it is; names the remedy.
pub fn require_none() -> Result<()> {
    match mode() {
        Some(mode) if forbids_tracing(&mode) => bail!("the kernel is locked down; {REMEDY}"),
        _ => Ok(()),
    }
}

/// The mode in brackets: `none [integrity] confidentiality`.
fn selected(modes: &str) -> Option<&str> {
    modes.split(['[', ']']).nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_is_the_one_in_brackets() {
        assert_eq!(selected("none integrity [confidentiality]\n"), Some("confidentiality"));
        assert_eq!(selected("[none] integrity confidentiality\n"), Some("none"));
        assert_eq!(selected(""), None);
        assert!(forbids_tracing("confidentiality") && !forbids_tracing("integrity"));
    }
}
