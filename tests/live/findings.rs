//! Every finding, provoked for real: its evidence is in the stream, its remedy has the run's numbers.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use lastpacket_tests::{
    events::{Events, ensure_no_gaps},
    machine, needs,
    run::{self, Run},
};
use libtest_mimic::Trial;
use tracer_core::{
    findings::Finding,
    output::{Body, Line},
    words::{Cause, Ending, Phase},
};

use crate::{
    scene::{pause, send},
    targets::{QUESTION, STATEMENT, Target, trace},
};

pub fn trials() -> Vec<Trial> {
    vec![
        needs::live("findings::stop_signal_ignored", stop_signal_ignored),
        needs::live("findings::grace_too_short", grace_too_short),
        needs::live("findings::oom_killed", oom_killed),
        needs::live("findings::pre_stop_missing", pre_stop_missing),
        needs::live("findings::pre_stop_too_short", pre_stop_too_short),
        needs::live("findings::listener_closed_early", listener_closed_early),
        needs::live("findings::backlog_reset", backlog_reset),
        needs::live("findings::keep_alive_race", keep_alive_race),
        needs::live("findings::requests_unanswered", requests_unanswered),
        needs::live("findings::sidecar_stopped_first", sidecar_stopped_first),
        needs::live("findings::timeouts_out_of_order", timeouts_out_of_order),
        needs::live("findings::a_server_that_drains_has_none", none),
    ]
}

/// Rehearses this program in a role as the server.
fn rehearse(role: &str, options: &[&str]) -> Result<Run> {
    let this = std::env::current_exe()?.to_string_lossy().into_owned();
    run_rehearsal(options, &["--", &this, "child", role])
}

fn demo(name: &str, options: &[&str]) -> Result<Run> {
    run_rehearsal(options, &["--demo", name])
}

fn run_rehearsal(options: &[&str], what: &[&str]) -> Result<Run> {
    let warm_up = machine::milliseconds(500);
    let arguments = [&["rehearse", "--warm-up", &warm_up], options, what].concat();
    let run = run::start(&arguments)?.finish()?;
    ensure!(run.status.code() != Some(2), "{}", run.stderr);
    ensure_no_gaps(&run.lines)?;
    Ok(run)
}

/// The finding with this id, whose evidence is of the right kind.
fn finding<'a>(run: &'a Run, id: &str) -> Result<&'a Finding> {
    let findings = &run.lines.verdict()?.findings;
    let finding =
        findings.iter().find(|finding| finding.id == id).with_context(|| format!("not in {findings:#?}"))?;
    ensure!(!finding.evidence.is_empty(), "no evidence: {finding:#?}");
    for seq in &finding.evidence {
        let line = run.lines.iter().find(|line| line.seq == *seq).context("the evidence is no line")?;
        ensure!(shows(line, finding), "line {seq} shows nothing of {finding:#?}: {line:#?}");
    }
    Ok(finding)
}

/// A phase, or a loss, of the finding's own container.
fn shows(line: &Line, finding: &Finding) -> bool {
    let (container, loss) = match &line.body {
        Body::Phase(event) => (&event.container, true),
        Body::ConnectionClosed(event) => {
            (&event.container, event.end.as_ref().is_some_and(|end| end.confidence.is_some()))
        }
        Body::Reset(event) => (&event.container, event.confidence.is_some()),
        _ => return false,
    };
    loss && *container.name == *finding.container
}

/// The lines that a finding rests on.
fn evidence<'a>(run: &'a Run, finding: &Finding) -> Vec<&'a Body> {
    run.lines.iter().filter(|line| finding.evidence.contains(&line.seq)).map(|line| &line.body).collect()
}

fn entered(body: &Body) -> Option<Phase> {
    if let Body::Phase(event) = body { Some(event.phase) } else { None }
}

fn ending(body: &Body) -> Option<Ending> {
    match body {
        Body::ConnectionClosed(event) => event.end.as_ref().map(|end| end.ending),
        Body::Reset(event) => event.ending,
        _ => None,
    }
}

fn ensure_endings(run: &Run, finding: &Finding, allowed: &[Ending]) -> Result<()> {
    for body in evidence(run, finding) {
        let ending = ending(body).with_context(|| format!("no ending: {body:#?}"))?;
        ensure!(allowed.contains(&ending), "{ending} is no evidence of {finding:#?}");
    }
    Ok(())
}

