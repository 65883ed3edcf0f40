//! `cargo xtask vm`: the same tests on Debian's kernels, in QEMU.
//!
//! A machine is a kernel of Debian's, and an initramfs with lastpacket, the test binaries and the programs that they run.
//! Hardware virtualisation is never needed. What is downloaded is kept in `.tools/vm`.

pub(crate) mod archive;
mod cpio;
mod image;
mod kernel;
mod machine;
mod table;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use self::image::Payload;
use self::kernel::{Choice, KERNELS};
use self::machine::Outcome;
use crate::{apt, build, programs, setup, shell};

/// Programs that the verb runs, and those without which a live test fails in a machine.
const PROGRAMS: [&str; 5] = ["qemu-system-x86_64", "busybox", "xz", "ip", "nginx"];

/// Test binaries of `lastpacket-tests` that run on every kernel.
const TESTS: [&str; 1] = ["live"];

/// Tests that a kernel cannot pass, by the kernel and a part of their names, each with the reason. The test
/// runner counts them as filtered out, and the table says so.
const LEFT_OUT: [(&str, &str, &str); 1] = [("5.10", "cases::mptcp", "built without MPTCP")];

/// How many times slower than a real processor an emulated one may be, on a machine that does other work.
const SLOWNESS: u32 = 5;

/// How often a machine is started at most until it reaches its init.
const ATTEMPTS: u32 = 3;

/// Seconds after which a machine is stopped; the tests take some 400 on an idle machine of two cores.
const TIMEOUT: u64 = 1800;

/// What every run of CI has: the oldest kernel, where kprobes show some of the resets, and the newest of the stable
/// ones; the cases, each judged by the kernel's own counters. The whole matrix is the verb's.
const SAMPLE: ([&str; 2], &str) = (["5.10", "6.12"], "cases");

/// Which kernels, and what to run there.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A kernel of the matrix: 5.10, 6.1, 6.12 or newest; all of them without this
    #[arg(long = "kernel", value_name = "VERSION")]
    kernels: Vec<String>,
    /// Run only tests whose name contains this
    #[arg(long, value_name = "NAME")]
    filter: Option<String>,
    /// Stop a machine after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = TIMEOUT)]
    timeout: u64,
    /// What to run there instead of the tests (a shell's command line)
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs the tests, or the command, on each kernel; fails if one failed.
pub(crate) fn run(args: &Args) -> Result<()> {
    let choices = choices(&args.kernels)?;
    programs::install(|program| PROGRAMS.contains(&program))?;
    let mut payload = payload(args)?;
    let mut outcomes = Vec::new();
    for choice in choices {
        eprintln!("==> kernel {}", choice.name);
        if args.command.is_empty() {
            payload.command = test_script(&payload.tests, args.filter.as_deref(), choice.name);
        }
        outcomes.push(one(choice, &payload, Duration::from_secs(args.timeout))?);
    }
    table::print(&outcomes);
    let (passed, failed): (Vec<&Outcome>, Vec<&Outcome>) =
        outcomes.iter().partition(|outcome| outcome.passed());
    if args.filter.is_none() && args.command.is_empty() {
        table::record(&passed)?;
    }
    match failed.first() {
        Some(Outcome { name, .. }) => bail!("kernel {name} failed; its console is in .tools/vm/{name}/log"),
        None => Ok(()),
    }
}

/// Runs CI's sample, on a machine that can fetch it.
pub(crate) fn sample() -> Result<()> {
    if !apt::is_usable() {
        eprintln!("    left out: Debian's kernels are fetched with its apt, as root");
        return Ok(());
    }
    let (kernels, tests) = SAMPLE;
    run(&Args {
        kernels: kernels.map(str::to_owned).to_vec(),
        filter: Some(tests.to_owned()),
        timeout: TIMEOUT,
        command: Vec::new(),
    })
}

/// Tests that are left out on a kernel, each with the reason.
fn left_out(kernel: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
    LEFT_OUT.into_iter().filter(move |(of, ..)| *of == kernel).map(|(_, name, reason)| (name, reason))
}

