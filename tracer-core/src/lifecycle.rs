//! The phases of one container, by what the kernel shows and the API says.

use crate::{
    event::{ExitStatus, Mono, Signal},
    words::{Cause, Phase},
};

const SIGINT: u32 = 2;
const SIGQUIT: u32 = 3;
const SIGKILL: u32 = 9;
const SIGUSR1: u32 = 10;
const SIGUSR2: u32 = 12;
const SIGTERM: u32 = 15;
/// The first real-time signal that glibc leaves to programs.
const SIGRTMIN: u32 = 34;

/// Where the knowledge of a phase comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The kernel's events.
    Kernel,
    /// The Kubernetes API.
    Api,
    /// This machine's procfs and cgroups.
    Host,
    /// lastpacket itself did it (rehearse).
    Rehearsal,
    /// The user said so (trace).
    User,
}

/// When a container entered a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PhaseStart {
    /// Which.
    pub phase: Phase,
    /// When.
    pub time: Mono,
    /// How that is known.
    pub source: Source,
    /// The signal that began it.
    pub signal: Option<u32>,
    /// The signal had no effect: a PID 1 without a handler.
    pub ignored: bool,
}

/// The way of one container through its phases; it only goes forward.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    starts: Vec<PhaseStart>,
    stop_signal: Option<u32>,
    oom: bool,
    exit: Option<(Mono, ExitStatus)>,
    cause: Option<Cause>,
}

impl Lifecycle {
    /// A container that runs. `stop_signal` is the one that is declared to stop it, if one is.
    #[must_use]
    pub fn new(time: Mono, source: Source, stop_signal: Option<u32>) -> Self {
        let running = PhaseStart { phase: Phase::Running, time, source, signal: None, ignored: false };
        Self { starts: vec![running], stop_signal, oom: false, exit: None, cause: None }
    }

    /// The signal that is to stop it was learned.
    pub fn declare(&mut self, stop_signal: Option<u32>) {
        self.stop_signal = stop_signal.or(self.stop_signal);
    }

