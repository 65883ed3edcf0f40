//! What is missing makes an otherwise clean verdict unproven, and is named; what comes from outside the
//! kernel's own clock changes nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test a panic is the failure's message")]

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use tracer_common::{
    Counters, ExitRecord, GoneRecord, Header, Kind, OomRecord, Pod, ResetRecord, Segment, SignalRecord, Tuple,
};
use tracer_core::{
    Tracer,
    books::{Reading, Totals},
    input::{Clock, End, Input, InventoryUpdate, NewContainer, NewTarget, Timeouts},
    output::{Body, Line, Subject},
    target::Rules,
    tracer::Identity,
    verdict::Verdict,
    words::{Cause, Result as Word},
};

const TARGET: u32 = 1;
const SECOND: u64 = 1_000_000_000;

/// A termination without any traffic; each test spoils something of it.
struct Story {
    tracer: Tracer,
    lines: Vec<Line>,
    records: [u64; 16],
}

impl Story {
    fn begin(first: Reading) -> Self {
        let rules = Rules { quiet: SECOND, reset_reasons: HashMap::new(), curr_estab: None };
        let identity = Identity { node: "node".into(), run_id: "run".into() };
        let tracer = Tracer::new(identity, rules, Clock { mono: 0, wall: 1_000 * SECOND as i64 });
        let mut story = Self { tracer, lines: Vec::new(), records: [0; 16] };
        let target = NewTarget {
            id: TARGET,
            subject: Arc::new(Subject::default()),
            time: 0,
            addresses: Vec::new(),
            checkers: vec!["fdaa::/64".parse().unwrap()],
            one_way: Vec::new(),
            shared_network: false,
            late: false,
            timeouts: Timeouts::default(),
        };
        let container = NewContainer {
            target: TARGET,
            container: 0,
            name: "web".into(),
            pid: 7,
            pidns: Some(1),
            cgroup: None,
            stop_signal: None,
            time: 0,
        };
        story.tell(InventoryUpdate::Target(Box::new(target)));
        story.tell(InventoryUpdate::Container(container));
        story.read(first);
        story
    }

    fn tell(&mut self, update: InventoryUpdate) {
        self.tracer.step(Input::Inventory(update), &mut self.lines);
    }

    fn read(&mut self, reading: Reading) {
        self.tracer.step(Input::Counters { target: TARGET, reading: Box::new(reading) }, &mut self.lines);
    }

    fn record(&mut self, kind: u32, bytes: &[u8]) {
        self.records[kind as usize] += 1;
        self.tracer.step(Input::Record(Bytes::copy_from_slice(bytes)), &mut self.lines);
    }

    fn signal(&mut self, signal: u32, time: u64) {
        let record = SignalRecord { header: header(Kind::SIGNAL, time), signal, ..SignalRecord::default() };
        self.record(Kind::SIGNAL, record.as_bytes());
    }

    fn exit(&mut self, status: u32, time: u64) {
        let header_of = |kind| header(kind, time);
        let exit = ExitRecord { header: header_of(Kind::EXIT), status, is_init: 1, ..ExitRecord::default() };
        self.record(Kind::EXIT, exit.as_bytes());
        let gone = GoneRecord { header: header_of(Kind::GONE), ..GoneRecord::default() };
        self.record(Kind::GONE, gone.as_bytes());
    }

    /// What the programs counted, if nothing was lost.
    fn counters(&self) -> Counters {
        Counters { records: self.records, ..Counters::default() }
    }

    fn end(mut self, last: Reading, end: End) -> Verdict {
        self.read(last);
        let finished =
            InventoryUpdate::Finished { target: TARGET, time: 9 * SECOND, interface_gone: false, end };
        self.tell(finished);
        let verdict = self.lines.into_iter().find_map(|line| match line.body {
            Body::Verdict(verdict) => Some(*verdict),
            _ => None,
        });
        verdict.unwrap()
    }
}

fn header(kind: u32, time_ns: u64) -> Header {
    Header { time_ns, kind, target: TARGET }
}

fn whole() -> Reading {
    Reading { totals: Some(Totals::default()), missed: Some(0), ..Reading::default() }
}

