//! Whether this machine can be traced: each condition, and the remedy where it is not met.

use std::fs;

use serde::Serialize;
use tracer_common::ABSENT;
use tracer_core::books::CurrEstabRule;

use super::{
    btf,
    facts::{self, Facts},
    hooks::{Hook, Place},
    lockdown,
    probes::{LoadOptions, Probes},
};
use crate::host::{cgroup, netns};

/// How a condition is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It is met.
    Ok,
    /// It is not; something cannot be shown.
    Limited,
    /// It is not; tracing is impossible.
    Missing,
}

/// A condition.
#[derive(Clone, Debug, Serialize)]
pub struct Condition {
    /// What it is about.
    pub name: String,
    /// Whether it is met.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Condition {
    fn ok(name: &str, found: impl Into<String>) -> Self {
        Self { name: name.to_owned(), status: Status::Ok, found: found.into(), remedy: None }
    }

    fn not(status: Status, name: &str, found: impl Into<String>, remedy: &str) -> Self {
        Self { name: name.to_owned(), status, found: found.into(), remedy: Some(remedy.to_owned()) }
    }
}

/// Capabilities that tracing needs: number in `linux/capability.h`, name, what for.
const CAPABILITIES: [(u32, &str, &str); 4] = [
    (39, "CAP_BPF", "loading the kernel programs"),
    (38, "CAP_PERFMON", "reading kernel memory in them"),
    (21, "CAP_SYS_ADMIN", "entering the network namespaces of targets"),
    (19, "CAP_SYS_PTRACE", "finding the namespaces of other users' processes"),
];

/// The oldest kernel with all that is needed: BPF ring buffer (5.8), and tested from 5.10 on.
const OLDEST: (u32, u32) = (5, 10);

/// Looks at everything.
#[must_use]
pub fn check() -> Vec<Condition> {
    let mut conditions = vec![kernel_version(), lockdown_mode()];
    conditions.extend(CAPABILITIES.map(|(number, name, purpose)| capability(number, name, purpose)));
    match Facts::of_running_kernel() {
        Ok(facts) => {
            conditions.push(Condition::ok("BTF", btf::VMLINUX));
            conditions.extend(kernel(&facts));
        }
        Err(error) => conditions.push(Condition::not(
            Status::Missing,
            "BTF",
            format!("{error:#}"),
            "use a kernel built with CONFIG_DEBUG_INFO_BTF=y, as all current distributions' are",
        )),
    }
    conditions.push(cgroups());
    conditions
}

/// What the kernel's own type information says, and whether the programs load and attach.
fn kernel(facts: &Facts) -> Vec<Condition> {
    let mut conditions = vec![fields(facts)];
    let ok = facts.hooks.iter().map(|hook| Condition::ok(&format!("hook {}", hook.name), hook.shows));
    let missing = facts.missing_hooks.iter().map(|hook| {
        let status = if hook.required { Status::Missing } else { Status::Limited };
        let found = format!("this kernel has none: {} cannot be seen", hook.shows);
        Condition::not(status, &format!("hook {}", hook.name), found, remedy(hook))
    });
    conditions.extend(ok.chain(missing));
    conditions.push(programs(facts));
    conditions.push(if facts.settings.reset_has_reason == 1 {
        Condition::ok("reset reasons", format!("{} reasons", facts.reset_reasons.len()))
    } else {
        let found = "the kernel gives none: what a reset meant is told from the segment that drew it";
        Condition::not(Status::Limited, "reset reasons", found, "use Linux 6.10 or newer")
    });
    conditions.push(if facts.offsets.net_cookie != ABSENT && netns::has_cookies() {
        Condition::ok("namespace cookies", "network namespaces are told apart by cookie")
    } else {
        let found = "network namespaces are told apart by inode, which is used again";
        Condition::not(Status::Limited, "namespace cookies", found, "use Linux 5.14 or newer")
    });
    conditions.push(curr_estab(facts.curr_estab));
    conditions.push(if facts.settings.page_offset != 0 {
        Condition::ok("payload in pages", "can be looked into")
    } else {
        let found = "cannot be looked into: the segments that draw resets are judged by their length";
        Condition::not(
            Status::Limited,
            "payload in pages",
            found,
            "let root read addresses in /proc/kallsyms (kernel.kptr_restrict=1)",
        )
    });
    conditions
}

