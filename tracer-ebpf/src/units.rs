//! TLS records and HTTP/2 frames, as an application reads and writes them: which bytes belong to requests
//! and answers, and which only to the protocol. Only their headers are looked at.

use core::{ffi::c_void, ptr};

use aya_ebpf::helpers::generated::bpf_loop;
use tracer_common::{Answer, Protocol};

use crate::{
    call::{self, Call, Piece},
    exchange::{Conversation, SMALL},
    maps::WALKS,
};

/// Headers, payloads and pieces gone through in one call.
const STEPS: u32 = 64;

const TLS_HEADER: u32 = 5;
const TLS_CHANGE_CIPHER: u8 = 20;
const TLS_ALERT: u8 = 21;
const TLS_APPLICATION_DATA: u8 = 23;
/// Length of a TLS 1.3 record that holds an encrypted alert: two bytes, the inner type, the tag.
const TLS13_ALERT_LENGTH: u16 = 19;

const H2_HEADER: u32 = 9;
/// What a client says first, before its first frame.
const H2_PREFACE: u32 = 24;
const H2_DATA: u8 = 0;
const H2_HEADERS: u8 = 1;
const H2_RST_STREAM: u8 = 3;
const H2_SETTINGS: u8 = 4;
const H2_CONTINUATION: u8 = 9;
/// The last of the frame types of RFC 9113.
const H2_LAST_KIND: u8 = H2_CONTINUATION;
const H2_END_STREAM: u8 = 1;

/// Where one direction of a connection stands.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Units {
    /// Bytes of the unit that are still to come.
    left: u32,
    /// 1 if they belong to a request or an answer.
    counts: u8,
    /// 1 after a TLS change of ciphers: what follows ends the handshake.
    handshakes: u8,
    reserved: u16,
}

/// Which way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the peer.
    Read,
    /// To the peer.
    Written,
}

/// What is spoken on a connection, by the first bytes that were read or written.
#[inline(always)]
pub fn recognise(conversation: &mut Conversation, way: Way, address: u64) {
    let bytes: [u8; 9] = call::read(address);
    let protocol = if (TLS_CHANGE_CIPHER..=TLS_APPLICATION_DATA).contains(&bytes[0]) && bytes[1] == 3 {
        Protocol::TLS
    } else if way == Way::Read && bytes == *b"PRI * HTT" {
        conversation.read.left = H2_PREFACE;
        Protocol::HTTP2
    } else if way == Way::Written && bytes[..2] == [0, 0] && bytes[3..] == [H2_SETTINGS, 0, 0, 0, 0, 0] {
        Protocol::HTTP2
    } else if bytes[..3].iter().all(u8::is_ascii_uppercase) {
        Protocol::HTTP1
    } else {
        Protocol::OTHER
    };
    conversation.exchange.protocol = protocol;
}

/// What of a call belongs to requests or answers.
#[derive(Clone, Copy)]
pub struct Content {
    /// How many bytes.
    pub bytes: u32,
    /// Bytes of the largest unit.
    pub largest: u32,
}

/// Goes through what was read or written, for what belongs to requests or answers. Once the units are lost
/// track of, all does.
#[inline(always)]
pub fn content(conversation: &mut Conversation, way: Way, call: Option<Call>, length: u32) -> Content {
    let all = Content { bytes: length, largest: length };
    if !matches!(conversation.exchange.protocol, Protocol::TLS | Protocol::HTTP2) {
        return all;
    }
    match call.and_then(|call| walk(conversation, way, call, length)) {
        Some(content) => content,
        None => {
            conversation.exchange.protocol = Protocol::OTHER;
            conversation.exchange.answer = Answer::UNKNOWN;
            all
        }
    }
}

/// A walk through the units of one call. It is kept in a map, so that the verifier meets the same state at
/// each step, whatever the steps before were.
#[repr(C)]
pub struct Walk {
    call: Call,
    piece: Piece,
    units: Units,
    /// Bytes to go.
    left: u32,
    /// Number of the next piece.
    next: u32,
    /// Bytes that belong to requests or answers.
    content: u32,
    /// Bytes of the largest unit among them.
    largest: u32,
    streams: u32,
    last_stream: u32,
    protocol: u32,
    /// 1 if the last unit is a farewell (a TLS alert).
    parted: u32,
}

