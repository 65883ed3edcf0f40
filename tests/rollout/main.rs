//! `lastpacket rollout`, the program, against an API server that the test writes to, with the events of
//! a recorded rollout.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test a panic is the failure's message")]

mod command;
mod forms;
mod gate;
mod kinds;
mod objects;
mod progress;
mod said;
mod scene;
mod streams;
mod watch;