fn choices(names: &[String]) -> Result<Vec<&'static Choice>> {
    static MATRIX: [Choice; 4] = KERNELS;
    if names.is_empty() {
        return Ok(MATRIX.iter().collect());
    }
    let find = |name: &String| {
        let known = || MATRIX.iter().map(|choice| choice.name).collect::<Vec<_>>().join(", ");
        MATRIX
            .iter()
            .find(|choice| choice.name == name)
            .with_context(|| format!("no kernel {name}: there are {}", known()))
    };
    names.iter().map(find).collect()
}

fn one(choice: &Choice, payload: &Payload, timeout: Duration) -> Result<Outcome> {
    let folder = tracer_build::tools(shell::workspace()?).join("vm");
    let kernel = choice.prepare(&folder)?;
    let initramfs = image::make(&kernel, payload)?;
    // A machine that never reached its init says nothing of what is tested.
    for _ in 1..ATTEMPTS {
        let outcome = machine::run(&kernel, &initramfs, &folder.join(choice.name), timeout)?;
        if outcome.release.is_some() {
            return Ok(outcome);
        }
        eprintln!("    {} did not start; once more", choice.name);
    }
    machine::run(&kernel, &initramfs, &folder.join(choice.name), timeout)
}

fn payload(args: &Args) -> Result<Payload> {
    // Without hardware virtualisation a debug build is too slow for tests of timing.
    let lastpacket = match std::env::var_os("LASTPACKET_BIN") {
        Some(binary) => binary.into(),
        None => build::release()?,
    };
    let tests = if args.command.is_empty() { tests()? } else { Vec::new() };
    // Of tests it differs by kernel.
    let command = args.command.join(" ");
    Ok(Payload { lastpacket, tests, command })
}

/// Builds the test binaries, with the features that all tests are built with, and says where they are.
fn tests() -> Result<Vec<(String, PathBuf)>> {
    setup::ensure()?;
    let mut cargo = shell::cargo()?;
    cargo.args(["test", "--no-run", "--workspace", "--tests", "--message-format", "json"]);
    let messages = shell::capture(&mut cargo)?;
    let found = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let name = message.pointer("/target/name")?.as_str().filter(|name| TESTS.contains(name))?;
        Some((name.to_owned(), message.get("executable")?.as_str()?.into()))
    });
    Ok(found.collect())
}

/// Runs each test binary, one test at a time: two cores that are emulated leave no room for more. The
/// last one that fails gives the exit code.
fn test_script(tests: &[(String, PathBuf)], filter: Option<&str>, kernel: &str) -> String {
    let skip: Vec<String> = left_out(kernel).map(|(name, _)| format!("--skip {name}")).collect();
    let arguments =
        format!("--test-threads 1 --color never {} {}", skip.join(" "), filter.unwrap_or_default());
    let mut script = format!(
        "export LASTPACKET_REQUIRE_LIVE=1 LASTPACKET_THROWAWAY=1 LASTPACKET_SLOWNESS={SLOWNESS}\ncode=0\n"
    );
    for (name, reason) in left_out(kernel) {
        script += &format!("echo 'left out: {name}: {reason}'\n");
    }
    for (name, _) in tests {
        script += &format!("echo '--- {name}'\n/tests/{name} {arguments} || code=$?\n");
    }
    script + "exit $code\n"
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    #[test]
    fn an_unknown_kernel_is_named_with_those_there_are() {
        let error = choices(&["2.6".to_owned()]).err().unwrap().to_string();
        assert!(error.contains("2.6") && error.contains("5.10"), "{error}");
        assert_eq!(choices(&[]).unwrap().len(), KERNELS.len());
    }

    #[test]
    fn every_test_binary_runs_even_if_one_fails() {
        let tests = [("other".to_owned(), PathBuf::new()), ("live".to_owned(), PathBuf::new())];
        let script = test_script(&tests, Some("reset"), "5.10");
        assert!(script.contains("--skip cases::mptcp"));
        assert!(!test_script(&tests, None, "6.1").contains("--skip"));
        assert_eq!(script.matches("|| code=$?").count(), 2);
        assert!(script.contains("/tests/live --test-threads 1") && script.ends_with("exit $code\n"));
    }
}