#[inline(always)]
fn walk(conversation: &mut Conversation, way: Way, call: Call, length: u32) -> Option<Content> {
    let entry = WALKS.get_ptr_mut(way as u32)?;
    let units = if way == Way::Read { conversation.read } else { conversation.written };
    // TLS libraries read a record's header and its payload by two calls.
    let begun = if units.counts == 1 { units.left } else { 0 };
    let walk = Walk {
        call,
        piece: Piece::default(),
        units,
        left: length,
        next: 0,
        content: 0,
        largest: begun,
        streams: conversation.streams,
        last_stream: conversation.last_stream,
        protocol: conversation.exchange.protocol.into(),
        parted: 0,
    };
    // SAFETY: the entry is this CPU's own and that of this way's program, which does not interrupt itself.
    unsafe { entry.write(walk) };
    let step: extern "C" fn(u32, *mut c_void) -> i64 =
        if way == Way::Read { step_read } else { step_written };
    // SAFETY: the callback takes what the helper gives, and no context.
    unsafe { bpf_loop(STEPS, step as *mut c_void, ptr::null_mut(), 0) };
    // SAFETY: as above.
    let walk = unsafe { &*entry };
    if way == Way::Read {
        conversation.read = walk.units;
    } else {
        conversation.written = walk.units;
    }
    conversation.streams = walk.streams;
    conversation.last_stream = walk.last_stream;
    if walk.left != 0 {
        return None;
    }
    // Who says farewell waits for no answer, and before that says at most what HTTP/2 needs.
    let exchange = &mut conversation.exchange;
    let may_be_farewell = exchange.unanswered == 0 || exchange.doubtful == 1;
    if way == Way::Read && walk.parted == 1 && walk.largest <= SMALL && may_be_farewell {
        if exchange.unanswered > 0 {
            exchange.last_read_at = conversation.asked_before;
        }
        exchange.unanswered = 0;
        exchange.doubtful = 0;
        return Some(Content { bytes: 0, largest: 0 });
    }
    Some(Content { bytes: walk.content, largest: walk.largest })
}

#[inline(never)]
extern "C" fn step_read(_: u32, _: *mut c_void) -> i64 {
    step(Way::Read)
}

#[inline(never)]
extern "C" fn step_written(_: u32, _: *mut c_void) -> i64 {
    step(Way::Written)
}

/// One step: to the next piece, through a header, or through as much of a payload as there is. Tells
/// whether it was the last one.
#[inline(always)]
fn step(way: Way) -> i64 {
    let Some(walk) = WALKS.get_ptr_mut(way as u32) else { return 1 };
    // SAFETY: as in `walk`, which holds no reference while the steps are made.
    let walk = unsafe { &mut *walk };
    if walk.left == 0 {
        return 1;
    }
    if walk.piece.length == 0 {
        let Some(piece) = walk.call.piece(walk.next, walk.left) else { return 1 };
        walk.piece = piece;
        walk.next += 1;
        return 0;
    }
    let bytes = if walk.units.left > 0 {
        let bytes = walk.units.left.min(walk.piece.length);
        walk.units.left -= bytes;
        bytes
    } else {
        let header =
            if walk.protocol == Protocol::TLS.into() { begin_record(walk) } else { begin_frame(walk, way) };
        match header {
            Some(bytes) => bytes,
            None => return 1,
        }
    };
    if walk.units.counts == 1 {
        walk.content += bytes;
    }
    walk.left -= bytes;
    walk.piece.skip(bytes);
    0
}

/// A TLS record begins with its type, the version (3, x) and its length.
#[inline(always)]
fn begin_record(walk: &mut Walk) -> Option<u32> {
    let [kind, major, _, length @ ..]: [u8; 5] = call::read(walk.piece.address);
    let is_record = major == 3 && (TLS_CHANGE_CIPHER..=TLS_APPLICATION_DATA).contains(&kind);
    if walk.piece.length < TLS_HEADER || !is_record {
        return None;
    }
    let length = u16::from_be_bytes(length);
    let is_alert = kind == TLS_ALERT || kind == TLS_APPLICATION_DATA && length == TLS13_ALERT_LENGTH;
    let carries = kind == TLS_APPLICATION_DATA && !is_alert && walk.units.handshakes == 0;
    walk.parted = u32::from(is_alert);
    if carries {
        walk.largest = walk.largest.max(TLS_HEADER + u32::from(length));
    }
    walk.units.counts = u8::from(carries);
    walk.units.handshakes = u8::from(kind == TLS_CHANGE_CIPHER);
    walk.units.left = length.into();
    Some(TLS_HEADER)
}

/// An HTTP/2 frame begins with its length (3 bytes), type, flags and stream.
#[inline(always)]
fn begin_frame(walk: &mut Walk, way: Way) -> Option<u32> {
    let [high, middle, low, kind, flags, stream @ ..]: [u8; 9] = call::read(walk.piece.address);
    if walk.piece.length < H2_HEADER || high != 0 || kind > H2_LAST_KIND {
        return None;
    }
    let stream = u32::from_be_bytes(stream);
    let carries = matches!(kind, H2_DATA | H2_HEADERS | H2_CONTINUATION);
    match way {
        // A stream that one side gives up may have been answered or not.
        _ if kind == H2_RST_STREAM => return None,
        // Trailers come on a stream that is known.
        Way::Read if kind == H2_HEADERS && stream > walk.last_stream => {
            walk.last_stream = stream;
            walk.streams += 1;
        }
        Way::Written if carries && kind != H2_CONTINUATION && flags & H2_END_STREAM != 0 => {
            walk.streams = walk.streams.saturating_sub(1);
        }
        _ => {}
    }
    let length = u32::from(middle) << 8 | u32::from(low);
    if carries {
        walk.largest = walk.largest.max(H2_HEADER + length);
    }
    walk.units.counts = u8::from(carries);
    walk.units.left = length;
    Some(H2_HEADER)
}
