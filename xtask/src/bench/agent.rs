//! The agent on a full node: its memory, and its processor time while nothing terminates.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// Pods on the node: beyond what a kubelet takes by default (110).
const PODS: usize = 250;
/// Connections a second, in all pods together.
const RATE: usize = 2_000;
/// How long to measure.
const MEASURED: Duration = Duration::from_secs(20);
/// The agent looks at all pods, and the load gets going.
const WARM_UP: Duration = Duration::from_secs(3);
/// `USER_HZ` of `asm-generic/param.h`: what procfs counts processor time in.
const TICKS_PER_SECOND: f64 = 100.0;

/// What was measured of the agent.
pub(super) struct Agent {
    /// MiB.
    pub(super) resident: f64,
    /// Percent of one core.
    pub(super) busy: f64,
}

/// Runs the agent on a node of pods that are processes in network namespaces and cgroups of their own.
pub(super) fn measure(lastpacket: &Path) -> Result<Agent> {
    let node = Node::start()?;
    let mut agent = Command::new(lastpacket)
        .args(["agent", "--without-api", "--format", "json", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run lastpacket")?;
    let measured = watch(&mut agent, &node);
    let _ = agent.kill();
    let _ = agent.wait();
    measured
}

fn watch(agent: &mut Child, node: &Node) -> Result<Agent> {
    let stdout = agent.stdout.take().context("lastpacket has no output")?;
    let mut lines = BufReader::new(stdout).lines().map_while(std::io::Result::ok);
    let found = lines.by_ref().filter(|line| line.contains("\"type\":\"target_started\"")).take(PODS).count();
    ensure!(found == PODS, "the agent found {found} of {PODS} pods");
    // Nobody may make it wait.
    std::thread::spawn(move || lines.for_each(drop));
    std::thread::sleep(WARM_UP);
    let (began, busy_before, made_before) =
        (Instant::now(), processor_time(agent.id())?, node.connections()?);
    std::thread::sleep(MEASURED);
    let seconds = began.elapsed().as_secs_f64();
    let (busy, made) = (processor_time(agent.id())? - busy_before, node.connections()? - made_before);
    let rate = made as f64 / seconds;
    ensure!(
        rate > 0.8 * RATE as f64,
        "only {rate:.0} connections a second were made, not {RATE}: too slow a machine"
    );
    Ok(Agent { resident: super::resident(agent.id())?, busy: busy / seconds * 100.0 })
}

/// Seconds that a process was running, in user space and in the kernel.
fn processor_time(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("lastpacket ended")?;
    // The name, in brackets, may hold anything.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok());
    let (user, system) = ticks(11).zip(ticks(12)).context("procfs shows no processor time")?;
    Ok((user + system) / TICKS_PER_SECOND)
}

/// Pods, until it is dropped.
struct Node {
    folder: PathBuf,
    pods: Vec<(Child, PathBuf)>,
}

impl Node {
    fn start() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read the mounts")?;
        let mount = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .find(|words| words.get(2) == Some(&"cgroup2"));
        let mount =
            mount.and_then(|words| words.get(1).copied()).context("no cgroup v2 hierarchy is mounted")?;
        let folder = Path::new(mount).join(format!("bench-{}", std::process::id()));
        let mut node = Self { folder, pods: Vec::new() };
        for number in 0..PODS {
            node.add(number)?;
        }
        Ok(node)
    }

    fn add(&mut self, number: usize) -> Result<()> {
        let uid = format!("00000000-0000-4000-8000-{number:012x}");
        let folder = self.folder.join(format!("kubepods/pod{uid}/{number:064x}"));
        fs::create_dir_all(&folder).context("cannot make a cgroup")?;
        let this = std::env::current_exe().context("where is this program?")?;
        let mut pod = Command::new("unshare")
            .arg("--net")
            .arg(this)
            .args(["bench-pod", &(RATE as f64 / PODS as f64).to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run unshare")?;
        let stdout = pod.stdout.as_mut().context("no output")?;
        let ready = stdout.read_exact(&mut [0]);
        let pid = pod.id();
        self.pods.push((pod, folder.clone()));
        ready.context("a pod did not start")?;
        fs::write(folder.join("cgroup.procs"), pid.to_string()).context("cannot put a pod into its cgroup")
    }

    /// Connections that were accepted in all pods until now, by the kernel's own count.
    fn connections(&self) -> Result<u64> {
        self.pods.iter().map(|(pod, _)| passive_opens(pod.id())).sum()
    }
}

fn passive_opens(pid: u32) -> Result<u64> {
    let snmp = fs::read_to_string(format!("/proc/{pid}/net/snmp")).context("a pod ended")?;
    let mut tcp = snmp.lines().filter_map(|line| line.strip_prefix("Tcp: ")).map(str::split_whitespace);
    let (Some(names), Some(values)) = (tcp.next(), tcp.next()) else { bail!("no TCP counters") };
    let opens = names.zip(values).find(|(name, _)| *name == "PassiveOpens").context("no PassiveOpens")?;
    opens.1.parse().context("PassiveOpens is no number")
}

impl Drop for Node {
    fn drop(&mut self) {
        for (pod, folder) in &mut self.pods {
            let _ = pod.kill();
            let _ = pod.wait();
            let _ = fs::remove_dir(&*folder);
            let _ = folder.parent().map(fs::remove_dir);
        }
        let _ = fs::remove_dir(self.folder.join("kubepods"));
        let _ = fs::remove_dir(&self.folder);
    }
}

/// What runs in a pod: serves itself so many connections a second, until its standard input ends.
pub(crate) fn pod(rate: f64) -> Result<()> {
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().context("cannot run ip")?;
    ensure!(up.success(), "the loopback does not come up");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 80)).context("cannot listen")?;
    let address = listener.local_addr().context("no address")?;
    std::io::stdout().write_all(b"+").and_then(|()| std::io::stdout().flush()).context("nobody listens")?;
    std::thread::spawn(move || {
        let mut next = Instant::now();
        loop {
            // Both ends are closed at once.
            let _ = TcpStream::connect(address).and_then(|_client| listener.accept());
            next += Duration::from_secs_f64(1.0 / rate);
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    });
    std::io::stdin().read_to_end(&mut Vec::new()).context("no input")?;
    Ok(())
}
