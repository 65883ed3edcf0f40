//! Pods that end in all the ways in which pods end, under load, and what the agent says of each.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use lastpacket_tests::{events::Events, needs};
use libtest_mimic::Trial;
use tracer_core::{
    output::{Body, Line},
    verdict::Verdict,
    words::{Phase, Result as Answer},
};

use crate::{
    agent::Agent,
    agreement::{ensure_agreement, is_failure, lines_of},
    api::{self, Api},
    clients::{Clients, Kind, Outcome, Seen},
    cluster::{self, Node},
    host_network,
    images::{HTTPD_PORT, NGINX_PORT},
    pod::{ContainerPlan, Pod, PodPlan},
};

pub fn trials() -> Vec<Trial> {
    vec![
        needs::live("a_pod_whose_clients_let_go_in_time_is_drained", drained),
        needs::live("nginx_under_load_refuses_while_it_drains", stop_signal_under_load),
        needs::live("an_init_that_takes_no_sigterm_is_killed_at_the_end_of_its_grace", ignored),
        needs::live("two_containers_end_each_in_its_own_way", two_containers),
        needs::live("a_container_that_is_restarted_is_judged_twice", restarted),
        needs::live("a_pod_that_is_removed_at_once_has_a_verdict", removed_at_once),
        needs::live("a_pod_of_the_host_network_is_told_from_the_node", host_network::alone),
        needs::live("twenty_pods_stopped_at_once_are_told_apart", twenty),
    ]
}

/// How long clients work before anything happens.
const BEFORE: Duration = Duration::from_millis(600);
/// How long they go on after all containers have exited.
const AFTER: Duration = Duration::from_millis(150);

const WEB: [Kind; 4] = [Kind::Short, Kind::Short, Kind::KeepAlive, Kind::Slow("/slow")];
const CGI: [Kind; 3] = [Kind::Short, Kind::Short, Kind::Slow("/cgi-bin/slow")];

fn clients(node: &Node, pod: &Pod, port: u16, kinds: &[Kind]) -> Result<Clients> {
    Clients::start(&node.network.clients, SocketAddr::new(pod.address().context("no address")?, port), kinds)
}

/// The phases that a container of a verdict went through.
pub fn phases(verdict: &Verdict, container: &str) -> Result<Vec<Phase>> {
    let found = verdict.containers.iter().find(|known| *known.name == *container);
    let found = found.with_context(|| format!("no container {container} in {:?}", verdict.containers))?;
    Ok(found.phases.iter().map(|phase| phase.phase).collect())
}

fn failures(seen: &[Seen]) -> Vec<&Seen> {
    seen.iter().filter(|seen| is_failure(seen)).collect()
}

fn answered(seen: &[Seen]) -> usize {
    seen.iter().filter(|seen| seen.outcome == Outcome::Answered).count()
}

pub fn has_finding(verdict: &Verdict, id: &str) -> Result<()> {
    let ids: Vec<String> = verdict.findings.iter().map(|finding| finding.id.clone()).collect();
    ensure!(ids.iter().any(|known| known == id), "no finding {id} among {ids:?}");
    Ok(())
}

/// A container's name before the API has told it: the beginning of its id.
pub fn short(pod: &Pod, name: &str) -> Result<String> {
    let found = pod.containers.iter().find(|container| container.plan.name == name);
    Ok(found.context("no such container")?.id.chars().take(12).collect())
}

