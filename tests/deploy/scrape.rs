//! A real Prometheus scrapes what the agent serves, and fires an alert.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use lastpacket_tests::programs::{self, with_programs};
use libtest_mimic::Trial;
use serde_json::Value;
use tracer_user::{
    serve::{self, Pages},
    sink::prometheus::{CONTENT_TYPE, Metrics},
};

use crate::files::{path, read, scratch};

/// Scrapes and evaluations come every second.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn trials() -> Vec<Trial> {
    vec![with_programs("prometheus_scrapes_and_fires", &["prometheus"], scrapes_and_fires)]
}

/// Metrics that have seen the lines of a pod that cut its clients off.
pub(crate) fn metrics() -> Result<Metrics> {
    let metrics = Metrics::new(false);
    for line in read("tests/deploy/cut.jsonl")?.lines() {
        metrics.observe(&serde_json::from_str(line)?);
    }
    Ok(metrics)
}

fn scrapes_and_fires() -> Result<()> {
    let agent = serve(Arc::new(metrics()?))?;
    let prometheus = Prometheus::start(agent)?;
    let alert = prometheus.wait_for("alerts", |answer| {
        let alerts = answer["data"]["alerts"].as_array()?;
        alerts.iter().find(|alert| alert["state"] == "firing").cloned()
    })?;
    let labels = &alert["labels"];
    ensure!(labels["alertname"] == "LastpacketTrafficCut", "{alert}");
    ensure!(labels["namespace"] == "shop" && labels["workload"] == "web", "{alert}");
    let target = prometheus.get("targets")?["data"]["activeTargets"][0].clone();
    ensure!(target["health"] == "up" && target["lastError"] == "", "{target}");
    let losses = prometheus.get("query?query=sum(lastpacket_losses_total)")?;
    ensure!(losses["data"]["result"][0]["value"][1] == "41", "{losses}");
    let lag = prometheus.get("query?query=lastpacket_peer_lag_seconds_count")?;
    ensure!(lag["data"]["result"][0]["value"][1] == "1", "{lag}");
    Ok(())
}

/// Serves as the agent does, until the test ends.
fn serve(metrics: Arc<Metrics>) -> Result<SocketAddr> {
    let (tell, told) = std::sync::mpsc::channel();
    thread::spawn(move || -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let listener = serve::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
            tell.send(listener.local_addr()?)?;
            let metrics = Box::new(move || metrics.encode());
            serve::serve(listener, Pages { metrics, metrics_type: CONTENT_TYPE, readiness: Arc::default() })
                .await?;
            Ok(())
        })
    });
    told.recv().context("the server did not start")
}

struct Prometheus {
    process: Child,
    address: SocketAddr,
}

impl Prometheus {
    fn start(target: SocketAddr) -> Result<Self> {
        let folder = scratch("prometheus")?;
        let config = folder.join("prometheus.yaml");
        let rules = fs::canonicalize(path("deploy/rules.yaml"))?;
        fs::write(&config, configuration(&rules, target))?;
        let address = free_address()?;
        let process = Command::new(programs::find("prometheus")?)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=warn")
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.join("log"))?)
            .spawn()
            .context("cannot start prometheus")?;
        Ok(Self { process, address })
    }

    /// Asks until the answer has what is wanted.
    fn wait_for<T>(&self, what: &str, wanted: impl Fn(&Value) -> Option<T>) -> Result<T> {
        let started = Instant::now();
        let mut last = None;
        while started.elapsed() < PATIENCE {
            if let Ok(answer) = self.get(what) {
                if let Some(found) = wanted(&answer) {
                    return Ok(found);
                }
                last = Some(answer);
            }
            thread::sleep(Duration::from_millis(200));
        }
        bail!("prometheus did not show it; its last answer: {last:?}")
    }

    fn get(&self, what: &str) -> Result<Value> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET /api/v1/{what} HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no HTTP")?;
        Ok(serde_json::from_str(body)?)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn configuration(rules: &Path, target: SocketAddr) -> String {
    format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
         rule_files: [{}]\n\
         scrape_configs:\n\
         - job_name: lastpacket\n\
         \x20 static_configs: [{{targets: ['{target}']}}]\n",
        rules.display()
    )
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
