//! Programs and tables that a process has in the kernel, and whether they are still there.

use std::{fs, io};

use anyhow::{Context, Result};

/// `BPF_PROG_GET_FD_BY_ID` and `BPF_MAP_GET_FD_BY_ID` of `linux/bpf.h`.
const PROGRAM_BY_ID: libc::c_long = 13;
const MAP_BY_ID: libc::c_long = 14;

/// A program or table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelObject {
    /// A program, by its id.
    Program(u32),
    /// A table, by its id.
    Map(u32),
}

/// The objects that a process holds by descriptors.
///
/// # Errors
/// If there is no such process.
pub fn of(pid: u32) -> Result<Vec<KernelObject>> {
    let folder = format!("/proc/{pid}/fdinfo");
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {folder}"))?;
    let mut objects = Vec::new();
    for entry in entries.flatten() {
        // A descriptor may be closed meanwhile.
        let info = fs::read_to_string(entry.path()).unwrap_or_default();
        let id = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        objects.extend(id("prog_id:").map(KernelObject::Program));
        objects.extend(id("map_id:").map(KernelObject::Map));
    }
    Ok(objects)
}

impl KernelObject {
    /// Whether the kernel still has it. Ids are not used again.
    #[must_use]
    pub fn exists(&self) -> bool {
        let (command, id) = match *self {
            Self::Program(id) => (PROGRAM_BY_ID, id),
            Self::Map(id) => (MAP_BY_ID, id),
        };
        let attributes = [id, 0, 0, 0];
        // SAFETY: the kernel reads as many bytes as it is told; the descriptor is closed at once.
        unsafe {
            let fd = libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of_val(&attributes));
            if fd >= 0 {
                libc::close(fd as i32);
                return true;
            }
        }
        io::Error::last_os_error().raw_os_error() != Some(libc::ENOENT)
    }
}
