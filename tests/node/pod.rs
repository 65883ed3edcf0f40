//! Pods of the node, run and stopped by the calls that a kubelet makes, in its order.

use std::{
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, ensure};

use crate::{cluster::Node, cri, images};

/// After a hook at least this much is left of the grace period (kubelet: `minimumGracePeriodInSeconds`).
const LEAST_GRACE: Duration = Duration::from_secs(2);

/// Its processes are always the container's own.
fn namespaces(host_network: bool) -> cri::Namespaces {
    let network = if host_network { cri::NODE } else { cri::POD };
    cri::Namespaces { network, pid: cri::CONTAINER }
}

static PODS: AtomicU32 = AtomicU32::new(1);

/// What a container is to be.
#[derive(Clone, Debug)]
pub struct ContainerPlan {
    pub name: &'static str,
    pub image: &'static str,
    /// What it runs, if not what the image says.
    pub command: Vec<String>,
    /// A command that runs before the stop signal.
    pub pre_stop: Option<&'static [&'static str]>,
}

impl ContainerPlan {
    /// A server whose stop signal, by its image, is SIGQUIT.
    pub fn nginx() -> Self {
        Self { name: "nginx", image: images::NGINX, command: Vec::new(), pre_stop: None }
    }

    /// A server without a handler for SIGTERM.
    pub fn httpd() -> Self {
        Self { name: "httpd", image: images::TOOLS, command: Vec::new(), pre_stop: None }
    }

    /// The same at another address.
    pub fn httpd_at(address: SocketAddr) -> Self {
        let address = address.to_string();
        let command = ["/bin/busybox", "httpd", "-f", "-p", &address, "-h", "/srv"];
        Self { command: command.map(str::to_owned).into(), ..Self::httpd() }
    }

    pub fn with_pre_stop(self, command: &'static [&'static str]) -> Self {
        Self { pre_stop: Some(command), ..self }
    }
}

/// What a pod is to be.
#[derive(Clone, Debug)]
pub struct PodPlan {
    pub name: String,
    pub containers: Vec<ContainerPlan>,
    pub host_network: bool,
}

impl PodPlan {
    pub fn of(name: impl Into<String>, containers: Vec<ContainerPlan>) -> Self {
        Self { name: name.into(), containers, host_network: false }
    }

    pub fn on_host_network(self) -> Self {
        Self { host_network: true, ..self }
    }
}

/// A container of a pod.
#[derive(Clone, Debug)]
pub struct Container {
    pub plan: ContainerPlan,
    pub id: String,
    pub attempt: u32,
}

/// A running pod; dropping it ends it.
pub struct Pod {
    node: &'static Node,
    pub name: String,
    uid: String,
    sandbox: String,
    config: cri::PodSandboxConfig,
    /// None on the host network.
    address: Option<IpAddr>,
    pub containers: Vec<Container>,
    removed: bool,
}

impl Pod {
    /// Runs a sandbox with its containers.
    pub fn run(node: &'static Node, plan: &PodPlan) -> Result<Self> {
        let number = PODS.fetch_add(1, Ordering::Relaxed);
        let uid = format!("{:08x}-0000-4000-8000-{number:012x}", std::process::id());
        let config = sandbox_config(plan, &uid);
        let sandbox = node.cri.run_pod_sandbox(&config)?;
        let address = node.cri.address(&sandbox)?.parse().ok();
        ensure!(address.is_some() != plan.host_network, "the sandbox's address is {address:?}");
        let mut pod = Self {
            node,
            name: plan.name.clone(),
            uid,
            sandbox,
            config,
            address,
            containers: Vec::new(),
            removed: false,
        };
        for container in &plan.containers {
            pod.start(container, 0)?;
        }
        Ok(pod)
    }

    /// Starts a container, or, with a higher attempt, starts it again.
    pub fn start(&mut self, plan: &ContainerPlan, attempt: u32) -> Result<()> {
        let config = container_config(plan, attempt, self.address.is_none());
        let id = self.node.cri.create_container(&self.sandbox, config, &self.config)?;
        self.node.cri.start_container(&id)?;
        self.containers.retain(|container| container.plan.name != plan.name);
        self.containers.push(Container { plan: plan.clone(), id, attempt });
        Ok(())
    }

    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// None on the host network.
    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// Stops all containers at the same time: the hook, then the stop signal, then SIGKILL.
    pub fn stop_containers(&self, grace: Duration) -> Result<()> {
        thread::scope(|scope| {
            let stops: Vec<_> = self
                .containers
                .iter()
                .map(|container| scope.spawn(move || self.stop_container(container, grace)))
                .collect();
            let join = |stop: thread::ScopedJoinHandle<'_, Result<()>>| {
                stop.join().map_err(|_| anyhow!("a stop panicked"))?
            };
            stops.into_iter().try_for_each(join)
        })
    }

    fn stop_container(&self, container: &Container, grace: Duration) -> Result<()> {
        let began = Instant::now();
        if let Some(command) = container.plan.pre_stop {
            self.node.cri.exec_sync(&container.id, command, seconds(grace))?;
        }
        let left = grace.saturating_sub(began.elapsed()).max(LEAST_GRACE.min(grace));
        self.node.cri.stop_container(&container.id, seconds(left))
    }

    /// Stops what is left of it and takes its network away.
    pub fn stop_sandbox(&self) -> Result<()> {
        self.node.cri.stop_pod_sandbox(&self.sandbox)
    }

    /// Removes its containers and itself.
    pub fn remove(mut self) -> Result<()> {
        self.removed = true;
        for container in &self.containers {
            self.node.cri.remove_container(&container.id)?;
        }
        self.node.cri.remove_pod_sandbox(&self.sandbox)
    }

    /// All of it, as when a pod is deleted.
    pub fn stop(self, grace: Duration) -> Result<()> {
        self.stop_containers(grace)?;
        self.stop_sandbox()?;
        self.remove()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        if !self.removed {
            let _ = self.stop_sandbox();
            let _ = self.node.cri.remove_pod_sandbox(&self.sandbox);
        }
    }
}

/// Whole seconds: the runtime's unit.
fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs_f64().ceil() as u64).unwrap_or(i64::MAX)
}

fn sandbox_config(plan: &PodPlan, uid: &str) -> cri::PodSandboxConfig {
    cri::PodSandboxConfig {
        metadata: Some(cri::PodMetadata {
            name: plan.name.clone(),
            uid: uid.to_owned(),
            namespace: "shop".to_owned(),
        }),
        // The node's own, which is not set.
        hostname: if plan.host_network { String::new() } else { plan.name.clone() },
        // Else the machine's own is looked for.
        dns: Some(cri::DnsConfig { servers: vec!["10.66.255.1".to_owned()] }),
        linux: Some(cri::LinuxSandbox {
            cgroup_parent: format!("/kubepods/burstable/pod{uid}"),
            security: Some(cri::SandboxSecurity { namespaces: Some(namespaces(plan.host_network)) }),
        }),
    }
}

fn container_config(plan: &ContainerPlan, attempt: u32, host_network: bool) -> cri::ContainerConfig {
    cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: plan.name.to_owned(), attempt }),
        image: Some(cri::Image { image: plan.image.to_owned() }),
        command: plan.command.clone(),
        linux: Some(cri::LinuxContainer {
            security: Some(cri::Security { namespaces: Some(namespaces(host_network)) }),
        }),
    }
}
