//! The programs' own debug lines, on stderr.

use anyhow::{Context, Result};
use aya::Ebpf;
use aya_log::EbpfLogger;
use tokio::io::unix::AsyncFd;

/// Writes the programs' debug lines to the log from now on, in the background.
///
/// # Errors
/// If the object has no log.
pub fn follow(ebpf: &mut Ebpf) -> Result<()> {
    let logger = EbpfLogger::init(ebpf).context("cannot read the kernel programs' log")?;
    // SAFETY: the logger owns its descriptor and keeps it open as long as it lives.
    let mut logger = unsafe { AsyncFd::register(logger) }.context("cannot poll the kernel programs' log")?;
    tokio::spawn(async move {
        while let Ok(mut ready) = logger.readable_mut().await {
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    });
    Ok(())
}
