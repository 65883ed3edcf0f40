//! Findings about connections: who was refused, cut off or met a closed door.

use super::{Finding, One, connections, is_one_of, requests, seconds};
use crate::{
    losses::LossKey,
    words::{Cause, Confidence, Ending, Hop, Phase},
};

/// What is added to a measured time when a longer preStop is proposed.
const MARGIN_SECONDS: f64 = 1.0;
/// How a new connection is lost.
const TURNED_AWAY: [Ending; 3] = [Ending::Refused, Ending::RefusedHandshake, Ending::ResetBacklog];
const REFUSED: [Ending; 2] = [Ending::Refused, Ending::RefusedHandshake];
/// How a request in flight is lost.
const CUT_OFF: [Ending; 3] = [Ending::Unanswered, Ending::MidResponse, Ending::ResetUnread];

impl One<'_> {
    pub(super) fn of_traffic(&self) -> Vec<Option<Finding>> {
        vec![
            self.pre_stop(),
            self.endpoint_removed_late(),
            self.listener_closed_early(),
            self.backlog_reset(),
            self.keep_alive_race(),
            self.requests_unanswered(),
            self.sidecar_stopped_first(),
        ]
    }

    /// New connections that came too late: there was no preStop, or it was too short.
    fn pre_stop(&self) -> Option<Finding> {
        let (stopped, signal, _) = self.stop_signal()?;
        let late = |key: &LossKey| {
            is_one_of(key, &TURNED_AWAY) && key.hop == Hop::External && key.moment.phase >= Phase::StopSignal
        };
        let lost = self.losses(late);
        let last = self.case.ledger.traffic().last_connection.filter(|last| *last > stopped)?;
        if lost == 0 {
            return None;
        }
        let lag = seconds(stopped, last);
        let had = self.pre_stop_began(stopped).map(|began| seconds(began, stopped));
        let needed = had.unwrap_or(0.0) + lag + MARGIN_SECONDS;
        let text =
            format!("new connections kept coming until {lag:.1} s after {signal}; {lost} of them were lost");
        let remedy = format!(
            "delay {signal} until the load balancer has let go: a preStop of {:.0} s (measured {:.1} s, and a margin), within the grace period",
            needed.ceil(),
            needed - MARGIN_SECONDS
        );
        let (id, text, remedy) = match had {
            Some(had) => ("pre-stop-too-short", format!("preStop took {had:.1} s, and {text}"), remedy),
            None if self.case.unseen_pre_stop => (
                "pre-stop-too-short",
                format!(
                    "whether the kubelet ran a preStop is not known, as the API told of no deletion; {text}"
                ),
                format!(
                    "delay {signal} until the load balancer has let go: a preStop of {:.0} s more than there is (measured {lag:.1} s, and a margin), within the grace period",
                    needed.ceil()
                ),
            ),
            None => ("pre-stop-missing", format!("there is no preStop, and {text}"), remedy),
        };
        Some(self.finding(id, text, remedy, self.exhibits(late)))
    }

    /// By the API's own account load balancers could not know in time.
    fn endpoint_removed_late(&self) -> Option<Finding> {
        let unready = self.case.endpoint?;
        let (stopped, signal, _) = self.stop_signal()?;
        let late = unready.is_none_or(|unready| unready > stopped);
        let lost = self.losses(|key| is_one_of(key, &TURNED_AWAY) && key.hop == Hop::External);
        (late && lost > 0).then(|| {
            let when = unready.map_or_else(
                || "was still ready when it had exited".to_owned(),
                |unready| format!("became unready only {:.1} s after {signal}", seconds(stopped, unready)),
            );
            self.finding(
                "endpoint-removed-late",
                format!("its endpoint {when}, so that load balancers could not know"),
                format!("delay {signal} (preStop) until the endpoint is gone; if the pod was not deleted through the API, let it become unready first"),
                self.phases(&[Phase::StopSignal]),
            )
        })
    }

    fn listener_closed_early(&self) -> Option<Finding> {
        let early = |key: &LossKey| {
            is_one_of(key, &REFUSED) && matches!(key.moment.phase, Phase::PreStop | Phase::StopSignal)
        };
        let refused = self.losses(early);
        (refused > 0).then(|| {
            self.finding(
                "listener-closed-early",
                format!(
                    "it stopped listening while it was still running and refused {}",
                    connections(refused)
                ),
                "keep the listener open until new connections have stopped coming, and close it last"
                    .to_owned(),
                self.exhibits(early),
            )
        })
    }

    fn backlog_reset(&self) -> Option<Finding> {
        let reset = |key: &LossKey| is_one_of(key, &[Ending::ResetBacklog]);
        let count = self.losses(reset);
        (count > 0).then(|| {
            self.finding(
                "backlog-reset",
                format!("it reset {} that waited in the listener's queue to be accepted", connections(count)),
                "accept what is in the queue before closing the listener".to_owned(),
                self.exhibits(reset),
            )
        })
    }

    fn keep_alive_race(&self) -> Option<Finding> {
        let raced = |key: &LossKey| is_one_of(key, &[Ending::LateData]);
        let count = self.losses(raced);
        (count > 0).then(|| {
            self.finding(
                "keep-alive-race",
                format!("{} met a connection that was being closed, as an idle keep-alive connection is", requests(count)),
                "while draining answer with `Connection: close` (HTTP/2: GOAWAY) and close when the client has; or let clients retry what was never answered"
                    .to_owned(),
                self.exhibits(raced),
            )
        })
    }

    fn requests_unanswered(&self) -> Option<Finding> {
        let sure = |key: &LossKey| is_one_of(key, &CUT_OFF) && key.confidence > Confidence::Possible;
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
                self.exhibits(sure),
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
        let within = |key: &LossKey| key.hop == Hop::Loopback && key.moment.phase >= Phase::StopSignal;
        let lost = self.losses(within);
        (lost > 0).then(|| {
            self.finding(
                "sidecar-stopped-first",
                format!("it stopped while {} still sent it requests: {} within the pod lost", survivor.name, connections(lost)),
                format!("let {} stop first, or make it a native sidecar in front of this one only if it drains first", survivor.name),
                self.exhibits(within),
            )
        })
    }
}
