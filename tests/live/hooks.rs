//! preStop hooks: processes that enter the target are told with their start, end and exit code.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lastpacket_tests::{events::Events, machine, needs, netns::Link, process, run};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use tracer_core::{
    output::{Body, HookRunEvent, Line},
    words::Phase,
};
use tracer_user::clock;

use crate::scene::pause;

pub fn trials() -> Vec<Trial> {
    vec![
        needs::live("hooks::of_a_rehearsal_are_told", rehearsed),
        needs::live("hooks::of_a_traced_target_are_told", traced),
        needs::live("hooks::one_that_is_cut_off_is_told_with_the_signal_that_ended_it", cut_off),
    ]
}

fn runs(lines: &[Line]) -> Vec<&HookRunEvent> {
    lines
        .bodies()
        .filter_map(|body| if let Body::HookRun(event) = body { Some(event) } else { None })
        .collect()
}

/// From its start to its end.
fn took(hook: &HookRunEvent) -> Result<Duration> {
    let ended = hook.ended_mono_ns.context("it did not end")?;
    Ok(Duration::from_nanos(ended.checked_sub(hook.started_mono_ns).context("it ended before it began")?))
}

fn rehearsed() -> Result<()> {
    let warm_up = machine::milliseconds(500);
    let arguments = [
        "rehearse",
        "--warm-up",
        &warm_up,
        "--lag",
        "0ms",
        "--pre-stop",
        "sleep 0.3; exit 3",
        "--demo",
        "graceful",
    ];
    let run = run::start(&arguments)?.finish()?;
    let verdict = run.lines.verdict()?;
    let [hook] = &verdict.containers[0].hooks[..] else {
        anyhow::bail!("not one hook: {:#?}", verdict.containers);
    };
    ensure!(runs(&run.lines) == [hook], "the verdict and the events differ");
    ensure!((hook.process.command.as_str(), hook.status.exit_code) == ("sh", Some(3)), "{hook:?}");
    ensure!(hook.phase == Phase::PreStop, "{hook:?}");
    ensure!((300..800).contains(&took(hook)?.as_millis()), "it took {:?}", took(hook)?);
    let phases = &verdict.containers[0].phases;
    let entered = |phase| phases.iter().find(|start| start.phase == phase).map_or(0, |start| start.mono_ns);
    ensure!(entered(Phase::PreStop) <= hook.started_mono_ns, "it began before preStop");
    ensure!(hook.ended_mono_ns <= Some(entered(Phase::StopSignal)), "it ended after the stop signal");
    ensure!(run.stderr.contains("the preStop hook failed"), "{}", run.stderr);
    Ok(())
}

/// A server that is the first of its pid namespace, as in a container.
struct Container {
    unshare: Child,
    init: u32,
}

impl Container {
    fn new(link: &Link, role: &str) -> Result<Self> {
        let this = std::env::current_exe()?;
        let unshare = link.server.enter(|| {
            let mut command = Command::new("unshare");
            command.args(["--pid", "--fork", "--kill-child"]).arg(&this).args(["child", role]);
            command.stdin(Stdio::null()).spawn().context("cannot run unshare")
        })?;
        let mut container = Self { init: 0, unshare };
        let children = format!("/proc/{0}/task/{0}/children", container.unshare.id());
        for _ in 0..100 {
            if let Ok(init) = std::fs::read_to_string(&children)?.trim().parse() {
                container.init = init;
                // Until it has made itself deaf to its signals.
                pause(300);
                return Ok(container);
            }
            pause(10);
        }
        anyhow::bail!("unshare has no child")
    }

    /// Runs a command inside, as a runtime runs a hook.
    fn hook(&self, script: &str) -> Result<Child> {
        let target = self.init.to_string();
        let words = ["--target", &target, "--pid", "--net", "sh", "-c", script];
        Command::new("nsenter").args(words).spawn().context("cannot run nsenter")
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
    }
}

/// Nobody tells that the termination begins: what left right before the stop signal was the hook, what
/// left long before was not.
fn traced() -> Result<()> {
    let link = Link::new()?;
    let container = Container::new(&link, "http-serves-on:8080")?;
    let mut lastpacket = run::start(&["trace", "--linger", "100ms", "--pid", &container.init.to_string()])?;
    lastpacket.wait_for(1, |body| matches!(body, Body::Phase(_)))?;
    let probe = container.hook("exit 1")?.wait()?;
    ensure!(probe.code() == Some(1), "{probe}");
    pause(1500);
    let began = clock::mono_ns();
    let hook = container.hook("sleep 0.2; exit 7")?.wait()?;
    let ended = clock::mono_ns();
    ensure!(hook.code() == Some(7), "{hook}");
    process::signal(container.init, Signal::SIGTERM)?;
    let run = lastpacket.finish()?;
    let verdict = run.lines.verdict()?;
    let [hook] = &verdict.containers[0].hooks[..] else {
        anyhow::bail!("not one hook: {:#?}", verdict.containers);
    };
    ensure!(hook.status.exit_code == Some(7) && hook.process.command == "sh", "{hook:?}");
    ensure!(began <= hook.started_mono_ns && hook.ended_mono_ns <= Some(ended), "{began} {hook:?} {ended}");
    ensure!(took(hook)? >= Duration::from_millis(200), "it took {:?}", took(hook)?);
    let codes: Vec<_> = runs(&run.lines).iter().map(|run| run.status.exit_code).collect();
    ensure!(codes == [Some(1), Some(7)], "{codes:?}");
    Ok(())
}

/// The container dies under its hook.
fn cut_off() -> Result<()> {
    let link = Link::new()?;
    let container = Container::new(&link, "http-exit:8080")?;
    let mut lastpacket = run::start(&["trace", "--linger", "100ms", "--pid", &container.init.to_string()])?;
    lastpacket.wait_for(1, |body| matches!(body, Body::Phase(_)))?;
    let mut hook = container.hook("sleep 20")?;
    pause(300);
    process::signal(container.init, Signal::SIGTERM)?;
    hook.wait()?;
    let run = lastpacket.finish()?;
    let verdict = run.lines.verdict()?;
    let [hook] = &verdict.containers[0].hooks[..] else {
        anyhow::bail!("not one hook: {:#?}", verdict.containers);
    };
    let killed_by = hook.status.killed_by.as_ref().map(|signal| signal.name.as_str());
    ensure!(killed_by == Some("SIGKILL"), "{hook:?}");
    Ok(())
}
