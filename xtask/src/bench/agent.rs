//! The agent on a full node while nothing terminates: its memory, and its processor time beside a load in
//! all pods.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{
    figure::{Figure, Goal},
    pod::Pod,
    tight,
};

/// Pods on the node: beyond what a kubelet takes by default (110).
const PODS: u32 = 250;
/// Connections a second, in all pods together.
const RATE: f64 = 2_000.0;
/// The agent looks at all pods, and the load gets going.
const WARM_UP: Duration = Duration::from_secs(5);
/// How long to measure, once a run.
const MEASURED: Duration = Duration::from_secs(10);
const RUNS: u32 = 3;
/// `USER_HZ` of `asm-generic/param.h`: what procfs counts processor time in.
const TICKS_PER_SECOND: f64 = 100.0;

/// Runs the agent on a node of pods that serve themselves.
pub(crate) fn measure() -> Result<Vec<Figure>> {
    eprintln!("    starting {PODS} pods");
    let pods = (1..=PODS).map(Pod::start).collect::<Result<Vec<_>>>()?;
    let agent = Agent::start()?;
    let per_pod = RATE / f64::from(PODS);
    let time = WARM_UP + (RUNS + 1) * MEASURED;
    let loads = pods.iter().map(|pod| Load::start(pod, per_pod, time)).collect::<Result<Vec<_>>>()?;
    std::thread::sleep(WARM_UP);
    let (mut busy, mut rates, mut resident) = (Vec::new(), Vec::new(), Vec::new());
    for run in 1..=RUNS {
        eprintln!("    run {run} of {RUNS}");
        let (began, spent, made) = (Instant::now(), agent.processor_time()?, connections(&pods)?);
        std::thread::sleep(MEASURED);
        let seconds = began.elapsed().as_secs_f64();
        busy.push((agent.processor_time()? - spent) / seconds * 100.0);
        rates.push((connections(&pods)? - made) as f64 / seconds);
        resident.push(agent.resident()?);
    }
    drop(loads);
    Ok(vec![
        Figure::new("connections in 250 known pods", "1/s", rates, Goal::AtLeast(0.9 * RATE)),
        Figure::new("processor time of the agent", "% of a core", busy, Goal::AtMost(1.0)),
        Figure::new("resident memory of the agent", "MiB", resident, Goal::AtMost(64.0)),
    ])
}

/// An agent that has found all pods; ended when dropped.
struct Agent(Child);

impl Agent {
    fn start() -> Result<Self> {
        let mut agent = Self(
            Command::new(super::lastpacket()?)
                .args(["agent", "--without-api", "--format", "json", "--listen", "127.0.0.1:0"])
                .stdout(Stdio::piped())
                .spawn()
                .context("cannot run lastpacket")?,
        );
        let stdout = agent.0.stdout.take().context("lastpacket has no output")?;
        let rest = wait_for_pods(stdout)?;
        // Nobody may make it wait.
        std::thread::spawn(move || rest.lines().map_while(Result::ok).for_each(drop));
        Ok(agent)
    }

    /// Seconds that it was running, in user space and in the kernel.
    fn processor_time(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).context("lastpacket ended")?;
        // The name, in brackets, may hold anything.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok());
        let (user, system) = ticks(11).zip(ticks(12)).context("procfs shows no processor time")?;
        Ok((user + system) / TICKS_PER_SECOND)
    }

    /// MiB.
    fn resident(&self) -> Result<f64> {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.0.id())).context("lastpacket ended")?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: f64 = resident.trim().trim_end_matches("kB").trim().parse().context("VmRSS is no number")?;
        Ok(kib / 1024.0)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_for_pods(stdout: ChildStdout) -> Result<BufReader<ChildStdout>> {
    let (mut lines, mut line, mut found) = (BufReader::new(stdout), String::new(), 0);
    while found < PODS {
        line.clear();
        if lines.read_line(&mut line).context("cannot read lastpacket's output")? == 0 {
            bail!("the agent ended when it had found {found} of {PODS} pods");
        }
        found += u32::from(line.contains("\"type\":\"target_started\""));
    }
    Ok(lines)
}

/// Connections that a pod makes to itself; ended when dropped.
struct Load(Child);

impl Load {
    fn start(pod: &Pod, rate: f64, time: Duration) -> Result<Self> {
        let count = (rate * time.as_secs_f64()).ceil() as u32;
        let mut command = tight::command(pod, count)?;
        command.args(["--rate", &rate.to_string()]).stdout(Stdio::null());
        Ok(Self(command.spawn().context("cannot run nsenter")?))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Connections that were accepted in all pods until now, by the kernel's own count.
fn connections(pods: &[Pod]) -> Result<u64> {
    pods.iter().map(|pod| passive_opens(pod.pid())).sum()
}

fn passive_opens(pid: u32) -> Result<u64> {
    let snmp = fs::read_to_string(format!("/proc/{pid}/net/snmp")).context("a pod ended")?;
    let mut tcp = snmp.lines().filter_map(|line| line.strip_prefix("Tcp: ")).map(str::split_whitespace);
    let (names, values) = tcp.next().zip(tcp.next()).context("the kernel shows no TCP counters")?;
    let opens = names.zip(values).find(|(name, _)| *name == "PassiveOpens").context("no PassiveOpens")?;
    opens.1.parse().context("PassiveOpens is no number")
}
