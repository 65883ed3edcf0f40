//! The scenarios: what happens on the stage, what must be seen, and what was.

mod load;
mod long;
mod pods;

use std::{thread, time::Duration};

use anyhow::{Context, Result, anyhow};
use nix::sys::signal::Signal;
use tracer_core::words::Phase;
use tracer_user::clock::mono_ns;

use crate::{
    balancer::Balancer,
    clients::{Loops, Seen},
    container::Termination,
    evidence::Traced,
};

/// A scenario in one mode.
#[derive(Clone, Copy)]
pub struct Play {
    pub name: &'static str,
    /// What must be seen, in words.
    pub expected: &'static str,
    /// Plays it; what was seen, in words.
    pub run: fn(&str) -> Result<String>,
}

const fn play(name: &'static str, expected: &'static str, run: fn(&str) -> Result<String>) -> Play {
    Play { name, expected, run }
}

/// All of them.
pub const PLAYS: [Play; 20] = [
    play("s1-long-request-current", "502 or cut off; cut, named", long::s1_current),
    play("s1-long-request-improved", "200; drained", long::s1_improved),
    play("s1-long-request-haproxy", "200; drained", long::s1_drain_by_signal),
    play("s1-two-replicas", "200 by the other pod; idle", long::s1_two_replicas),
    play("s2-drain-timing-improved", "six moments in order; drained", long::s2_improved),
    play("s3-rollout-current", "no 5xx, yet broken requests, explained", load::s3_current),
    play("s3-rollout-improved", "nothing broken; drained twice", load::s3_improved),
    play("s4-stream-current", "a fifth of the lines, curl 92 or 18", long::s4_current),
    play("s4-stream-improved", "all lines, curl 0; drained", long::s4_improved),
    play("s5-nginx-sigterm", "fast shutdown: cut", load::s5_sigterm),
    play("s5-nginx-sigquit-by-pre-stop", "drained but for keep-alive races", load::s5_sigquit),
    play("s6-no-pre-stop", "refused; cut", load::s6_no_pre_stop),
    play("s6-pre-stop-over-grace", "SIGKILL in mid-request; cut", long::s6_over_grace),
    play("s6-improved", "nothing broken; drained", load::s6_improved),
    play("s7-readiness-current", "refused for interval × threshold", load::s7_current),
    play("s7-readiness-improved", "nothing broken; drained", load::s7_improved),
    play("s8-sidecar-current", "losses within the pod; sidecar order named", pods::s8_current),
    play("s8-sidecar-improved", "nothing broken; drained", pods::s8_improved),
    play("s9-too-early-current", "refused while running, no verdict", pods::s9_current),
    play("s9-too-early-improved", "nothing broken", pods::s9_improved),
];

const AT_ONCE_STOPPED: Termination =
    Termination { pre_stop: None, signal: Signal::SIGTERM, grace: Duration::from_secs(30) };

/// Original durations are ten times the short ones.
fn seconds(short: f64) -> Duration {
    let full = std::env::var_os("LASTPACKET_SCENARIOS_FULL").is_some();
    Duration::from_secs_f64(if full { short * 10.0 } else { short })
}

/// The readiness probe fails first, the load balancer is given time, then nginx finishes what it has.
fn drained(pre_stop: &'static str) -> Termination {
    Termination { pre_stop: Some(pre_stop), signal: Signal::SIGQUIT, grace: seconds(12.0) }
}

/// What is watched at the load balancer, in ns of the monotonic clock.
struct Watched {
    health_failed: u64,
    down: u64,
}

/// Watches a pod until the load balancer has marked it down, then stops the clients.
fn watch(balancer: &Balancer, loops: Loops) -> Result<(Watched, Seen)> {
    let before = balancer.failed_checks(0)?;
    balancer.wait_until("a health check fails", || Ok(balancer.failed_checks(0)? > before))?;
    let health_failed = mono_ns();
    balancer.wait_until("the pod is marked down", || Ok(!balancer.is_up(0)?))?;
    let down = mono_ns();
    Ok((Watched { health_failed, down }, loops.stop()?))
}

/// Watches while the pod is terminated.
fn watched(
    balancer: &Balancer,
    loops: Loops,
    terminate: impl FnOnce() -> Result<()>,
) -> Result<(Watched, Seen)> {
    thread::scope(|scope| {
        let watching = scope.spawn(|| watch(balancer, loops));
        let terminated = terminate();
        let watched = watching.join().map_err(|_| anyhow!("the watcher panicked"))?;
        terminated.and(watched)
    })
}

/// When PID 1 entered a phase.
fn phase_start(traced: &Traced, phase: Phase) -> Result<u64> {
    let container = traced.verdict.containers.first().context("no container")?;
    let entered = container.phases.iter().find(|start| start.phase == phase);
    Ok(entered.with_context(|| format!("never in the phase {phase}"))?.mono_ns)
}

fn told(seen: &Seen) -> String {
    format!("{} answered, {} 5xx, {} broken", seen.answered, seen.errors, seen.broken)
}