/// The load balancer lets go when the endpoint changes, and the preStop hook outlasts it.
fn drained() -> Result<()> {
    let node = cluster::node()?;
    let hook: &[&str] = &["/bin/busybox", "sleep", "2"];
    let nginx = ContainerPlan::nginx().with_pre_stop(hook);
    let pods = [Pod::run(node, &PodPlan::of("web-5d9f-drained", vec![nginx]))?];
    let api = Api::of(&pods, &node.folder()?)?;
    let mut agent = Agent::follow(&api.options()?, &pods)?;
    let [pod] = pods;
    let (uid, id) = (pod.uid().to_owned(), pod.containers[0].id.clone());
    let clients = clients(node, &pod, NGINX_PORT, &[Kind::Short, Kind::Short, Kind::KeepAlive])?;
    api.wait_for_deletion()?;
    let stopping = std::thread::spawn(move || pod.stop(api::GRACE));
    std::thread::sleep(Duration::from_millis(300));
    let seen = clients.finish()?;
    stopping.join().map_err(|_| anyhow::anyhow!("the stop panicked"))??;
    agent.wait_for_verdicts(&uid, 1)?;
    let lines = lines_of(&agent.finish()?, &uid);
    let verdict = ensure_agreement(&lines, &seen)?;
    ensure!(failures(&seen).is_empty() && answered(&seen) > 50, "{:?}", failures(&seen));
    ensure!(verdict.result == Answer::Drained, "{:?}: {:?}", verdict.result, verdict.reasons);
    ensure_named(&lines, "web-5d9f-drained", &id)?;
    let expected = [Phase::Running, Phase::PreStop, Phase::StopSignal, Phase::Exiting, Phase::AfterExit];
    ensure!(phases(verdict, "nginx")? == expected, "{:?}", verdict.containers);
    let hooks = &verdict.containers[0].hooks;
    ensure!(hooks.len() == 1 && hooks[0].phase == Phase::PreStop, "{hooks:?}");
    ensure!(hooks[0].process.command == "busybox" && hooks[0].status.exit_code == Some(0), "{hooks:?}");
    let signal = verdict.containers[0].phases[2].signal.as_ref().context("no signal")?;
    ensure!(signal.name == "SIGQUIT", "{signal:?}");
    let told = lines.iter().any(|line| matches!(&line.body, Body::Endpoint(event) if event.terminating));
    ensure!(told && api.posted().is_empty(), "posted: {:?}", api.posted());
    Ok(())
}

/// All lines from the first of the termination on carry the API's names.
fn ensure_named(lines: &[Line], pod: &str, container: &str) -> Result<()> {
    let terminating = lines
        .iter()
        .skip_while(|line| !matches!(&line.body, Body::Phase(event) if event.phase == Phase::PreStop));
    for line in terminating {
        let k8s = line.subject.as_ref().and_then(|subject| subject.k8s.as_ref()).context("no names")?;
        let named =
            |named: &Option<tracer_core::output::Named>| named.as_ref().map(|named| named.name.clone());
        ensure!(k8s.pod.name.as_deref() == Some(pod), "{line:?}");
        ensure!(named(&k8s.namespace).as_deref() == Some("shop"), "{line:?}");
        ensure!(named(&k8s.deployment).as_deref() == Some("web"), "{line:?}");
        let text = serde_json::to_string(line)?;
        ensure!(!text.contains(&container[..12]), "it has the container's id for its name: {text}");
    }
    Ok(())
}

/// Stops the pod's containers while clients go on, and then its sandbox; gives the pod's lines and what
/// the clients saw.
fn stop_under_load(
    agent: &mut Agent,
    pod: Pod,
    loads: Vec<Clients>,
    grace: Duration,
) -> Result<(String, Vec<Seen>)> {
    std::thread::sleep(BEFORE);
    pod.stop_containers(grace)?;
    std::thread::sleep(AFTER);
    let mut seen = Vec::new();
    for load in loads {
        seen.extend(load.finish()?);
    }
    let uid = pod.uid().to_owned();
    pod.stop_sandbox()?;
    pod.remove()?;
    agent.wait_for_verdicts(&uid, 1)?;
    Ok((uid, seen))
}

/// nginx closes its listeners at once, and ends when the answers under way are sent.
fn stop_signal_under_load() -> Result<()> {
    let node = cluster::node()?;
    let pod = Pod::run(node, &PodPlan::of("web-loaded", vec![ContainerPlan::nginx()]))?;
    let name = short(&pod, "nginx")?;
    let mut agent = Agent::without_api([&pod])?;
    let load = clients(node, &pod, NGINX_PORT, &WEB)?;
    let (uid, seen) = stop_under_load(&mut agent, pod, vec![load], Duration::from_secs(10))?;
    let lines = lines_of(&agent.finish()?, &uid);
    let verdict = ensure_agreement(&lines, &seen)?;
    ensure!(verdict.result == Answer::Cut, "{:?}: {:?}", verdict.result, verdict.reasons);
    ensure!(failures(&seen).len() > 10, "{:?}", failures(&seen));
    let expected = [Phase::Running, Phase::StopSignal, Phase::Exiting, Phase::AfterExit];
    ensure!(phases(verdict, &name)? == expected, "{:?}", verdict.containers);
    ensure!(
        verdict.containers[0].status.as_ref().and_then(|status| status.exit_code) == Some(0),
        "{verdict:?}"
    );
    has_finding(verdict, "listener-closed-early")
}

