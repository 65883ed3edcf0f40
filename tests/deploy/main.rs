//! What is shipped for Kubernetes: manifest, chart, alert rules, dashboard, metrics.

mod chart;
mod files;
mod manifest;
mod rules;
mod scrape;

use std::process::ExitCode;

use lastpacket_tests::needs;
use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let trials = [chart::trials(), manifest::trials(), rules::trials(), scrape::trials()];
    let trials = trials.into_iter().flatten().collect();
    needs::explain_skips();
    libtest_mimic::run(&arguments, trials).exit_code()
}
