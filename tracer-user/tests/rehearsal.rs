//! Rehearsals of the demonstration server on a real kernel: what its clients see, what is left.

use std::{fs, path::Path, time::Duration};

use anyhow::{Result, ensure};
use nix::unistd::geteuid;
use tokio::time::{Instant, sleep};
use tracer_user::{
    host::netns::Inside,
    rehearse::{
        certificate::Certificate,
        load::{Counts, Kind, Load, LoadPlan, Protocol, Summary},
        ready::{Readiness, wait_ready},
        sandbox::{ContainerSpec, Namespaces, Sandbox, User},
        terminate::{StopSignal, TerminationPlan, Timings, terminate},
    },
};

const LAG: Duration = Duration::from_millis(600);

struct Rehearsal {
    timings: Timings,
    clients: Summary,
}

async fn start(name: &str, command: &[&str]) -> Result<Sandbox> {
    let command: Vec<String> = command.iter().map(ToString::to_string).collect();
    Namespaces::create(name).await?.start(&command, None).await
}

fn readiness(path: Option<&str>) -> Readiness {
    Readiness {
        port: None,
        path: path.map(str::to_owned),
        timeout: Duration::from_secs(5),
        protocol: Protocol::default(),
    }
}

fn plan() -> TerminationPlan {
    TerminationPlan { pre_stop: None, stop_signal: StopSignal::TERM, grace: Duration::from_secs(10) }
}

async fn rehearse(behaviour: &str, protocol: Protocol) -> Result<Rehearsal> {
    let certificate = Certificate::create()?;
    let command = [env!("CARGO_BIN_EXE_lastpacket"), "demo-server", "--behaviour", behaviour];
    let tls = format!("{protocol:?}").contains("https").then_some("--tls");
    let spec = ContainerSpec {
        name: "demo".to_owned(),
        words: command.into_iter().chain(tls).map(str::to_owned).collect(),
        env: certificate.variables().into(),
        ..ContainerSpec::default()
    };
    let sandbox = Namespaces::create(behaviour).await?.start_all(vec![spec], None).await?;
    let ready = Readiness { protocol: protocol.clone(), ..readiness(Some("/ready")) };
    let target = wait_ready(&sandbox, &ready).await?;
    let spec = "keep-alive:4,fresh:50/s,long:2:1500ms,stream:1,upload:1:1500ms,idle:2".parse()?;
    let load = Load::start(
        sandbox.namespaces().clients(),
        &LoadPlan { spec, protocol, ..LoadPlan::default() },
        target,
    );
    // In the middle of a long request.
    sleep(Duration::from_millis(2300)).await;
    let stop_new = async {
        sleep(LAG).await;
        load.stop_new();
    };
    let plan = plan();
    let (timings, ()) = tokio::join!(terminate(&sandbox, &plan, |_| {}), stop_new);
    let timings = timings?;
    let clients = load.finish(Instant::now() + Duration::from_secs(2)).await;
    println!("{behaviour}: {timings:?}\n{:#?}", clients.counts);
    for failure in &clients.failures {
        println!("{failure:?}");
    }
    Ok(Rehearsal { timings, clients })
}

fn of(summary: &Summary, kind: Kind) -> Counts {
    summary.counts.get(&kind).copied().unwrap_or_default()
}

async fn graceful_server_loses_nothing(protocol: Protocol) -> Result<()> {
    let Rehearsal { timings, clients } = rehearse("graceful", protocol).await?;
    ensure!(timings.exit.status.code() == Some(0), "{:?}", timings.exit);
    ensure!(clients.total().failed == 0 && clients.total().aborted == 0, "{:?}", clients.failures);
    for kind in [Kind::KeepAlive, Kind::Fresh, Kind::Long, Kind::Stream, Kind::Upload, Kind::Idle] {
        ensure!(of(&clients, kind).ok > 0, "no complete answer of kind {kind}");
    }
    Ok(())
}

async fn abrupt_server_cuts_what_is_in_flight() -> Result<()> {
    let Rehearsal { timings, clients } = rehearse("abrupt", Protocol::default()).await?;
    ensure!(timings.exit.status.code() == Some(0) && timings.kill_signal_mono_ns.is_none());
    // Those in flight and, until the load balancer knows, the refused reconnections.
    ensure!(of(&clients, Kind::Long).failed >= 2, "both long requests were in flight");
    ensure!(of(&clients, Kind::Stream).failed >= 1 && of(&clients, Kind::Upload).failed >= 1);
    ensure!(of(&clients, Kind::Fresh).failed > 10, "fresh connections are refused");
    ensure!(clients.failures.iter().all(|failure| failure.local.port() != 0));
    Ok(())
}

