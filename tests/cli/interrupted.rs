//! Runs that are ended by a signal: nothing is left behind, or the next run removes it.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use lastpacket_tests::{
    events::Events,
    leftovers::{Mark, cgroup_of},
    needs,
    netns::Namespace,
    process::{self, Resident},
    run,
};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use tracer_core::{lifecycle::Source, output::Body, words::Phase};

use crate::program::{self, end, ensure_one_sentence, lastpacket};

pub fn trials() -> Vec<Trial> {
    vec![
        needs::live("interrupted::ctrl_c_ends_a_rehearsal_without_leftovers", || interrupt(Signal::SIGINT)),
        needs::live("interrupted::sigterm_ends_a_rehearsal_without_leftovers", || interrupt(Signal::SIGTERM)),
        needs::live("interrupted::a_killed_rehearsal_leaves_a_cgroup_to_the_next_one", killed),
        needs::live("interrupted::an_interrupted_trace_gives_no_verdict", interrupted_trace),
        needs::live("interrupted::sigusr1_tells_a_trace_that_termination_begins", told_of_termination),
        needs::live("interrupted::a_target_that_ends_while_tracing_begins", target_that_ends_meanwhile),
    ]
}

/// Whenever a process ends, from before the kernel programs are loaded until after: tracing it ends too.
fn target_that_ends_meanwhile() -> Result<()> {
    let namespace = Namespace::new()?;
    for delay in (200..800).step_by(60) {
        let resident = Resident::of(&namespace)?;
        let command = lastpacket(["trace", "--linger", "0ms", "--pid", &resident.pid().to_string()])?;
        let ends = thread::spawn(move || {
            thread::sleep(Duration::from_millis(delay));
            resident.terminate()
        });
        let ended = program::run(command)?;
        ends.join().map_err(|_| anyhow!("the thread panicked"))??;
        // Idle, or ended before it could be traced, or while it was being put in scope.
        let verdict = if ended.status.code() == Some(0) { "idle" } else { "unproven" };
        match ended.status.code() {
            Some(2) => ensure_one_sentence(&ended, &[])?,
            Some(0 | 3) => ensure!(ended.stdout.contains(&format!("\"result\":\"{verdict}\"")), "{ended:?}"),
            _ => bail!("{ended:?}"),
        }
    }
    Ok(())
}

/// What the user says is no more than what the API says of a pod: it is a phase, and then all goes on.
fn told_of_termination() -> Result<()> {
    let namespace = Namespace::new()?;
    let resident = Resident::of(&namespace)?;
    let is_phase = |body: &Body| matches!(body, Body::Phase(_));
    let mut trace = run::start(&["trace", "--linger", "100ms", "--pid", &resident.pid().to_string()])?;
    trace.wait_for(1, is_phase)?;
    trace.signal(Signal::SIGUSR1)?;
    trace.wait_for(2, is_phase)?;
    resident.terminate()?;
    let run = trace.finish()?;
    let phases = run.lines.verdict().context("no verdict")?.containers[0].phases.clone();
    let phases: Vec<_> = phases.iter().map(|start| (start.phase, start.source)).collect();
    ensure!(phases[..2] == [(Phase::Running, Source::Host), (Phase::PreStop, Source::User)], "{phases:?}");
    ensure!(phases[2..].iter().all(|(_, source)| *source == Source::Kernel), "{phases:?}");
    ensure!(phases.len() > 3 && run.status.code() == Some(0), "{phases:?}, {:?}", run.status);
    Ok(())
}

/// A rehearsal whose clients have begun.
fn rehearsal() -> Result<(Child, Mark)> {
    let mut command = lastpacket(["rehearse", "--demo", "graceful", "--warm-up", "30s", "--format", "json"])?;
    let mark = Mark::on(&mut command);
    let mut child = command.spawn()?;
    wait_for_line(&mut child, "\"connection_opened\"")?;
    Ok((child, mark))
}

/// Waits until a line with these words was written; what follows is read and forgotten.
fn wait_for_line(child: &mut Child, words: &str) -> Result<()> {
    let mut lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
    lines
        .by_ref()
        .find(|line| line.as_ref().is_ok_and(|line| line.contains(words)))
        .context("it ended before")??;
    thread::spawn(move || lines.for_each(drop));
    Ok(())
}

fn interrupt(signal: Signal) -> Result<()> {
    let (child, mark) = rehearsal()?;
    let pid = child.id();
    process::signal(pid, signal)?;
    ensure_one_sentence(&end(child)?, &["interrupted", "nothing is left behind"])?;
    mark.ensure_nothing_left(pid)
}

fn killed() -> Result<()> {
    let (child, mark) = rehearsal()?;
    let pid = child.id();
    process::signal(pid, Signal::SIGKILL)?;
    end(child)?;
    mark.ensure_no_process_left()?;
    // The next run cleans up, even if it fails.
    program::run(lastpacket(["rehearse", "--", "true"])?)?;
    ensure!(cgroup_of(pid).is_none(), "the cgroup of the killed run is left");
    mark.ensure_nothing_left(pid)
}

fn interrupted_trace() -> Result<()> {
    let namespace = Namespace::new()?;
    let resident = Resident::of(&namespace)?;
    let mut command = lastpacket(["trace", "--pid", &resident.pid().to_string(), "--format", "json"])?;
    let mark = Mark::on(&mut command);
    let mut child = command.stderr(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
    lines
        .by_ref()
        .find(|line| line.as_ref().is_ok_and(|line| line.contains("\"phase\"")))
        .context("no phase")??;
    let pid = child.id();
    process::signal(pid, Signal::SIGINT)?;
    let rest: Vec<String> = lines.collect::<Result<_, _>>()?;
    let ended = end(child)?;
    ensure!(ended.status.success(), "{}: {}", ended.status, ended.stderr);
    ensure!(
        !rest.iter().any(|line| line.contains("\"verdict\"")),
        "a verdict on a target that lives: {rest:?}"
    );
    ensure!(rest.iter().any(|line| line.contains("it still runs")), "why is not told: {rest:?}");
    mark.ensure_nothing_left(pid)
}
