//! Reading kernel memory at the offsets that user space resolved from BTF.

use core::{
    ffi::c_void,
    mem::{self, MaybeUninit},
    ptr,
};

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use tracer_common::{ABSENT, Calls, Offsets, Pod, Settings};

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
    lanes: 0,
    task_is_typed: 0,
    calls: Calls { read: 0, write: 0, recvfrom: 0, sendto: 0, readv: 0, writev: 0, recvmsg: 0, sendmsg: 0 },
    call_number: ABSENT,
    call_second: ABSENT,
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
    ($($field:ident).+) => {
        // SAFETY: reads a static; volatile, or else the compiler would use the value from before the
        // load.
        unsafe { core::ptr::read_volatile(&raw const $crate::offsets::SETTINGS.$($field).+) }
    };
}

/// Reads a kernel field, by its name in [`Offsets`]; the default value if it cannot be read. With `by` as an
/// [`Access`] says, else by a helper.
macro_rules! field {
    ($base:expr, $field:ident, by $access:ty) => {
        <$access as $crate::offsets::Access>::at($base, $crate::offsets::offset!($field))
    };
    ($base:expr, $field:ident: $ty:ty, by $access:ty) => {
        <$access as $crate::offsets::Access>::at::<$ty>($base, $crate::offsets::offset!($field))
    };
    ($base:expr, $field:ident) => {
        $crate::offsets::read_at($base, $crate::offsets::offset!($field))
    };
    ($base:expr, $field:ident: $ty:ty) => {
        $crate::offsets::read_at::<$ty>($base, $crate::offsets::offset!($field))
    };
}

pub(crate) use {field, offset, settings};

/// How a program reaches the memory of a socket.
pub trait Access {
    /// Reads a value at an offset from a kernel pointer; the default value if the kernel has no such field.
    fn at<T: Pod>(base: u64, offset: u32) -> T;
}

/// By a call of a helper, which looks at every address that it is given. Zeros if it cannot be read.
pub struct Probed;

impl Access for Probed {
    #[inline(always)]
    fn at<T: Pod>(base: u64, offset: u32) -> T {
        read_at(base, offset)
    }
}

/// By a plain load, without a call: only from pointers whose type the verifier knows, as those that BTF
/// tracepoints are given and those that are found there. It checks that the offset is that of a field, and
/// the kernel reads zeros where a pointer leads nowhere (`BPF_PROBE_MEM`).
pub struct Loaded;

impl Access for Loaded {
    #[inline(always)]
    fn at<T: Pod>(base: u64, offset: u32) -> T {
        if offset == ABSENT {
            return zeroed();
        }
        let address = base.wrapping_add(u64::from(offset));
        // SAFETY: the verifier only lets loads of fields pass; each copy is as large as what was loaded. Volatile: the
        // verifier would not take wider or repeated loads, nor the compiler's own guesses.
        unsafe {
            match size_of::<T>() {
                1 => mem::transmute_copy(&ptr::read_volatile(address as *const u8)),
                2 => mem::transmute_copy(&ptr::read_volatile(address as *const u16)),
                4 => mem::transmute_copy(&ptr::read_volatile(address as *const u32)),
                8 => mem::transmute_copy(&ptr::read_volatile(address as *const u64)),
                16 => mem::transmute_copy(&[
                    ptr::read_volatile(address as *const u64),
                    ptr::read_volatile((address + 8) as *const u64),
                ]),
                // No single field: by call.
                _ => read(address),
            }
        }
    }
}

/// Reads a value at an offset from a kernel pointer. Kernel memory that cannot be read, a NULL
/// pointer and a field that the kernel does not have read as zeros, which no caller takes for a fact:
/// pointers are checked, ids of 0 mean unknown.
#[inline(always)]
pub fn read_at<T: Pod>(base: u64, offset: u32) -> T {
    // The verifier knows the offset, so that this is no branch.
    if offset == ABSENT { zeroed() } else { read(base.wrapping_add(u64::from(offset))) }
}

/// Reads a value at a kernel address; zeros if it cannot be read.
///
/// Without a branch: the helper zeroes what it cannot read (`bpf_probe_read_kernel_common`), also at a
/// NULL pointer (`copy_from_kernel_nofault_allowed`). A branch after each read would double what the
/// verifier has to go through: kernels before 6.3 gave up on the programs.
#[inline(always)]
pub fn read<T: Pod>(address: u64) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the destination is as large as said; the helper checks the address itself.
    unsafe {
        bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, address as *const c_void)
    };
    // SAFETY: the helper writes all of it, whatever comes of it, and any bytes are a value of such a type.
    unsafe { value.assume_init() }
}

#[inline(always)]
fn zeroed<T: Pod>() -> T {
    // SAFETY: every bit pattern is a value of such a type.
    unsafe { mem::zeroed() }
}
