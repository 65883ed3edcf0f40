//! Metrics for Prometheus, counted from lines, as in `docs/metrics.md`.

mod bounded;
mod labels;
#[cfg(test)]
mod tests;

use prometheus_client::{
    encoding::text,
    metrics::{counter::Counter, family::Family, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};
use tracer_core::{
    output::{Body, Line, LostEvent},
    verdict::{LossCount, Verdict},
    words::{Confidence, Phase, Result},
};

use bounded::Bounded;
use labels::{Loss, Lost, Of, PhaseOnly, Reset, Termination, Unattributed, Whose};

/// What `/metrics` is served as.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Label sets that a metric may have; what comes beyond is counted as workload `other`.
const LABEL_SETS: usize = 2000;
/// Reasons of lost records that a metric may tell apart.
const REASONS: usize = 100;

/// The stage of what was read, but could be given to no target.
const ATTRIBUTE: &str = "attribute";

/// Up to hours: a grace period may be long.
const PHASE_SECONDS: [f64; 13] = [0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 300.0, 3600.0];
/// The first bucket holds pods to which traffic came until their exit, or after it.
const QUIET_SECONDS: [f64; 12] = [0.0, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0];
const LAG_SECONDS: [f64; 12] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0];

/// All metrics. Any thread may observe and encode.
pub struct Metrics {
    registry: Registry,
    with_pod: bool,
    resets: Bounded<Of<Reset>>,
    terminations: Bounded<Of<Termination>>,
    losses: Bounded<Of<Loss>>,
    phases: Family<PhaseOnly, Histogram>,
    quiet: Histogram,
    peer_lag: Histogram,
    lost: Bounded<Lost>,
    unattributed: Bounded<Unattributed>,
    books_mismatch: Counter,
}

impl Metrics {
    /// Metrics that count nothing yet. `with_pod` adds the label `pod`, which makes new label sets
    /// with every pod.
    #[must_use]
    pub fn new(with_pod: bool) -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("lastpacket"),
            with_pod,
            resets: Bounded::new(LABEL_SETS),
            terminations: Bounded::new(LABEL_SETS),
            losses: Bounded::new(LABEL_SETS),
            phases: Family::new_with_constructor(|| Histogram::new(PHASE_SECONDS)),
            quiet: Histogram::new(QUIET_SECONDS),
            peer_lag: Histogram::new(LAG_SECONDS),
            lost: Bounded::new(REASONS),
            unattributed: Bounded::new(REASONS),
            books_mismatch: Counter::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The running lastpacket", version);
        registry.register("tcp_resets", "Resets of terminating pods", self.resets.family());
        registry.register("pod_terminations", "Pods that ended, by verdict", self.terminations.family());
        registry.register("losses", "Connections certainly or likely lost", self.losses.family());
        let help = "Time that containers spent in a phase of their termination";
        registry.register_with_unit("phase_duration", help, Unit::Seconds, self.phases.clone());
        let help = "Time from a pod's last traffic to its exit";
        registry.register_with_unit("quiet", help, Unit::Seconds, self.quiet.clone());
        let help = "Time from a termination's begin to a peer's last new connection";
        registry.register_with_unit("peer_lag", help, Unit::Seconds, self.peer_lag.clone());
        registry.register("events_lost", "Records and lines that were lost", self.lost.family());
        let help = "Records that belong to no known target";
        registry.register("events_unattributed", help, self.unattributed.family());
        let help = "Equations that did not balance at a verdict";
        registry.register("books_mismatch", help, self.books_mismatch.clone());
    }

    /// Counts a line.
    pub fn observe(&self, line: &Line) {
        let whose = || Whose::of(line.subject.as_deref(), self.with_pod);
        match &line.body {
            Body::TargetStarted(_) => self.expect_termination(&whose()),
            Body::Reset(reset) => self.resets.add(&Of { whose: whose(), words: Reset::new(reset) }, 1),
            Body::Lost(lost) => self.lost(lost),
            Body::Verdict(verdict) => self.verdict(&whose(), verdict),
            _ => {}
        }
    }

    /// All metrics as OpenMetrics text, to be served as [`CONTENT_TYPE`].
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to memory does not fail.
        let _ = text::encode(&mut text, &self.registry);
        text
    }

    /// Shows every verdict at 0: a counter that first appears at 1 has no increase to Prometheus.
    fn expect_termination(&self, whose: &Whose) {
        for result in Result::ALL {
            self.terminations.add(&Of { whose: whose.clone(), words: Termination::new(*result) }, 0);
        }
    }

    fn lost(&self, lost: &LostEvent) {
        if lost.stage == ATTRIBUTE {
            self.unattributed.add(&Unattributed::new(lost), lost.count);
        } else {
            self.lost.add(&Lost::new(lost), lost.count);
        }
    }

    fn verdict(&self, whose: &Whose, verdict: &Verdict) {
        self.terminations.add(&Of { whose: whose.clone(), words: Termination::new(verdict.result) }, 1);
        let sure = |loss: &&LossCount| loss.confidence >= Confidence::Likely;
        for loss in verdict.losses.iter().filter(sure) {
            self.losses.add(&Of { whose: whose.clone(), words: Loss::new(loss) }, loss.count);
        }
        let unbalanced = verdict.books.iter().filter(|book| !book.balanced).count();
        self.books_mismatch.inc_by(unbalanced as u64);
        self.durations(verdict);
    }

    fn durations(&self, verdict: &Verdict) {
        let seconds = |ns: u64| ns as f64 / 1e9;
        for container in &verdict.containers {
            let ended = container.phases.iter().zip(container.phases.iter().skip(1));
            for (phase, next) in ended.filter(|(phase, _)| phase.phase != Phase::Running) {
                let took = next.mono_ns.saturating_sub(phase.mono_ns);
                self.phases.get_or_create(&PhaseOnly::new(phase.phase)).observe(seconds(took));
            }
        }
        if let Some(quiet_ns) = verdict.traffic.quiet_ns {
            self.quiet.observe(seconds(u64::try_from(quiet_ns).unwrap_or(0)));
        }
        let Some(began) = began(verdict) else { return };
        let peers = verdict.peers.each.iter().chain(&verdict.peers.others);
        for last in peers.filter_map(|peer| peer.last_after_mono_ns) {
            self.peer_lag.observe(seconds(last.saturating_sub(began)));
        }
    }
}

/// When the first container left the phase running.
fn began(verdict: &Verdict) -> Option<u64> {
    let phases = verdict.containers.iter().flat_map(|container| &container.phases);
    phases.filter(|start| start.phase != Phase::Running).map(|start| start.mono_ns).min()
}
