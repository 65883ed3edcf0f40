//! The way of a target's containers: starts, signals, processes, exits.

use std::collections::VecDeque;

use super::{
    Emit, Target,
    container::{Container, Guest, named, process, status},
};
use crate::{
    event::{Exec, Exit, Gone, Mono, Oom, Signal},
    input::NewContainer,
    lifecycle::{Lifecycle, PhaseStart, Source},
    output::{Body, EndpointEvent, ExitEvent, HookRunEvent, PhaseEvent, SignalEvent, SignalName, Status},
    words::Phase,
};

impl Target {
    /// A container of it starts or is found.
    pub fn add_container(&mut self, new: NewContainer, emit: &mut Emit<'_>) {
        let lifecycle = Lifecycle::new(new.time, Source::Host, new.stop_signal);
        let running = lifecycle.starts().first().copied();
        self.containers.push(Container {
            name: new.name,
            pid: new.pid,
            pidns: new.pidns,
            cgroup: new.cgroup,
            lifecycle,
            gone: false,
            hooks: Vec::new(),
            visits: VecDeque::new(),
        });
        let index = (self.containers.len() - 1) as u32;
        self.tell_phase(index, running, emit);
    }

    /// Deletion is known, or a preStop hook starts: of one container, or of all.
    pub fn pre_stop(&mut self, container: Option<u32>, time: Mono, source: Source, emit: &mut Emit<'_>) {
        for index in 0..self.containers.len() as u32 {
            if container.is_none_or(|only| only == index) {
                let start = self.containers[index as usize].lifecycle.pre_stop(time, source);
                self.tell_phase(index, start, emit);
            }
        }
    }

    /// An endpoint that leads to it changed, or is as it was when it was first heard of.
    pub fn endpoint(&mut self, time: Mono, endpoint: EndpointEvent, initial: bool, emit: &mut Emit<'_>) {
        self.unready_since = if endpoint.ready { None } else { self.unready_since.or(Some(time)) };
        self.has_endpoint = true;
        if !initial {
            emit(time, Body::Endpoint(endpoint));
        }
    }

    /// A signal reached the init of a container.
    pub fn signal(&mut self, time: Mono, signal: &Signal, emit: &mut Emit<'_>) {
        let Some(container) = self.containers.get_mut(signal.container as usize) else { return };
        let inside = container.is_inside(signal);
        let start = if inside { None } else { container.lifecycle.signal(time, signal) };
        if start.is_some_and(|start| start.phase == Phase::StopSignal)
            && container.lifecycle.entered(Phase::PreStop).is_none()
        {
            container.stopped(time);
        }
        self.tell_phase(signal.container, start, emit);
        let container = &self.containers[signal.container as usize];
        emit(
            time,
            Body::Signal(SignalEvent {
                container: container.named(),
                phase: container.lifecycle.phase(),
                signal: SignalName::new(signal.signal),
                sender: process(signal.sender.pid, signal.sender.comm),
                inside,
                ignored: signal.ignored,
            }),
        );
    }

    /// The out-of-memory killer chose the init of a container.
    pub fn oom(&mut self, time: Mono, oom: &Oom, emit: &mut Emit<'_>) {
        let Some(container) = self.containers.get_mut(oom.container as usize) else { return };
        let start = container.lifecycle.oom(time);
        self.tell_phase(oom.container, start, emit);
    }

    /// A process runs a new program. One whose parent is outside its container has entered it.
    pub fn exec(&mut self, time: Mono, exec: &Exec) {
        let entered = self.containers.iter().position(|container| {
            container.holds(&exec.task) && !container.holds(&exec.parent) && container.pid != exec.task.pid
        });
        if let Some(container) = entered
            && self.guests.len() < MAX_GUESTS
        {
            let moment = self.moment(container as u32);
            let comm = exec.task.comm;
            self.guests.entry(exec.task.pid).or_insert(Guest {
                container: container as u32,
                time,
                phase: moment.phase,
                comm,
            });
        }
    }

    fn guest_left(&mut self, time: Mono, exit: &Exit, emit: &mut Emit<'_>) {
        let Some(guest) = self.guests.remove(&exit.task.pid) else { return };
        self.tell_guest(time, exit.task.pid, guest, Some((time, status(exit.status))), emit);
    }

    fn tell_guest(
        &mut self,
        time: Mono,
        pid: u32,
        guest: Guest,
        ended: Option<(Mono, Status)>,
        emit: &mut Emit<'_>,
    ) {
        let (ended_mono_ns, status) = ended.unzip();
        let run = HookRunEvent {
            container: named(&self.containers, guest.container),
            phase: guest.phase,
            process: process(pid, guest.comm),
            started_mono_ns: guest.time,
            ended_mono_ns,
            status: status.unwrap_or(Status { exit_code: None, killed_by: None }),
        };
        if let Some(container) = self.containers.get_mut(guest.container as usize) {
            container.visited(run.clone());
        }
        emit(time, Body::HookRun(run));
    }

    /// Processes that entered a container and are still there when tracing ends.
    pub(super) fn tell_guests_left(&mut self, now: Mono, emit: &mut Emit<'_>) {
        let mut guests: Vec<_> = self.guests.drain().collect();
        guests.sort_by_key(|(pid, guest)| (guest.time, *pid));
        for (pid, guest) in guests {
            self.tell_guest(now, pid, guest, None, emit);
        }
    }

    /// A process exited.
    pub fn exit(&mut self, time: Mono, exit: &Exit, emit: &mut Emit<'_>) {
        self.guest_left(time, exit, emit);
        let container = exit.init_of.or_else(|| self.container_of_cgroup(exit.task.cgroup));
        if let Some(index) = exit.init_of
            && let Some(container) = self.containers.get_mut(index as usize)
        {
            let start = container.lifecycle.exiting(time, exit.status);
            self.tell_phase(index, start, emit);
        }
        emit(
            time,
            Body::Exit(ExitEvent {
                container: container
                    .and_then(|index| self.containers.get(index as usize))
                    .map(Container::named),
                process: process(exit.task.pid, exit.task.comm),
                init: exit.init_of.is_some(),
                status: status(exit.status),
            }),
        );
    }

    /// The init of a container told its parent of its end. Alone in its pid namespace it took all
    /// else with it; without one, others may live on until the host finds that they are gone.
    pub fn init_gone(&mut self, time: Mono, gone: &Gone, emit: &mut Emit<'_>) {
        let Some(container) = self.containers.get(gone.container as usize) else { return };
        if container.pidns.is_some() || container.cgroup.is_none() {
            self.container_gone(gone.container, time, Source::Kernel, emit);
        }
    }

    /// Nothing of a container is left.
    pub fn container_gone(&mut self, index: u32, time: Mono, source: Source, emit: &mut Emit<'_>) {
        let Some(container) = self.containers.get_mut(index as usize) else { return };
        container.gone = true;
        let start = container.lifecycle.gone(time, source);
        self.tell_phase(index, start, emit);
    }

    fn tell_phase(&mut self, index: u32, start: Option<PhaseStart>, emit: &mut Emit<'_>) {
        let (Some(start), Some(container)) = (start, self.containers.get(index as usize)) else { return };
        let seq = emit(
            start.time,
            Body::Phase(PhaseEvent {
                container: container.named(),
                phase: start.phase,
                source: start.source,
                signal: start.signal.map(SignalName::new),
                ignored: start.ignored,
                cause: container.lifecycle.cause(),
            }),
        );
        self.exhibits.phase(index, start.phase, seq);
    }
}

/// Processes from outside that are followed at the same time.
const MAX_GUESTS: usize = 256;
