//! The command line: bad input, bad output, exit codes, the schema, and what is left behind.

mod bad_input;
mod bad_output;
mod demo;
mod interrupted;
mod program;
mod rehearse;
mod trace_pods;
mod wait_idle;

use std::process::ExitCode;

use lastpacket_tests::needs;
use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One at a time: what is left behind must be the last one's.
    arguments.test_threads.get_or_insert(1);
    let trials = [
        bad_input::trials(),
        bad_output::trials(),
        demo::trials(),
        interrupted::trials(),
        rehearse::trials(),
        trace_pods::trials(),
        wait_idle::trials(),
    ]
    .into_iter()
    .flatten()
    .collect();
    needs::explain_skips();
    libtest_mimic::run(&arguments, trials).exit_code()
}
