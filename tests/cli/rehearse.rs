//! `lastpacket rehearse`: every option does what it says, and what goes wrong is told in a sentence.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use lastpacket_tests::{
    events::{Events, ensure_balanced},
    needs,
};
use libtest_mimic::Trial;
use tracer_core::{
    output::Line,
    verdict::Verdict,
    words::{Phase, Result as Answer},
};

use crate::program::{Copy, Ended, ensure_failed, lastpacket, run};

const SECOND: u64 = 1_000_000_000;

pub fn trials() -> Vec<Trial> {
    let mut trials = vec![
        needs::live("rehearse::every_option_does_what_it_says", every_option),
        needs::live("rehearse::the_grace_period_ends_with_sigkill", grace),
        needs::live("rehearse::repeated_rehearsals_are_counted", repeat),
        needs::live("rehearse::a_load_that_is_refused_from_the_start", refused_load),
        needs::live("rehearse::a_server_that_never_becomes_ready", never_ready),
        needs::live("rehearse::a_hook_that_fails", failing_hook),
        needs::live("rehearse::a_hook_that_outlasts_the_grace_period", hanging_hook),
        needs::live("rehearse::a_hook_that_ends_the_server", ending_hook),
    ];
    for (name, words) in [
        ("http1", &[][..]),
        ("http2", &["--http2"]),
        ("http1_tls", &["--tls"]),
        ("http2_tls", &["--tls", "--http2"]),
    ] {
        trials.push(needs::live(format!("rehearse::every_kind_of_load_over_{name}"), move || {
            every_load(words)
        }));
    }
    trials
}

fn every_option() -> Result<()> {
    let folder = Folder::new("options")?;
    let program = Copy::new()?;
    let server = format!(
        "echo server $(id -u):$(id -g) $(pwd) $GREETING; trap 'echo got USR1; kill -TERM $child' USR1; \
         {program} demo-server --behaviour graceful --port 8081 & \
         {program} demo-server --behaviour graceful --port 9090 & child=$!; \
         while kill -0 $child 2>/dev/null; do wait $child; done",
        program = program.path()
    );
    let beside =
        "beside=sh -c 'trap \"echo beside got TERM; exit 0\" TERM; while :; do sleep 0.1; done'".to_owned();
    let (log, workdir) = (folder.file("log"), folder.file(""));
    let pre_stop = "echo $(id -u) $GREETING > hook; sleep 1";
    let ended = run(lastpacket(
        [
            &[
                "rehearse",
                "--format",
                "json",
                "--port",
                "9090",
                "--ready",
                "/ready",
                "--ready-timeout",
                "20s",
            ][..],
            &["--pre-stop", pre_stop, "--stop-signal", "SIGUSR1", "--grace", "8s", "--lag", "300ms"],
            &[
                "--container",
                &beside,
                "--env",
                "GREETING=hello",
                "--user",
                "1000:1001",
                "--workdir",
                &workdir,
            ],
            &[
                "--load",
                "keep-alive:1,fresh:20/s",
                "--warm-up",
                "500ms",
                "--log",
                &log,
                "--",
                "sh",
                "-c",
                &server,
            ],
        ]
        .concat(),
    )?)?;
    let lines = lines(&ended)?;
    let (verdict, clients) = (lines.verdict()?, lines.rehearsal()?);
    ensure!(clients.failed == 0 && clients.answered > 10, "{clients:?} {}", ended.stderr);
    ensure!(verdict.lost == 0, "{verdict:?}");
    ensure_balanced(verdict)?;

    let port = |event: &tracer_core::output::ConnectionEvent| event.network.local.port;
    ensure!(lines.opened().iter().all(|event| port(event) == 9090), "--port");
    let said = fs::read_to_string(&log)?;
    let first = format!("server 1000:1001 {} hello", workdir.trim_end_matches('/'));
    for words in [&first, "got USR1", "beside got TERM"] {
        ensure!(said.contains(words), "{words:?} is not in --log: {said}");
    }
    let hook = fs::read_to_string(folder.file("hook"))?;
    ensure!(hook.trim() == "1000 hello", "--pre-stop ran as another or elsewhere: {hook}");
    let names: Vec<&str> = verdict.containers.iter().map(|container| &*container.name).collect();
    ensure!(names == ["sh", "beside"], "{names:?}");

    let (pre_stop, stop) = (start(verdict, Phase::PreStop)?, start(verdict, Phase::StopSignal)?);
    ensure!(stop - pre_stop >= SECOND, "the stop signal did not wait for --pre-stop");
    let signal = verdict.containers[0].phases.iter().find_map(|phase| phase.signal.as_ref());
    ensure!(signal.is_some_and(|signal| &*signal.name == "SIGUSR1"), "--stop-signal: {signal:?}");
    let last = verdict.traffic.last_connection_mono_ns.context("no connection")?;
    let lag = last.saturating_sub(pre_stop);
    ensure!((SECOND / 10..SECOND).contains(&lag), "--lag 300ms, but connections came for {lag} ns");
    Ok(())
}

fn grace() -> Result<()> {
    let deaf = "trap '' TERM; lastpacket=$0; $lastpacket demo-server --behaviour graceful --port 8080";
    let program = Copy::new()?;
    let words =
        ["rehearse", "--format", "json", "--grace", "3s", "--warm-up", "500ms", "--", "sh", "-c", deaf];
    let ended = run(lastpacket(words.into_iter().chain([program.path()]))?)?;
    let lines = lines(&ended)?;
    let verdict = lines.verdict()?;
    let waited = start(verdict, Phase::KillSignal)? - start(verdict, Phase::StopSignal)?;
    ensure!((3 * SECOND..4 * SECOND).contains(&waited), "--grace 3s, but SIGKILL came after {waited} ns");
    Ok(())
}

