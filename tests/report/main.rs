//! Reports: what is made of recorded events, in every form; the page in a real browser.

mod browser;
mod command;
mod devtools;
mod golden;
mod inputs;
mod junit;
mod page;

use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let trials = [command::trials(), golden::trials(), junit::trials(), page::trials()];
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit_code()
}
