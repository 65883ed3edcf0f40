//! `lastpacket`: see `lastpacket help`.

use std::process::ExitCode;

use tracer_user::cli::{self, Outcome};

fn main() -> ExitCode {
    tracer_user::log::start();
    match cli::run(cli::parse()) {
        Ok(outcome) => outcome.into(),
        Err(error) => {
            eprintln!("lastpacket: {error:#}");
            Outcome::Failed.into()
        }
    }
}
