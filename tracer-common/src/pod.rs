//! Reading a type from bytes that the other side wrote.

/// Types for which every bit pattern is a value, so that they may be read from any bytes.
///
/// # Safety
/// The type must be `repr(C)`, without padding, and made only of integers, byte arrays and other
/// types that implement this trait.
pub unsafe trait Pod: Copy + 'static {
    /// The value at the beginning of `bytes`, or `None` if they are too few.
    #[must_use]
    fn read_from(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < size_of::<Self>() {
            return None;
        }
        // SAFETY: the length was checked, alignment does not matter to read_unaligned, and every bit
        // pattern is a value by the contract of the trait.
        Some(unsafe { core::ptr::read_unaligned(bytes.as_ptr().cast()) })
    }

    /// The bytes of the value.
    #[must_use]
    fn as_bytes(&self) -> &[u8] {
        // SAFETY: the type has no padding, so that all of its bytes are initialised.
        unsafe { core::slice::from_raw_parts(core::ptr::from_ref(self).cast(), size_of::<Self>()) }
    }
}

// SAFETY: integers.
unsafe impl Pod for u8 {}
// SAFETY: as above.
unsafe impl Pod for u16 {}
// SAFETY: as above.
unsafe impl Pod for u32 {}
// SAFETY: as above.
unsafe impl Pod for i32 {}
// SAFETY: as above.
unsafe impl Pod for u64 {}
// SAFETY: an array has no padding of its own.
unsafe impl<const N: usize> Pod for [u8; N] {}
