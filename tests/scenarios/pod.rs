//! A pod: one gateway, or two one behind the other, traced from outside.

use std::thread;

use anyhow::{Result, anyhow};
use lastpacket_tests::run::{self, Run, Running};
use nix::sys::signal::Signal;
use tracer_core::output::Body;

use crate::{
    container::{Container, Termination},
    gateway::{Gateway, Server},
    stage::{CHECKS, Stage, address, backend_address},
};

/// How long late traffic is watched: longer than any load balancer's lag here.
const LINGER: &str = "2500ms";

/// A running pod.
pub struct Pod {
    containers: Vec<Container>,
    trace: Running,
}

impl Pod {
    /// Starts nginx as the gateway and traces it.
    pub fn start(stage: &Stage, number: usize) -> Result<Self> {
        Self::start_as(Server::Nginx, stage, number)
    }

    /// Starts a gateway and traces it.
    pub fn start_as(server: Server, stage: &Stage, number: usize) -> Result<Self> {
        let pod = Self::new(server, stage, number)?;
        pod.let_listen()?;
        Ok(pod)
    }

    /// Starts nginx, which does not listen yet.
    pub fn start_deaf(stage: &Stage, number: usize) -> Result<Self> {
        Self::new(Server::Nginx, stage, number)
    }

    fn new(server: Server, stage: &Stage, number: usize) -> Result<Self> {
        let name = format!("pod{number}");
        let gateway = Gateway { server, name, port: 8080, upstream: backend_address(), at_once: false };
        let container = Container::start(stage, number, &gateway)?;
        let pid = container.init().to_string();
        Ok(Self { containers: vec![container], trace: trace(&["--pid", &pid], 1)? })
    }

    /// Lets it listen.
    pub fn let_listen(&self) -> Result<()> {
        self.containers.iter().try_for_each(Container::let_listen)
    }

    /// Starts an application, and a sidecar in front of it, in one pod.
    pub fn start_with_sidecar(stage: &Stage, number: usize) -> Result<Self> {
        let (server, at_once, behind) = (Server::Nginx, true, "127.0.0.1:8081".to_owned());
        let (name, upstream) = (format!("pod{number}-app"), backend_address());
        let application = Gateway { server, name, port: 8081, upstream, at_once };
        let name = format!("pod{number}");
        let sidecar = Gateway { server, name, port: 8080, upstream: behind, at_once };
        let containers =
            vec![Container::start(stage, number, &application)?, Container::start(stage, number, &sidecar)?];
        Ok(Self { containers, trace: trace(&["--netns", &stage.pod(number).path()], 2)? })
    }

    /// Terminates its only container.
    pub fn terminate(&mut self, plan: Termination) -> Result<()> {
        self.terminate_in_turn(&[plan])
    }

    /// Terminates its containers, one when the one before has ended.
    pub fn terminate_in_turn(&mut self, plans: &[Termination]) -> Result<()> {
        self.tell(plans)?;
        self.containers.iter_mut().zip(plans).try_for_each(|(container, plan)| container.terminate(*plan))
    }

    /// Terminates its containers at the same time.
    pub fn terminate_together(&mut self, plans: &[Termination]) -> Result<()> {
        self.tell(plans)?;
        thread::scope(|scope| {
            let pairs = self.containers.iter_mut().zip(plans);
            let threads: Vec<_> =
                pairs.map(|(container, plan)| scope.spawn(|| container.terminate(*plan))).collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().map_err(|_| anyhow!("the kubelet panicked"))?)
        })
    }

    /// Tells the trace that hooks begin: nobody else knows but a kubelet.
    fn tell(&self, plans: &[Termination]) -> Result<()> {
        let hooks = plans.iter().any(|plan| plan.pre_stop.is_some());
        if hooks { self.trace.signal(Signal::SIGUSR1) } else { Ok(()) }
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

fn trace(target: &[&str], containers: usize) -> Result<Running> {
    let checks = format!("{}/32", address(CHECKS));
    let options = ["--probe-peer", &checks, "--linger", LINGER];
    let mut trace = run::start(&[&["trace"], target, &options].concat())?;
    trace.wait_for(containers, |body| matches!(body, Body::Phase(_)))?;
    Ok(trace)
}
