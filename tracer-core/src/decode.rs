//! From the bytes of a record to an [`Event`].

use thiserror::Error;
use tracer_common::{
    ExecRecord, ExitRecord, GoneRecord, Header, Kind, OomRecord, Pod, ResetRecord, SignalRecord, SockKind,
    StateRecord, task_flags,
};

use crate::event::{
    Answer, Comm, Event, EventKind, Exchange, Exec, Exit, ExitStatus, Gone, Oom, Protocol, ResetReceived,
    ResetSent, Segment, SegmentClass, Signal, Socket, SocketKind, StateChange, Task, TcpState, Tuple,
};

/// Why a record could not be decoded. Counted, never fatal.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Undecodable {
    /// Fewer bytes than its type has.
    #[error("a record is too short")]
    Short,
    /// A type that this version does not know.
    #[error("a record has the unknown type {0}")]
    UnknownKind(u32),
    /// A number that is no TCP state.
    #[error("a record has the unknown TCP state {0}")]
    UnknownState(u8),
}

impl Undecodable {
    /// The word for it in events and metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::UnknownKind(_) => "unknown_kind",
            Self::UnknownState(_) => "unknown_state",
        }
    }
}

/// `SI_KERNEL` of `asm-generic/siginfo.h`.
const SI_KERNEL: i32 = 0x80;
/// `TRACE_SIGNAL_DELIVERED` of `include/trace/events/signal.h`.
const SIGNAL_DELIVERED: i32 = 0;

/// Decodes a record.
///
/// # Errors
/// If the bytes are not a record that this version knows.
pub fn decode(bytes: &[u8]) -> Result<Event, Undecodable> {
    let header: Header = read(bytes)?;
    let kind = match header.kind {
        Kind::STATE => EventKind::State(state(&read(bytes)?)?),
        Kind::RESET_SENT => EventKind::ResetSent(reset_sent(&read(bytes)?)),
        Kind::RESET_RECEIVED => EventKind::ResetReceived(reset_received(&read(bytes)?)),
        Kind::SIGNAL => EventKind::Signal(signal(&read(bytes)?)),
        Kind::EXEC => EventKind::Exec(exec(&read(bytes)?)),
        Kind::EXIT => EventKind::Exit(exit(&read(bytes)?)),
        Kind::OOM => EventKind::Oom(oom(&read(bytes)?)),
        Kind::GONE => EventKind::Gone(gone(&read(bytes)?)),
        unknown => return Err(Undecodable::UnknownKind(unknown)),
    };
    Ok(Event { time: header.time_ns, target: header.target, kind })
}

fn read<T: Pod>(bytes: &[u8]) -> Result<T, Undecodable> {
    T::read_from(bytes).ok_or(Undecodable::Short)
}

fn state(record: &StateRecord) -> Result<StateChange, Undecodable> {
    let state = |number| TcpState::from_number(number).ok_or(Undecodable::UnknownState(number));
    let mut socket = socket(&record.socket);
    socket.exchange = exchange(&record.exchange);
    Ok(StateChange {
        task: task(&record.task),
        socket,
        tuple: tuple(&record.tuple),
        old: state(record.old)?,
        new: state(record.new)?,
    })
}

fn reset_sent(record: &ResetRecord) -> ResetSent {
    ResetSent {
        task: task(&record.task),
        socket_kind: match record.sock_kind {
            SockKind::FULL => SocketKind::Full,
            SockKind::TIME_WAIT => SocketKind::TimeWait,
            SockKind::REQUEST => SocketKind::Request,
            _ => SocketKind::None,
        },
        socket: socket(&record.socket),
        tuple: tuple(&record.tuple),
        segment: (record.segment.present == 1).then(|| segment(&record.segment)),
        reason: (record.reason >= 0).then_some(record.reason),
    }
}

fn reset_received(record: &ResetRecord) -> ResetReceived {
    ResetReceived { socket: socket(&record.socket), tuple: tuple(&record.tuple) }
}

fn signal(record: &SignalRecord) -> Signal {
    Signal {
        sender: task(&record.sender),
        pid: record.pid,
        cgroup: record.cgroup,
        pidns: record.pidns,
        container: record.container,
        signal: record.signal,
        by_kernel: record.code == SI_KERNEL,
        ignored: record.result != SIGNAL_DELIVERED,
        target_exiting: record.target_exiting == 1,
    }
}

fn exec(record: &ExecRecord) -> Exec {
    Exec { task: task(&record.task), parent: task(&record.parent) }
}

