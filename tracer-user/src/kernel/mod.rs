//! The kernel's side of user space: what the kernel has, loading and attaching the programs, their
//! tables, their records.

pub mod btf;
pub mod curr_estab;
pub mod facts;
pub mod hooks;
mod lockdown;
pub mod log;
mod memlock;
pub mod preflight;
pub mod probes;
pub mod ring;
