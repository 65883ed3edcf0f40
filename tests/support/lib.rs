//! What the test binaries share.

pub mod binary;
pub mod needs;
pub mod programs;
pub mod recording;
