//! Findings: causes with their evidence, and remedies with numbers from this run.
//! `docs/findings.md` has a page on each.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    event::Mono,
    ledger::Ledger,
    lifecycle::Lifecycle,
    losses::{Loss, LossKey},
    words::{Cause, Confidence, Ending, Hop, Phase},
};

/// What is added to a measured time when a longer preStop is proposed.
const MARGIN_SECONDS: f64 = 1.0;

/// A cause, its evidence, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// Which, as in `docs/findings.md`.
    pub id: String,
    /// Which container.
    pub container: String,
    /// What was seen, in words.
    pub text: String,
    /// What to do, with numbers from this run.
    pub remedy: String,
    /// `seq` of lines that show it; the first few.
    pub evidence: Vec<u64>,
}

/// Numbers of the lines that show something; the first few of each.
#[derive(Clone, Debug, Default)]
pub struct Exhibits {
    phases: BTreeMap<(u32, Phase), u64>,
    losses: BTreeMap<(u32, Ending), Vec<u64>>,
}

/// Lines kept for each ending.
const MAX_EXHIBITS: usize = 5;

impl Exhibits {
    /// A line that says that a container entered a phase.
    pub fn phase(&mut self, container: u32, phase: Phase, seq: u64) {
        self.phases.entry((container, phase)).or_insert(seq);
    }

    /// A line that shows a loss.
    pub fn loss(&mut self, container: u32, ending: Ending, seq: u64) {
        let lines = self.losses.entry((container, ending)).or_default();
        if lines.len() < MAX_EXHIBITS {
            lines.push(seq);
        }
    }

    fn of_phase(&self, container: u32, phase: Phase) -> Vec<u64> {
        self.phases.get(&(container, phase)).copied().into_iter().collect()
    }

    fn of_losses(&self, container: u32, endings: &[Ending]) -> Vec<u64> {
        let mut lines: Vec<u64> = endings
            .iter()
            .filter_map(|ending| self.losses.get(&(container, *ending)))
            .flatten()
            .copied()
            .collect();
        lines.sort_unstable();
        lines.truncate(MAX_EXHIBITS);
        lines
    }
}

/// A container, as findings see it.
pub struct Suspect<'a> {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: &'a str,
    /// Its phases.
    pub lifecycle: &'a Lifecycle,
}

/// What findings are drawn from.
pub struct Case<'a> {
    /// The containers.
    pub containers: Vec<Suspect<'a>>,
    /// The connections.
    pub ledger: &'a Ledger,
    /// Numbers of the lines.
    pub exhibits: &'a Exhibits,
    /// The pod was not deleted: another container took the place of one that was stopped.
    pub restarted: bool,
    /// If Services lead to it: since when they do not, if they stopped.
    pub endpoint: Option<Option<Mono>>,
}

/// Draws the findings, container by container.
#[must_use]
pub fn find(case: &Case<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for container in &case.containers {
        let one = One { case, container };
        let all = [
            one.restart_not_deletion(),
            one.stop_signal_ignored(),
            one.killed_at_grace_end(),
            one.oom_killed(),
            one.pre_stop(),
            one.endpoint_removed_late(),
            one.listener_closed_early(),
            one.backlog_reset(),
            one.keep_alive_race(),
            one.requests_unanswered(),
            one.sidecar_stopped_first(),
        ];
        findings.extend(all.into_iter().flatten());
    }
    findings
}

/// One container of a case.
struct One<'a> {
    case: &'a Case<'a>,
    container: &'a Suspect<'a>,
}