/// A termination of which the last reading is as `spoil` makes it.
fn ended(spoil: impl FnOnce(&mut Reading)) -> Verdict {
    let mut story = Story::begin(whole());
    story.signal(15, SECOND);
    story.exit(0, 2 * SECOND);
    let mut last = Reading { counters: story.counters(), ..whole() };
    spoil(&mut last);
    story.end(last, End::Terminated)
}

#[track_caller]
fn assert_unproven(verdict: &Verdict, reason: &str) {
    assert_eq!(verdict.result, Word::Unproven, "{:?}", verdict.reasons);
    assert!(verdict.reasons.iter().any(|told| told.contains(reason)), "{:?}", verdict.reasons);
}

#[test]
fn with_all_readings_it_is_proven() {
    let verdict = ended(|_| {});
    assert_eq!(verdict.result, Word::Idle, "{:?}", verdict.reasons);
    assert!(verdict.books.iter().all(|book| book.balanced), "{:?}", verdict.books);
}

#[test]
fn each_equation_that_does_not_balance_is_named_with_both_sides() {
    type Spoil = fn(&mut Totals);
    let spoils: [(&str, Spoil); 4] = [
        ("OutRsts", |totals| totals.resets_sent = 3),
        ("PassiveOpens", |totals| totals.passive_opens = 3),
        ("ActiveOpens", |totals| totals.active_opens = 3),
        ("EstabResets", |totals| totals.estab_resets = 3),
    ];
    for (name, spoil) in spoils {
        let verdict = ended(|last| spoil(last.totals.as_mut().unwrap()));
        assert_unproven(
            &verdict,
            &format!("the book {name} does not balance: the kernel counted 3, the events add up to 0"),
        );
        assert_eq!(verdict.reasons.len(), 1, "{:?}", verdict.reasons);
    }
    let verdict = ended(|last| last.counters.records[1] += 2);
    assert_unproven(&verdict, "the book records does not balance");
}

#[test]
fn resets_without_memory_are_told_as_such() {
    let aborted = |resets_sent, aborts_failed| {
        ended(move |last| {
            last.totals = Some(Totals { resets_sent, aborts_failed, ..Totals::default() });
        })
    };
    assert_unproven(&aborted(2, 2), "no memory to send");
    let verdict = aborted(3, 2);
    assert!(!verdict.reasons[0].contains("memory"), "one is not explained: {:?}", verdict.reasons);
}

#[test]
fn resets_over_ipv6_without_a_route_are_told_as_such() {
    let reset = |peer: &str| {
        let peer: std::net::Ipv6Addr = peer.parse().unwrap();
        let mut story = Story::begin(whole());
        let record = ResetRecord {
            header: header(Kind::RESET_SENT, SECOND),
            tuple: Tuple { peer: peer.octets(), local_port: 80, peer_port: 1, ..Tuple::default() },
            segment: Segment { present: 1, flags: 2, ..Segment::default() },
            ..ResetRecord::default()
        };
        story.record(Kind::RESET_SENT, record.as_bytes());
        story.signal(15, 2 * SECOND);
        story.exit(0, 3 * SECOND);
        let counters = Counters { resets_sent: 1, resets_to_syn: 1, ..story.counters() };
        story.end(Reading { counters, ..whole() }, End::Terminated)
    };
    assert_unproven(&reset("fdaa::1"), "without a route back");
    let ipv4 = reset("::ffff:10.0.0.1");
    assert!(ipv4.reasons.iter().any(|reason| reason.contains("OutRsts does not balance")), "{ipv4:?}");
    assert!(!ipv4.reasons.iter().any(|reason| reason.contains("route")), "{:?}", ipv4.reasons);
}

#[test]
fn what_could_not_be_read_is_named() {
    assert_unproven(&ended(|last| last.totals = None), "the kernel's own totals");
    assert_unproven(&ended(|last| last.missed = None), "/proc/self/fdinfo");
    let lost = ended(|last| {
        last.counters.records[1] += 4;
        last.counters.records_lost[1] += 4;
    });
    assert_unproven(&lost, "4 records were lost");
    assert!(lost.books.iter().all(|book| book.balanced), "what is lost is counted: {:?}", lost.books);
}

