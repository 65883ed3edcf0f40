//! The limit of locked memory: before Linux 5.11 the kernel charges programs and tables to it.

use anyhow::{Result, bail};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

use super::facts;

/// From here on programs and tables are charged to the memory cgroup, and the limit says nothing.
const CHARGED_TO_CGROUP: (u32, u32) = (5, 11);

/// Lifts the limit where it matters.
///
/// # Errors
/// If it may not be lifted; names the remedy.
pub fn lift() -> Result<()> {
    if facts::version()? >= CHARGED_TO_CGROUP || getrlimit(Resource::RLIMIT_MEMLOCK)?.0 == RLIM_INFINITY {
        return Ok(());
    }
    if setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY).is_err() {
        let (limit, _) = getrlimit(Resource::RLIMIT_MEMLOCK)?;
        bail!(
            "before Linux 5.11 the kernel programs need locked memory, of which this process may have {} KiB; \
             add CAP_SYS_RESOURCE, or run it under `ulimit -l unlimited` (systemd: LimitMEMLOCK=infinity)",
            limit / 1024
        );
    }
    Ok(())
}
