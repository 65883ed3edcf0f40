//! The developer's verbs: `cargo xtask help`. A verb is a module with its `Args` and a `run`.

mod apt;
mod bench;
mod bless;
mod build;
mod demo;
mod failures;
mod helm;
mod image;
mod lint;
mod programs;
mod python;
mod scenarios;
mod servers;
mod setup;
mod shell;
mod steps;
mod test;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Developer verbs of lastpacket.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what the kernel programs are built with: a BPF core library and bpf-linker
    Setup,
    /// Install the programs that tests run, which `test` does too
    Programs,
    /// Build lastpacket with its kernel programs
    Build(build::Args),
    /// Make the container image, an OCI layout in a tar file, without a daemon
    Image(image::Args),
    /// Rehearse a bad and a good termination and check both verdicts (needs root)
    Demo,
    /// Run everything that CI runs: lint, all tests with a real kernel, the demo (needs root)
    Test(test::Args),
    /// Measure what lastpacket costs, beside what is promised (needs root)
    Bench(bench::Args),
    /// The tight loop of `bench`, in the network namespace that it is run in
    #[command(hide = true)]
    Tight(bench::tight::Args),
    /// One end of connections that `bench` holds, in the network namespace that it is run in
    #[command(hide = true)]
    Hold(bench::hold::Args),
    /// SYNs of `bench`, from the network namespace that it is run in
    #[command(hide = true)]
    Flood(bench::flood::Args),
    /// Play the well-known shutdown experiments, and print what was expected and seen (needs root)
    Scenarios(scenarios::Args),
    /// Rehearse servers that people know, and make the tables of docs/servers.md anew (needs root)
    Servers(servers::Args),
    /// Renew the golden files that tests compare with; look at the difference before you commit it
    Bless,
    /// Run the tests on Debian's kernels, from 5.10 to the newest, in QEMU
    Vm(vm::Args),
    /// Check format, clippy and, where cargo-deny is installed, licences and sources
    Lint,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().verb {
        Verb::Setup => setup::run(),
        Verb::Programs => programs::install_all(),
        Verb::Build(args) => build::run(&args),
        Verb::Image(args) => image::run(&args),
        Verb::Demo => demo::run(),
        Verb::Test(args) => test::run(&args),
        Verb::Bench(args) => bench::run(&args),
        Verb::Tight(args) => bench::tight::run(&args),
        Verb::Hold(args) => bench::hold::run(&args),
        Verb::Flood(args) => bench::flood::run(&args),
        Verb::Scenarios(args) => scenarios::run(&args),
        Verb::Servers(args) => servers::run(&args),
        Verb::Bless => bless::run(),
        Verb::Vm(args) => vm::run(&args),
        Verb::Lint => lint::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