impl One<'_> {
    fn finding(&self, id: &str, text: String, remedy: String, evidence: Vec<u64>) -> Finding {
        Finding { id: id.to_owned(), container: self.container.name.to_owned(), text, remedy, evidence }
    }

    fn losses(&self, matches: impl Fn(&LossKey) -> bool) -> u64 {
        let mine = |key: &LossKey| key.moment.container == self.container.index && matches(key);
        self.case.ledger.losses().counts().iter().filter(|(key, _)| mine(key)).map(|(_, count)| count).sum()
    }

    fn of_ending(&self, ending: Ending) -> u64 {
        self.losses(|key| key.ending == ending)
    }

    fn entered(&self, phase: Phase) -> Option<Mono> {
        self.container.lifecycle.entered(phase)
    }

    fn stop_signal(&self) -> Option<(Mono, String, bool)> {
        let start =
            self.container.lifecycle.starts().iter().find(|start| start.phase == Phase::StopSignal)?;
        Some((start.time, crate::signals::name(start.signal?).into_owned(), start.ignored))
    }

    fn restart_not_deletion(&self) -> Option<Finding> {
        let (_, signal, _) = self.stop_signal().filter(|_| self.case.restarted)?;
        self.container.lifecycle.exit()?;
        Some(self.finding(
            "restart-not-deletion",
            format!("nobody deleted the pod: its container was stopped by {signal} and started again, as when a liveness probe fails"),
            "look at the liveness probe (its timeout and failureThreshold): a restart takes the pod's endpoint away only after a readiness probe fails".to_owned(),
            self.case.exhibits.of_phase(self.container.index, Phase::StopSignal),
        ))
    }

    fn stop_signal_ignored(&self) -> Option<Finding> {
        let (_, signal, ignored) = self.stop_signal()?;
        let evidence = self.case.exhibits.of_phase(self.container.index, Phase::StopSignal);
        ignored.then(|| {
            self.finding(
                "stop-signal-ignored",
                format!("{signal} had no effect: PID 1 has no handler for it, and the kernel drops such signals"),
                format!("handle {signal} in the program, run it under an init such as tini, or set the stop signal that it handles"),
                evidence,
            )
        })
    }

    fn killed_at_grace_end(&self) -> Option<Finding> {
        let (stopped, signal, _) = self.stop_signal()?;
        let killed = self.entered(Phase::KillSignal)?;
        (self.container.lifecycle.cause() == Some(Cause::KillSignal)).then(|| {
            let lost = self.losses(|key| key.moment.cause == Some(Cause::KillSignal));
            let waited = seconds(stopped, killed);
            self.finding(
                "killed-at-grace-end",
                format!(
                    "it had not exited {waited:.1} s after {signal} and was killed; {} ended by that",
                    connections(lost)
                ),
                format!("exit within {waited:.1} s of {signal}, or raise terminationGracePeriodSeconds"),
                self.case.exhibits.of_phase(self.container.index, Phase::KillSignal),
            )
        })
    }

    fn oom_killed(&self) -> Option<Finding> {
        (self.container.lifecycle.cause() == Some(Cause::Oom)).then(|| {
            self.finding(
                "oom-killed",
                "the out-of-memory killer ended it".to_owned(),
                "raise its memory limit, or let it use less".to_owned(),
                self.case.exhibits.of_phase(self.container.index, Phase::KillSignal),
            )
        })
    }

    /// New connections that came too late: there was no preStop, or it was too short.
    fn pre_stop(&self) -> Option<Finding> {
        let (stopped, signal, _) = self.stop_signal()?;
        let late = [Ending::Refused, Ending::RefusedHandshake, Ending::ResetBacklog];
        let lost = self.losses(|key| late.contains(&key.ending) && key.moment.phase >= Phase::StopSignal);
        let last = self.case.ledger.traffic().last_connection.filter(|last| *last > stopped)?;
        if lost == 0 {
            return None;
        }
        let lag = seconds(stopped, last);
        let had = self.entered(Phase::PreStop).map(|began| seconds(began, stopped));
        let needed = had.unwrap_or(0.0) + lag + MARGIN_SECONDS;
        let evidence = self.case.exhibits.of_losses(self.container.index, &late);
        let text =
            format!("new connections kept coming until {lag:.1} s after {signal}; {lost} of them were lost");
        let remedy = format!(
            "delay {signal} until the load balancer has let go: a preStop of {:.0} s (measured {:.1} s, and a margin), within the grace period",
            needed.ceil(),
            needed - MARGIN_SECONDS
        );
        Some(match had {
            None => {
                self.finding("pre-stop-missing", format!("there is no preStop, and {text}"), remedy, evidence)
            }
            Some(had) => self.finding(
                "pre-stop-too-short",
                format!("preStop took {had:.1} s, and {text}"),
                remedy,
                evidence,
            ),
        })
    }

    /// By the API's own account load balancers could not know in time.
    fn endpoint_removed_late(&self) -> Option<Finding> {
        let unready = self.case.endpoint?;
        let (stopped, signal, _) = self.stop_signal()?;
        let late = unready.is_none_or(|unready| unready > stopped);
        let lost = self.losses(|key| {
            matches!(key.ending, Ending::Refused | Ending::RefusedHandshake | Ending::ResetBacklog)
        });
        (late && lost > 0).then(|| {
            let when = unready.map_or_else(
                || "was still ready when it had exited".to_owned(),
                |unready| format!("became unready only {:.1} s after {signal}", seconds(stopped, unready)),
            );
            self.finding(
                "endpoint-removed-late",
                format!("its endpoint {when}, so that load balancers could not know"),
                format!("delay {signal} (preStop) until the endpoint is gone; if the pod was not deleted through the API, let it become unready first"),
                self.case.exhibits.of_phase(self.container.index, Phase::StopSignal),
            )
        })
    }

    fn listener_closed_early(&self) -> Option<Finding> {
        let refused = self.losses(|key| {
            matches!(key.ending, Ending::Refused | Ending::RefusedHandshake)
                && matches!(key.moment.phase, Phase::PreStop | Phase::StopSignal)
        });
        (refused > 0).then(|| {
            self.finding(
                "listener-closed-early",
                format!(
                    "it stopped listening while it was still running and refused {}",
                    connections(refused)
                ),
                "keep the listener open until new connections have stopped coming, and close it last"
                    .to_owned(),
                self.case
                    .exhibits
                    .of_losses(self.container.index, &[Ending::Refused, Ending::RefusedHandshake]),
            )
        })
    }

    fn backlog_reset(&self) -> Option<Finding> {
        let count = self.of_ending(Ending::ResetBacklog);
        (count > 0).then(|| {
            self.finding(
                "backlog-reset",
                format!("it reset {} that waited in the listener's queue to be accepted", connections(count)),
                "accept what is in the queue before closing the listener".to_owned(),
                self.case.exhibits.of_losses(self.container.index, &[Ending::ResetBacklog]),
            )
        })
    }

    fn keep_alive_race(&self) -> Option<Finding> {
        let count = self.of_ending(Ending::LateData);
        (count > 0).then(|| {
            self.finding(
                "keep-alive-race",
                format!("{} met a connection that was being closed, as an idle keep-alive connection is", requests(count)),
                "while draining answer with `Connection: close` (HTTP/2: GOAWAY) and close when the client has; or let clients retry what was never answered"
                    .to_owned(),
                self.case.exhibits.of_losses(self.container.index, &[Ending::LateData]),
            )
        })
    }

    fn requests_unanswered(&self) -> Option<Finding> {
        let endings = [Ending::Unanswered, Ending::MidResponse, Ending::ResetUnread];
        let sure = |key: &LossKey| endings.contains(&key.ending) && key.confidence > Confidence::Possible;
        let count = self.losses(sure);
        (count > 0).then(|| {
            let cause = match self.container.lifecycle.cause() {
                Some(Cause::KillSignal) => "SIGKILL",
                Some(Cause::Oom) => "the out-of-memory killer",
                _ => "the exit",
            };
            self.finding(
                "requests-unanswered",
                format!("{cause} cut off {} that got no whole answer", requests(count)),
                "wait for requests in flight before exiting, and let the grace period be longer than the longest of them"
                    .to_owned(),
                self.case.exhibits.of_losses(self.container.index, &endings),
            )
        })
    }

    /// This container's connections within the pod were lost while another one still served.
    fn sidecar_stopped_first(&self) -> Option<Finding> {
        let exited = self.container.lifecycle.exit()?.0;
        let survivor = self.case.containers.iter().find(|other| {
            other.index != self.container.index
                && other.lifecycle.exit().is_none_or(|(time, _)| time > exited)
        })?;
        let within =
            |loss: &&Loss| loss.hop == Hop::Loopback && loss.key.moment.container == self.container.index;
        let lost = self.case.ledger.losses().evidence().iter().filter(within).count();
        (lost > 0).then(|| {
            self.finding(
                "sidecar-stopped-first",
                format!("it stopped while {} still sent it requests: {} within the pod lost", survivor.name, connections(lost as u64)),
                format!("let {} stop first, or make it a native sidecar in front of this one only if it drains first", survivor.name),
                self.case.exhibits.of_losses(
                    self.container.index,
                    &[Ending::Refused, Ending::Unanswered, Ending::MidResponse, Ending::ResetUnread, Ending::LateData],
                ),
            )
        })
    }
}

fn connections(count: u64) -> String {
    format!("{count} connection{}", if count == 1 { "" } else { "s" })
}

fn requests(count: u64) -> String {
    format!("{count} request{}", if count == 1 { "" } else { "s" })
}

fn seconds(from: Mono, to: Mono) -> f64 {
    to.saturating_sub(from) as f64 / 1e9
}
