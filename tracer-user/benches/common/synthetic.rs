//! Records of made-up connections to one target: opened, used, closed by the client, one after another.

use std::net::Ipv4Addr;

use bytes::{Bytes, BytesMut};
use tracer_common::{Header, Kind, Pod, Socket, StateRecord, Task, Tuple};
use tracer_core::{
    Tracer,
    input::{Clock, Input, InventoryUpdate, NewContainer, NewTarget, Timeouts},
    target::Rules,
    tracer::Identity,
};

const TARGET: u32 = 1;
/// Time between two records in nanoseconds.
pub(crate) const STEP: u64 = 1_000;
/// State changes of a connection that its client opens and closes (`include/net/tcp_states.h`):
/// LISTEN, SYN_RECV, ESTABLISHED, CLOSE_WAIT, LAST_ACK, CLOSE.
const LIFE: [(u8, u8); 5] = [(10, 3), (3, 1), (1, 8), (8, 9), (9, 7)];
/// How many records a connection makes in its life.
pub(crate) const RECORDS_OF_LIFE: u64 = LIFE.len() as u64;

/// A tracer that knows one target with one container.
pub(crate) fn tracer() -> Tracer {
    let identity = Identity { node: "node".into(), run_id: "run".into() };
    let rules = Rules { quiet: 1_000_000_000, reset_reasons: [].into(), curr_estab: None };
    let mut tracer = Tracer::new(identity, rules, Clock::default());
    let target = NewTarget {
        id: TARGET,
        subject: Default::default(),
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
        name: "server".into(),
        pid: 1,
        pidns: None,
        cgroup: None,
        stop_signal: None,
        time: 0,
    };
    for update in [InventoryUpdate::Target(Box::new(target)), InventoryUpdate::Container(container)] {
        tracer.step(Input::Inventory(update), &mut Vec::new());
    }
    tracer
}

/// The first records of connections number `from` to `to`, so many of each: two open it, all end it.
pub(crate) fn records(from: u64, to: u64, of_each: u64) -> Vec<Bytes> {
    let changes = &LIFE[..of_each as usize];
    // As the ring buffer's reader does it: many records share an allocation.
    let mut space = BytesMut::with_capacity((to - from) as usize * changes.len() * size_of::<StateRecord>());
    let numbered = (from..to).flat_map(|number| (0u64..).zip(changes).map(move |change| (number, change)));
    numbered
        .map(|(number, (position, change))| {
            let time = (number * RECORDS_OF_LIFE + position) * STEP;
            space.extend_from_slice(state(number, time, *change).as_bytes());
            space.split().freeze()
        })
        .collect()
}

fn state(number: u64, time: u64, (old, new): (u8, u8)) -> StateRecord {
    let used = !matches!((old, new), (10, 3) | (3, 1));
    StateRecord {
        header: Header { time_ns: time, kind: Kind::STATE, target: TARGET },
        task: Task::default(),
        socket: Socket {
            sk: 0xffff_8881_0000_0000 + number * 2048,
            bytes_received: if used { 101 } else { 0 },
            bytes_acked: if used { 101 } else { 0 },
            ..Socket::default()
        },
        tuple: tuple(number),
        old,
        new,
        ..StateRecord::default()
    }
}

/// Every client port of as many addresses as are needed.
fn tuple(number: u64) -> Tuple {
    let ports = 60_000;
    let client = Ipv4Addr::from_bits(0x0a00_0000 + (number / ports) as u32);
    Tuple {
        local: Ipv4Addr::new(10, 255, 0, 1).to_ipv6_mapped().octets(),
        peer: client.to_ipv6_mapped().octets(),
        local_port: 80,
        peer_port: 5_000 + (number % ports) as u16,
    }
}