#[test]
fn existing_connections_that_could_not_be_listed_are_named() {
    let mut story = Story::begin(whole());
    story.tell(InventoryUpdate::Unlisted { target: TARGET });
    story.signal(15, SECOND);
    story.exit(0, 2 * SECOND);
    let last = Reading { counters: story.counters(), ..whole() };
    assert_unproven(&story.end(last, End::Terminated), "could not be listed");
}

#[test]
fn a_termination_that_was_not_over_is_unproven() {
    let mut story = Story::begin(whole());
    story.signal(15, SECOND);
    let last = Reading { counters: story.counters(), ..whole() };
    let verdict = story.end(last, End::Interrupted);
    assert_unproven(&verdict, "tracing was ended before");
    assert_eq!(verdict.reasons.len(), 1, "{:?}", verdict.reasons);
}

#[test]
fn a_victim_of_the_out_of_memory_killer_is_a_finding() {
    let mut story = Story::begin(whole());
    let victim = OomRecord { header: header(Kind::OOM, SECOND), pid: 7, container: 0 };
    story.record(Kind::OOM, victim.as_bytes());
    story.exit(9, 2 * SECOND);
    let last = Reading { counters: story.counters(), ..whole() };
    let verdict = story.end(last, End::Terminated);
    assert_eq!(verdict.containers[0].cause, Some(Cause::Oom));
    assert_eq!(verdict.findings[0].id, "oom-killed");
    assert_eq!(verdict.findings[0].evidence.len(), 1);
}

#[test]
fn a_record_of_no_target_is_counted_and_told_with_its_reason() {
    let mut story = Story::begin(whole());
    let gone = GoneRecord { header: Header { target: 99, ..header(Kind::GONE, 1) }, ..GoneRecord::default() };
    story.tracer.step(Input::Record(Bytes::copy_from_slice(gone.as_bytes())), &mut story.lines);
    for mono in [1, 2] {
        story.tracer.step(Input::Tick(Clock { mono, wall: 0 }), &mut story.lines);
    }
    let lost: Vec<_> = story
        .lines
        .iter()
        .filter_map(|line| if let Body::Lost(lost) = &line.body { Some(lost) } else { None })
        .collect();
    assert_eq!(lost.len(), 1, "told once: {lost:?}");
    assert_eq!((lost[0].stage.as_str(), lost[0].count), ("attribute", 1));
    let records = story.tracer.records();
    assert_eq!((records.decoded, records.attributed, records.unattributed), (1, 0, 1));
    story.signal(15, SECOND);
    story.exit(0, 2 * SECOND);
    let last = Reading { counters: story.counters(), ..whole() };
    let verdict = story.end(last, End::Terminated);
    let book = verdict.books.iter().find(|book| book.name == "attribution").unwrap();
    assert_eq!((book.kernel, book.events), (4, 4));
}

/// The wall clock steps an hour ahead and back to the day before: lines keep their order and distance,
/// and the verdict is the same.
#[test]
fn a_step_of_the_wall_clock_changes_nothing() {
    let story = |steps: [i64; 2]| {
        let mut story = Story::begin(whole());
        for (mono, step) in [(SECOND / 2, steps[0]), (3 * SECOND / 2, steps[1])] {
            let wall = 1_000 * SECOND as i64 + mono.cast_signed() + step;
            story.tracer.step(Input::Tick(Clock { mono, wall }), &mut story.lines);
            story.signal(15, mono);
        }
        story.exit(0, 2 * SECOND);
        let times: Vec<_> = story.lines.iter().map(|line| line.time.0 - line.mono_ns.cast_signed()).collect();
        let last = Reading { counters: story.counters(), ..whole() };
        (times, format!("{:?}", story.end(last, End::Terminated)))
    };
    let (times, verdict) = story([3_600 * SECOND as i64, -86_400 * SECOND as i64]);
    assert!(times.iter().all(|offset| *offset == 1_000 * SECOND as i64), "{times:?}");
    assert_eq!(verdict, story([0, 0]).1);
}