/// busybox's httpd as PID 1: no handler, so the kernel ignores SIGTERM.
fn ignored() -> Result<()> {
    let node = cluster::node()?;
    let pod = Pod::run(node, &PodPlan::of("web-deaf", vec![ContainerPlan::httpd()]))?;
    let name = short(&pod, "httpd")?;
    let mut agent = Agent::without_api([&pod])?;
    let load = clients(node, &pod, HTTPD_PORT, &CGI)?;
    let (uid, seen) = stop_under_load(&mut agent, pod, vec![load], Duration::from_secs(3))?;
    let lines = lines_of(&agent.finish()?, &uid);
    let verdict = ensure_agreement(&lines, &seen)?;
    ensure!(verdict.result == Answer::Cut, "{:?}: {:?}", verdict.result, verdict.reasons);
    let expected = [Phase::Running, Phase::StopSignal, Phase::KillSignal, Phase::Exiting, Phase::AfterExit];
    ensure!(phases(verdict, &name)? == expected, "{:?}", verdict.containers);
    ensure!(verdict.containers[0].phases[1].ignored, "{:?}", verdict.containers);
    has_finding(verdict, "stop-signal-ignored")?;
    has_finding(verdict, "killed-at-grace-end")
}

/// One goes by its stop signal at once, the other at the end of the grace period, with a hook before.
fn two_containers() -> Result<()> {
    let node = cluster::node()?;
    let hook: &[&str] = &["/bin/busybox", "sleep", "1"];
    let plan = vec![ContainerPlan::nginx(), ContainerPlan::httpd().with_pre_stop(hook)];
    let pods = [Pod::run(node, &PodPlan::of("web-5d9f-two", plan))?];
    let api = Api::of(&pods, &node.folder()?)?;
    let mut agent = Agent::follow(&api.options()?, &pods)?;
    let [pod] = pods;
    let loads = vec![clients(node, &pod, NGINX_PORT, &WEB)?, clients(node, &pod, HTTPD_PORT, &CGI)?];
    api.wait_for_deletion()?;
    let (uid, seen) = stop_under_load(&mut agent, pod, loads, Duration::from_secs(4))?;
    let lines = lines_of(&agent.finish()?, &uid);
    let verdict = ensure_agreement(&lines, &seen)?;
    let status = |name: &str| {
        let found = verdict.containers.iter().find(|container| *container.name == *name);
        found.and_then(|container| container.status.clone()).with_context(|| format!("no status of {name}"))
    };
    ensure!(status("nginx")?.exit_code == Some(0), "{:?}", verdict.containers);
    ensure!(
        status("httpd")?.killed_by.is_some_and(|signal| signal.name == "SIGKILL"),
        "{:?}",
        verdict.containers
    );
    let expected = [
        Phase::Running,
        Phase::PreStop,
        Phase::StopSignal,
        Phase::KillSignal,
        Phase::Exiting,
        Phase::AfterExit,
    ];
    ensure!(phases(verdict, "httpd")? == expected, "{:?}", verdict.containers);
    let hooks: Vec<_> = lines
        .iter()
        .filter_map(|line| if let Body::HookRun(hook) = &line.body { Some(hook) } else { None })
        .collect();
    ensure!(hooks.len() == 1 && hooks[0].container.name.as_ref() == "httpd", "{hooks:?}");
    Ok(())
}

/// What a failed liveness probe does: the container is stopped and another takes its place in the same
/// sandbox. Then the pod ends.
fn restarted() -> Result<()> {
    let node = cluster::node()?;
    let plan = ContainerPlan::httpd();
    let mut pod = Pod::run(node, &PodPlan::of("web-again", vec![plan.clone()]))?;
    let uid = pod.uid().to_owned();
    let mut agent = Agent::without_api([&pod])?;
    let load = clients(node, &pod, HTTPD_PORT, &CGI)?;
    std::thread::sleep(BEFORE);
    pod.stop_containers(Duration::from_secs(1))?;
    std::thread::sleep(AFTER);
    let first = load.finish()?;
    pod.start(&plan, 1)?;
    agent.wait_for_verdicts(&uid, 1)?;
    // The pod comes into scope anew.
    agent.wait_for_targets(&uid, 2)?;
    let load = clients(node, &pod, HTTPD_PORT, &CGI)?;
    std::thread::sleep(BEFORE);
    pod.stop_containers(Duration::from_secs(1))?;
    std::thread::sleep(AFTER);
    let second = load.finish()?;
    pod.stop_sandbox()?;
    pod.remove()?;
    agent.wait_for_verdicts(&uid, 2)?;
    let lines = lines_of(&agent.finish()?, &uid);
    let cut = lines.iter().position(|line| matches!(line.body, Body::Verdict(_))).context("no verdict")?;
    let (before, after) = lines.split_at(cut + 1);
    let verdict = ensure_agreement(before, &first).context("before the restart")?;
    ensure!(verdict.result == Answer::Cut, "{:?}: {:?}", verdict.result, verdict.reasons);
    has_finding(verdict, "restart-not-deletion")?;
    let verdict = ensure_agreement(after, &second).context("after the restart")?;
    ensure!(verdict.result == Answer::Cut, "{:?}: {:?}", verdict.result, verdict.reasons);
    Ok(())
}

