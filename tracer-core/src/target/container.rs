//! A container of a target, and those who enter it.

use std::{collections::VecDeque, sync::Arc};

use crate::{
    event::{Comm, ExitStatus, Mono, Signal, Task},
    lifecycle::{Lifecycle, PhaseStart},
    output::{Container as ContainerName, HookRunEvent, Process, SignalName, Status},
    verdict::{ContainerSummary, PhaseSummary},
    words::Phase,
};

/// Hook runs that a verdict lists at most.
const MAX_HOOKS: usize = 64;
/// Visits remembered until it is known whether they were hooks.
const MAX_VISITS: usize = 16;
/// How long before the stop signal a preStop hook ended at most, in nanoseconds.
const JUST_BEFORE: Mono = 1_000_000_000;

/// A container of a target.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) name: Arc<str>,
    pub(super) pid: u32,
    pub(super) pidns: Option<u32>,
    pub(super) cgroup: Option<u64>,
    pub(super) lifecycle: Lifecycle,
    pub(super) gone: bool,
    /// Processes that entered it and were there when its termination began, or came later.
    pub(super) hooks: Vec<HookRunEvent>,
    /// The last ones that entered and ended while it was running.
    pub(super) visits: VecDeque<HookRunEvent>,
}

/// A process that entered a container from outside.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guest {
    pub(super) container: u32,
    pub(super) time: Mono,
    pub(super) phase: Phase,
    pub(super) comm: Comm,
}

impl Container {
    pub(super) fn named(&self) -> ContainerName {
        ContainerName { name: self.name.clone() }
    }

    /// A signal from its own pid namespace or cgroup is no act of the runtime.
    pub(super) fn is_inside(&self, signal: &Signal) -> bool {
        signal.sender.pid == self.pid
            || self.pidns.is_some_and(|pidns| pidns == signal.sender.pidns)
            || self.cgroup.is_some_and(|cgroup| cgroup == signal.sender.cgroup)
    }

    /// Whether a task is in it: by its pid namespace, else by its cgroup.
    pub(super) fn holds(&self, task: &Task) -> bool {
        match (self.pidns, self.cgroup) {
            (Some(pidns), _) => task.pidns == pidns,
            (None, Some(cgroup)) => task.cgroup == cgroup,
            (None, None) => false,
        }
    }

    /// A process that had entered it ended, or is still there at the end of tracing.
    pub(super) fn visited(&mut self, run: HookRunEvent) {
        if self.lifecycle.phase() != Phase::Running {
            if self.hooks.len() < MAX_HOOKS {
                self.hooks.push(run);
            }
            return;
        }
        if self.visits.len() == MAX_VISITS {
            self.visits.pop_front();
        }
        self.visits.push_back(run);
    }

    /// The stop signal follows the end of a preStop hook at once: who left just before was one, even if
    /// nobody told that the termination had begun.
    pub(super) fn stopped(&mut self, time: Mono) {
        let just_before = |run: &HookRunEvent| run.ended_mono_ns >= Some(time.saturating_sub(JUST_BEFORE));
        self.hooks.extend(self.visits.drain(..).filter(just_before));
    }

    pub(super) fn summary(&self) -> ContainerSummary {
        ContainerSummary {
            name: self.name.clone(),
            phases: self.lifecycle.starts().iter().map(phase_summary).collect(),
            status: self.lifecycle.exit().map(|(_, exit)| status(exit)),
            cause: self.lifecycle.cause(),
            hooks: self.hooks.clone(),
        }
    }
}

pub(super) fn phase_summary(start: &PhaseStart) -> PhaseSummary {
    PhaseSummary {
        phase: start.phase,
        mono_ns: start.time,
        source: start.source,
        signal: start.signal.map(SignalName::new),
        ignored: start.ignored,
    }
}

pub(super) fn named(containers: &[Container], index: u32) -> ContainerName {
    containers.get(index as usize).map_or_else(|| ContainerName { name: "".into() }, Container::named)
}

pub(super) fn process(pid: u32, comm: Comm) -> Process {
    Process { pid, command: comm.to_string() }
}

pub(super) fn status(status: ExitStatus) -> Status {
    match status {
        ExitStatus::Code(code) => Status { exit_code: Some(code), killed_by: None },
        ExitStatus::Signal(signal) => {
            Status { exit_code: None, killed_by: Some(SignalName::new(signal.into())) }
        }
    }
}
