//! The scenarios: what happens on the stage, what must be seen, and what was.

use std::{
    thread::{self, sleep},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use lastpacket_tests::events::Events;
use nix::sys::signal::Signal;
use tracer_core::words::{Ending, Phase, Result as Answer};
use tracer_user::clock::mono_ns;

use crate::{
    balancer::{Balancer, Logged, Settings},
    clients::{Curl, Loops, Seen},
    evidence::{Traced, ensure_explained, keep_clients, keep_events},
    pod::{Pod, Termination},
    stage::{BALANCER, Stage, address},
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
pub const PLAYS: [Play; 17] = [
    play("s1-long-request-current", "502 or cut off; cut, named", s1_current),
    play("s1-long-request-improved", "200; drained", s1_improved),
    play("s1-two-replicas", "200 by the other pod; idle", s1_two_replicas),
    play("s2-drain-timing-improved", "six moments in order; drained", s2_improved),
    play("s3-rollout-current", "no 5xx, yet broken requests, explained", s3_current),
    play("s3-rollout-improved", "nothing broken; drained twice", s3_improved),
    play("s4-stream-current", "a fifth of the lines, curl 92 or 18", s4_current),
    play("s4-stream-improved", "all lines, curl 0; drained", s4_improved),
    play("s5-nginx-sigterm", "fast shutdown: cut", s5_sigterm),
    play("s5-nginx-sigquit-by-pre-stop", "drained but for keep-alive races", s5_sigquit),
    play("s6-no-pre-stop", "refused; cut", s6_no_pre_stop),
    play("s6-pre-stop-over-grace", "SIGKILL in mid-request; cut", s6_over_grace),
    play("s6-improved", "nothing broken; drained", s6_improved),
    play("s7-readiness-current", "refused for interval × threshold", s7_current),
    play("s7-readiness-improved", "nothing broken; drained", s7_improved),
    play("s9-too-early-current", "refused while running, no verdict", s9_current),
    play("s9-too-early-improved", "nothing broken", s9_improved),
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

/// A request of six (or sixty) seconds.
fn long_request() -> String {
    format!("/?ms={}", seconds(6.0).as_millis())
}

fn s1(name: &str, plan: Termination) -> Result<(u16, i32, Traced)> {
    let stage = Stage::new(name)?;
    let mut pod = Pod::start(&stage, 0)?;
    let balancer = Balancer::start(&stage, Settings::default())?;
    let curl = Curl::start(&stage, &[], "http", &long_request())?;
    sleep(seconds(1.2));
    pod.terminate(plan)?;
    let got = curl.wait()?;
    keep_clients(&stage, &got)?;
    let logged = balancer.finish(&stage)?;
    let traced = Traced::new(&stage, 0, pod.traced()?)?;
    ensure_explained(&[&traced], &logged, 0)?;
    Ok((got.status, got.code, traced))
}

fn s1_current(name: &str) -> Result<String> {
    let (status, code, traced) = s1(name, AT_ONCE_STOPPED)?;
    ensure!(status == 502 || code != 0, "the client got {status}, curl {code}");
    traced.is(Answer::Cut)?;
    Ok(format!("client {status}, curl {code}; {}", traced.summary()))
}

fn s1_improved(name: &str) -> Result<String> {
    let (status, code, traced) = s1(name, drained("rm $POD/ready; sleep 1"))?;
    ensure!(status == 200 && code == 0, "the client got {status}, curl {code}");
    traced.is(Answer::Drained)?;
    Ok(format!("client {status}; {}", traced.summary()))
}

/// The pod that has no traffic is terminated.
fn s1_two_replicas(name: &str) -> Result<String> {
    let stage = Stage::new(name)?;
    let mut pods = vec![Pod::start(&stage, 0)?, Pod::start(&stage, 1)?];
    let balancer = Balancer::start(&stage, Settings { pods: 2, ..Settings::default() })?;
    let curl = Curl::start(&stage, &[], "http", &long_request())?;
    sleep(seconds(1.2));
    let idle = if balancer.under_way(0)? == 0 { 0 } else { 1 };
    let mut pod = pods.remove(idle);
    pod.terminate(AT_ONCE_STOPPED)?;
    let got = curl.wait()?;
    keep_clients(&stage, &got)?;
    let logged = balancer.finish(&stage)?;
    let traced = Traced::new(&stage, idle, pod.traced()?)?;
    ensure!(got.status == 200, "the client got {}", got.status);
    ensure_explained(&[&traced], &logged, 0)?;
    traced.is(Answer::Idle)?;
    Ok(format!("client {}; {}", got.status, traced.summary()))
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

fn s2_improved(name: &str) -> Result<String> {
    let stage = Stage::new(name)?;
    let mut pod = Pod::start(&stage, 0)?;
    let balancer = Balancer::start(&stage, Settings { fresh: true, ..Settings::default() })?;
    let loops = Loops::start(&stage, 4)?;
    sleep(seconds(1.0));
    let begin = mono_ns();
    let (watched, seen) = watched(&balancer, loops, || pod.terminate(drained("rm $POD/ready; sleep 3")))?;
    keep_clients(&stage, &seen)?;
    balancer.finish(&stage)?;
    let traced = Traced::new(&stage, 0, pod.traced()?)?;
    let (verdict, start) = (&traced.verdict, |phase| phase_start(&traced, phase));
    let moments = [
        ("health fails", watched.health_failed),
        ("marked down", watched.down),
        ("last new connection", verdict.traffic.last_connection_mono_ns.context("no connection")?),
        ("last data", verdict.traffic.last_data_mono_ns.context("no data")?),
        ("stop signal", start(Phase::StopSignal)?),
        ("exit", start(Phase::Exiting)?),
    ];
    // Marking down and the last connections before it are told by two programs that look at times.
    let slack = Duration::from_millis(250).as_nanos() as u64;
    for pair in moments.windows(2) {
        ensure!(pair[0].1 <= pair[1].1 + slack, "{} came after {}: {moments:?}", pair[0].0, pair[1].0);
    }
    traced.is(Answer::Drained)?;
    let told = moments.map(|(what, time)| format!("{what} +{:.2}", time.saturating_sub(begin) as f64 / 1e9));
    Ok(format!("{}; {}", told.join(", "), traced.summary()))
}

/// When PID 1 entered a phase.
fn phase_start(traced: &Traced, phase: Phase) -> Result<u64> {
    let container = traced.verdict.containers.first().context("no container")?;
    let entered = container.phases.iter().find(|start| start.phase == phase);
    Ok(entered.with_context(|| format!("never in the phase {phase}"))?.mono_ns)
}

/// Two pods are replaced in turn under load.
fn s3(name: &str, plan: Termination) -> Result<(Seen, [Traced; 2])> {
    let stage = Stage::new(name)?;
    let mut old = [Pod::start(&stage, 0)?, Pod::start(&stage, 1)?];
    let settings = Settings { pods: 2, later: 2, retries: 3, ..Settings::default() };
    let balancer = Balancer::start(&stage, settings)?;
    let loops = Loops::start(&stage, 10)?;
    let mut new = Vec::new();
    for (number, pod) in old.iter_mut().enumerate() {
        sleep(seconds(1.0));
        new.push(Pod::start(&stage, number + 2)?);
        balancer.wait_until_up(number + 2)?;
        sleep(seconds(0.5));
        pod.terminate(plan)?;
        sleep(seconds(0.5));
    }
    let seen = loops.stop()?;
    keep_clients(&stage, &seen)?;
    let logged = balancer.finish(&stage)?;
    let [first, second] = old;
    let traced = [Traced::new(&stage, 0, first.traced()?)?, Traced::new(&stage, 1, second.traced()?)?];
    ensure_explained(&[&traced[0], &traced[1]], &logged, seen.broken)?;
    Ok((seen, traced))
}

fn s3_current(name: &str) -> Result<String> {
    let (seen, traced) = s3(name, AT_ONCE_STOPPED)?;
    ensure!(seen.errors == 0 && seen.broken > 0, "{seen:?}");
    let lost: u64 = traced.iter().map(|pod| pod.verdict.lost + pod.verdict.doubts).sum();
    ensure!(lost >= seen.broken, "{} broken requests, but {lost} losses", seen.broken);
    Ok(format!("{}; {}; {}", told(&seen), traced[0].summary(), traced[1].summary()))
}

fn s3_improved(name: &str) -> Result<String> {
    let (seen, traced) = s3(name, drained("rm $POD/ready; sleep 1.5"))?;
    ensure!(seen.errors == 0 && seen.broken == 0, "{seen:?}");
    traced.iter().try_for_each(|pod| pod.is(Answer::Drained))?;
    Ok(format!("{}; {}; {}", told(&seen), traced[0].summary(), traced[1].summary()))
}

fn told(seen: &Seen) -> String {
    format!("{} answered, {} 5xx, {} broken", seen.answered, seen.errors, seen.broken)
}

fn s4(name: &str, plan: Termination) -> Result<(usize, i32, Traced)> {
    let stage = Stage::new(name)?;
    let mut pod = Pod::start(&stage, 0)?;
    let balancer = Balancer::start(&stage, Settings::default())?;
    let path = format!("/stream?n=60&ms={}", seconds(0.1).as_millis());
    let curl = Curl::start(&stage, &["--http2"], "https", &path)?;
    sleep(seconds(1.2));
    pod.terminate(plan)?;
    let got = curl.wait()?;
    keep_clients(&stage, &got)?;
    let logged = balancer.finish(&stage)?;
    let traced = Traced::new(&stage, 0, pod.traced()?)?;
    ensure_explained(&[&traced], &logged, 0)?;
    Ok((got.lines, got.code, traced))
}

fn s4_current(name: &str) -> Result<String> {
    let (lines, code, traced) = s4(name, AT_ONCE_STOPPED)?;
    ensure!((8..=16).contains(&lines), "{lines} lines");
    ensure!([92, 18].contains(&code), "curl ended with {code}");
    traced.is(Answer::Cut)?;
    Ok(format!("{lines} lines, curl {code}; {}", traced.summary()))
}

fn s4_improved(name: &str) -> Result<String> {
    let (lines, code, traced) = s4(name, drained("rm $POD/ready; sleep 1"))?;
    ensure!(lines == 60 && code == 0, "{lines} lines, curl {code}");
    traced.is(Answer::Drained)?;
    Ok(format!("{lines} lines, curl {code}; {}", traced.summary()))
}

/// One pod under load is terminated; the clients go on until the load balancer has marked it down.
fn under_load(name: &str, settings: Settings, plan: Termination) -> Result<(Seen, Traced)> {
    let stage = Stage::new(name)?;
    let mut pod = Pod::start(&stage, 0)?;
    let balancer = Balancer::start(&stage, settings)?;
    let loops = Loops::start(&stage, 10)?;
    sleep(seconds(1.0));
    let (_, seen) = watched(&balancer, loops, || pod.terminate(plan))?;
    keep_clients(&stage, &seen)?;
    let logged = balancer.finish(&stage)?;
    let traced = Traced::new(&stage, 0, pod.traced()?)?;
    ensure_explained(&[&traced], &logged, seen.broken)?;
    Ok((seen, traced))
}

fn s5_sigterm(name: &str) -> Result<String> {
    let (seen, traced) = under_load(name, Settings::default(), AT_ONCE_STOPPED)?;
    traced.is(Answer::Cut)?;
    Ok(format!("{}; {}", told(&seen), traced.summary()))
}

fn s5_sigquit(name: &str) -> Result<String> {
    let plan = drained("rm $POD/ready; sleep 1.5; kill -QUIT 1; sleep 60");
    let (seen, traced) = under_load(name, Settings::default(), plan)?;
    let races = traced.lost(Ending::LateData) + traced.lost(Ending::Unanswered);
    ensure!(traced.verdict.lost <= races, "more than races: {}", traced.summary());
    if traced.verdict.lost == 0 {
        traced.is(Answer::Drained)?;
    }
    Ok(format!("{}; {}", told(&seen), traced.summary()))
}

/// A load balancer that takes two seconds to notice.
const SLOW: Settings =
    Settings { pods: 1, later: 0, retries: 0, interval: Some(500), threshold: 4, fresh: true };

fn s6_no_pre_stop(name: &str) -> Result<String> {
    let (seen, traced) = under_load(name, SLOW, AT_ONCE_STOPPED)?;
    traced.is(Answer::Cut)?;
    ensure!(traced.lost(Ending::Refused) > 0, "{}", traced.summary());
    traced.has_finding("pre-stop-missing")?;
    Ok(format!("{}; {}", told(&seen), traced.summary()))
}

/// The hook uses up the grace period, and the request outlasts what is left.
fn s6_over_grace(name: &str) -> Result<String> {
    let grace = Duration::from_secs(2);
    let plan = Termination { pre_stop: Some("sleep 60"), signal: Signal::SIGQUIT, grace };
    let (status, code, traced) = s1(name, plan)?;
    ensure!(status == 502 || code != 0, "the client got {status}, curl {code}");
    traced.is(Answer::Cut)?;
    phase_start(&traced, Phase::KillSignal)?;
    traced.has_finding("killed-at-grace-end")?;
    Ok(format!("client {status}, curl {code}; {}", traced.summary()))
}

fn s6_improved(name: &str) -> Result<String> {
    let (seen, traced) = under_load(name, SLOW, drained("rm $POD/ready; sleep 4"))?;
    ensure!(seen.broken == 0, "{seen:?}");
    traced.is(Answer::Drained)?;
    Ok(format!("{}; {}", told(&seen), traced.summary()))
}

/// A load balancer that takes a second and a half to notice.
const READINESS: Settings =
    Settings { pods: 1, later: 0, retries: 0, interval: Some(500), threshold: 3, fresh: true };

fn s7_current(name: &str) -> Result<String> {
    let (seen, traced) = under_load(name, READINESS, AT_ONCE_STOPPED)?;
    traced.is(Answer::Cut)?;
    let each = &traced.verdict.peers.each;
    let balancer =
        each.iter().find(|peer| peer.address == Some(address(BALANCER).into())).context("no such peer")?;
    let last = balancer.last_after_mono_ns.context("nothing came after the stop signal")?;
    let lag = Duration::from_nanos(last.saturating_sub(phase_start(&traced, Phase::StopSignal)?));
    let (interval, promised) = (Duration::from_millis(500), Duration::from_millis(1500));
    ensure!(lag.abs_diff(promised) <= interval, "the measured lag is {lag:?}, not about {promised:?}");
    Ok(format!("lag {lag:.2?}; {}; {}", told(&seen), traced.summary()))
}

fn s7_improved(name: &str) -> Result<String> {
    let (seen, traced) = under_load(name, READINESS, drained("rm $POD/ready; sleep 3"))?;
    ensure!(seen.broken == 0, "{seen:?}");
    traced.is(Answer::Drained)?;
    Ok(format!("{}; {}", told(&seen), traced.summary()))
}

/// A second pod joins, whose server listens only after a second.
fn s9(name: &str, settings: Settings) -> Result<(Seen, u64, u64)> {
    let stage = Stage::new(name)?;
    let first = Pod::start(&stage, 0)?;
    let late = Pod::start_after(&stage, 1, Duration::from_secs(2))?;
    let balancer = Balancer::start(&stage, settings)?;
    let loops = Loops::start(&stage, 10)?;
    if settings.later > 0 {
        balancer.wait_until_up(1)?;
    }
    sleep(Duration::from_secs(3));
    let seen = loops.stop()?;
    keep_clients(&stage, &seen)?;
    let logged = balancer.finish(&stage)?;
    let run = late.traced_so_far()?;
    keep_events(&stage, 1, &run.lines)?;
    ensure!(run.lines.verdict().is_err(), "a pod that runs has a verdict");
    let resets = run.lines.resets();
    let of_traffic = resets.iter().filter(|reset| reset.network.peer.address == address(BALANCER));
    let refused = of_traffic.filter(|reset| reset.ending == Some(Ending::Refused));
    ensure!(refused.clone().all(|reset| reset.phase == Phase::Running), "{refused:?}");
    drop(first);
    Ok((seen, refused.count() as u64, logged.iter().map(Logged::failures).sum()))
}

fn s9_current(name: &str) -> Result<String> {
    let settings = Settings { pods: 2, interval: None, fresh: true, ..Settings::default() };
    let (seen, refused, failures) = s9(name, settings)?;
    ensure!(refused > 0 && refused == failures, "{refused} refused, but {failures} failures: {seen:?}");
    Ok(format!("{}; {refused} refused while running, no verdict", told(&seen)))
}

fn s9_improved(name: &str) -> Result<String> {
    let (seen, _, failures) = s9(name, Settings { later: 1, fresh: true, ..Settings::default() })?;
    ensure!(failures == 0 && seen.errors == 0 && seen.broken == 0, "{seen:?}");
    Ok(told(&seen))
}