/// A number with one digit after the point that stands in a text before a word.
fn number_before(text: &str, word: &str) -> Result<f64> {
    let before = text.split(word).next().with_context(|| format!("no `{word}` in `{text}`"))?;
    let number = before.split_whitespace().next_back().context("nothing before it")?;
    number.trim_matches(|c: char| !c.is_ascii_digit()).parse().with_context(|| format!("{number} in {text}"))
}

fn stop_signal_ignored() -> Result<()> {
    let run = rehearse("http:8080", &["--grace", "2s", "--lag", "200ms"])?;
    let ignored = finding(&run, "stop-signal-ignored")?;
    ensure!(entered(evidence(&run, ignored)[0]) == Some(Phase::StopSignal), "{ignored:#?}");
    let killed = finding(&run, "killed-at-grace-end")?;
    let phases: Vec<_> = evidence(&run, killed).into_iter().filter_map(entered).collect();
    ensure!(phases == [Phase::StopSignal, Phase::KillSignal], "{phases:?}");
    ensure!((1.9..2.6).contains(&number_before(&killed.text, " s after SIGTERM")?), "{killed:#?}");
    // More time would not help one that takes no signal.
    ensure!(finding(&run, "grace-too-short").is_err(), "{:#?}", run.lines.verdict()?.findings);
    Ok(())
}

/// Its requests take longer than the grace period, and it waits for them.
fn grace_too_short() -> Result<()> {
    let options = ["--load", "long:2:8s", "--grace", "2s", "--lag", "100ms"];
    let run = demo("graceful", &options)?;
    let finding = finding(&run, "grace-too-short")?;
    ensure!(finding.text.contains("2 requests"), "{finding:#?}");
    ensure!(finding.remedy.contains("terminationGracePeriodSeconds"), "{finding:#?}");
    ensure_endings(&run, finding, &[Ending::Unanswered, Ending::MidResponse, Ending::ResetUnread])
}

fn oom_killed() -> Result<()> {
    let cgroup = MemoryCgroup::new(64 << 20)?;
    let role = format!("eat:8080:{}", cgroup.0.display());
    let run = rehearse(&role, &["--grace", "20s", "--lag", "0ms", "--load", "keep-alive:2"])?;
    let finding = finding(&run, "oom-killed")?;
    ensure!(entered(evidence(&run, finding)[0]) == Some(Phase::KillSignal), "{finding:#?}");
    let container = &run.lines.verdict()?.containers[0];
    ensure!(container.cause == Some(Cause::Oom), "{container:#?}");
    Ok(())
}

const LATE: [Ending; 3] = [Ending::Refused, Ending::RefusedHandshake, Ending::ResetBacklog];

fn pre_stop_missing() -> Result<()> {
    let run = demo("abrupt", &["--lag", "1s"])?;
    let finding = finding(&run, "pre-stop-missing")?;
    ensure_endings(&run, finding, &LATE)?;
    // New connections came until 1 s after the signal; a margin of 1 s is added.
    ensure!((0.8..1.2).contains(&number_before(&finding.text, " s after SIGTERM")?), "{finding:#?}");
    ensure!(finding.remedy.contains("a preStop of 2 s") || finding.remedy.contains("a preStop of 3 s"));
    Ok(())
}

fn pre_stop_too_short() -> Result<()> {
    let run = demo("abrupt", &["--lag", "1500ms", "--pre-stop", "sleep 0.5"])?;
    let finding = finding(&run, "pre-stop-too-short")?;
    ensure_endings(&run, finding, &LATE)?;
    let pre_stop = number_before(&finding.text, " s, and new connections")?;
    let after = number_before(&finding.text, " s after SIGTERM")?;
    // To start the hook takes its time too; together they are the lag.
    let longest = 0.6 + 0.2 * f64::from(machine::slowness());
    ensure!((0.4..longest).contains(&pre_stop), "{finding:#?}");
    ensure!((1.3..1.9).contains(&(pre_stop + after)), "{finding:#?}");
    Ok(())
}

fn listener_closed_early() -> Result<()> {
    let run = rehearse("http-closes-listener:8080", &["--lag", "500ms", "--load", "fresh:50/s"])?;
    let finding = finding(&run, "listener-closed-early")?;
    ensure_endings(&run, finding, &[Ending::Refused, Ending::RefusedHandshake])?;
    for body in evidence(&run, finding) {
        let Body::Reset(reset) = body else { continue };
        ensure!(reset.phase == Phase::StopSignal, "refused in another phase: {reset:#?}");
    }
    Ok(())
}

