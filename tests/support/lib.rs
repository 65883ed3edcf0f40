//! What the test binaries share.

pub mod binary;
pub mod counters;
pub mod events;
pub mod leftovers;
pub mod needs;
pub mod netns;
pub mod process;
pub mod recording;
pub mod run;