async fn hook_runs_inside_and_deaf_server_is_killed() -> Result<()> {
    let sandbox = start("deaf", &["sleep", "60"]).await?;
    let (mine, inside) = (
        fs::read_link("/proc/self/ns/net")?,
        sandbox.namespaces().run_inside(Inside::of_this_thread).await??,
    );
    let netns = inside.identity;
    ensure!(!mine.to_string_lossy().contains(&netns.inode.to_string()), "the netns is the host's");
    let script = "readlink /proc/self/ns/net; tr '\\0' ' ' < /proc/1/cmdline; cat /proc/self/cgroup; pwd";
    let hook: Vec<String> = ["sh", "-c", script].map(str::to_owned).into();
    let plan = TerminationPlan { pre_stop: Some(hook), grace: Duration::from_millis(100), ..plan() };
    let timings = terminate(&sandbox, &plan, |step| println!("{step:?}")).await?;
    let hook = timings.pre_stop.transpose().map_err(anyhow::Error::msg)?;
    let output = hook.map(|run| run.output).unwrap_or_default();
    let directory = std::env::current_dir()?;
    for expected in [&format!("net:[{}]", netns.inode), "sleep 60", &directory.to_string_lossy()] {
        ensure!(output.contains(expected), "{expected} is not in {output}");
    }
    ensure!(sandbox.main().cgroup().is_none() || output.contains("/deaf"), "not in the cgroup: {output}");
    let (stop, kill) = (timings.stop_signal_mono_ns, timings.kill_signal_mono_ns);
    let waited = Duration::from_nanos(kill.zip(stop).map_or(0, |(kill, stop)| kill - stop));
    ensure!(waited >= Duration::from_secs(2), "a kubelet leaves 2 s at least, not {waited:?}");
    let signal = std::os::unix::process::ExitStatusExt::signal(&timings.exit.status);
    ensure!(signal == Some(libc::SIGKILL), "{:?}", timings.exit);
    Ok(())
}

async fn sidecars_outlive_the_server() -> Result<()> {
    let container = |name: &str, script: &str, sidecar| ContainerSpec {
        name: name.to_owned(),
        words: ["sh", "-c", script].map(str::to_owned).into(),
        user: Some(User { uid: 1000, gid: 1000 }),
        sidecar,
        ..ContainerSpec::default()
    };
    let stoppable = "trap 'sleep 0.3; exit 0' TERM; while :; do sleep 0.05; done";
    let specs = vec![
        container("server", stoppable, false),
        container("beside", stoppable, false),
        container("first", stoppable, true),
        container("second", stoppable, true),
    ];
    let sandbox = Namespaces::create("sidecars").await?.start_all(specs, None).await?;
    sleep(Duration::from_millis(300)).await;
    terminate(&sandbox, &plan(), |_| {}).await?;
    let mut ends = Vec::new();
    for container in sandbox.containers() {
        let exit = container.exited().await?;
        ensure!(exit.status.code() == Some(0), "{}: {exit:?}", container.spec().name);
        ends.push(exit.at_mono_ns);
    }
    let apart =
        |earlier: usize, later: usize| Duration::from_nanos(ends[later].saturating_sub(ends[earlier]));
    ensure!(
        ends[0].abs_diff(ends[1]) < 250_000_000,
        "server and container were not stopped together: {ends:?}"
    );
    let step = Duration::from_millis(250);
    ensure!(apart(0, 3) > step && apart(3, 2) > step, "sidecars go last, in reverse: {ends:?}");
    Ok(())
}

async fn errors_name_the_remedy() -> Result<()> {
    let missing = start("missing", &["/no/such/program"]).await.err();
    let message = missing.map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(message.contains("cannot run `/no/such/program`") && message.contains("after `--`"), "{message}");

    let failing = start("failing", &["sh", "-c", "echo no config >&2; exit 3"]).await?;
    let error = wait_ready(&failing, &readiness(None)).await.err().map(|error| error.to_string());
    let message = error.unwrap_or_default();
    ensure!(message.contains("exit status: 3") && message.contains("no config"), "{message}");
    Ok(())
}

fn leftovers() -> Result<Vec<String>> {
    let mut left = Vec::new();
    let ours = format!("lastpacket-{}", std::process::id());
    for root in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
        if Path::new(root).join(&ours).exists() {
            left.push(format!("cgroup {root}/{ours}"));
        }
    }
    let own_netns = fs::read_link("/proc/self/ns/net")?;
    for task in fs::read_dir("/proc/self/task")?.flatten() {
        if fs::read_link(task.path().join("ns/net")).is_ok_and(|netns| netns != own_netns) {
            left.push(format!("thread {} in another netns", task.file_name().display()));
        }
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        if !children.is_empty() {
            left.push(format!("processes {children}"));
        }
    }
    for descriptor in fs::read_dir("/proc/self/fd")?.flatten() {
        let target = fs::read_link(descriptor.path()).unwrap_or_default();
        if target.to_string_lossy().starts_with("net:") {
            left.push(format!("descriptor of {}", target.display()));
        }
    }
    Ok(left)
}

#[tokio::test]
async fn rehearsals() -> Result<()> {
    if !geteuid().is_root() {
        println!("skipped: needs root for namespaces");
        return Ok(());
    }
    for (http2, tls) in [(false, false), (true, false), (false, true), (true, true)] {
        graceful_server_loses_nothing(Protocol::new(http2, tls)?).await?;
    }
    sidecars_outlive_the_server().await?;
    abrupt_server_cuts_what_is_in_flight().await?;
    hook_runs_inside_and_deaf_server_is_killed().await?;
    errors_name_the_remedy().await?;
    ensure!(leftovers()? == Vec::<String>::new(), "left behind: {:?}", leftovers()?);
    Ok(())
}