/// What a forced deletion comes to: no signal but SIGKILL, and the network goes right after.
fn removed_at_once() -> Result<()> {
    let node = cluster::node()?;
    let pod = Pod::run(node, &PodPlan::of("web-forced", vec![ContainerPlan::nginx()]))?;
    let uid = pod.uid().to_owned();
    let mut agent = Agent::without_api([&pod])?;
    let load = clients(node, &pod, NGINX_PORT, &WEB)?;
    std::thread::sleep(BEFORE);
    pod.stop_sandbox()?;
    pod.remove()?;
    let seen = load.finish()?;
    agent.wait_for_verdicts(&uid, 1)?;
    let lines = lines_of(&agent.finish()?, &uid);
    let verdict = ensure_agreement(&lines, &seen)?;
    ensure!(verdict.result == Answer::Cut, "{:?}: {:?}", verdict.result, verdict.reasons);
    let signal = lines.phases().iter().any(|event| event.phase == Phase::KillSignal);
    ensure!(signal, "{:?}", verdict.containers);
    Ok(())
}

/// A node that is drained: every pod has its own clients, every other one its own way out.
fn twenty() -> Result<()> {
    let node = cluster::node()?;
    let plan = |number: usize| {
        let container =
            if number.is_multiple_of(2) { ContainerPlan::nginx() } else { ContainerPlan::httpd() };
        PodPlan::of(format!("web-5d9f-{number}"), vec![container])
    };
    let pods: Vec<Pod> = (0..20).map(|number| Pod::run(node, &plan(number))).collect::<Result<_>>()?;
    let api = Api::of(&pods, &node.folder()?)?;
    let mut agent = Agent::follow(&api.options()?, &pods)?;
    let load = |pod: &Pod| match pod.containers[0].plan.name {
        "nginx" => clients(node, pod, NGINX_PORT, &[Kind::Short, Kind::Slow("/slow")]),
        _ => clients(node, pod, HTTPD_PORT, &[Kind::Short, Kind::Slow("/cgi-bin/slow")]),
    };
    let loads = pods.iter().map(load).collect::<Result<Vec<_>>>()?;
    api.wait_for_deletion()?;
    let seen = std::thread::scope(|scope| {
        let stops: Vec<_> = pods
            .into_iter()
            .zip(loads)
            .map(|(pod, load)| {
                scope.spawn(move || -> Result<_> {
                    pod.stop_containers(Duration::from_secs(3))?;
                    std::thread::sleep(AFTER);
                    let seen = load.finish()?;
                    let (uid, name) = (pod.uid().to_owned(), pod.name.clone());
                    pod.stop_sandbox()?;
                    pod.remove()?;
                    Ok((uid, name, seen))
                })
            })
            .collect();
        let join = |stop: std::thread::ScopedJoinHandle<'_, Result<_>>| {
            stop.join().map_err(|_| anyhow::anyhow!("a stop panicked"))?
        };
        stops.into_iter().map(join).collect::<Result<Vec<_>>>()
    })?;
    for (uid, ..) in &seen {
        agent.wait_for_verdicts(uid, 1)?;
    }
    let all = agent.finish()?;
    for (uid, name, seen) in &seen {
        let lines = lines_of(&all, uid);
        let verdict = ensure_agreement(&lines, seen).with_context(|| format!("pod {name}"))?;
        ensure!(verdict.result == Answer::Cut, "{name}: {:?}: {:?}", verdict.result, verdict.reasons);
        ensure!(failures(seen).len() as u64 <= verdict.lost + verdict.doubts, "{name}: {verdict:?}");
    }
    ensure!(api.posted().len() == 20, "{} warnings were posted", api.posted().len());
    Ok(())
}
