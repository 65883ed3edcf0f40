//! Limits of this process.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Allows as many open files as root may have: each pod takes four, and the default is 1,024.
pub fn lift_open_files() {
    let lifted = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = lifted {
        log::warn!("the limit of open files stays as it is ({error}): many pods may be too many");
    }
}
