//! A target's end: its books, what spoils the proof, its verdict.

use super::{
    Rules, Target,
    container::{Container, named},
};
use crate::{
    books::{Book, Reading, Received, RunRecords, balance},
    event::{ExitStatus, Mono, ResetSent, SegmentClass, SocketKind},
    findings::{Case, Finding, Suspect, find},
    input::End,
    lifecycle::Source,
    verdict::{
        Connections, Evidence, Gap, LoopbackTraffic, TrafficSummary, Verdict, decide, list_losses, list_peers,
    },
    words::{Cause, Ending, Phase},
};

impl Target {
    /// The books' two sides, read when all records counted by then had been taken. What the kernel
    /// counted since the reading before, but no record told, is counted as lost where it would be a
    /// loss: a verdict must not get better because records were lost.
    pub fn read_counters(&mut self, reading: Reading) {
        if let Some(before) = self.last.replace(reading) {
            self.count_untold(&before, &reading);
        }
        self.read_in = self.moment(0);
        if self.first.is_none() {
            // What was taken before the books begin was counted before, too.
            (self.decoded, self.answers_v6) = (0, 0);
            self.first = Some(reading);
        }
    }

    fn count_untold(&mut self, before: &Reading, now: &Reading) {
        // Readings are made whenever a phase begins: what happened since belongs to the one before.
        let moment = self.read_in;
        if let (Some(before), Some(now)) = (&before.totals, &now.totals) {
            let dropped = now.listen_drops.saturating_sub(before.listen_drops);
            let told = self.ledger.take_told_drops();
            self.ledger.count_untold(Ending::Dropped, moment, dropped.saturating_sub(told));
            // A request that is reset tells of a drop that was counted before.
            self.ledger.take_back_untold(Ending::Dropped, told.saturating_sub(dropped));
        }
        let counted = now.counters.since(before.counters);
        let told = std::mem::take(&mut self.told);
        if counted.records_lost.iter().sum::<u64>() == 0 {
            return;
        }
        for (ending, counted, told) in [
            (Ending::Refused, counted.resets_to_syn, told.resets_to_syn),
            (Ending::LateData, counted.resets_to_data, told.resets_to_data),
            (Ending::ResetUnread, counted.resets_of_unread, told.resets_of_unread),
        ] {
            self.ledger.count_untold(ending, moment, counted.saturating_sub(told));
        }
    }

    /// Counts a reset as the kernel programs do.
    pub(super) fn count_told(&mut self, reset: &ResetSent) {
        let class = reset.segment.map(|segment| segment.class);
        let unread = reset.socket_kind == SocketKind::Full && class.is_none();
        self.told.resets_to_syn += u64::from(reset.segment.is_some_and(|segment| segment.is_syn()));
        self.told.resets_to_data += u64::from(class == Some(SegmentClass::Data));
        self.told.resets_of_unread += u64::from(unread && (reset.socket.unread > 0 || reset.socket.orphan));
    }

    /// Whether any container is in a phase after running.
    #[must_use]
    pub fn is_terminating(&self) -> bool {
        self.containers.iter().any(|container| container.lifecycle.termination_began().is_some())
    }

