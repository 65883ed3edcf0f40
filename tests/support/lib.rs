//! What the test binaries share.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test a panic is the failure's message")]

pub mod api_server;
pub mod binary;
pub mod counters;
pub mod events;
pub mod leftovers;
pub mod machine;
pub mod needs;
pub mod netns;
pub mod process;
pub mod programs;
pub mod recording;
pub mod run;
