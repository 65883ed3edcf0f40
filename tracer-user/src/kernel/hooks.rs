//! The hooks: what each shows, and which of them a kernel needs and has. `docs/probes.md` tells more.

use std::{fs, path::Path};

use tracer_common::{LANES, RELAY_EXIT, RELAY_RESET_SENT, RELAY_STATE};

use super::btf::Btf;

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// To a tracepoint, raw or with the types of its arguments.
    Tracepoint,
    /// To the beginning of a function (kprobe).
    Function,
}

/// A hook that lastpacket attaches to.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    /// Name of the tracepoint or function, and of the program.
    pub name: &'static str,
    /// What it is.
    pub place: Place,
    /// Further programs, each for events that interrupt all those before it.
    pub relief: Relief,
    /// What cannot be seen without it.
    pub shows: &'static str,
    /// Tracing is impossible without it.
    pub required: bool,
    /// It shows new pods: of use to an agent only.
    pub of_inventory: bool,
}

/// Further programs of a hook.
#[derive(Clone, Copy, Debug)]
pub struct Relief {
    /// The number by which the programs know the hook (`RELAYS`).
    pub number: u32,
    /// Names of the programs.
    pub programs: &'static [&'static str],
    /// How many of them softirqs make necessary, which interrupt a system call; the others are for
    /// preemptible tracepoints, where other tasks interrupt it, too.
    softirqs: usize,
}

/// What the applications' own calls show.
const ANSWERS: &str =
    "the size of requests without an answer, and whether an answer was whole (from Linux 6.3 on)";

/// Hooks that every kernel is asked for.
const TRACEPOINTS: [Hook; 11] = [
    required("inet_sock_set_state", "opens and closes of connections").with_relief(Relief {
        number: RELAY_STATE,
        programs: &["inet_sock_set_state_2", "inet_sock_set_state_3", "inet_sock_set_state_4"],
        softirqs: 1,
    }),
    required("tcp_send_reset", "resets sent").with_relief(Relief {
        number: RELAY_RESET_SENT,
        programs: &["tcp_send_reset_2", "tcp_send_reset_3", "tcp_send_reset_4"],
        softirqs: 1,
    }),
    required("tcp_receive_reset", "resets received"),
    required("signal_generate", "stop and kill signals"),
    required("sched_process_exit", "exits of processes").with_relief(Relief {
        number: RELAY_EXIT,
        programs: &["sched_process_exit_2", "sched_process_exit_3", "sched_process_exit_4"],
        softirqs: 0,
    }),
    optional("sched_process_exec", "hooks and other processes that enter a container"),
    optional("mark_victim", "out-of-memory kills as such"),
    optional("sock_recv_length", ANSWERS),
    optional("sock_send_length", ANSWERS),
    optional("cgroup_mkdir", "new pods at once, not only at the next look").of_inventory(),
    optional("cgroup_attach_task", "new containers at once, not only at the next look").of_inventory(),
];

/// Functions that show what the tracepoint `tcp_send_reset` does not before 6.10.
const BEFORE_REASONS: [Hook; 2] = [
    optional("tcp_v4_send_reset", "IPv4 resets to segments without a socket or with one in TIME_WAIT")
        .of_function(),
    optional("tcp_v6_send_reset", "IPv6 resets to segments without a socket or with one in TIME_WAIT")
        .of_function(),
];

const fn required(name: &'static str, shows: &'static str) -> Hook {
    Hook { required: true, ..optional(name, shows) }
}

const fn optional(name: &'static str, shows: &'static str) -> Hook {
    Hook {
        name,
        place: Place::Tracepoint,
        relief: Relief { number: 0, programs: &[], softirqs: 0 },
        shows,
        required: false,
        of_inventory: false,
    }
}

impl Hook {
    const fn with_relief(self, relief: Relief) -> Self {
        Self { relief, ..self }
    }

