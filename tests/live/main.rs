//! The real program on a real kernel: own network namespaces, own servers, independent witnesses.

mod agent;
mod books;
mod cases;
mod cgroups;
mod children;
mod endings;
mod exchanges;
mod existing;
mod faults;
mod findings;
mod hooks;
mod kernel;
mod options;
mod peers;
mod scene;
mod seccomp;
mod signals;
mod storm;
mod targets;
mod wall_clock;

use std::process::ExitCode;

use anyhow::Result;
use lastpacket_tests::needs;
use libtest_mimic::Arguments;

fn main() -> Result<ExitCode> {
    if let Some(role) = children::role() {
        return children::play(&role).map(|()| ExitCode::SUCCESS);
    }
    let mut arguments = Arguments::from_args();
    // One at a time: starting a process copies descriptors for a moment, and a socket that another
    // test closes in that moment closes later than it says.
    arguments.test_threads.get_or_insert(1);
    let mut trials = cases::trials()?;
    trials.extend(signals::trials());
    trials.extend(targets::trials());
    trials.extend(cgroups::trials());
    trials.extend(agent::trials());
    trials.extend(books::trials());
    trials.extend(exchanges::trials());
    trials.extend(existing::trials());
    trials.extend(faults::trials());
    trials.extend(findings::trials());
    trials.extend(hooks::trials());
    trials.extend(peers::trials());
    trials.extend(storm::trials());
    trials.extend(endings::trials());
    trials.extend(kernel::trials());
    needs::explain_skips();
    Ok(libtest_mimic::run(&arguments, trials).exit_code())
}
