//! What goes wrong around lastpacket: the verdict says what is missing, and nothing panics.

use std::{io::Error, os::unix::process::CommandExt, process::Command};

use anyhow::{Context, Result, ensure};
use lastpacket_tests::{
    events::{Events, ensure_balanced, ensure_no_gaps},
    needs,
    netns::{Link, Namespace},
    process::{self, Resident},
    run::{self, Run, Running},
};
use libtest_mimic::Trial;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::signal::Signal,
};
use tracer_core::{
    output::Body,
    words::{self, Phase},
};

use crate::{
    scene::pause,
    seccomp,
    targets::{QUESTION, Target},
    wall_clock::WallClock,
};

pub fn trials() -> Vec<Trial> {
    vec![
        needs::live("faults::a_network_namespace_that_goes_before_the_last_reading", namespace_gone),
        needs::live("faults::sock_diag_is_refused", no_sock_diag),
        needs::live("faults::proc_goes_while_tracing", proc_goes),
        needs::live("faults::proc_is_not_there", proc_missing),
        needs::live("faults::the_wall_clock_steps", wall_clock),
        needs::live("faults::ctrl_c_in_the_middle_of_a_termination", interrupted),
    ]
}

fn begin(target: &Resident, prepare: impl FnOnce(&mut Command)) -> Result<Running> {
    let pid = target.pid().to_string();
    let mut lastpacket = run::start_as(&["trace", "--linger", "300ms", "--pid", &pid], prepare)?;
    lastpacket.wait_for(1, |body| matches!(body, Body::Phase(_)))?;
    Ok(lastpacket)
}

/// It ended without a panic, unproven for this reason.
fn ensure_unproven(run: &Run, reason: &str) -> Result<()> {
    ensure_no_gaps(&run.lines)?;
    ensure!(!run.stderr.contains("panicked"), "{}", run.stderr);
    let verdict = run.lines.verdict()?;
    ensure!(verdict.result == words::Result::Unproven, "{:?}: {:?}", verdict.result, verdict.reasons);
    ensure!(verdict.reasons.iter().any(|told| told.contains(reason)), "{:?}", verdict.reasons);
    ensure!(run.status.code() == Some(3), "{}", run.status);
    Ok(())
}

/// Nothing but lastpacket's descriptors is left of the target's namespace: they still read, so that
/// nothing is missing.
fn namespace_gone() -> Result<()> {
    let mut target = Target::new("hold", 1)?;
    let pid = target.holder.pid().to_string();
    let mut lastpacket = run::start(&["trace", "--linger", "1s", "--pid", &pid])?;
    lastpacket.wait_for(1, |body| matches!(body, Body::Phase(_)))?;
    target.connect_and_wait(30_000, &QUESTION)?;
    pause(1200);
    target.holder.stop()?;
    lastpacket.wait_for(4, |body| matches!(body, Body::Phase(_)))?;
    drop(target);
    let run = lastpacket.finish()?;
    ensure!(!run.stderr.contains("panicked"), "{}", run.stderr);
    let verdict = run.lines.verdict()?;
    ensure_balanced(verdict)?;
    ensure!(verdict.books.iter().any(|book| book.name == "OutRsts"), "{:?}", verdict.books);
    ensure!(verdict.result == words::Result::Drained, "{:?}: {:?}", verdict.result, verdict.reasons);
    Ok(())
}

fn no_sock_diag() -> Result<()> {
    let namespace = Namespace::new()?;
    let resident = Resident::of(&namespace)?;
    let lastpacket = begin(&resident, |command| {
        // SAFETY: between fork and exec it makes two system calls with memory of its own.
        unsafe { command.pre_exec(seccomp::refuse_sock_diag) };
    })?;
    resident.terminate()?;
    let run = lastpacket.finish()?;
    ensure!(run.stderr.contains("sock_diag"), "the cause is not told: {}", run.stderr);
    ensure_unproven(&run, "sock_diag")
}

