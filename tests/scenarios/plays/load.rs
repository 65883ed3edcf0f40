//! Scenarios of many short requests.

use std::{thread::sleep, time::Duration};

use anyhow::{Context, Result, ensure};
use tracer_core::words::{Ending, Phase, Result as Answer};

use super::{AT_ONCE_STOPPED, drained, phase_start, seconds, told, watched};
use crate::{
    balancer::{Balancer, Settings},
    clients::{Loops, Seen},
    container::Termination,
    evidence::{Traced, ensure_explained, keep_clients},
    pod::Pod,
    stage::{BALANCER, Stage, address},
};

/// Two pods are replaced in turn under load.
pub(super) fn s3(name: &str, plan: Termination) -> Result<(Seen, [Traced; 2])> {
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
    ensure_explained(&[&traced[0], &traced[1]], &logged, seen.silent)?;
    Ok((seen, traced))
}

pub(super) fn s3_current(name: &str) -> Result<String> {
    let (seen, traced) = s3(name, AT_ONCE_STOPPED)?;
    ensure!(seen.errors == 0 && seen.broken > 0, "{seen:?}");
    let lost: u64 = traced.iter().map(|pod| pod.verdict.lost + pod.verdict.doubts).sum();
    ensure!(lost >= seen.broken, "{} broken requests, but {lost} losses", seen.broken);
    Ok(format!("{}; {}; {}", told(&seen), traced[0].summary(), traced[1].summary()))
}

pub(super) fn s3_improved(name: &str) -> Result<String> {
    let (seen, traced) = s3(name, drained("rm $POD/ready; sleep 1.5"))?;
    ensure!(seen.errors == 0 && seen.broken == 0, "{seen:?}");
    traced.iter().try_for_each(|pod| pod.is(Answer::Drained))?;
    Ok(format!("{}; {}; {}", told(&seen), traced[0].summary(), traced[1].summary()))
}

/// One pod under load is terminated; the clients go on until the load balancer has marked it down.
pub(super) fn under_load(name: &str, settings: Settings, plan: Termination) -> Result<(Seen, Traced)> {
    let stage = Stage::new(name)?;
    let mut pod = Pod::start(&stage, 0)?;
    let balancer = Balancer::start(&stage, settings)?;
    let loops = Loops::start(&stage, 10)?;
    sleep(seconds(1.0));
    let (_, seen) = watched(&balancer, loops, || pod.terminate(plan))?;
    keep_clients(&stage, &seen)?;
    let logged = balancer.finish(&stage)?;
    let traced = Traced::new(&stage, 0, pod.traced()?)?;
    ensure_explained(&[&traced], &logged, seen.silent)?;
    Ok((seen, traced))
}

pub(super) fn s5_sigterm(name: &str) -> Result<String> {
    let (seen, traced) = under_load(name, Settings::default(), AT_ONCE_STOPPED)?;
    traced.is(Answer::Cut)?;
    Ok(format!("{}; {}", told(&seen), traced.summary()))
}

pub(super) fn s5_sigquit(name: &str) -> Result<String> {
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
pub(super) const SLOW: Settings =
    Settings { pods: 1, later: 0, retries: 0, interval: Some(500), threshold: 4, fresh: true };

pub(super) fn s6_no_pre_stop(name: &str) -> Result<String> {
    let (seen, traced) = under_load(name, SLOW, AT_ONCE_STOPPED)?;
    traced.is(Answer::Cut)?;
    ensure!(traced.lost(Ending::Refused) > 0, "{}", traced.summary());
    traced.has_finding("pre-stop-missing")?;
    Ok(format!("{}; {}", told(&seen), traced.summary()))
}

pub(super) fn s6_improved(name: &str) -> Result<String> {
    let (seen, traced) = under_load(name, SLOW, drained("rm $POD/ready; sleep 4"))?;
    ensure!(seen.broken == 0, "{seen:?}");
    traced.is(Answer::Drained)?;
    Ok(format!("{}; {}", told(&seen), traced.summary()))
}

/// A load balancer that takes a second and a half to notice.
pub(super) const READINESS: Settings =
    Settings { pods: 1, later: 0, retries: 0, interval: Some(500), threshold: 3, fresh: true };

pub(super) fn s7_current(name: &str) -> Result<String> {
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

pub(super) fn s7_improved(name: &str) -> Result<String> {
    let (seen, traced) = under_load(name, READINESS, drained("rm $POD/ready; sleep 3"))?;
    ensure!(seen.broken == 0, "{seen:?}");
    traced.is(Answer::Drained)?;
    Ok(format!("{}; {}", told(&seen), traced.summary()))
}
