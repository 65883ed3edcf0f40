//! The system call that this task is in: where the bytes are that it read from a socket or wrote to one.
//! They are looked at there, in the application's own memory; none of them leaves the kernel.

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_probe_read_user, bpf_task_pt_regs};
use tracer_common::{ABSENT, Pod};

use crate::offsets::{read_at, settings};

/// Pieces of a vector that are looked at.
const PIECES: u32 = 8;
/// Offset of `msg_iov` in `struct user_msghdr` (64 bit).
const MSG_IOV: u64 = 16;

/// What a call read or wrote: one buffer, or a vector of pieces.
#[derive(Clone, Copy)]
pub struct Call {
    address: u64,
    /// 1 for a vector. No `bool`: an `Option` would hide its tag in there, and BTF cannot say so, but
    /// without BTF there are no callbacks.
    is_vector: u32,
}

/// A piece of it.
#[derive(Clone, Copy, Default)]
pub struct Piece {
    pub address: u64,
    pub length: u32,
}

impl Piece {
    #[inline(always)]
    pub fn skip(&mut self, bytes: u32) {
        self.address += u64::from(bytes);
        self.length -= bytes;
    }
}

/// The call that this task is in, if it is one that is understood (io_uring, splice and sendfile are not).
#[inline(always)]
pub fn current() -> Option<Call> {
    if settings!(call_number) == ABSENT {
        return None;
    }
    // SAFETY: the helpers take the current task only and are allowed in tracepoints from 5.15 on;
    // the hooks that come here exist from 6.3 on.
    let registers = unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) } as u64;
    let number = read_at::<u64>(registers, settings!(call_number)) as u32;
    let second: u64 = read_at(registers, settings!(call_second));
    let is = |a: u32, b: u32| number == a || number == b;
    if is(settings!(calls.read), settings!(calls.write))
        || is(settings!(calls.recvfrom), settings!(calls.sendto))
    {
        Some(Call { address: second, is_vector: 0 })
    } else if is(settings!(calls.readv), settings!(calls.writev)) {
        Some(Call { address: second, is_vector: 1 })
    } else if is(settings!(calls.recvmsg), settings!(calls.sendmsg)) {
        Some(Call { address: read(second + MSG_IOV), is_vector: 1 })
    } else {
        None
    }
}

impl Call {
    /// One of the pieces that the first `left` bytes from there on lie in; `None` beyond those that are
    /// looked at.
    #[inline(always)]
    pub fn piece(&self, index: u32, left: u32) -> Option<Piece> {
        if self.is_vector == 0 {
            return (index == 0).then_some(Piece { address: self.address, length: left });
        }
        if index >= PIECES {
            return None;
        }
        let entry = self.address + u64::from(index) * 16;
        let (address, length): (u64, u64) = (read(entry), read(entry + 8));
        Some(Piece { address, length: length.min(u64::from(left)) as u32 })
    }

    /// The last piece of all `length` bytes.
    #[inline(always)]
    pub fn last_piece(&self, length: u32) -> Option<Piece> {
        let mut left = length;
        for index in 0..PIECES {
            let piece = self.piece(index, left)?;
            left -= piece.length;
            if left == 0 {
                return Some(piece);
            }
        }
        None
    }
}

/// Reads a value from the application's memory; zeros if it is not there.
#[inline(always)]
pub fn read<T: Pod>(address: u64) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the destination is as large as said; the helper checks the address itself.
    unsafe {
        bpf_probe_read_user(value.as_mut_ptr().cast(), size_of::<T>() as u32, address as *const c_void)
    };
    // SAFETY: the helper writes all of it, whatever comes of it, and any bytes are a value of such a type.
    unsafe { value.assume_init() }
}