fn repeat() -> Result<()> {
    let words = ["rehearse", "--demo", "graceful", "--format", "text", "--repeat", "2", "--warm-up", "500ms"];
    let ended = run(lastpacket(words)?)?;
    ensure!(ended.status.code() == Some(0), "{}: {}", ended.status, ended.stderr);
    ensure!(ended.stdout.contains("2 rehearsals: 2 drained"), "{}", ended.stdout);
    ensure!(ended.stdout.matches("0 failed").count() == 2, "{}", ended.stdout);
    Ok(())
}

fn every_load(protocol: &[&str]) -> Result<()> {
    let load = "keep-alive:2,fresh:20/s,long:1:1s,stream:1,upload:1:1s,idle:1";
    let words = ["rehearse", "--format", "json", "--demo", "graceful", "--load", load];
    let ended = run(lastpacket(words.iter().chain(protocol))?)?;
    let lines = lines(&ended)?;
    let (verdict, clients) = (lines.verdict()?, lines.rehearsal()?);
    ensure!(clients.failed == 0 && clients.answered > 50, "{clients:?}");
    // Over HTTP/2 the clients' farewells may be the last that comes: `late`, but nothing is lost.
    ensure!(ended.status.code() == Some(0) && verdict.lost == 0, "{:?}", verdict.reasons);
    ensure!(clients.unseen_losses.is_empty(), "{:?}", clients.unseen_losses);
    ensure_balanced(verdict)
}

/// A server that accepts connections and closes them without an answer, except to 503 at /ready.
fn mute() -> Result<(Folder, Vec<String>)> {
    let folder = Folder::new("mute")?;
    let config = "error_log stderr; pid nginx.pid; events {} http { access_log off; server { listen 8080; \
                  location / { return 444; } location /ready { return 503; } } }";
    fs::write(folder.file("nginx.conf"), config)?;
    let words = ["nginx", "-p", &folder.file(""), "-e", "stderr", "-c", "nginx.conf", "-g", "daemon off;"];
    let words = words.map(str::to_owned).into();
    Ok((folder, words))
}

fn refused_load() -> Result<()> {
    let (_folder, server) = mute()?;
    let words = ["rehearse", "--warm-up", "500ms", "--"].map(str::to_owned);
    let ended = run(lastpacket(words.into_iter().chain(server))?)?;
    ensure_failed(&ended, &["no request to", "was answered before termination began", "--port, --path"])
}

fn never_ready() -> Result<()> {
    let (_folder, server) = mute()?;
    let words = ["rehearse", "--ready", "/ready", "--ready-timeout", "1s", "--"].map(str::to_owned);
    let ended = run(lastpacket(words.into_iter().chain(server))?)?;
    ensure_failed(&ended, &["the server was not ready within 1s", "/ready answered 503"])
}

fn with_hook(behaviour: &str, hook: &str) -> Result<Ended> {
    let words = ["rehearse", "--format", "json", "--demo", behaviour, "--warm-up", "500ms", "--grace", "2s"];
    run(lastpacket(words.into_iter().chain(["--pre-stop", hook]))?)
}

fn failing_hook() -> Result<()> {
    let ended = with_hook("graceful", "echo no such host >&2; exit 3")?;
    ensure_failed(&ended, &["the preStop hook failed (exit status: 3)", "no such host", "--pre-stop"])?;
    // Termination goes on, as in Kubernetes, and its verdict is told.
    lines(&ended)?.verdict().map(|_| ())
}

fn hanging_hook() -> Result<()> {
    let ended = with_hook("graceful", "sleep 60")?;
    let wanted = "the preStop hook was still running at the end of the grace period";
    ensure!(ended.stderr.contains(wanted), "{}", ended.stderr);
    let lines = lines(&ended)?;
    let waited = start(lines.verdict()?, Phase::StopSignal)? - start(lines.verdict()?, Phase::PreStop)?;
    ensure!((2 * SECOND..3 * SECOND).contains(&waited), "--grace 2s, but the hook had {waited} ns");
    Ok(())
}

fn ending_hook() -> Result<()> {
    let ended = with_hook("abrupt", "kill -TERM 1; sleep 5")?;
    ensure!(ended.stderr.contains("the server ended during its preStop hook"), "{}", ended.stderr);
    let lines = lines(&ended)?;
    ensure!(lines.verdict()?.result == Answer::Cut, "{:?}", lines.verdict()?.reasons);
    ensure!(ended.status.code() == Some(1), "{}", ended.status);
    Ok(())
}

fn lines(ended: &Ended) -> Result<Vec<Line>> {
    let lines: Result<Vec<Line>, _> = ended.stdout.lines().map(serde_json::from_str).collect();
    lines.with_context(|| format!("{}: {}", ended.stdout, ended.stderr))
}

/// When the first container entered a phase.
fn start(verdict: &Verdict, phase: Phase) -> Result<u64> {
    let container = verdict.containers.first().context("no container")?;
    let entered = container.phases.iter().find(|start| start.phase == phase);
    Ok(entered.with_context(|| format!("never in the phase {phase}: {:?}", container.phases))?.mono_ns)
}

/// A folder that everybody may write to, and that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        let path = std::env::temp_dir().join(format!("lastpacket-{name}-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
        Ok(Self(path))
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
