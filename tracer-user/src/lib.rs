//! User space.
/// Rehearsals.
pub mod rehearse;
