//! The agent on a node that has a pod.

mod api;
mod endpoint;
mod pod;
mod probes;

use anyhow::{Result, ensure};
use lastpacket_tests::{
    events::{Events, ensure_balanced},
    needs,
    netns::{Family, Link},
};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use tracer_core::{
    output::Body,
    words::{self, Phase},
};

use self::pod::{Pod, agent, client, listener};
use crate::{children::Holder, scene::pause};

pub fn trials() -> Vec<Trial> {
    vec![
        needs::live("agent::probes_are_never_a_loss_v4", || probes::probes(Family::V4)),
        needs::live("agent::probes_are_never_a_loss_v6", || probes::probes(Family::V6)),
        needs::live("agent::a_pod_that_lives_300_ms_is_judged", short_life),
        needs::live("agent::a_cut_is_posted_on_the_pod", || api::cut(true)),
        needs::live("agent::a_cut_is_not_posted_where_that_is_switched_off", || api::cut(false)),
        needs::live("agent::an_endpoint_that_stays_ready_is_found", || endpoint::stopped(false)),
        needs::live("agent::an_endpoint_that_goes_in_time_is_none", || endpoint::stopped(true)),
        needs::live("agent::one_that_is_restarted_amid_a_termination_proves_nothing", api::restarted),
    ]
}

/// A pod that is there for no longer than this is found by the kernel's events, not by a regular look.
fn short_life() -> Result<()> {
    let link = Link::new()?;
    let mut agent = agent()?;
    agent.wait_for(1, |body| matches!(body, Body::AgentStarted(_)))?;
    // Past the first look, and far from the next.
    pause(700);
    let mut holder = Holder::start(&link.server, "hold", 1, listener(&link, Family::V4)?)?;
    let pod = Pod::new()?;
    pod.take(holder.pid())?;
    pause(150);
    let (connection, port) = client(&link, Family::V4)?;
    holder.wait_until_taken()?;
    pause(150);
    holder.stop()?;
    pause(100);
    drop(connection);
    link.client.ip("link del vA")?;
    agent.wait_for_lines(1, |line| pod.is_of(line) && matches!(line.body, Body::Verdict(_)))?;
    agent.signal(Signal::SIGTERM)?;
    let lines = pod.lines(&agent.finish()?.lines);
    let phases: Vec<_> = lines.phases().iter().map(|event| event.phase).collect();
    ensure!(phases == [Phase::Running, Phase::StopSignal, Phase::Exiting, Phase::AfterExit], "{phases:?}");
    ensure!(lines.closed().iter().any(|event| event.network.peer.port == port), "{lines:#?}");
    let verdict = lines.verdict()?;
    ensure!(verdict.result == words::Result::Late, "{verdict:#?}");
    ensure_balanced(verdict)
}