fn backlog_reset() -> Result<()> {
    let run = rehearse("http-deaf:8080", &["--lag", "500ms", "--load", "fresh:50/s"])?;
    let finding = finding(&run, "backlog-reset")?;
    ensure!(number_before(&finding.text, " connection")? >= 5.0, "{finding:#?}");
    ensure_endings(&run, finding, &[Ending::ResetBacklog])
}

/// A client's request crosses the server's FIN: it is sent when that has arrived, as if it had not.
fn keep_alive_race() -> Result<()> {
    let mut targets = [Target::new("hold-and-close", 2)?];
    let run = trace(&mut targets, |targets| {
        for port in [30_000, 30_001] {
            targets[0].connect_and_wait(port, &QUESTION)?;
        }
        pause(50);
        targets[0].holder.stop()?;
        pause(100);
        send(&targets[0].clients[0].1, &QUESTION)
    })?;
    let finding = finding(&run, "keep-alive-race")?;
    ensure!(finding.text.starts_with("1 request "), "{finding:#?}");
    ensure_endings(&run, finding, &[Ending::LateData])
}

fn requests_unanswered() -> Result<()> {
    let mut targets = [Target::new("hold", 2)?];
    let run = trace(&mut targets, |targets| {
        targets[0].connect_and_wait(30_000, &STATEMENT)?;
        targets[0].connect_and_wait(30_001, &QUESTION)?;
        pause(50);
        targets[0].holder.stop()
    })?;
    let finding = finding(&run, "requests-unanswered")?;
    ensure!(finding.text.contains("1 request "), "{finding:#?}");
    ensure_endings(&run, finding, &[Ending::Unanswered])
}

/// The application exits while the proxy in front of it still serves.
fn sidecar_stopped_first() -> Result<()> {
    let this = std::env::current_exe()?.to_string_lossy().into_owned();
    let behind = format!("behind={this} child http-exit:9090");
    let run = rehearse(
        "proxy:8080:9090",
        &["--port", "8080", "--container", &behind, "--lag", "500ms", "--load", "keep-alive:2,fresh:50/s"],
    )?;
    let finding = finding(&run, "sidecar-stopped-first")?;
    ensure!(finding.container == "behind", "{finding:#?}");
    for body in evidence(&run, finding) {
        let Body::Reset(reset) = body else { continue };
        ensure!(reset.network.peer.address.is_loopback(), "not within the pod: {reset:#?}");
    }
    Ok(())
}

fn timeouts_out_of_order() -> Result<()> {
    let options = ["--lag", "100ms", "--pre-stop", "sleep 0.2", "--grace", "10s"];
    let run = demo("graceful", &[&options[..], &["--lb-timeout", "5s"]].concat())?;
    let finding = finding(&run, "timeouts-out-of-order")?;
    ensure!(finding.text.contains("10.0 s") && finding.text.contains("5.0 s"), "{finding:#?}");
    let ordered = demo("graceful", &[&options[..], &["--lb-timeout", "15s"]].concat())?;
    ensure!(self::finding(&ordered, "timeouts-out-of-order").is_err(), "10 s < 15 s is in order");
    Ok(())
}

fn none() -> Result<()> {
    let run = demo("graceful", &["--pre-stop", "sleep 1", "--lag", "300ms"])?;
    let verdict = run.lines.verdict()?;
    ensure!(verdict.findings.is_empty(), "{:#?}", verdict.findings);
    Ok(())
}

/// A cgroup with a limit of memory, of version 2 if that has the controller, else of version 1.
struct MemoryCgroup(PathBuf);

impl MemoryCgroup {
    fn new(bytes: u64) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let root = mounts.find_map(|words| {
            let folder = PathBuf::from(words[1]);
            let controllers = fs::read_to_string(folder.join("cgroup.subtree_control")).unwrap_or_default();
            let v2 = words[2] == "cgroup2" && controllers.contains("memory");
            let v1 = words[2] == "cgroup" && words[3].split(',').any(|option| option == "memory");
            (v2 || v1).then_some((folder, v2))
        });
        let (root, v2) = root.context("no memory controller is mounted")?;
        // Not by a name of lastpacket's: it would remove it as one that a killed run left.
        let cgroup = Self(root.join(format!("live-tests-{}", std::process::id())));
        fs::create_dir(&cgroup.0)?;
        let limit = if v2 { "memory.max" } else { "memory.limit_in_bytes" };
        fs::write(cgroup.0.join(limit), bytes.to_string())?;
        Ok(cgroup)
    }
}

impl Drop for MemoryCgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}
