//! Stop and kill signals: who takes them, who does not, and what becomes of connections meanwhile.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use lastpacket_tests::{
    events::{Events, ensure_balanced, ensure_no_gaps, phase_names},
    machine, needs,
    run::{self, Run},
};
use libtest_mimic::Trial;
use tracer_core::{
    output::{Body, Endpoint, PhaseEvent, SignalEvent},
    words::{Cause, Ending, Phase},
};

pub fn trials() -> Vec<Trial> {
    vec![
        needs::live(
            "signals::pid_1_without_a_handler_is_killed_at_the_end_of_the_grace_period",
            without_handler,
        ),
        needs::live("signals::connections_of_killed_workers_end_in_the_phase_exiting", killed_workers),
        needs::live("signals::a_declared_sigwinch_is_the_stop_signal", declared_signal),
        needs::live("signals::nginx_takes_sigterm", || nginx("SIGTERM")),
        needs::live("signals::nginx_takes_sigquit", || nginx("SIGQUIT")),
    ]
}

const GRACE: Duration = Duration::from_secs(2);
/// All phases of a server that has to be killed.
const KILLED: [Phase; 5] =
    [Phase::Running, Phase::StopSignal, Phase::KillSignal, Phase::Exiting, Phase::AfterExit];
/// All phases of a server that stops when it is told to.
const STOPPED: [Phase; 4] = [Phase::Running, Phase::StopSignal, Phase::Exiting, Phase::AfterExit];

/// Rehearses this program in a role as the server.
fn rehearse_role(role: &str, load: &str) -> Result<Run> {
    let this = std::env::current_exe()?.to_string_lossy().into_owned();
    rehearse(&["--grace", "2s", "--load", load], &[&this, "child", role])
}

fn rehearse(options: &[&str], command: &[&str]) -> Result<Run> {
    let warm_up = machine::milliseconds(500);
    let arguments =
        [&["rehearse", "--warm-up", &warm_up, "--lag", "200ms"], options, &["--"], command].concat();
    let run = run::start(&arguments)?.finish()?;
    ensure!(run.status.code().is_some_and(|code| code < 2), "{}: {}", run.status, run.stderr);
    ensure_no_gaps(&run.lines)?;
    ensure_balanced(run.lines.verdict()?)?;
    Ok(run)
}

fn without_handler() -> Result<()> {
    let run = rehearse_role("http:8080", "keep-alive:2,long:2:6s,idle:2")?;
    let phases = run.lines.phases();
    ensure!(phase_names(&phases) == KILLED, "{phases:#?}");
    let stop = signal_of(&run, "SIGTERM")?;
    ensure!(stop.ignored && !stop.inside && phases[1].ignored, "SIGTERM was not ignored: {stop:?}");
    ensure!(!signal_of(&run, "SIGKILL")?.ignored, "SIGKILL was ignored");
    let times = phase_times(&run);
    let waited = times[2].saturating_sub(times[1]);
    ensure!(waited.abs_diff(GRACE) < Duration::from_millis(500), "SIGKILL came {waited:?} after SIGTERM");
    ensure_killed(&run)
}

/// Else a SIGWINCH tells only of a terminal.
fn declared_signal() -> Result<()> {
    let this = std::env::current_exe()?.to_string_lossy().into_owned();
    let options = ["--grace", "2s", "--stop-signal", "SIGWINCH", "--load", "keep-alive:2"];
    let run = rehearse(&options, &[&this, "child", "http:8080"])?;
    let phases = run.lines.phases();
    ensure!(phase_names(&phases) == KILLED && began_by(phases[1], "SIGWINCH"), "{phases:#?}");
    Ok(())
}

fn killed_workers() -> Result<()> {
    let run = rehearse_role("http-forking:8080", "keep-alive:4,long:4:6s,idle:4")?;
    ensure!(phase_names(&run.lines.phases()) == KILLED, "{:#?}", run.lines.phases());
    ensure_killed(&run)?;
    let cut = run.lines.closed().iter().filter(|event| event.phase == Phase::Exiting).count();
    ensure!(cut >= 12, "only {cut} connections ended with the workers");
    let exits = run.lines.bodies().filter(|body| matches!(body, Body::Exit(exit) if !exit.init)).count();
    ensure!(exits >= 2, "only {exits} workers were seen to exit");
    Ok(())
}