fn exit(record: &ExitRecord) -> Exit {
    // As in wait(2): the signal in the low 7 bits, the exit code in the next byte.
    let status = match record.status & 0x7f {
        0 => ExitStatus::Code((record.status >> 8) as u8),
        signal => ExitStatus::Signal(signal as u8),
    };
    Exit { task: task(&record.task), status, init_of: (record.is_init == 1).then_some(record.container) }
}

fn oom(record: &OomRecord) -> Oom {
    Oom { pid: record.pid, container: record.container }
}

fn gone(record: &GoneRecord) -> Gone {
    Gone { pid: record.pid, container: record.container }
}

fn task(task: &tracer_common::Task) -> Task {
    Task {
        pid: task.pid,
        cgroup: task.cgroup,
        pidns: task.pidns,
        exiting: task.flags & task_flags::PF_EXITING != 0,
        kernel_thread: task.flags & task_flags::PF_KTHREAD != 0,
        comm: Comm(task.comm),
    }
}

fn tuple(tuple: &tracer_common::Tuple) -> Tuple {
    Tuple { local: tuple.local, peer: tuple.peer, local_port: tuple.local_port, peer_port: tuple.peer_port }
}

fn socket(socket: &tracer_common::Socket) -> Socket {
    Socket {
        key: socket.sk,
        cgroup: socket.cgroup,
        bytes_received: socket.bytes_received,
        bytes_acked: socket.bytes_acked,
        unread: socket.unread,
        unacked: socket.unacked,
        unsent: socket.unsent,
        last_send: socket.last_send,
        last_receive: socket.last_receive,
        jiffies: socket.jiffies,
        orphan: socket.orphan == 1,
        exchange: None,
    }
}

fn exchange(exchange: &tracer_common::Exchange) -> Option<Exchange> {
    (exchange.known == 1).then_some(Exchange {
        unanswered: exchange.unanswered,
        before_answer: exchange.before_answer,
        answered: exchange.answered,
        last_write: exchange.last_write,
        first_write_at: exchange.first_write_at,
        last_write_at: exchange.last_write_at,
        previous_write_at: exchange.previous_write_at,
        last_read_at: exchange.last_read_at,
        doubtful: exchange.doubtful == 1,
        farewell: exchange.farewell,
        protocol: match exchange.protocol {
            tracer_common::Protocol::HTTP1 => Protocol::Http1,
            tracer_common::Protocol::TLS => Protocol::Tls,
            tracer_common::Protocol::HTTP2 => Protocol::Http2,
            _ => Protocol::Other,
        },
        asks: exchange.asks == 1,
        answer: match exchange.answer {
            tracer_common::Answer::UNDER_WAY => Answer::UnderWay,
            tracer_common::Answer::WHOLE => Answer::Whole,
            tracer_common::Answer::UNTIL_CLOSE => Answer::UntilClose,
            _ => Answer::Unknown,
        },
    })
}

fn segment(segment: &tracer_common::Segment) -> Segment {
    use tracer_common::SegmentClass as Class;
    Segment {
        payload: segment.payload,
        flags: segment.flags,
        class: match segment.class {
            Class::NONE => SegmentClass::None,
            Class::TLS_ALERT => SegmentClass::TlsAlert,
            Class::H2_CONTROL => SegmentClass::H2Control,
            Class::SMALL => SegmentClass::Small,
            _ => SegmentClass::Data,
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_short_record_and_an_unknown_type_are_told_apart() {
        assert_eq!(decode(&[0; 15]), Err(Undecodable::Short));
        assert_eq!(decode(&[0; 16]), Err(Undecodable::UnknownKind(0)));
        let header = Header { kind: Kind::STATE, ..Header::default() };
        assert_eq!(decode(header.as_bytes()), Err(Undecodable::Short));
        let record = StateRecord { header, old: 99, ..StateRecord::default() };
        assert_eq!(decode(record.as_bytes()), Err(Undecodable::UnknownState(99)));
    }

    #[test]
    fn exit_codes_and_signals_are_told_apart() {
        let record = |status| ExitRecord { status, is_init: 1, container: 3, ..ExitRecord::default() };
        assert_eq!(exit(&record(9)).status, ExitStatus::Signal(9));
        assert_eq!(
            exit(&record(0x8b)).status,
            ExitStatus::Signal(11),
            "bit 7 says that there is a core dump"
        );
        assert_eq!(exit(&record(7 << 8)).status, ExitStatus::Code(7));
        assert_eq!(exit(&record(0)).init_of, Some(3));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256), kind in 0u32..10) {
            let _ = decode(&bytes);
            let mut with_kind = bytes;
            if with_kind.len() >= 12 {
                with_kind[8..12].copy_from_slice(&kind.to_ne_bytes());
                let _ = decode(&with_kind);
            }
        }
    }
}