    /// Where it is now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.starts.last().map_or(Phase::Running, |start| start.phase)
    }

    /// All phases that it entered, in order.
    #[must_use]
    pub fn starts(&self) -> &[PhaseStart] {
        &self.starts
    }

    /// How and when its init exited.
    #[must_use]
    pub fn exit(&self) -> Option<(Mono, ExitStatus)> {
        self.exit
    }

    /// What made it exit, once that is known.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        self.cause
    }

    /// When it entered a phase.
    #[must_use]
    pub fn entered(&self, phase: Phase) -> Option<Mono> {
        self.starts.iter().find(|start| start.phase == phase).map(|start| start.time)
    }

    /// When its termination began: the first phase after running.
    #[must_use]
    pub fn termination_began(&self) -> Option<Mono> {
        self.starts.get(1).map(|start| start.time)
    }

    /// Its deletion is known or its preStop hook starts.
    pub fn pre_stop(&mut self, time: Mono, source: Source) -> Option<PhaseStart> {
        self.enter(PhaseStart { phase: Phase::PreStop, time, source, signal: None, ignored: false })
    }

    /// A signal from outside the container reached its init.
    pub fn signal(&mut self, time: Mono, signal: &Signal) -> Option<PhaseStart> {
        let phase = match signal.signal {
            SIGKILL if !signal.target_exiting => Phase::KillSignal,
            SIGTERM | SIGINT | SIGQUIT | SIGUSR1 | SIGUSR2 | SIGRTMIN.. => Phase::StopSignal,
            declared if Some(declared) == self.stop_signal => Phase::StopSignal,
            _ => return None,
        };
        let ignored = signal.ignored && phase == Phase::StopSignal;
        self.enter(PhaseStart { phase, time, source: Source::Kernel, signal: Some(signal.signal), ignored })
    }

    /// The out-of-memory killer chose its init; its SIGKILL comes in the victim's own context.
    pub fn oom(&mut self, time: Mono) -> Option<PhaseStart> {
        self.oom = true;
        let signal = Some(SIGKILL);
        self.enter(PhaseStart {
            phase: Phase::KillSignal,
            time,
            source: Source::Kernel,
            signal,
            ignored: false,
        })
    }

    /// Its init exits.
    pub fn exiting(&mut self, time: Mono, status: ExitStatus) -> Option<PhaseStart> {
        self.cause = Some(self.cause_of_exit(status));
        self.exit = Some((time, status));
        self.enter(PhaseStart {
            phase: Phase::Exiting,
            time,
            source: Source::Kernel,
            signal: None,
            ignored: false,
        })
    }

    /// Nothing of it is left.
    pub fn gone(&mut self, time: Mono, source: Source) -> Option<PhaseStart> {
        self.enter(PhaseStart { phase: Phase::AfterExit, time, source, signal: None, ignored: false })
    }

    fn cause_of_exit(&self, status: ExitStatus) -> Cause {
        let killed = status == ExitStatus::Signal(SIGKILL as u8);
        match self.phase() {
            _ if self.oom && killed => Cause::Oom,
            Phase::KillSignal => Cause::KillSignal,
            Phase::StopSignal if !killed => Cause::StopSignal,
            _ => Cause::Itself,
        }
    }

    fn enter(&mut self, start: PhaseStart) -> Option<PhaseStart> {
        if start.phase <= self.phase() {
            return None;
        }
        self.starts.push(start);
        Some(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Task;

    fn signal(signal: u32) -> Signal {
        Signal {
            sender: Task::default(),
            pid: 1,
            cgroup: 0,
            pidns: 0,
            container: 0,
            signal,
            by_kernel: false,
            ignored: false,
            target_exiting: false,
        }
    }

    #[test]
    fn phases_only_go_forward() {
        let mut lifecycle = Lifecycle::new(0, Source::Host, None);
        assert!(lifecycle.signal(1, &signal(SIGTERM)).is_some());
        assert!(lifecycle.pre_stop(2, Source::Api).is_none());
        assert!(lifecycle.signal(3, &signal(SIGTERM)).is_none());
        assert!(lifecycle.exiting(4, ExitStatus::Code(0)).is_some());
        assert!(lifecycle.signal(5, &signal(SIGKILL)).is_none());
        assert_eq!(lifecycle.cause(), Some(Cause::StopSignal));
        assert_eq!(lifecycle.termination_began(), Some(1));
    }

    #[test]
    fn a_reload_is_no_stop() {
        let mut lifecycle = Lifecycle::new(0, Source::Host, None);
        for harmless in [1, 17, 18, 28] {
            assert!(lifecycle.signal(1, &signal(harmless)).is_none());
        }
        lifecycle.exiting(2, ExitStatus::Code(1));
        assert_eq!(lifecycle.cause(), Some(Cause::Itself));
    }

    #[test]
    fn a_declared_signal_stops_whichever_it_is() {
        const SIGWINCH: u32 = 28;
        let mut apache = Lifecycle::new(0, Source::Host, Some(SIGWINCH));
        assert!(apache.signal(1, &signal(1)).is_none());
        let start = apache.signal(2, &signal(SIGWINCH)).unwrap();
        assert_eq!((start.phase, start.signal), (Phase::StopSignal, Some(SIGWINCH)));
    }

    #[test]
    fn what_killed_it_is_the_cause() {
        let mut killed = Lifecycle::new(0, Source::Host, None);
        killed.signal(1, &signal(SIGTERM));
        killed.signal(2, &signal(SIGKILL));
        killed.exiting(3, ExitStatus::Signal(9));
        assert_eq!(killed.cause(), Some(Cause::KillSignal));

        let mut oom = Lifecycle::new(0, Source::Host, None);
        oom.signal(1, &signal(SIGTERM));
        oom.oom(2);
        oom.exiting(3, ExitStatus::Signal(9));
        assert_eq!(oom.cause(), Some(Cause::Oom));

        let mut from_inside = Lifecycle::new(0, Source::Host, None);
        from_inside.signal(1, &signal(SIGTERM));
        from_inside.exiting(2, ExitStatus::Signal(9));
        assert_eq!(from_inside.cause(), Some(Cause::Itself));
    }

    #[test]
    fn a_kill_of_a_dying_process_is_no_kill() {
        let mut lifecycle = Lifecycle::new(0, Source::Host, None);
        assert!(lifecycle.signal(1, &Signal { target_exiting: true, ..signal(SIGKILL) }).is_none());
    }
}