fn curr_estab(rule: Option<CurrEstabRule>) -> Condition {
    let name = "CurrEstab";
    match rule {
        Some(CurrEstabRule::Established) => Condition::ok(name, "counts ESTABLISHED"),
        Some(CurrEstabRule::EstablishedAndCloseWait) => {
            Condition::ok(name, "counts ESTABLISHED and CLOSE_WAIT")
        }
        None => Condition::not(
            Status::Limited,
            name,
            "what it counts could not be tried: its book is left out",
            "bring the loopback interface up (`ip link set lo up`), and let connections on it through",
        ),
    }
}

fn remedy(hook: &Hook) -> &'static str {
    match hook.place {
        Place::Tracepoint => "use a newer kernel",
        Place::Function => "use a kernel with CONFIG_KPROBES, or Linux 6.10 or newer, which needs none",
    }
}

fn kernel_version() -> Condition {
    let (Ok(release), Ok(version)) = (facts::release(), facts::version()) else {
        return Condition::not(Status::Limited, "kernel", "its version cannot be read", "mount /proc");
    };
    if version >= OLDEST {
        Condition::ok("kernel", release)
    } else {
        Condition::not(Status::Missing, "kernel", release, "use Linux 5.10 or newer")
    }
}

fn lockdown_mode() -> Condition {
    let mode = lockdown::mode().unwrap_or_else(|| "none".to_owned());
    if lockdown::forbids_tracing(&mode) {
        return Condition::not(Status::Missing, "lockdown", mode, lockdown::REMEDY);
    }
    Condition::ok("lockdown", mode)
}

fn capability(number: u32, name: &str, purpose: &str) -> Condition {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    if effective >> number & 1 == 1 {
        return Condition::ok(name, purpose);
    }
    Condition::not(
        Status::Missing,
        name,
        format!("missing, needed for {purpose}"),
        "run as root, or add the capability",
    )
}

fn fields(facts: &Facts) -> Condition {
    if facts.missing_fields.is_empty() {
        return Condition::ok("kernel fields", "all found in BTF");
    }
    let found = format!("missing: {}", facts.missing_fields.join(", "));
    Condition::not(
        Status::Missing,
        "kernel fields",
        found,
        "use a kernel that lastpacket knows, or report this one",
    )
}

/// Nothing tells better whether the programs load than loading them.
fn programs(facts: &Facts) -> Condition {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else {
        return Condition::not(
            Status::Missing,
            "kernel programs",
            "the runtime cannot start",
            "raise the limits of this shell",
        );
    };
    // The ring buffer is polled by the runtime.
    let _inside = runtime.enter();
    match Probes::load(facts, LoadOptions::default()) {
        Ok((probes, _)) if probes.refused().is_empty() => {
            Condition::ok("kernel programs", format!("{} loaded and attached", probes.attached().len()))
        }
        Ok((probes, _)) => {
            let refused: Vec<_> = probes.refused().iter().map(|hook| hook.name).collect();
            let found = format!("{} attached, refused: {}", probes.attached().len(), refused.join(", "));
            Condition::not(Status::Limited, "kernel programs", found, "the log of a run tells why")
        }
        Err(error) => Condition::not(
            Status::Missing,
            "kernel programs",
            format!("{error:#}"),
            "see the conditions above; if all are met, report this kernel",
        ),
    }
}

fn cgroups() -> Condition {
    match (cgroup::mount_point(), cgroup::has_version_1()) {
        (Some(path), false) => Condition::ok("cgroups", format!("version 2 at {}", path.display())),
        (Some(path), true) => Condition::not(
            Status::Limited,
            "cgroups",
            format!(
                "version 2 at {} beside version 1: containers in version 1 cannot be told apart",
                path.display()
            ),
            "boot with systemd.unified_cgroup_hierarchy=1",
        ),
        (None, _) => Condition::not(
            Status::Limited,
            "cgroups",
            "no version 2: containers of one pod, and host-network pods, cannot be told apart",
            "mount cgroup2, or boot with systemd.unified_cgroup_hierarchy=1",
        ),
    }
}