/// What was open when the server was killed ended by that, and nothing of it after the exit; the
/// clients saw what was traced.
fn ensure_killed(run: &Run) -> Result<()> {
    let verdict = run.lines.verdict()?;
    let container = verdict.containers.first().context("no container")?;
    ensure!(container.cause == Some(Cause::KillSignal), "the cause is {:?}", container.cause);
    let killed_by = container.status.as_ref().and_then(|status| status.killed_by.as_ref());
    ensure!(killed_by.is_some_and(|signal| signal.name == "SIGKILL"), "{:?}", container.status);
    ensure!(verdict.connections.opened == verdict.connections.ended, "{:?}", verdict.connections);
    for event in run.lines.closed() {
        ensure!(event.phase != Phase::AfterExit, "a connection ended after the exit: {event:#?}");
        let caused = event.phase != Phase::Exiting || event.cause == Some(Cause::KillSignal);
        ensure!(caused, "not caused by the kill: {event:#?}");
    }
    for reset in run.lines.resets() {
        let refused = reset.ending == Some(Ending::Refused);
        // A request that met the FIN of the exit on its way.
        let late = reset.ending == Some(Ending::LateData) && ended_with_the_server(run, &reset.network.peer);
        ensure!(reset.phase != Phase::AfterExit || refused || late, "a reset after the exit: {reset:#?}");
    }
    ensure_clients_agree(run)
}

fn ended_with_the_server(run: &Run, peer: &Endpoint) -> bool {
    let closed = run.lines.closed();
    closed.iter().any(|event| event.network.peer == *peer && event.phase == Phase::Exiting)
}

/// Every failure of a client is explained, and no certain or likely loss was invented.
fn ensure_clients_agree(run: &Run) -> Result<()> {
    let clients = run.lines.rehearsal()?;
    let unexplained: Vec<_> = clients.failures.iter().filter(|failure| failure.is_unexplained()).collect();
    ensure!(unexplained.is_empty() && clients.explained == clients.failed, "unexplained: {unexplained:#?}");
    ensure!(clients.unseen_losses.is_empty(), "losses that no client saw: {:#?}", clients.unseen_losses);
    ensure!(clients.answered > 0, "no request was answered");
    Ok(())
}

fn nginx(signal: &str) -> Result<()> {
    let folder = Folder::new(signal)?;
    let configuration = folder.nginx_conf()?;
    let load = "keep-alive:4,fresh:50/s,idle:2";
    let run = rehearse(&["--stop-signal", signal, "--load", load], &["nginx", "-c", &configuration])?;
    let phases = run.lines.phases();
    ensure!(phase_names(&phases) == STOPPED, "{phases:#?}");
    ensure!(began_by(phases[1], signal) && !phases[1].ignored, "{:?}", phases[1]);
    let container = run.lines.verdict()?.containers.first().context("no container")?;
    ensure!(container.cause == Some(Cause::StopSignal), "the cause is {:?}", container.cause);
    ensure!(
        container.status.as_ref().and_then(|status| status.exit_code) == Some(0),
        "{:?}",
        container.status
    );
    ensure_clients_agree(&run)
}

fn began_by(phase: &PhaseEvent, signal: &str) -> bool {
    phase.signal.as_ref().is_some_and(|began| began.name == signal)
}

fn signal_of<'a>(run: &'a Run, name: &str) -> Result<&'a SignalEvent> {
    let signals =
        run.lines.bodies().filter_map(|body| if let Body::Signal(event) = body { Some(event) } else { None });
    let mut named = signals.filter(|event| event.signal.name == name);
    named.next().with_context(|| format!("no {name} was seen"))
}

fn phase_times(run: &Run) -> Vec<Duration> {
    let phases = run.lines.iter().filter(|line| matches!(line.body, Body::Phase(_)));
    phases.map(|line| Duration::from_nanos(line.mono_ns)).collect()
}

/// A folder that is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("lastpacket-live-{}-{name}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }

    /// A configuration for nginx in the foreground, with nothing outside this folder.
    fn nginx_conf(&self) -> Result<String> {
        let folder = self.0.display();
        let text = format!(
            "daemon off;\nuser root;\nworker_processes 2;\npid {folder}/pid;\nerror_log {folder}/error.log;\n\
             events {{ worker_connections 256; }}\n\
             http {{\n  access_log off;\n  server {{\n    listen 8080;\n    location / {{ return 200 ok; }}\n  }}\n}}\n"
        );
        let file = self.0.join("nginx.conf");
        fs::write(&file, text)?;
        Ok(file.display().to_string())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
