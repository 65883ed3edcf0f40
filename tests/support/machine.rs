//! The machine that tests run on.

use anyhow::{Context, Result};

/// Its kernel's version: the first two numbers of `uname -r`.
///
/// # Errors
/// If it has none.
pub fn kernel_version() -> Result<(u32, u32)> {
    let release = nix::sys::utsname::uname()?.release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']);
    let mut next = || numbers.next().context("no version")?.parse().context("no number");
    Ok((next()?, next()?))
}

/// How many times slower it is than a real one: `LASTPACKET_SLOWNESS`, which `cargo xtask vm` sets where a
/// processor is emulated. What a test makes happen takes so much longer; what must be told of it is the
/// same.
#[must_use]
pub fn slowness() -> u32 {
    std::env::var("LASTPACKET_SLOWNESS").ok().and_then(|value| value.parse().ok()).unwrap_or(1)
}

/// A duration as an option's value: so many milliseconds on a real machine, longer on a slower one.
#[must_use]
pub fn milliseconds(real: u32) -> String {
    format!("{}ms", real * slowness())
}

/// Whether it ends with the tests, so that they may do to it what cannot be undone.
#[must_use]
pub fn is_throwaway() -> bool {
    std::env::var_os("LASTPACKET_THROWAWAY").is_some_and(|value| value == "1")
}