    /// Whether nothing is left of any container.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        !self.containers.is_empty() && self.containers.iter().all(|container| container.gone)
    }

    /// Whether a container is in a phase after running, and not gone yet.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.containers
            .iter()
            .any(|container| !container.gone && container.lifecycle.termination_began().is_some())
    }

    /// Whether the first process of a container has exited and others may be left.
    #[must_use]
    pub fn is_exiting(&self) -> bool {
        self.containers.iter().any(|container| !container.gone && container.lifecycle.exit().is_some())
    }

    /// Whether anybody meant to end a container of it: its deletion is known, or a signal came.
    #[must_use]
    pub fn was_stopped(&self) -> bool {
        let stops = [Phase::PreStop, Phase::StopSignal, Phase::KillSignal];
        let stopped =
            |container: &Container| stops.iter().any(|phase| container.lifecycle.entered(*phase).is_some());
        self.containers.iter().any(stopped)
    }

    /// Whether a container ended by itself and as it was meant to, as init containers do.
    #[must_use]
    pub fn completed(&self, container: u32) -> bool {
        let lifecycle = self.containers.get(container as usize).map(|container| &container.lifecycle);
        lifecycle.is_some_and(|lifecycle| {
            lifecycle.cause() == Some(Cause::Itself)
                && lifecycle.exit().is_some_and(|(_, status)| status == ExitStatus::Code(0))
        })
    }

    /// A reason for which its traffic cannot be proven to have stopped.
    pub fn doubt(&mut self, gap: Gap) {
        if !self.doubts.contains(&gap) {
            self.doubts.push(gap);
        }
    }

    /// The verdict, after [`finish`](Self::finish). `last_seq` is the last line before it.
    #[must_use]
    pub fn verdict(&self, rules: &Rules, end: End, run: RunRecords, last_seq: u64) -> Verdict {
        let books = self.balance(rules, run);
        let mut gaps = self.gaps(&books);
        if end == End::Interrupted {
            gaps.push(Gap::Interrupted);
        } else if !self.containers.is_empty() && self.exited_at(end).is_none() {
            gaps.push(Gap::NoExit);
        }
        let traffic = self.traffic(end);
        let (result, reasons) = decide(&self.ledger, &gaps, traffic.quiet_ns, rules.quiet);
        let (lost, doubts) = self.ledger.losses().totals();
        Verdict {
            result,
            reasons,
            doubts,
            lost,
            losses: list_losses(&self.ledger, |container| named(&self.containers, container).name),
            connections: Connections::of(self.ledger.census(), self.ledger.open()),
            traffic,
            udp_not_judged: self.udp_sockets,
            containers: self.containers.iter().map(Container::summary).collect(),
            findings: self.findings(end),
            peers: list_peers(&self.ledger),
            books,
            cannot_show: Vec::new(),
            evidence: Evidence { first_seq: self.first_seq.unwrap_or(last_seq), last_seq },
        }
    }

    fn findings(&self, end: End) -> Vec<Finding> {
        let containers = self.containers.iter().enumerate().map(|(index, container)| Suspect {
            index: index as u32,
            name: &container.name,
            lifecycle: &container.lifecycle,
            hooks: &container.hooks,
        });
        find(&Case {
            containers: containers.collect(),
            ledger: &self.ledger,
            exhibits: &self.exhibits,
            unseen_pre_stop: self.subject.k8s.is_some() && !self.deletion_is_known(),
            restarted: end == End::Restarted,
            endpoint: self.has_endpoint.then_some(self.unready_since),
            timeouts: self.timeouts,
        })
    }

    /// Whether the API, or a rehearsal, told when the termination began.
    fn deletion_is_known(&self) -> bool {
        let told = |container: &Container| {
            let mut starts = container.lifecycle.starts().iter();
            starts.any(|start| start.phase == Phase::PreStop && start.source != Source::Kernel)
        };
        self.containers.iter().any(told)
    }

    fn balance(&self, rules: &Rules, run: RunRecords) -> Vec<Book> {
        let (Some(first), Some(last)) = (&self.first, &self.last) else { return Vec::new() };
        let census = self.ledger.census();
        let received = Received {
            decoded: self.decoded,
            run,
            connections_begun: census.opened + census.found,
            connections_ended: census.ended,
            connections_open: self.ledger.open(),
        };
        balance(first, last, &received, rules.curr_estab)
    }

    fn gaps(&self, books: &[Book]) -> Vec<Gap> {
        let mut gaps = Vec::new();
        if self.shared_network {
            gaps.push(Gap::SharedNetwork);
        }
        let (first, last) = (self.first.unwrap_or_default(), self.last.unwrap_or_default());
        if !self.shared_network && (first.totals.is_none() || last.totals.is_none()) {
            gaps.push(Gap::NoTotals);
        }
        if !self.shared_network && self.unlisted {
            gaps.push(Gap::Unlisted);
        }
        gaps.extend(self.unbalanced(books, &first, &last));
        let lost: u64 = last.counters.since(first.counters).records_lost.iter().sum();
        if lost > 0 {
            gaps.push(Gap::RecordsLost(lost));
        }
        match (first.missed, last.missed) {
            (Some(before), Some(now)) => {
                let missed = now.saturating_sub(before);
                if missed > 0 && gaps.iter().any(|gap| matches!(gap, Gap::Unbalanced { .. })) {
                    gaps.push(Gap::Missed(missed));
                }
            }
            _ => gaps.push(Gap::MissedUnknown),
        }
        if self.late {
            gaps.push(Gap::Late);
        }
        gaps.extend(self.doubts.iter().cloned());
        gaps
    }

    /// Books that do not balance. If it is OutRsts alone, by no more than what the kernel is known to
    /// count otherwise than it shows, that is said.
    fn unbalanced(&self, books: &[Book], first: &Reading, last: &Reading) -> Vec<Gap> {
        let wrong: Vec<&Book> = books.iter().filter(|book| !book.balanced).collect();
        if let [Book { name, kernel, events, .. }] = wrong[..]
            && name == "OutRsts"
        {
            let (kernel, events) = (*kernel, *events);
            let failed = |reading: &Reading| reading.totals.map_or(0, |totals| totals.aborts_failed);
            // `tcp_v6_send_response` looks for a route after the tracepoint and before it counts;
            // `tcp_send_active_reset` counts before it asks for memory, and is traced after.
            if events > kernel && events - kernel <= self.answers_v6 {
                return vec![Gap::NoRouteBack { kernel, events }];
            }
            if kernel > events && kernel - events <= failed(last).saturating_sub(failed(first)) {
                return vec![Gap::AbortsFailed { kernel, events }];
            }
        }
        let gap = |book: &Book| Gap::Unbalanced {
            book: book.name.clone(),
            kernel: book.kernel,
            events: book.events,
        };
        wrong.into_iter().map(gap).collect()
    }

    /// The exit of the last container to exit, if all did; where one was restarted, the others run on.
    fn exited_at(&self, end: End) -> Option<Mono> {
        let exits = self.containers.iter().map(|container| container.lifecycle.exit().map(|(time, _)| time));
        if end == End::Restarted {
            return exits.flatten().max();
        }
        let mut exits = exits;
        exits.try_fold(0, |latest, exit| Some(latest.max(exit?))).filter(|_| !self.containers.is_empty())
    }

    fn traffic(&self, end: End) -> TrafficSummary {
        let traffic = self.ledger.traffic();
        let quiet =
            |exit: Mono| traffic.last_arrival().map(|arrival| exit.cast_signed() - arrival.cast_signed());
        TrafficSummary {
            last_connection_mono_ns: traffic.last_connection,
            last_data_mono_ns: traffic.last_data,
            last_sent_mono_ns: traffic.last_sent,
            quiet_ns: self.exited_at(end).and_then(quiet),
            loopback: LoopbackTraffic::of(self.ledger.traffic_within()),
        }
    }

    /// Whether a verdict would be `cut`.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.ledger.losses().totals().0 > 0
    }
}
