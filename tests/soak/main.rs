//! Randomised rehearsals: servers that end in all manners, clients of all kinds, and the question
//! whether the verdict is what the clients saw. `LASTPACKET_SOAK` says how many, `LASTPACKET_SEED` the
//! first seed; with `LASTPACKET_ACCURACY` their numbers are written to that file.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the failure's message")]

mod check;
mod plan;
mod report;
mod server;

use std::{
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use anyhow::{Context, Result, bail};
use lastpacket_tests::{needs, run};
use libtest_mimic::Arguments;

use self::{check::check, plan::Plan, report::Report};

/// How many rehearsals are a sample.
const SAMPLE: u64 = 20;
/// Each has its own namespaces.
const AT_ONCE: usize = 2;

fn main() -> Result<ExitCode> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == "child") {
        return server::play(&words[1..]).map(|()| ExitCode::SUCCESS);
    }
    let trials = vec![needs::live("rehearsals_are_judged_as_their_clients_saw_them", soak)];
    needs::explain_skips();
    Ok(libtest_mimic::run(&Arguments::from_args(), trials).exit_code())
}

fn soak() -> Result<()> {
    let (first, count) = (number("LASTPACKET_SEED", 1)?, number("LASTPACKET_SOAK", SAMPLE)?);
    let next = AtomicU64::new(first);
    let report = Mutex::new(Report::new(first, count));
    thread::scope(|scope| {
        let workers: Vec<_> =
            (0..AT_ONCE).map(|_| scope.spawn(|| work(&next, first + count, &report))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap())
    })?;
    let report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
    eprintln!("{}", report.text());
    if let Some(path) = std::env::var_os("LASTPACKET_ACCURACY") {
        std::fs::write(path, report.text())?;
    }
    match report.wrong() {
        0 => Ok(()),
        wrong => bail!("{wrong} of {count} rehearsals were judged wrongly; see above"),
    }
}

/// Rehearses seed after seed.
fn work(next: &AtomicU64, end: u64, report: &Mutex<Report>) -> Result<()> {
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return Ok(());
        }
        let plan = Plan::of(seed)?;
        let (score, faults) = match run::start(&plan.arguments)?.finish() {
            Ok(run) => {
                let (score, mut faults) = check(&run);
                if !faults.is_empty() {
                    faults.push(format!("its lines are in {}", run.keep(&format!("soak-{seed}"))?));
                }
                (score, faults)
            }
            Err(error) => (check::Score::default(), vec![format!("{error:#}")]),
        };
        if !faults.is_empty() {
            eprintln!("seed {seed}, {}: {}", plan.server, plan.command());
            faults.iter().for_each(|fault| eprintln!("  {fault}"));
        }
        report.lock().unwrap_or_else(PoisonError::into_inner).add(&plan, &score, faults.len());
    }
}

fn number(variable: &str, otherwise: u64) -> Result<u64> {
    match std::env::var(variable) {
        Ok(text) => text.parse().with_context(|| format!("{variable}={text} is no number")),
        Err(_) => Ok(otherwise),
    }
}
