//! Reports from recorded or gathered events: what is known of each pod's termination, and its forms for
//! pull requests, CI and people with a browser.
//!
//! `read` makes events of whatever a log collector left; [`Report`] adds them up; `markdown`, `junit`
//! and `html` are its forms. None of them reads a clock, writes a file or knows the command line.

mod fold;
pub mod html;
pub mod junit;
pub mod markdown;
mod model;
pub mod read;
mod summary;
pub mod text;

pub use fold::Fold;
pub use junit::Failing;
pub use model::{Connection, Endpoints, Lane, Loss, Mark, Pod, Report, Run, Tally, Whose};
pub use read::Counts;
