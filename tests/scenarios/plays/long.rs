//! Scenarios of a request that goes on for long.

use std::{thread::sleep, time::Duration};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tracer_core::words::{Phase, Result as Answer};
use tracer_user::clock::mono_ns;

use super::{AT_ONCE_STOPPED, drained, phase_start, seconds, watched};
use crate::{
    balancer::{Balancer, Settings},
    clients::{Curl, Loops},
    container::Termination,
    evidence::{Traced, ensure_explained, keep_clients},
    gateway::Server,
    pod::Pod,
    stage::Stage,
};

/// A request of six (or sixty) seconds.
pub(super) fn long_request() -> String {
    format!("/?ms={}", seconds(6.0).as_millis())
}

pub(super) fn s1(name: &str, server: Server, plan: Termination) -> Result<(u16, i32, Traced)> {
    let stage = Stage::new(name)?;
    let mut pod = Pod::start_as(server, &stage, 0)?;
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

pub(super) fn s1_current(name: &str) -> Result<String> {
    let (status, code, traced) = s1(name, Server::Nginx, AT_ONCE_STOPPED)?;
    ensure!(status == 502 || code != 0, "the client got {status}, curl {code}");
    traced.is(Answer::Cut)?;
    Ok(format!("client {status}, curl {code}; {}", traced.summary()))
}

pub(super) fn s1_improved(name: &str) -> Result<String> {
    let (status, code, traced) = s1(name, Server::Nginx, drained("rm $POD/ready; sleep 1"))?;
    ensure!(status == 200 && code == 0, "the client got {status}, curl {code}");
    traced.is(Answer::Drained)?;
    Ok(format!("client {status}; {}", traced.summary()))
}

/// No hook: the stop signal itself makes health fail first.
pub(super) fn s1_drain_by_signal(name: &str) -> Result<String> {
    let plan = Termination { pre_stop: None, signal: Signal::SIGUSR1, grace: seconds(12.0) };
    let (status, code, traced) = s1(name, Server::HaProxy, plan)?;
    ensure!(status == 200 && code == 0, "the client got {status}, curl {code}");
    traced.is(Answer::Drained)?;
    Ok(format!("client {status}; {}", traced.summary()))
}

/// The pod that has no traffic is terminated.
pub(super) fn s1_two_replicas(name: &str) -> Result<String> {
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

pub(super) fn s2_improved(name: &str) -> Result<String> {
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

pub(super) fn s4(name: &str, plan: Termination) -> Result<(usize, i32, Traced)> {
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

pub(super) fn s4_current(name: &str) -> Result<String> {
    let (lines, code, traced) = s4(name, AT_ONCE_STOPPED)?;
    // Twelve, less what a busy machine took to start curl.
    ensure!((4..=16).contains(&lines), "{lines} lines");
    ensure!([92, 18].contains(&code), "curl ended with {code}");
    traced.is(Answer::Cut)?;
    Ok(format!("{lines} lines, curl {code}; {}", traced.summary()))
}

pub(super) fn s4_improved(name: &str) -> Result<String> {
    let (lines, code, traced) = s4(name, drained("rm $POD/ready; sleep 1"))?;
    ensure!(lines == 60 && code == 0, "{lines} lines, curl {code}");
    traced.is(Answer::Drained)?;
    Ok(format!("{lines} lines, curl {code}; {}", traced.summary()))
}

/// The hook uses up the grace period, and the request outlasts what is left.
pub(super) fn s6_over_grace(name: &str) -> Result<String> {
    let grace = Duration::from_secs(2);
    let plan = Termination { pre_stop: Some("sleep 60"), signal: Signal::SIGQUIT, grace };
    let (status, code, traced) = s1(name, Server::Nginx, plan)?;
    ensure!(status == 502 || code != 0, "the client got {status}, curl {code}");
    traced.is(Answer::Cut)?;
    phase_start(&traced, Phase::KillSignal)?;
    traced.has_finding("killed-at-grace-end")?;
    Ok(format!("client {status}, curl {code}; {}", traced.summary()))
}
