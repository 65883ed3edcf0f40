//! The pure core of lastpacket: from records and facts to phases, endings, books and verdicts.
//!
//! It does no IO, knows no clock and no async runtime, logs nothing and never fails: time comes with
//! each input, and what cannot be decoded or attributed is a counted fact. The same inputs always
//! make the same outputs, which is how the recordings in the tests are replayed.

pub mod books;
pub mod connection;
pub mod decode;
pub mod event;
pub mod findings;
pub mod input;
pub mod jiffies;
pub mod ledger;
pub mod lifecycle;
pub mod losses;
pub mod output;
pub mod peers;
pub mod signals;
mod tables;
pub mod target;
pub mod tracer;
pub mod verdict;
pub mod words;

pub use tracer::Tracer;
