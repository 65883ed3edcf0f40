//! The agent at work on the node, as a process of the machine.

use anyhow::{Context, Result, ensure};
use lastpacket_tests::{
    events::ensure_no_gaps,
    run::{self, Running},
};
use nix::sys::signal::Signal;
use tracer_core::output::{Body, Line};

use crate::{agreement::pod_uid, pod::Pod};

/// See the module; dropping it ends it.
pub struct Agent(Running);

impl Agent {
    /// Starts one with these options, and waits until it follows these pods.
    pub fn follow<'pods>(options: &[&str], pods: impl IntoIterator<Item = &'pods Pod>) -> Result<Self> {
        let always = ["agent", "--listen", "127.0.0.1:0", "--node-name", "node1"];
        let mut agent = Self(run::start(&[&always, options].concat())?);
        for pod in pods {
            agent.wait_for_targets(pod.uid(), 1)?;
        }
        Ok(agent)
    }

    /// Starts one that does without the API.
    pub fn without_api<'pods>(pods: impl IntoIterator<Item = &'pods Pod>) -> Result<Self> {
        Self::follow(&["--without-api"], pods)
    }

    /// Waits for so many verdicts on a pod.
    pub fn wait_for_verdicts(&mut self, uid: &str, count: usize) -> Result<()> {
        let is_it = |line: &Line| pod_uid(line) == Some(uid) && matches!(line.body, Body::Verdict(_));
        self.0.wait_for_lines(count, is_it).with_context(|| format!("no verdict on pod {uid}"))
    }

    /// Waits until a pod has come into scope so many times.
    pub fn wait_for_targets(&mut self, uid: &str, count: usize) -> Result<()> {
        let is_it = |line: &Line| pod_uid(line) == Some(uid) && matches!(line.body, Body::TargetStarted(_));
        self.0.wait_for_lines(count, is_it).with_context(|| format!("pod {uid} is not followed"))
    }

    /// Ends it, and gives all that it told.
    pub fn finish(self) -> Result<Vec<Line>> {
        self.0.signal(Signal::SIGTERM)?;
        let run = self.0.finish()?;
        ensure!(run.status.success(), "the agent ended with {}: {}", run.status, run.stderr);
        ensure_no_gaps(&run.lines)?;
        Ok(run.lines)
    }
}
