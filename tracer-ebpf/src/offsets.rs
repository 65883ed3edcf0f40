//! Reading kernel memory at the offsets that user space resolved from BTF.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use tracer_common::{ABSENT, Offsets, Settings};

/// Overridden at load; in `.rodata`, so that the verifier knows the values and prunes what the
/// running kernel does not need.
#[unsafe(no_mangle)]
pub static OFFSETS: Offsets = Offsets::NONE;

/// Overridden at load, see [`OFFSETS`].
#[unsafe(no_mangle)]
pub static SETTINGS: Settings = Settings {
    page_offset: 0,
    vmemmap: 0,
    bases_are_variables: 0,
    page_struct_size: 0,
    page_shift: 0,
    upid_size: 0,
    scope_by_cookie: 0,
    reset_has_reason: 0,
    victim_is_task: 0,
    reserved: 0,
};

/// Offset of a kernel field, by its name in [`Offsets`].
macro_rules! offset {
    ($field:ident) => {
        // SAFETY: reads a static; volatile, or else the compiler would use the value from before the
        // load.
        unsafe { core::ptr::read_volatile(&raw const $crate::offsets::OFFSETS.$field) }
    };
}

/// A setting, by its name in [`Settings`].
macro_rules! settings {
    ($field:ident) => {
        // SAFETY: reads a static; volatile, or else the compiler would use the value from before the
        // load.
        unsafe { core::ptr::read_volatile(&raw const $crate::offsets::SETTINGS.$field) }
    };
}

/// Reads a kernel field, by its name in [`Offsets`]; the default value if it cannot be read.
macro_rules! field {
    ($base:expr, $field:ident) => {
        $crate::offsets::read_at($base, $crate::offsets::offset!($field))
    };
    ($base:expr, $field:ident: $ty:ty) => {
        $crate::offsets::read_at::<$ty>($base, $crate::offsets::offset!($field))
    };
}

pub(crate) use {field, offset, settings};

/// Reads a value at an offset from a kernel pointer. Kernel memory that cannot be read, a NULL
/// pointer and a field that the kernel does not have read as the default value, which no caller
/// takes for a fact: pointers are checked, ids of 0 mean unknown.
#[inline(always)]
pub fn read_at<T: Copy + Default>(base: u64, offset: u32) -> T {
    if base == 0 || offset == ABSENT {
        return T::default();
    }
    read(base + u64::from(offset))
}

/// Reads a value at a kernel address; the default value if it cannot be read.
#[inline(always)]
pub fn read<T: Copy + Default>(address: u64) -> T {
    // SAFETY: bpf_probe_read_kernel checks the address itself and fails on a fault.
    unsafe { bpf_probe_read_kernel(address as *const T) }.unwrap_or_default()
}
