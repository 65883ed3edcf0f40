//! What kernel and user space say to each other: records, map entries and the settings of a load.
//!
//! Everything here is `repr(C)`, made of integers and byte arrays, without padding, so that the same
//! bytes mean the same on both sides. Sizes are asserted where the types are defined.
#![no_std]

mod counters;
mod offsets;
mod pod;
mod records;
mod scope;

pub use counters::{
    CPU_NOTES, Counters, KINDS, NOTES, RELAY_EXIT, RELAY_RESET_SENT, RELAY_STATE, RELAYS, RelayState,
};
pub use offsets::{ABSENT, Calls, Offsets, Settings};
pub use pod::Pod;
pub use records::{
    Answer, CgroupRecord, Exchange, ExecRecord, ExitRecord, GoneRecord, Header, Kind, OomRecord, Protocol,
    ResetRecord, Segment, SegmentClass, SignalRecord, SockKind, Socket, StateRecord, Task, Tuple, task_flags,
};
pub use scope::{
    CONVERSATION, InitEntry, LANES, MAX_INITS, MAX_PROBERS, MAX_TARGETS, Mode, NODE, ScopeEntry,
};
