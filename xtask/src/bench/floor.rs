//! The least that a program on a hook costs: programs that do nothing, by bpf(2) itself.

use std::{
    ffi::{CStr, c_long},
    io,
    os::fd::{FromRawFd, OwnedFd},
};

use anyhow::{Context, Result};

/// `BPF_PROG_TYPE_RAW_TRACEPOINT`, and the two commands, of `include/uapi/linux/bpf.h`.
const RAW_TRACEPOINT: u32 = 17;
const PROG_LOAD: c_long = 5;
const RAW_TRACEPOINT_OPEN: c_long = 17;
/// Of the same header: the command, and what it counts (`BPF_STATS_RUN_TIME`).
const ENABLE_STATS: c_long = 32;
const RUN_TIME: u32 = 0;
/// `r0 = 0; exit`, as `struct bpf_insn`.
const NOTHING: [u64; 2] = [0xb7, 0x95];

/// The beginning of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
struct Load {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
}

/// The same for `BPF_RAW_TRACEPOINT_OPEN`.
#[repr(C)]
struct Open {
    name: u64,
    program: u32,
    padding: u32,
}

/// Programs that do nothing, attached as long as this lives.
pub(crate) struct Floor {
    _descriptors: Vec<OwnedFd>,
}

impl Floor {
    /// Attaches one to each hook.
    pub(crate) fn attach(hooks: &[&CStr]) -> Result<Self> {
        let mut descriptors = Vec::new();
        for hook in hooks {
            let program = load().context("cannot load an empty program")?;
            let open = Open { name: hook.as_ptr() as u64, program: raw(&program), padding: 0 };
            let link = bpf(RAW_TRACEPOINT_OPEN, &open)
                .with_context(|| format!("cannot attach an empty program to {}", hook.to_string_lossy()))?;
            descriptors.extend([program, link]);
        }
        Ok(Self { _descriptors: descriptors })
    }
}

/// Lets the kernel count runs and time of all programs as long as the descriptor is open, however this
/// process ends.
pub(crate) fn count_time() -> io::Result<OwnedFd> {
    bpf(ENABLE_STATS, &RUN_TIME)
}

fn load() -> io::Result<OwnedFd> {
    let load = Load {
        kind: RAW_TRACEPOINT,
        instructions: NOTHING.len() as u32,
        code: NOTHING.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
    };
    bpf(PROG_LOAD, &load)
}

fn raw(descriptor: &OwnedFd) -> u32 {
    std::os::fd::AsRawFd::as_raw_fd(descriptor).cast_unsigned()
}

fn bpf<T>(command: c_long, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: `attributes` is the beginning of `union bpf_attr` of this command, its size is given (the
    // kernel takes what is beyond as zeros), and what it points to lives during the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    let descriptor = i32::try_from(result).ok().filter(|descriptor| *descriptor >= 0);
    match descriptor {
        // SAFETY: the kernel has just given this descriptor to us alone.
        Some(descriptor) => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        None => Err(io::Error::last_os_error()),
    }
}