/// In mounts of its own.
fn own_mounts() -> Result<(), Error> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    Ok(mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?)
}

fn proc_goes() -> Result<()> {
    let namespace = Namespace::new()?;
    let resident = Resident::of(&namespace)?;
    let lastpacket = begin(&resident, |command| {
        // SAFETY: between fork and exec it makes system calls without memory of others.
        unsafe { command.pre_exec(own_mounts) };
    })?;
    pause(200);
    let mut umount = Command::new("nsenter");
    umount.args(["--target", &lastpacket.pid().to_string(), "--mount", "umount", "--lazy", "/proc"]);
    ensure!(umount.status()?.success(), "cannot unmount its /proc");
    resident.terminate()?;
    ensure_unproven(&lastpacket.finish()?, "/proc/self/fdinfo")
}

fn proc_missing() -> Result<()> {
    let namespace = Namespace::new()?;
    let resident = Resident::of(&namespace)?;
    let pid = resident.pid().to_string();
    let run = run::start_as(&["trace", "--pid", &pid], |command| {
        // SAFETY: as above.
        unsafe {
            command.pre_exec(|| {
                own_mounts()?;
                Ok(mount(Some("none"), "/proc", Some("tmpfs"), MsFlags::empty(), None::<&str>)?)
            });
        }
    })?
    .finish()?;
    ensure!(run.status.code() == Some(2), "{}: {}", run.status, run.stderr);
    ensure!(run.stderr.contains("/proc") && !run.stderr.contains("panicked"), "{}", run.stderr);
    ensure!(run.lines.is_empty(), "{:?}", run.lines);
    Ok(())
}

/// For lastpacket alone the wall clock steps an hour ahead and then back to the day before: the lines'
/// own times go on as the monotonic clock does, and the verdict is the same.
fn wall_clock() -> Result<()> {
    let mut clock = WallClock::new()?;
    let mut target = Target::new("hold", 1)?;
    let pid = target.holder.pid().to_string();
    let arguments = ["trace", "--linger", "100ms", "--pid", &pid];
    let mut lastpacket = run::start_as(&arguments, |command| clock.prepare(command))?;
    lastpacket.wait_for(1, |body| matches!(body, Body::Phase(_)))?;
    target.connect_and_wait(30_000, &QUESTION)?;
    clock.step_to(3600)?;
    pause(600);
    clock.step_to(-86400)?;
    pause(600);
    target.holder.stop()?;
    let run = lastpacket.finish()?;
    ensure!(!run.stderr.contains("panicked"), "{}", run.stderr);
    let verdict = run.lines.verdict()?;
    ensure_balanced(verdict)?;
    ensure!(verdict.result == words::Result::Drained, "{:?}: {:?}", verdict.result, verdict.reasons);
    let offset = |line: &tracer_core::output::Line| line.time.0 - line.mono_ns.cast_signed();
    let first = run.lines.first().map(offset).context("no line")?;
    ensure!(run.lines.iter().all(|line| offset(line) == first), "the lines' times are not in order");
    Ok(())
}

/// A target that goes on after the stop signal, and a user who does not wait.
fn interrupted() -> Result<()> {
    let link = Link::new()?;
    let mut server = link.server.enter(|| {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["child", "http-serves-on:8000"]).spawn().context("cannot start itself")
    })?;
    pause(300);
    let mut lastpacket = run::start(&["trace", "--pid", &server.id().to_string()])?;
    lastpacket.wait_for(1, |body| matches!(body, Body::Phase(_)))?;
    process::signal(server.id(), Signal::SIGTERM)?;
    let stopped = |body: &Body| matches!(body, Body::Phase(event) if event.phase == Phase::StopSignal);
    lastpacket.wait_for(1, stopped)?;
    lastpacket.signal(Signal::SIGINT)?;
    let run = lastpacket.finish();
    server.kill()?;
    server.wait()?;
    ensure_unproven(&run?, "tracing was ended before the termination was over")
}
