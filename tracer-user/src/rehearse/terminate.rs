//! A kubelet's sequence: pre-stop hook, stop signal, the rest of the grace period, SIGKILL.

use std::{fmt, os::unix::process::ExitStatusExt, str::FromStr, time::Duration};

use anyhow::{Result, bail};
use futures::future::{try_join, try_join_all};
use nix::sys::signal::Signal;
use tokio::time::{Instant, timeout};

use super::{
    hook::HookRun,
    sandbox::{Container, Exit, Sandbox},
};
use crate::clock::mono_ns;

/// What a kubelet leaves after the pre-stop hook at least (`minimumGracePeriodInSeconds`).
const MINIMUM_GRACE: Duration = Duration::from_secs(2);
/// A container that is dying has told of its end by then.
const DYING: Duration = Duration::from_millis(500);
/// The C library keeps 32 and 33 to itself; runtimes count from 34 whatever the library.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// The signal that asks a server to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopSignal(i32);

impl StopSignal {
    /// What a runtime sends unless image or pod name another.
    pub const TERM: Self = Self(libc::SIGTERM);

    /// Its number.
    #[must_use]
    pub const fn number(self) -> i32 {
        self.0
    }
}

impl FromStr for StopSignal {
    type Err = anyhow::Error;

    /// Reads `SIGTERM`, `term`, `15`, `RTMIN+3` or `RTMAX-1`.
    fn from_str(text: &str) -> Result<Self> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let number = if let Ok(number) = name.parse() {
            Some(number)
        } else if let Some(offset) = name.strip_prefix("RTMIN") {
            realtime(offset, '+').map(|offset| RTMIN + offset)
        } else if let Some(offset) = name.strip_prefix("RTMAX") {
            realtime(offset, '-').map(|offset| RTMAX - offset)
        } else {
            Signal::from_str(&format!("SIG{name}")).ok().map(|signal| signal as i32)
        };
        match number {
            Some(number @ 1..=RTMAX) => Ok(Self(number)),
            _ => bail!("no signal is called `{text}`; use a name such as SIGTERM or RTMIN+3, or a number"),
        }
    }
}

fn realtime(offset: &str, sign: char) -> Option<i32> {
    if offset.is_empty() {
        return Some(0);
    }
    offset.strip_prefix(sign)?.parse().ok().filter(|offset| (0..=RTMAX - RTMIN).contains(offset))
}

impl fmt::Display for StopSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Signal::try_from(self.0) {
            Ok(signal) => f.write_str(signal.as_str()),
            Err(_) if self.0 >= RTMIN => write!(f, "SIGRTMIN+{}", self.0 - RTMIN),
            Err(_) => write!(f, "signal {}", self.0),
        }
    }
}

/// How the server is to be terminated.
#[derive(Debug, Clone)]
pub struct TerminationPlan {
    /// The pre-stop hook's command, if there is one.
    pub pre_stop: Option<Vec<String>>,
    /// The signal sent to the server first; containers beside it get SIGTERM.
    pub stop_signal: StopSignal,
    /// `terminationGracePeriodSeconds`: hook and stopping together.
    pub grace: Duration,
}

/// A step of the server's termination, told as it happens.
#[derive(Debug, Clone)]
pub enum Step {
    /// The pre-stop hook is about to start.
    PreStopStarted {
        /// In ns of `CLOCK_MONOTONIC`.
        at_mono_ns: u64,
    },
    /// The pre-stop hook ended or used up the grace period; the error says why it did not run.
    PreStopEnded(Result<HookRun, String>),
    /// The stop signal is about to be sent.
    StopSignal {
        /// In ns of `CLOCK_MONOTONIC`.
        at_mono_ns: u64,
    },
    /// The grace period is over and SIGKILL about to be sent.
    KillSignal {
        /// In ns of `CLOCK_MONOTONIC`.
        at_mono_ns: u64,
    },
    /// The server has ended.
    Exited(Exit),
}

/// When what happened to the server, in ns of `CLOCK_MONOTONIC`.
#[derive(Debug, Clone)]
pub struct Timings {
    /// The termination began: the API would show the pod as deleted.
    pub begin_mono_ns: u64,
    /// The pre-stop hook, if there was one; the error says why it did not run.
    pub pre_stop: Option<Result<HookRun, String>>,
    /// The stop signal was sent; none if the server ended before.
    pub stop_signal_mono_ns: Option<u64>,
    /// SIGKILL was sent, if it had to be.
    pub kill_signal_mono_ns: Option<u64>,
    /// How and when the server ended.
    pub exit: Exit,
}

