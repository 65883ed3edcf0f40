//! Building the kernel object.
