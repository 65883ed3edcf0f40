//! What must hold whatever the kernel sends, in whatever order: random interleavings of records.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test a panic is the failure's message")]

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use proptest::prelude::*;
use tracer_common::{
    ExitRecord, GoneRecord, Header, Kind, Pod, ResetRecord, Segment, SignalRecord, Socket, StateRecord, Task,
    Tuple,
};
use tracer_core::{
    Tracer,
    event::TcpState,
    input::{Clock, End, Input, InventoryUpdate, NewContainer, NewTarget, Timeouts},
    output::{Body, Line, Subject},
    target::Rules,
    tracer::Identity,
    verdict::Verdict,
    words::{Confidence, Result as Word},
};

const TARGET: u32 = 1;

/// One record, in terms of a few sockets and states, so that sequences meet often.
#[derive(Clone, Debug)]
enum Act {
    State {
        socket: u8,
        old: u8,
        new: u8,
        received: u64,
        unread: u32,
        unacked: u32,
        orphan: bool,
        exiting: bool,
    },
    ResetSent {
        socket: u8,
        kind: u8,
        segment: Option<(u8, u8, u32)>,
    },
    ResetReceived {
        socket: u8,
    },
    Signal {
        signal: u32,
    },
    Exit {
        status: u32,
    },
    Gone,
    Found {
        socket: u8,
    },
    Wait {
        ms: u64,
    },
}

fn act() -> impl Strategy<Value = Act> {
    let state = (0..6u8, 1..13u8, 1..13u8, 0..200u64, 0..3u32, 0..3u32, any::<bool>(), any::<bool>())
        .prop_map(|(socket, old, new, received, unread, unacked, orphan, exiting)| Act::State {
            socket,
            old,
            new,
            received,
            unread,
            unacked,
            orphan,
            exiting,
        });
    let reset = (
        0..6u8,
        0..4u8,
        proptest::option::of((prop_oneof![Just(2u8), Just(16), Just(24)], 0..5u8, 0..100u32)),
    )
        .prop_map(|(socket, kind, segment)| Act::ResetSent { socket, kind, segment });
    prop_oneof![
        6 => state,
        6 => life(),
        3 => reset,
        1 => (0..6u8).prop_map(|socket| Act::ResetReceived { socket }),
        1 => prop_oneof![Just(15u32), Just(9), Just(1)].prop_map(|signal| Act::Signal { signal }),
        1 => (0..300u32).prop_map(|status| Act::Exit { status }),
        1 => Just(Act::Gone),
        1 => (0..6u8).prop_map(|socket| Act::Found { socket }),
        2 => (0..100u64).prop_map(|ms| Act::Wait { ms }),
    ]
}

/// Changes that kernels really make.
fn life() -> impl Strategy<Value = Act> {
    let changes =
        [(10, 3), (3, 1), (1, 4), (4, 5), (5, 7), (1, 8), (8, 9), (9, 7), (1, 7), (8, 7), (7, 2), (2, 1)];
    (0..6u8, proptest::sample::select(changes.to_vec()), 0..200u64, any::<bool>()).prop_map(
        |(socket, (old, new), received, exiting)| Act::State {
            socket,
            old,
            new,
            received,
            unread: 0,
            unacked: 0,
            orphan: false,
            exiting,
        },
    )
}

/// Addresses of sockets: fewer than connections, since they are used again.
fn address(socket: u8) -> u64 {
    1 + u64::from(socket % 4)
}

fn tuple(socket: u8) -> Tuple {
    Tuple { local: [1; 16], peer: [2; 16], local_port: 80, peer_port: 1000 + u16::from(socket) }
}

fn record(act: &Act, time_ns: u64) -> Option<Bytes> {
    let header = |kind| Header { time_ns, kind, target: TARGET };
    let bytes = |record: &[u8]| Some(Bytes::copy_from_slice(record));
    match *act {
        Act::State { socket, old, new, received, unread, unacked, orphan, exiting } => bytes(
            StateRecord {
                header: header(Kind::STATE),
                task: Task { flags: u32::from(exiting) * 4, ..Task::default() },
                socket: Socket {
                    sk: address(socket),
                    bytes_received: received,
                    unread,
                    unacked,
                    orphan: orphan.into(),
                    ..Socket::default()
                },
                tuple: tuple(socket),
                old,
                new,
                ..StateRecord::default()
            }
            .as_bytes(),
        ),
        Act::ResetSent { socket, kind, segment } => {
            let segment = segment.map_or(Segment::default(), |(flags, class, payload)| Segment {
                payload,
                present: 1,
                flags,
                class,
                reserved: 0,
            });
            bytes(
                ResetRecord {
                    header: header(Kind::RESET_SENT),
                    socket: Socket { sk: address(socket), ..Socket::default() },
                    tuple: tuple(socket),
                    segment,
                    sock_kind: kind,
                    ..ResetRecord::default()
                }
                .as_bytes(),
            )
        }
        Act::ResetReceived { socket } => bytes(
            ResetRecord {
                header: header(Kind::RESET_RECEIVED),
                socket: Socket { sk: address(socket), ..Socket::default() },
                tuple: tuple(socket),
                ..ResetRecord::default()
            }
            .as_bytes(),
        ),
        Act::Signal { signal } => {
            bytes(SignalRecord { header: header(Kind::SIGNAL), signal, ..SignalRecord::default() }.as_bytes())
        }
        Act::Exit { status } => bytes(
            ExitRecord { header: header(Kind::EXIT), status, is_init: 1, ..ExitRecord::default() }.as_bytes(),
        ),
        Act::Gone => bytes(GoneRecord { header: header(Kind::GONE), ..GoneRecord::default() }.as_bytes()),
        Act::Found { .. } | Act::Wait { .. } => None,
    }
}