/// How one container was stopped.
struct Stopped {
    stop_signal_mono_ns: Option<u64>,
    kill_signal_mono_ns: Option<u64>,
    exit: Exit,
}

/// Terminates all containers as a kubelet does, telling the server's steps: all at once, the server
/// after its pre-stop hook; then the sidecars one after the other, the last one first. A failing hook
/// stops nothing, as in Kubernetes. Errors: a signal could not be sent.
pub async fn terminate(
    sandbox: &Sandbox,
    plan: &TerminationPlan,
    mut on_step: impl FnMut(&Step),
) -> Result<Timings> {
    let (begin, begin_mono_ns) = (Instant::now(), mono_ns());
    let main = async {
        let pre_stop = match &plan.pre_stop {
            Some(command) => Some(run_hook(sandbox.main(), command, plan.grace, &mut on_step).await),
            None => None,
        };
        if pre_stop.as_ref().is_some_and(|run| run.as_ref().is_ok_and(was_killed)) {
            // Its end is told in a moment; errors are told by what waits for it then.
            let _ = timeout(DYING, sandbox.main().exited()).await;
        }
        anyhow::Ok((pre_stop, stop(sandbox.main(), plan.stop_signal, plan.grace, begin, &mut on_step).await?))
    };
    let (sidecars, beside): (Vec<_>, Vec<_>) =
        sandbox.others().iter().partition(|container| container.spec().sidecar);
    let beside = beside
        .into_iter()
        .map(async |container| stop(container, StopSignal::TERM, plan.grace, begin, |_| {}).await);
    let ((pre_stop, stopped), _) = try_join(main, try_join_all(beside)).await?;
    for sidecar in sidecars.into_iter().rev() {
        stop(sidecar, StopSignal::TERM, plan.grace, begin, |_| {}).await?;
    }
    let Stopped { stop_signal_mono_ns, kill_signal_mono_ns, exit } = stopped;
    Ok(Timings { begin_mono_ns, pre_stop, stop_signal_mono_ns, kill_signal_mono_ns, exit })
}

/// Whether a hook was killed, as it is together with a container that it ended.
fn was_killed(run: &HookRun) -> bool {
    run.exit.is_some_and(|exit| exit.status.signal() == Some(libc::SIGKILL))
}

/// The stop signal, what is left of the grace period, SIGKILL.
async fn stop(
    container: &Container,
    signal: StopSignal,
    grace: Duration,
    begin: Instant,
    mut on_step: impl FnMut(&Step),
) -> Result<Stopped> {
    let mut kill_signal_mono_ns = None;
    let stop_signal_mono_ns = match container.exit() {
        Some(_) => None,
        None => {
            let at_mono_ns = mono_ns();
            on_step(&Step::StopSignal { at_mono_ns });
            container.signal(signal.number())?;
            Some(at_mono_ns)
        }
    };
    let left = grace.saturating_sub(begin.elapsed()).max(MINIMUM_GRACE);
    let exit = match timeout(left, container.exited()).await {
        Ok(exit) => exit?,
        Err(_) => {
            let at_mono_ns = mono_ns();
            on_step(&Step::KillSignal { at_mono_ns });
            container.signal(libc::SIGKILL)?;
            kill_signal_mono_ns = Some(at_mono_ns);
            container.exited().await?
        }
    };
    on_step(&Step::Exited(exit));
    Ok(Stopped { stop_signal_mono_ns, kill_signal_mono_ns, exit })
}

async fn run_hook(
    container: &Container,
    command: &[String],
    grace: Duration,
    on_step: &mut impl FnMut(&Step),
) -> Result<HookRun, String> {
    on_step(&Step::PreStopStarted { at_mono_ns: mono_ns() });
    let run = container.run_in_target(command, grace).await.map_err(|error| format!("{error:#}"));
    on_step(&Step::PreStopEnded(run.clone()));
    run
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_signals_by_name_and_number() {
        for (text, number) in [
            ("SIGTERM", 15),
            ("term", 15),
            ("QUIT", 3),
            ("10", 10),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
        ] {
            assert_eq!(text.parse::<StopSignal>().unwrap().number(), number, "{text}");
        }
        for text in ["", "0", "65", "SIG", "NOPE", "RTMIN-1", "RTMIN+99", "RTMIN+-1"] {
            assert!(text.parse::<StopSignal>().is_err(), "{text}");
        }
    }

    #[test]
    fn shows_the_real_name() {
        assert_eq!(StopSignal::TERM.to_string(), "SIGTERM");
        assert_eq!(StopSignal(37).to_string(), "SIGRTMIN+3");
    }
}
