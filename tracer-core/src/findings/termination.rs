//! Findings about signals, times and ends of processes.

use super::{Finding, One, connections, is_one_of, requests, seconds};
use crate::{
    event::Mono,
    words::{Cause, Confidence, Ending, Phase},
};

impl One<'_> {
    pub(super) fn of_termination(&self) -> Vec<Option<Finding>> {
        vec![
            self.restart_not_deletion(),
            self.stop_signal_ignored(),
            self.killed_at_grace_end(),
            self.grace_too_short(),
            self.oom_killed(),
            self.timeouts_out_of_order(),
        ]
    }

    fn restart_not_deletion(&self) -> Option<Finding> {
        let (_, signal, _) = self.stop_signal().filter(|_| self.case.restarted)?;
        self.container.lifecycle.exit()?;
        Some(self.finding(
            "restart-not-deletion",
            format!("nobody deleted the pod: its container was stopped by {signal} and started again, as when a liveness probe fails"),
            "look at the liveness probe (its timeout and failureThreshold): a restart takes the pod's endpoint away only after a readiness probe fails".to_owned(),
            self.phases(&[Phase::StopSignal]),
        ))
    }

    fn stop_signal_ignored(&self) -> Option<Finding> {
        let (_, signal, ignored) = self.stop_signal()?;
        ignored.then(|| {
            self.finding(
                "stop-signal-ignored",
                format!("{signal} had no effect: PID 1 has no handler for it, and the kernel drops such signals"),
                format!("handle {signal} in the program, run it under an init such as tini, or set the stop signal that it handles"),
                self.phases(&[Phase::StopSignal]),
            )
        })
    }

    /// When the stop signal came, its name, and when SIGKILL ended it.
    fn killed(&self) -> Option<(Mono, String, Mono)> {
        let (stopped, signal, _) = self.stop_signal()?;
        let killed = self.entered(Phase::KillSignal)?;
        (self.container.lifecycle.cause() == Some(Cause::KillSignal)).then_some((stopped, signal, killed))
    }

    fn killed_at_grace_end(&self) -> Option<Finding> {
        let (stopped, signal, killed) = self.killed()?;
        let lost = self.losses(|key| key.moment.cause == Some(Cause::KillSignal));
        let waited = seconds(stopped, killed);
        Some(self.finding(
            "killed-at-grace-end",
            format!(
                "it had not exited {waited:.1} s after {signal} and was killed; {} ended by that",
                connections(lost)
            ),
            format!("exit within {waited:.1} s of {signal}, or raise terminationGracePeriodSeconds"),
            self.phases(&[Phase::StopSignal, Phase::KillSignal]),
        ))
    }

    /// It had taken the stop signal and was still at work when SIGKILL came.
    fn grace_too_short(&self) -> Option<Finding> {
        let (stopped, signal, killed) = self.killed()?;
        let (_, _, ignored) = self.stop_signal()?;
        let endings = [Ending::Unanswered, Ending::MidResponse, Ending::ResetUnread];
        let cut = |key: &crate::losses::LossKey| {
            key.moment.cause == Some(Cause::KillSignal) && is_one_of(key, &endings)
        };
        let lost = self.losses(cut);
        if ignored || lost == 0 {
            return None;
        }
        let waited = seconds(stopped, killed);
        let before = self.pre_stop_began(stopped).map(|began| seconds(began, stopped));
        let spent = before.map_or_else(String::new, |before| format!(" after {before:.1} s of preStop"));
        let used = before.unwrap_or(0.0) + waited;
        Some(self.finding(
            "grace-too-short",
            format!("{} were still being worked on when SIGKILL came, {waited:.1} s after {signal}{spent}", requests(lost)),
            format!("raise terminationGracePeriodSeconds above {used:.1} s, by as long as the longest request takes; it contains preStop"),
            self.exhibits(cut),
        ))
    }

    fn oom_killed(&self) -> Option<Finding> {
        (self.container.lifecycle.cause() == Some(Cause::Oom)).then(|| {
            let lost = self
                .losses(|key| key.moment.cause == Some(Cause::Oom) && key.confidence > Confidence::Possible);
            self.finding(
                "oom-killed",
                format!("the out-of-memory killer ended it; {} ended by that", connections(lost)),
                "raise its memory limit, or let it use less".to_owned(),
                self.phases(&[Phase::KillSignal]),
            )
        })
    }

    /// preStop < grace period < load balancer: what is longer than the next is cut off by it.
    fn timeouts_out_of_order(&self) -> Option<Finding> {
        let timeouts = &self.case.timeouts;
        let grace = timeouts.grace.map(|grace| seconds(0, grace));
        let balancer = timeouts.load_balancer.map(|timeout| seconds(0, timeout));
        let stopped = self.entered(Phase::StopSignal).or(self.entered(Phase::KillSignal));
        let pre_stop = stopped
            .and_then(|stopped| Some((self.pre_stop_began(stopped)?, stopped)))
            .map(|(began, stopped)| seconds(began, stopped));
        let chain =
            [("preStop", pre_stop), ("the grace period", grace), ("the load balancer's timeout", balancer)];
        let told: Vec<(&str, f64)> =
            chain.into_iter().filter_map(|(name, time)| Some((name, time?))).collect();
        let wrong = told.windows(2).find(|pair| pair[0].1 >= pair[1].1)?;
        let [(shorter, short), (longer, long)] = [wrong[0], wrong[1]];
        Some(self.finding(
            "timeouts-out-of-order",
            format!("{shorter} takes {short:.1} s, and {longer} only {long:.1} s: what still runs then is cut off"),
            format!("let {longer} be longer than {short:.1} s, or {shorter} shorter than {long:.1} s: preStop < grace period < load balancer's timeout"),
            self.phases(&[Phase::PreStop, Phase::StopSignal]),
        ))
    }
}
