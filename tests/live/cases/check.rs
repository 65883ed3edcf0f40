//! The questions that every case must answer: kernel, client, reference and lastpacket agree.

use std::{collections::BTreeMap, net::SocketAddr};

use anyhow::{Context, Result, bail, ensure};
use lastpacket_tests::{
    counters::{Counters, rise},
    events::{Events, ensure_no_gaps},
    netns::Family,
    run::{Run, cannot_show},
};
use serde_json::Value;
use tracer_core::{
    output::{ConnectionEvent, Endpoint, NetworkType, ResetEvent},
    words::{ClosedBy, Confidence, Direction, Ending, Role},
};

use super::{
    Case,
    expect::{Connection, Reset},
};

/// What the reference says of a case.
#[derive(Clone)]
pub struct Reference {
    name: String,
    client: Vec<Value>,
    server: BTreeMap<String, u64>,
}

/// What happened in a case.
pub struct Observed {
    pub run: Run,
    pub before: Counters,
    pub after: Counters,
    pub notes: Vec<Value>,
    pub clients: Vec<SocketAddr>,
    pub family: Family,
}

impl Reference {
    /// All cases of the reference.
    pub fn read() -> Result<Vec<Self>> {
        include_str!("reference.jsonl").lines().map(Self::parse).collect()
    }

    /// The one of a case.
    pub fn of<'a>(all: &'a [Self], name: &str) -> Result<&'a Self> {
        all.iter().find(|case| case.name == name).with_context(|| format!("no case {name} in the reference"))
    }

    fn parse(line: &str) -> Result<Self> {
        let case: Value = serde_json::from_str(line)?;
        Ok(Self {
            name: case["case"].as_str().context("no name")?.to_owned(),
            client: case["client"].as_array().context("no client")?.clone(),
            server: serde_json::from_value(case["server"].clone())?,
        })
    }
}