    /// With the programs that a kernel needs.
    fn on(self, tracepoints_are_preemptible: bool) -> Self {
        let Relief { programs, softirqs, .. } = self.relief;
        let programs = if tracepoints_are_preemptible { programs } else { &programs[..softirqs] };
        Self { relief: Relief { programs, ..self.relief }, ..self }
    }

    const fn of_inventory(self) -> Self {
        Self { of_inventory: true, ..self }
    }

    const fn of_function(self) -> Self {
        Self { place: Place::Function, ..self }
    }
}

/// Whether other tasks interrupt a program, on a kernel of this version: `__DECLARE_TRACE` takes SRCU instead
/// of switching preemption off from 7.0 on.
#[must_use]
pub const fn are_tracepoints_preemptible(version: (u32, u32)) -> bool {
    version.0 >= 7
}

/// Copies of the counters per CPU.
#[must_use]
pub const fn lanes(tracepoints_are_preemptible: bool) -> u32 {
    if tracepoints_are_preemptible { LANES } else { 2 }
}

/// Hooks that are wanted on this kernel: those that it has, and those that it lacks.
#[must_use]
pub fn find(
    btf: &Btf,
    resets_have_reasons: bool,
    tracepoints_are_preemptible: bool,
) -> (Vec<Hook>, Vec<Hook>) {
    let functions = if resets_have_reasons { Vec::new() } else { Functions::of_running_kernel().hooks() };
    let tracepoints = TRACEPOINTS
        .iter()
        .map(|hook| (hook.on(tracepoints_are_preemptible), btf.tracepoint(hook.name).is_some()));
    let (found, missing): (Vec<_>, Vec<_>) = tracepoints.chain(functions).partition(|(_, exists)| *exists);
    let hooks = |list: Vec<(Hook, bool)>| list.into_iter().map(|(hook, _)| hook).collect();
    (hooks(found), hooks(missing))
}

/// An administrator can switch all kprobes off; then programs attach, and never run.
fn are_disarmed() -> bool {
    fs::read_to_string("/sys/kernel/debug/kprobes/enabled").is_ok_and(|enabled| enabled.trim() == "0")
}

/// Which functions a program can be attached to.
struct Functions {
    supported: bool,
    symbols: String,
}

impl Functions {
    fn of_running_kernel() -> Self {
        Self {
            // Only there with CONFIG_KPROBE_EVENTS.
            supported: Path::new("/sys/bus/event_source/devices/kprobe/type").exists() && !are_disarmed(),
            symbols: fs::read_to_string("/proc/kallsyms").unwrap_or_default(),
        }
    }

    /// The compiler may have made a function into parts with other names; then it cannot be trusted to
    /// show all calls.
    fn exists(&self, name: &str) -> bool {
        self.supported && self.symbols.lines().any(|line| line.split_whitespace().nth(2) == Some(name))
    }

    fn hooks(&self) -> Vec<(Hook, bool)> {
        BEFORE_REASONS.iter().map(|hook| (*hook, self.exists(hook.name))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preemptible_tracepoints_need_more_programs() {
        let programs = |version| {
            let preemptible = are_tracepoints_preemptible(version);
            TRACEPOINTS.map(|hook| hook.on(preemptible).relief.programs.len() + 1)
        };
        assert_eq!(programs((6, 19))[..5], [2, 2, 1, 1, 1]);
        assert_eq!(programs((7, 0))[..5], [4, 4, 1, 1, 4]);
    }

    #[test]
    fn a_function_in_parts_or_without_kprobes_cannot_be_attached_to() {
        let symbols = "0 t tcp_v4_send_reset\n0 t tcp_v6_send_reset.isra.0\n".to_owned();
        let whole = Functions { supported: true, symbols: symbols.clone() };
        assert_eq!(whole.hooks().iter().map(|(_, exists)| *exists).collect::<Vec<_>>(), [true, false]);
        let without = Functions { supported: false, symbols };
        assert!(without.hooks().iter().all(|(_, exists)| !exists));
    }
}
