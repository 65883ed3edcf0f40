//! One target: its containers, its ledger, its books, and what each event means to them.

mod connections;
mod container;
mod judgement;
mod phases;
mod teller;

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
};

use tracer_common::Counters;

use self::container::{Container, Guest};
use crate::{
    books::{CurrEstabRule, Reading},
    connection::Moment,
    event::{Mono, ResetSent},
    findings::Exhibits,
    input::{Declared, Network, NewTarget, Timeouts},
    ledger::Ledger,
    output::{Body, Subject},
    tables::Table,
    verdict::Gap,
    words::Phase,
};

/// What the whole run has in common.
#[derive(Clone, Debug)]
pub struct Rules {
    /// How long traffic must have stopped before the exit, in nanoseconds.
    pub quiet: Mono,
    /// Names of the kernel's reset reasons.
    pub reset_reasons: HashMap<i32, Arc<str>>,
    /// What the kernel's CurrEstab counts, as far as it is known.
    pub curr_estab: Option<CurrEstabRule>,
}

/// See the module. Bodies of events go to `out` with their times.
#[derive(Debug)]
pub struct Target {
    /// How it is named in events.
    pub subject: Arc<Subject>,
    addresses: Vec<IpAddr>,
    checkers: Vec<Network>,
    one_way: Vec<u16>,
    late: bool,
    shared_network: bool,
    /// What else spoils the proof.
    doubts: Vec<Gap>,
    timeouts: Timeouts,
    /// What existed when tracing began could not be listed.
    unlisted: bool,
    containers: Vec<Container>,
    /// Which container listened last on a port.
    listeners: Table<u16, u32>,
    ledger: Ledger,
    first: Option<Reading>,
    last: Option<Reading>,
    /// Where the first container was at the last reading.
    read_in: Moment,
    decoded: u64,
    /// Resets over IPv6 that answered a segment: without a route back they are traced and not sent.
    answers_v6: u64,
    udp_sockets: u64,
    /// Services lead to it.
    has_endpoint: bool,
    /// Since when no Service sends it new connections, by the API.
    unready_since: Option<Mono>,
    /// Processes that entered a container from outside and are still there, by process id.
    guests: HashMap<u32, Guest>,
    /// Resets that records told since the last reading, counted as the kernel programs count.
    told: Counters,
    exhibits: Exhibits,
    /// Resets to SYNs, until it is known whether the kubelet sent them.
    refused: VecDeque<(Mono, ResetSent, Moment)>,
    /// Number of the first line about it.
    pub first_seq: Option<u64>,
}

/// Writes an event, by its time and body; tells the number of its line.
pub type Emit<'a> = dyn FnMut(Mono, Body) -> u64 + 'a;

impl Target {
    /// A target that comes into scope.
    #[must_use]
    pub fn new(target: NewTarget) -> Self {
        Self {
            subject: target.subject,
            addresses: target.addresses,
            checkers: target.checkers,
            one_way: target.one_way,
            late: target.late,
            shared_network: target.shared_network,
            doubts: Vec::new(),
            timeouts: target.timeouts,
            unlisted: false,
            containers: Vec::new(),
            listeners: Table::default(),
            ledger: Ledger::default(),
            first: None,
            last: None,
            read_in: Moment { container: 0, phase: Phase::Running, cause: None },
            decoded: 0,
            answers_v6: 0,
            udp_sockets: 0,
            has_endpoint: false,
            unready_since: None,
            guests: HashMap::new(),
            told: Counters::default(),
            exhibits: Exhibits::default(),
            refused: VecDeque::new(),
            first_seq: None,
        }
    }

    /// Its names were learned, and what is declared of these containers, by number.
    pub fn rename(&mut self, subject: Arc<Subject>, containers: Vec<(u32, Declared)>) {
        self.subject = subject;
        for (index, declared) in containers {
            if let Some(container) = self.containers.get_mut(index as usize) {
                container.name = declared.name;
                container.lifecycle.declare(declared.stop_signal);
            }
        }
    }

    /// A record of it was decoded.
    pub fn count_record(&mut self) {
        self.decoded += 1;
    }

    /// What existed when tracing began could not be listed.
    pub fn unlisted(&mut self) {
        self.unlisted = true;
    }
}