/// Asks all questions, and tells all answers that are wrong at once.
pub fn all(case: &Case, reference: &Reference, observed: &Observed) -> Result<()> {
    let answers = [
        kernel_as_in_reference(reference, observed),
        client_as_in_reference(reference, observed),
        events_as_counted(case, observed),
        connections_as_expected(case, observed),
        resets_as_expected(case, observed),
        ends_as_seen_by_the_client(observed),
        verdict_as_expected(case, observed),
        ensure_no_gaps(&observed.run.lines),
    ];
    let wrong: Vec<String> =
        answers.into_iter().filter_map(|answer| answer.err().map(|error| format!("{error:#}"))).collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// Sockets that the kernel made and took back within a handshake: as many as it counted more opens than
/// in the reference.
pub fn second_sockets(reference: &Reference, observed: &Observed) -> Result<u64> {
    let given_up = |event: &&ConnectionEvent| {
        event.end.as_ref().is_some_and(|end| end.ending == Ending::NeverEstablished)
    };
    let told = observed.run.lines.closed().into_iter().filter(given_up).count() as u64;
    let expected = told + reference.server.get("PassiveOpens").copied().unwrap_or(0);
    let rose = observed.rise("PassiveOpens");
    ensure!(told == 0 || rose == expected, "PassiveOpens rose by {rose}, {told} sockets were given up");
    Ok(told)
}

const COMPARED: [&str; 8] = [
    "PassiveOpens",
    "ActiveOpens",
    "EstabResets",
    "OutRsts",
    "AttemptFails",
    "ListenOverflows",
    "TCPAbortOnData",
    "TCPAbortOnClose",
];

fn kernel_as_in_reference(reference: &Reference, observed: &Observed) -> Result<()> {
    for name in COMPARED {
        let (expected, rose) = (reference.server.get(name).copied().unwrap_or(0), observed.rise(name));
        ensure!(rose == expected, "the kernel's {name} rose by {rose}, in the reference by {expected}");
    }
    Ok(())
}

fn client_as_in_reference(reference: &Reference, observed: &Observed) -> Result<()> {
    ensure!(
        observed.notes == reference.client,
        "the client saw {:?}, in the reference {:?}",
        observed.notes,
        reference.client
    );
    Ok(())
}

/// The events add up to the kernel's counters, as the test itself read them.
fn events_as_counted(case: &Case, observed: &Observed) -> Result<()> {
    let lines = observed.run.lines.as_slice();
    let opened = |role| lines.opened().iter().filter(|event| event.role == role).count() as u64;
    let sent = lines.resets().iter().filter(|reset| reset.direction == Direction::Sent).count() as u64;
    let expected = (case.expected)();
    let equations = [
        ("PassiveOpens", opened(Role::Server), 0),
        ("ActiveOpens", opened(Role::Client), expected.unsent_opens),
        ("OutRsts", sent, expected.unsent_resets),
    ];
    for (name, events, unsent) in equations {
        let rose = observed.rise(name);
        ensure!(rose + unsent == events, "the kernel's {name} rose by {rose}, the events add up to {events}");
    }
    let book = |name: &str| {
        lines.verdict().ok()?.books.iter().find(|book| book.name == name).map(|book| book.events)
    };
    let (resets, rose) = (book("EstabResets"), observed.rise("EstabResets"));
    ensure!(resets == Some(rose), "the kernel's EstabResets rose by {rose}, the book says {resets:?}");
    let (current, level) = (book("CurrEstab"), observed.after.get("CurrEstab").copied());
    ensure!(current == level, "the kernel's CurrEstab is {level:?}, the book says {current:?}");
    Ok(())
}

fn connections_as_expected(case: &Case, observed: &Observed) -> Result<()> {
    let expected = (case.expected)().connections;
    let told: Vec<Connection> =
        observed.run.lines.closed().into_iter().map(Connection::told).collect::<Result<_>>()?;
    let doubts = cannot_show(&observed.run, "requests without an answer");
    let told: Vec<Connection> =
        told.into_iter().map(|told| if doubts { told.without_doubt_of_the_answer() } else { told }).collect();
    ensure!(told == expected, "connections ended as\n{told:#?}\nexpected\n{expected:#?}");
    Ok(())
}

fn resets_as_expected(case: &Case, observed: &Observed) -> Result<()> {
    let mut expected = (case.expected)().resets;
    // Before 6.10.
    if cannot_show(&observed.run, "reasons of resets") {
        expected.iter_mut().for_each(|reset| reset.reason = None);
    }
    let told: Vec<Reset> = observed.run.lines.resets().into_iter().map(Reset::told).collect();
    ensure!(told == expected, "resets were\n{told:#?}\nexpected\n{expected:#?}");
    Ok(())
}

/// Whatever is told of the server's clients names a client's end as the client knows it.
fn ends_as_seen_by_the_client(observed: &Observed) -> Result<()> {
    let lines = observed.run.lines.as_slice();
    let connections = lines.opened().into_iter().chain(lines.closed());
    let connections = connections.map(|event| (event.role, event.network));
    let resets = lines.resets().into_iter().map(|reset| (reset.role, reset.network));
    for (role, network) in connections.chain(resets) {
        let kind = if observed.family == Family::V4 { NetworkType::Ipv4 } else { NetworkType::Ipv6 };
        ensure!(network.kind == kind, "{network:?} is no {:?}", observed.family);
        ensure!(
            network.local.address == observed.family.server() || role == Role::Client,
            "{network:?} is not the server's"
        );
        if role != Role::Client && !observed.clients.iter().any(|client| same(client, &network.peer)) {
            bail!("no client has the end {:?}; they have {:?}", network.peer, observed.clients);
        }
    }
    Ok(())
}

fn same(client: &SocketAddr, peer: &Endpoint) -> bool {
    client.ip() == peer.address && client.port() == peer.port
}

fn verdict_as_expected(case: &Case, observed: &Observed) -> Result<()> {
    let (expected, verdict) = ((case.expected)(), observed.run.lines.verdict()?);
    ensure!(verdict.result == expected.result, "the verdict is {}: {:?}", verdict.result, verdict.reasons);
    let code = if expected.result == tracer_core::words::Result::Cut { 1 } else { 0 };
    ensure!(observed.run.status.code() == Some(code), "{}; {}", observed.run.status, observed.run.stderr);
    let dropped = verdict.losses.iter().filter(|loss| loss.ending == Ending::Dropped).map(|loss| loss.count);
    ensure!(dropped.sum::<u64>() == expected.dropped, "losses are {:?}", verdict.losses);
    let unbalanced: Vec<_> =
        verdict.books.iter().filter(|book| !book.balanced).map(|book| book.name.as_str()).collect();
    if expected.unsent_resets == 0 {
        ensure!(unbalanced.is_empty(), "books do not balance: {:?}", verdict.books);
    } else {
        ensure!(unbalanced == ["OutRsts"], "only OutRsts may not balance: {:?}", verdict.books);
        let told = verdict.reasons.iter().any(|reason| reason.contains("OutRsts"));
        ensure!(told, "the verdict does not tell that OutRsts does not balance: {:?}", verdict.reasons);
    }
    Ok(())
}

impl Observed {
    fn rise(&self, name: &str) -> u64 {
        rise(&self.before, &self.after, name)
    }
}

impl Connection {
    /// Where the application's calls are not seen (before 6.3), an answer that took longer than the
    /// silence after it may have been under way: a doubt, and no more.
    fn without_doubt_of_the_answer(self) -> Self {
        let doubt = self.ending == Ending::MidResponse && self.confidence == Some(Confidence::Possible);
        let by_exit = self.closed_by == Some(ClosedBy::Exit) && self.delivered;
        if doubt && by_exit { Self { ending: Ending::IdleClosed, confidence: None, ..self } } else { self }
    }

    fn told(event: &ConnectionEvent) -> Result<Self> {
        let end = event.end.as_ref().context("a connection that ended has no end")?;
        Ok(Self {
            role: event.role,
            ending: end.ending,
            confidence: end.confidence,
            closed_by: end.closed_by,
            delivered: end.delivered,
        })
    }
}

impl Reset {
    fn told(event: &ResetEvent) -> Self {
        Self {
            direction: event.direction,
            reason: event.reason.as_deref().map(str::to_owned),
            segment: event.segment,
            role: event.role,
            ending: event.ending,
            confidence: event.confidence,
        }
    }
}
