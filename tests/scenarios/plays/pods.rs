//! Scenarios of pods that are more than one gateway, or not yet one.

use std::{thread::sleep, time::Duration};

use anyhow::{Result, ensure};
use lastpacket_tests::events::Events;
use nix::sys::signal::Signal;
use tracer_core::words::{Ending, Phase, Result as Answer};

use super::{AT_ONCE_STOPPED, drained, seconds, told, watched};
use crate::{
    balancer::{Balancer, Logged, Settings},
    clients::{Loops, Seen},
    container::Termination,
    evidence::{Traced, keep_clients, keep_events},
    pod::Pod,
    stage::{BALANCER, Stage, address},
};

/// A pod of an application and a sidecar in front of it, under load. What the sidecar cannot get from the
/// application it answers with 502: a whole answer, in which the load balancer sees no failure.
pub(super) fn s8(name: &str, terminate: impl FnOnce(&mut Pod) -> Result<()>) -> Result<(Seen, u64, Traced)> {
    let stage = Stage::new(name)?;
    let mut pod = Pod::start_with_sidecar(&stage, 0)?;
    let balancer = Balancer::start(&stage, Settings { interval: Some(500), ..Settings::default() })?;
    let loops = Loops::start(&stage, 10)?;
    sleep(seconds(1.0));
    let (_, seen) = watched(&balancer, loops, || terminate(&mut pod))?;
    keep_clients(&stage, &seen)?;
    let logged = balancer.finish(&stage)?;
    let traced = Traced::new(&stage, 0, pod.traced()?)?;
    let bad_gateways = logged.iter().filter(|logged| logged.is_bad_gateway()).count() as u64;
    Ok((seen, bad_gateways, traced))
}

pub(super) const SIDECAR_WAITS: Termination = Termination {
    pre_stop: Some("rm $POD/ready; sleep 2"),
    signal: Signal::SIGQUIT,
    grace: Duration::from_secs(12),
};

/// Both are told to stop at the same time, and only the sidecar waits.
pub(super) fn s8_current(name: &str) -> Result<String> {
    let (seen, bad_gateways, traced) =
        s8(name, |pod| pod.terminate_together(&[AT_ONCE_STOPPED, SIDECAR_WAITS]))?;
    traced.is(Answer::Cut)?;
    traced.has_finding("sidecar-stopped-first")?;
    let (lost, doubts) = (traced.verdict.lost, traced.verdict.doubts);
    // nginx tries a request again whose kept connection broke: that is a loss without a bad answer.
    ensure!(
        bad_gateways > 0 && lost + doubts >= bad_gateways,
        "{bad_gateways} bad gateways, but {}",
        traced.summary()
    );
    Ok(format!("{}, {bad_gateways} of them by the sidecar; {}", told(&seen), traced.summary()))
}

/// The application waits until no traffic comes; the sidecar, a native one, is stopped when it has ended.
pub(super) fn s8_improved(name: &str) -> Result<String> {
    let application = drained("rm ${POD%-app}/ready; sleep 3");
    let (seen, bad_gateways, traced) =
        s8(name, |pod| pod.terminate_in_turn(&[application, AT_ONCE_STOPPED]))?;
    ensure!(seen.broken == 0 && bad_gateways == 0, "{seen:?}, {bad_gateways} bad gateways");
    traced.is(Answer::Drained)?;
    Ok(format!("{}; {}", told(&seen), traced.summary()))
}

/// A second pod joins, whose server listens only after a second.
pub(super) fn s9(name: &str, settings: Settings) -> Result<(Seen, u64, u64)> {
    let stage = Stage::new(name)?;
    let first = Pod::start(&stage, 0)?;
    let late = Pod::start_deaf(&stage, 1)?;
    let balancer = Balancer::start(&stage, settings)?;
    let loops = Loops::start(&stage, 10)?;
    sleep(Duration::from_secs(1));
    late.let_listen()?;
    balancer.wait_until_up(1)?;
    sleep(Duration::from_secs(1));
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

pub(super) fn s9_current(name: &str) -> Result<String> {
    let settings = Settings { pods: 2, interval: None, fresh: true, ..Settings::default() };
    let (seen, refused, failures) = s9(name, settings)?;
    ensure!(refused > 0 && refused == failures, "{refused} refused, but {failures} failures: {seen:?}");
    Ok(format!("{}; {refused} refused while running, no verdict", told(&seen)))
}

pub(super) fn s9_improved(name: &str) -> Result<String> {
    let (seen, _, failures) = s9(name, Settings { later: 1, fresh: true, ..Settings::default() })?;
    ensure!(failures == 0 && seen.errors == 0 && seen.broken == 0, "{seen:?}");
    Ok(told(&seen))
}
