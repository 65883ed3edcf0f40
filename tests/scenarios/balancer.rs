//! The load balancer: HAProxy in front of the pods, with its own word on what failed behind it.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tracer_user::rehearse::certificate::Certificate;

use crate::stage::{BALANCER, CHECKS, Stage, address, pod_address};

/// Longer than hooks take before they let a pod end.
const PATIENCE: Duration = Duration::from_secs(30);

/// How it is set.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Pods that it sends traffic to.
    pub pods: usize,
    /// Pods that it knows, and that start later.
    pub later: usize,
    /// How often a failed connection is tried again, at another pod.
    pub retries: u32,
    /// Time between health checks, in ms; none: pods are taken for healthy.
    pub interval: Option<u64>,
    /// How many failed checks in a row mark a pod down.
    pub threshold: u32,
    /// Whether each request has a connection of its own.
    pub fresh: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { pods: 1, later: 0, retries: 0, interval: Some(200), threshold: 2, fresh: false }
    }
}

/// A running HAProxy.
pub struct Balancer {
    process: Child,
    socket: PathBuf,
    log: PathBuf,
    _certificate: Certificate,
}

/// What its log says of one request.
#[derive(Debug)]
pub struct Logged {
    /// The log's own words.
    pub text: String,
    /// How the session ended; S at first: the server failed it, if there was one.
    state: String,
    had_server: bool,
    /// How often connecting was tried again.
    retries: u64,
    status: String,
}

impl Logged {
    /// How many connections to pods failed for this request.
    pub fn failures(&self) -> u64 {
        self.retries + u64::from(self.had_server && self.state.starts_with('S'))
    }

    /// Whether the pod itself answered that it got nothing from what is behind it.
    pub fn is_bad_gateway(&self) -> bool {
        self.status == "502" && self.had_server && !self.state.starts_with('S')
    }
}

impl Balancer {
    /// Starts it and waits until all its pods are up.
    ///
    /// # Errors
    /// If it does not start, or a pod is not healthy in time.
    pub fn start(stage: &Stage, settings: Settings) -> Result<Self> {
        let certificate = Certificate::create()?;
        let socket = std::env::temp_dir().join(format!(
            "lastpacket-{}-{}",
            std::process::id(),
            stage.clients.inode()?
        ));
        let (config, log) = (stage.file("haproxy.cfg"), stage.file("load-balancer.log"));
        let [(_, crt), _] = certificate.variables();
        fs::write(&config, configuration(settings, &socket.display().to_string(), &crt))?;
        let output = File::create(&log)?;
        let process = stage.balancer.enter(|| {
            let mut command = Command::new("haproxy");
            command.args(["-db", "-f"]).arg(&config).stdin(Stdio::null());
            command.stdout(output.try_clone()?).stderr(output.try_clone()?);
            command.spawn().context("cannot run haproxy")
        })?;
        let balancer = Self { process, socket, log, _certificate: certificate };
        (0..settings.pods).try_for_each(|pod| balancer.wait_until_up(pod))?;
        let later = settings.pods..settings.pods + settings.later;
        balancer.wait_until("the pods to come are down", || {
            Ok(later.clone().all(|pod| !balancer.is_up(pod).unwrap_or(true)))
        })?;
        Ok(balancer)
    }

    /// How many requests are under way at a pod.
    pub fn under_way(&self, pod: usize) -> Result<u64> {
        Ok(self.column(pod, "scur")?.parse().unwrap_or(0))
    }

    /// Waits until a pod that came later gets traffic.
    pub fn wait_until_up(&self, pod: usize) -> Result<()> {
        // At first all are up until a check has failed; and the load balancer may not answer yet.
        self.wait_until("a pod is up", || {
            Ok(self.is_up(pod).unwrap_or(false) && self.is_healthy(pod).unwrap_or(false))
        })
    }

    /// Whether a pod gets traffic.
    pub fn is_up(&self, pod: usize) -> Result<bool> {
        let status = self.column(pod, "status")?;
        Ok(status.starts_with("UP") || status == "no check")
    }

