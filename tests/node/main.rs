//! The agent on a node of its own: real containerd and runc, driven as a kubelet drives them, with
//! clients in a network namespace of their own as witnesses.

mod agent;
mod agreement;
mod api;
mod cases;
mod clients;
mod cluster;
mod containerd;
mod cri;
mod guardian;
mod host_network;
mod images;
mod machine;
mod network;
mod oci_runtime;
mod pod;

use std::process::ExitCode;

use anyhow::Result;
use lastpacket_tests::needs;
use libtest_mimic::Arguments;
use nix::unistd::geteuid;

fn main() -> Result<ExitCode> {
    if let Some(arguments) = oci_runtime::arguments() {
        return oci_runtime::run(&arguments).map(|never| match never {});
    }
    // Without root nothing is started, and all tests are skipped or fail.
    if geteuid().is_root() && !guardian::guards_this() {
        return guardian::guard();
    }
    guardian::begin();
    let mut arguments = Arguments::from_args();
    // One node, and what its pods do at the same time is each test's own business.
    arguments.test_threads = Some(1);
    let trials = cases::trials();
    needs::explain_skips();
    let conclusion = libtest_mimic::run(&arguments, trials);
    cluster::end();
    Ok(conclusion.exit_code())
}