/// An open connection is found, as at the start of tracing.
fn existing(socket: u8, time: u64) -> InventoryUpdate {
    let Tuple { local, peer, local_port, peer_port } = tuple(socket);
    let tuple = tracer_core::event::Tuple { local, peer, local_port, peer_port };
    let connections = vec![(tuple, TcpState::Established)];
    InventoryUpdate::Existing { target: TARGET, time, listening: vec![80], connections, udp_sockets: 0 }
}

fn tracer() -> (Tracer, Vec<Line>) {
    let rules = Rules { quiet: 1_000_000_000, reset_reasons: HashMap::new(), curr_estab: None };
    let identity = Identity { node: "node".into(), run_id: "run".into() };
    let mut tracer = Tracer::new(identity, rules, Clock::default());
    let mut lines = Vec::new();
    let target = NewTarget {
        id: TARGET,
        subject: Arc::new(Subject::default()),
        time: 0,
        addresses: Vec::new(),
        checkers: Vec::new(),
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
    for update in [InventoryUpdate::Target(Box::new(target)), InventoryUpdate::Container(container)] {
        tracer.step(Input::Inventory(update), &mut lines);
    }
    tracer.step(Input::Counters { target: TARGET, reading: Box::default() }, &mut lines);
    (tracer, lines)
}

fn run(acts: &[Act]) -> (Vec<Line>, u64) {
    let (mut tracer, mut lines) = tracer();
    let (mut time, mut records) = (1, 0);
    for act in acts {
        time += 1000;
        if let Act::Wait { ms } = act {
            time += ms * 1_000_000;
            tracer.step(Input::Tick(Clock { mono: time, wall: 0 }), &mut lines);
        }
        if let Act::Found { socket } = act {
            tracer.step(Input::Inventory(existing(*socket, time)), &mut lines);
        }
        if let Some(bytes) = record(act, time) {
            records += 1;
            tracer.step(Input::Record(bytes), &mut lines);
        }
    }
    let finished =
        InventoryUpdate::Finished { target: TARGET, time, interface_gone: true, end: End::Terminated };
    tracer.step(Input::Inventory(finished), &mut lines);
    (lines, records)
}

fn verdict(lines: &[Line]) -> &Verdict {
    lines
        .iter()
        .find_map(|line| match &line.body {
            Body::Verdict(verdict) => Some(&**verdict),
            _ => None,
        })
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn endings_partition_the_connections(acts in proptest::collection::vec(act(), 0..200)) {
        let (lines, records) = run(&acts);
        let verdict = verdict(&lines);
        let count = |is: fn(&Body) -> bool| lines.iter().filter(|line| is(&line.body)).count() as u64;
        let opened = count(|body| matches!(body, Body::ConnectionOpened(_)));
        let closed = count(|body| matches!(body, Body::ConnectionClosed(_)));
        let connections = verdict.connections;
        prop_assert_eq!(opened, connections.opened + connections.found);
        prop_assert_eq!(closed, connections.ended);
        prop_assert_eq!(opened, closed, "the interface is gone: nothing is open");
        prop_assert_eq!(connections.open, 0);
        let book = |name: &str| verdict.books.iter().find(|book| book.name == name).unwrap();
        prop_assert!(book("connections").balanced);
        prop_assert_eq!(book("records").events, records);
    }

    #[test]
    fn no_loss_is_counted_twice(acts in proptest::collection::vec(act(), 0..200)) {
        let (lines, _) = run(&acts);
        let verdict = verdict(&lines);
        let lost: u64 = verdict.losses.iter().filter(|loss| loss.confidence > Confidence::Possible).map(|loss| loss.count).sum();
        let doubts: u64 = verdict.losses.iter().filter(|loss| loss.confidence == Confidence::Possible).map(|loss| loss.count).sum();
        prop_assert_eq!((lost, doubts), (verdict.lost, verdict.doubts));
        // A loss is a connection's, or a reset's that met no connection: never more than there are.
        let closed = lines.iter().filter(|line| matches!(&line.body, Body::ConnectionClosed(_))).count();
        let strangers = lines.iter().filter(|line| matches!(&line.body, Body::Reset(_))).count();
        prop_assert!(lost + doubts <= (closed + strangers) as u64);
        prop_assert_eq!(lost > 0, verdict.result == Word::Cut);
        let of_peers: u64 = verdict.peers.each.iter().map(|peer| peer.lost).sum();
        prop_assert_eq!(of_peers, lost, "all losses are of some peer");
    }

    #[test]
    fn lines_are_numbered_without_gaps(acts in proptest::collection::vec(act(), 0..100)) {
        let (lines, _) = run(&acts);
        prop_assert!(lines.iter().enumerate().all(|(index, line)| line.seq == index as u64 + 1));
        let verdict = verdict(&lines);
        prop_assert!(verdict.evidence.first_seq <= verdict.evidence.last_seq);
        prop_assert!(verdict.findings.iter().flat_map(|finding| &finding.evidence).all(|seq| *seq < lines.len() as u64));
    }

    #[test]
    fn the_same_records_make_the_same_lines(acts in proptest::collection::vec(act(), 0..100)) {
        let text = |lines: &[Line]| serde_json::to_string(lines).unwrap();
        prop_assert_eq!(text(&run(&acts).0), text(&run(&acts).0));
    }

    #[test]
    fn a_line_reads_back_as_it_was_written(acts in proptest::collection::vec(act(), 0..50)) {
        for line in run(&acts).0 {
            let json = serde_json::to_string(&line).unwrap();
            let back: Line = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(serde_json::to_string(&back).unwrap(), json);
        }
    }
}