    /// Whether its last health check, if there are any, went well.
    fn is_healthy(&self, pod: usize) -> Result<bool> {
        let last = self.column(pod, "check_status")?;
        Ok(last.starts_with("L7OK") || last.is_empty())
    }

    /// How many health checks of a pod have failed.
    pub fn failed_checks(&self, pod: usize) -> Result<u64> {
        Ok(self.column(pod, "chkfail")?.parse().unwrap_or(0))
    }

    /// Waits until something has happened.
    pub fn wait_until(&self, what: &str, happened: impl Fn() -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !happened()? {
            if Instant::now() > deadline {
                bail!("in vain waited until {what}: {}", fs::read_to_string(&self.log)?);
            }
            sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Of the statistics of a pod: of the checks what they know, of its traffic the rest.
    fn column(&self, pod: usize, name: &str) -> Result<String> {
        let table = self.ask("show stat")?;
        let mut lines = table.lines();
        let heads: Vec<&str> = lines.next().unwrap_or_default().trim_start_matches("# ").split(',').collect();
        let column = heads.iter().position(|head| *head == name).context("no such statistic")?;
        let backend = if name.starts_with("check") || name == "chkfail" { "checks" } else { "pods" };
        let wanted = format!("{backend},pod{pod},");
        let line = lines.find(|line| line.starts_with(&wanted)).context("no such pod")?;
        Ok(line.split(',').nth(column).unwrap_or_default().to_owned())
    }

    fn ask(&self, question: &str) -> Result<String> {
        let mut socket = UnixStream::connect(&self.socket).context("the load balancer does not answer")?;
        socket.write_all(format!("{question}\n").as_bytes())?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Keeps the statistics and ends it; what it logged of each request.
    pub fn finish(self, stage: &Stage) -> Result<Vec<Logged>> {
        // The log is written when a session ends.
        sleep(Duration::from_millis(300));
        fs::write(stage.file("load-balancer-statistics.csv"), self.ask("show stat")?)?;
        let log = fs::read_to_string(&self.log)?;
        Ok(log.lines().filter_map(read_log).collect())
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_file(&self.socket);
    }
}

/// `request POD STATE RETRIES STATUS …`.
fn read_log(line: &str) -> Option<Logged> {
    let text = line.split_once("request ")?.1;
    let mut words = text.split(' ');
    let had_server = words.next()? != "<NOSRV>";
    let state = words.next()?.to_owned();
    let retries = words.next()?.trim_start_matches('+').parse().ok()?;
    let status = words.next()?.to_owned();
    Some(Logged { text: text.to_owned(), state, had_server, retries, status })
}

fn configuration(settings: Settings, socket: &str, certificate: &str) -> String {
    let Settings { pods, later, retries, interval, threshold, fresh } = settings;
    let close = if fresh { "option httpclose" } else { "" };
    let redispatch = if retries > 0 { "option redispatch 1" } else { "no option redispatch" };
    let servers = |line: &dyn Fn(usize) -> String| (0..pods + later).map(line).collect::<String>();
    let check = interval.map_or(String::new(), |ms| format!("check inter {ms} fall {threshold} rise 1"));
    let checks = servers(&|pod| format!("    server pod{pod} {}:8080 {check}\n", pod_address(pod)));
    let track =
        |pod: usize| if interval.is_some() { format!("track checks/pod{pod}") } else { String::new() };
    let traffic = servers(&|pod| format!("    server pod{pod} {}:8080 {}\n", pod_address(pod), track(pod)));
    format!(
        "global
    stats socket {socket} level admin
    log stdout format raw local0
    # Several threads drop lines of a log that another one is writing to.
    nbthread 1
    ssl-load-extra-del-ext
defaults
    mode http
    log global
    timeout connect 1s
    timeout client 120s
    timeout server 120s
    timeout check 1s
    retries {retries}
    {redispatch}
    {close}
frontend clients
    bind :80
    bind :443 ssl crt {certificate} alpn h2,http/1.1
    log-format \"request %s %ts %rc %ST %s %Tt %r\"
    default_backend pods
backend pods
    balance roundrobin
    source {}
{traffic}
backend checks
    option httpchk GET /healthz
    source {}
{checks}",
        address(BALANCER),
        address(CHECKS)
    )
}
