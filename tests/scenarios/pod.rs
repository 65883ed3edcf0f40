//! A gateway pod: nginx as PID 1 in its own pid namespace, traced from outside, and terminated as a
//! kubelet does.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use lastpacket_tests::{
    process,
    run::{self, Run, Running},
};
use nix::sys::signal::Signal;
use tracer_core::output::Body;

use crate::stage::{CHECKS, Stage, address, backend_address};

/// What a kubelet leaves after the preStop hook at least.
const MINIMUM_GRACE: Duration = Duration::from_secs(2);
/// How long late traffic is watched: longer than any load balancer's lag here.
const LINGER: &str = "2500ms";
const POLL: Duration = Duration::from_millis(10);

/// How a pod is terminated.
#[derive(Clone, Copy, Debug)]
pub struct Termination {
    /// What `sh` runs inside before the stop signal; `$POD` is the pod's folder.
    pub pre_stop: Option<&'static str>,
    /// The stop signal.
    pub signal: Signal,
    /// For hook and stopping together.
    pub grace: Duration,
}

/// A running pod.
pub struct Pod {
    parent: Parent,
    init: u32,
    folder: PathBuf,
    trace: Running,
}

/// `unshare`, which ends when PID 1 does, and takes it along when it is killed.
struct Parent(Child);

impl Drop for Parent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Pod {
    /// Starts nginx as a gateway and traces it.
    pub fn start(stage: &Stage, number: usize) -> Result<Self> {
        Self::start_after(stage, number, Duration::ZERO)
    }

    /// The same, but nginx starts only after a while.
    pub fn start_after(stage: &Stage, number: usize, delay: Duration) -> Result<Self> {
        let folder = stage.file(&format!("pod{number}"));
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("ready"), "ready\n")?;
        fs::write(folder.join("nginx.conf"), configuration(&folder.display().to_string()))?;
        let output = File::create(folder.join("output.log"))?;
        let script = format!("sleep {}; exec nginx -e stderr -c \"$POD/nginx.conf\"", delay.as_secs_f64());
        let parent = Parent(stage.pod(number).enter(|| {
            let mut command = Command::new("unshare");
            command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", &script]);
            command.env("POD", &folder).stdin(Stdio::null());
            command.stdout(output.try_clone()?).stderr(output.try_clone()?);
            command.spawn().context("cannot run unshare")
        })?);
        let init = only_child(parent.0.id())?;
        let checks = format!("{}/32", address(CHECKS));
        let pid = init.to_string();
        let mut trace = run::start(&["trace", "--pid", &pid, "--probe-peer", &checks, "--linger", LINGER])?;
        trace.wait_for(1, |body| matches!(body, Body::Phase(_)))?;
        Ok(Self { parent, init, folder, trace })
    }

    /// Terminates it as a kubelet does.
    pub fn terminate(&mut self, plan: Termination) -> Result<()> {
        let begin = Instant::now();
        if let Some(hook) = plan.pre_stop {
            self.run_hook(hook, begin + plan.grace)?;
        }
        if !self.has_ended()? {
            process::signal(self.init, plan.signal)?;
        }
        let left = plan.grace.saturating_sub(begin.elapsed()).max(MINIMUM_GRACE);
        let deadline = Instant::now() + left;
        while !self.has_ended()? {
            if Instant::now() > deadline {
                process::signal(self.init, Signal::SIGKILL)?;
                self.parent.0.wait()?;
            }
            sleep(POLL);
        }
        Ok(())
    }

    /// Enters the pod's namespaces, as a runtime's exec does. A hook that is not done in time goes on
    /// until the pod ends.
    fn run_hook(&self, hook: &str, deadline: Instant) -> Result<()> {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init.to_string(), "--pid", "--net", "--mount", "sh", "-c", hook]);
        let mut running = command.env("POD", &self.folder).spawn().context("cannot run nsenter")?;
        while running.try_wait()?.is_none() && Instant::now() < deadline {
            sleep(POLL);
        }
        Ok(())
    }

    fn has_ended(&mut self) -> Result<bool> {
        Ok(self.parent.0.try_wait()?.is_some())
    }

    /// What was traced of it, when it has ended.
    pub fn traced(self) -> Result<Run> {
        self.trace.finish()
    }

    /// What was traced of it until now: it is not terminated.
    pub fn traced_so_far(self) -> Result<Run> {
        self.trace.signal(Signal::SIGINT)?;
        self.trace.finish()
    }
}

fn only_child(parent: u32) -> Result<u32> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    for _ in 0..500 {
        if let Some(child) =
            fs::read_to_string(&path).unwrap_or_default().split(' ').find_map(|pid| pid.parse().ok())
        {
            return Ok(child);
        }
        sleep(POLL);
    }
    bail!("unshare started nothing")
}

fn configuration(folder: &str) -> String {
    format!(
        "daemon off; user root; worker_processes 2; pid {folder}/nginx.pid;
events {{}}
http {{
    access_log {folder}/access.log;
    upstream backend {{ server {}; keepalive 16; }}
    server {{
        listen 8080;
        location = /healthz {{ access_log off; root {folder}; try_files /ready =503; }}
        location / {{
            proxy_pass http://backend;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_buffering off;
            proxy_read_timeout 120s;
        }}
    }}
}}
",
        backend_address()
    )
}
