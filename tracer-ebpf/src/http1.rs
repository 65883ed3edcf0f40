//! HTTP/1 answers: whether all that the head announces was written. Decided here from the application's
//! own buffers; of all that is looked at only the answer to that question leaves the kernel.

use core::{ffi::c_void, ptr};

use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_user};
use tracer_common::{Answer, Protocol};

use crate::{
    call::{self, Call, Piece},
    exchange::Conversation,
    maps::HEADS,
};

/// Heads of answers are looked at up to this length.
const HEAD: usize = 1024;
/// What is compared at once may reach beyond.
const MARGIN: usize = 32;
/// Digits of a Content-Length.
const DIGITS: usize = 12;
/// [`Conversation::left`] of an answer in chunks: until the last one.
const UNTIL_LAST_CHUNK: u64 = u64::MAX;

/// The head of an answer, and what it says.
#[repr(C)]
pub struct Head {
    bytes: [u8; HEAD + MARGIN],
    /// `Content-Length` plus 1; 0 if it is missing.
    body: u64,
    /// Length with the empty line; 0 if it did not end.
    length: u32,
    /// 1 if there is a `Transfer-Encoding`.
    chunked: u32,
}

/// What a write was.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// An answer, or a part of one.
    Answer,
    /// `100 Continue` and its like: the answer comes later.
    Interim,
}

/// Takes what an application wrote.
#[inline(always)]
pub fn written(conversation: &mut Conversation, call: Option<Call>, length: u32) -> Written {
    if conversation.exchange.answer == Answer::UNDER_WAY {
        go_on(conversation, call, length);
        return Written::Answer;
    }
    conversation.exchange.answer = Answer::UNKNOWN;
    let Some((call, piece)) = call.and_then(|call| Some((call, call.piece(0, length)?))) else {
        return Written::Answer;
    };
    let start: [u8; 12] = call::read(piece.address);
    if start[..7] != *b"HTTP/1." {
        return Written::Answer;
    }
    conversation.exchange.protocol = Protocol::HTTP1;
    match &start[9..] {
        // Another protocol takes over.
        b"101" => {
            conversation.exchange.protocol = Protocol::OTHER;
            Written::Answer
        }
        [b'1', ..] => Written::Interim,
        status => {
            let empty = conversation.is_head == 1 || matches!(status, b"204" | b"304");
            begin(conversation, call, piece, length, empty);
            Written::Answer
        }
    }
}

/// The first bytes of an answer; `empty` if it has no body whatever its head says.
#[inline(always)]
fn begin(conversation: &mut Conversation, call: Call, piece: Piece, length: u32, empty: bool) {
    let Some(head) = HEADS.get_ptr_mut(0) else { return };
    // SAFETY: the entry is this CPU's own, and this program does not interrupt itself.
    load(unsafe { &mut *head }, piece);
    parse();
    // SAFETY: as above; the callback has written to it meanwhile.
    let head = unsafe { &*head };
    if head.length == 0 {
        return;
    }
    let head_length = u64::from(head.length);
    if empty {
        await_rest(conversation, head_length, length);
    } else if head.chunked == 1 {
        conversation.left = UNTIL_LAST_CHUNK;
        conversation.exchange.answer = Answer::UNDER_WAY;
        if length > head.length {
            go_on(conversation, Some(call), length);
        }
    } else if head.body == 0 {
        conversation.exchange.answer = Answer::UNTIL_CLOSE;
    } else {
        await_rest(conversation, head_length + head.body - 1, length);
    }
}

/// Some more of an answer.
#[inline(always)]
fn go_on(conversation: &mut Conversation, call: Option<Call>, length: u32) {
    if conversation.left == UNTIL_LAST_CHUNK {
        conversation.exchange.answer = chunks(call, length);
    } else {
        await_rest(conversation, conversation.left, length);
    }
}

/// `left` bytes are to be written, and `length` were. More than that is the next answer of a pipeline.
#[inline(always)]
fn await_rest(conversation: &mut Conversation, left: u64, length: u32) {
    let length = u64::from(length);
    conversation.left = left.saturating_sub(length);
    conversation.exchange.answer = if left > length {
        Answer::UNDER_WAY
    } else if left == length {
        Answer::WHOLE
    } else {
        Answer::UNKNOWN
    };
}

/// Whether a write ends with the last chunk. Behind it there may be trailers, and an empty line may be a
/// chunk's own: then nothing tells.
#[inline(always)]
fn chunks(call: Option<Call>, length: u32) -> u8 {
    let Some(piece) = call.and_then(|call| call.last_piece(length)) else { return Answer::UNKNOWN };
    let end = piece.address + u64::from(piece.length);
    let tail: [u8; 5] = call::read(end - 5);
    let before: [u8; 2] = call::read(end - 7);
    let begins = piece.length == 5 || piece.length >= 7 && before == *b"\r\n";
    let last = begins && tail == *b"0\r\n\r\n";
    if last {
        Answer::WHOLE
    } else if tail[1..] == *b"\r\n\r\n" {
        Answer::UNKNOWN
    } else {
        Answer::UNDER_WAY
    }
}

/// Copies the beginning of a piece; zeros behind it.
#[inline(always)]
fn load(head: &mut Head, piece: Piece) {
    head.body = 0;
    head.length = 0;
    head.chunked = 0;
    let length = piece.length as usize;
    let (length, end) =
        if length >= HEAD { (HEAD, HEAD) } else { (length & (HEAD - 1), length & (HEAD - 1)) };
    let bytes = (&raw mut head.bytes).cast::<u8>();
    // SAFETY: at most HEAD bytes are copied into an array that is larger; the helper checks the address
    // itself.
    unsafe { bpf_probe_read_user(bytes.cast(), length as u32, piece.address as *const c_void) };
    // What is left of an earlier head must not be taken for this one's.
    // SAFETY: `end` is at most HEAD, and the array is larger by the margin.
    unsafe { ptr::write_bytes(bytes.add(end), 0, MARGIN) };
}

/// Finds the end of the head, and what it says of the body's length.
#[inline(always)]
fn parse() {
    // SAFETY: the callback takes what the helper gives, and no context.
    unsafe { bpf_loop(HEAD as u32, look as *mut c_void, ptr::null_mut(), 0) };
}

/// Looks at one byte of the head, and at what begins behind it if it ends a line. Tells whether it was the
/// last one.
#[inline(never)]
extern "C" fn look(at: u32, _: *mut c_void) -> i64 {
    let Some(head) = HEADS.get_ptr_mut(0) else { return 1 };
    // SAFETY: as in `begin`, whose reference rests meanwhile.
    let head = unsafe { &mut *head };
    let at = at as usize & (HEAD - 1);
    match byte(head, at) {
        b'\n' => {}
        0 => return 1,
        _ => return 0,
    }
    if byte(head, at + 1) == b'\r' && byte(head, at + 2) == b'\n' {
        head.length = at as u32 + 3;
        return 1;
    }
    match (word(head, at + 1), word(head, at + 9)) {
        (CONTENT, LENGTH) => content_length(head, at + 17),
        (TRANSFER, ENCODING) => head.chunked = 1,
        _ => {}
    }
    0
}

const CONTENT: u64 = u64::from_le_bytes(*b"content-");
const LENGTH: u64 = u64::from_le_bytes(*b"length: ");
const TRANSFER: u64 = u64::from_le_bytes(*b"transfer");
const ENCODING: u64 = u64::from_le_bytes(*b"-encodin");
/// Turns capital letters into small ones, and leaves '-', ':' and ' ' as they are.
const SMALL_LETTERS: u64 = 0x2020_2020_2020_2020;

#[inline(always)]
fn content_length(head: &mut Head, at: usize) {
    let mut value = 0u64;
    for digit in 0..DIGITS {
        let byte = byte(head, at + digit);
        if !byte.is_ascii_digit() {
            break;
        }
        value = value * 10 + u64::from(byte - b'0');
    }
    head.body = value + 1;
}

/// A byte of the head; `at` is less than `HEAD + MARGIN`.
#[inline(always)]
fn byte(head: &Head, at: usize) -> u8 {
    // SAFETY: within the array.
    unsafe { (&raw const head.bytes).cast::<u8>().add(at).read_volatile() }
}

/// Eight bytes of the head in small letters.
#[inline(always)]
fn word(head: &Head, at: usize) -> u64 {
    let mut bytes = [0; 8];
    for (offset, to) in bytes.iter_mut().enumerate() {
        *to = byte(head, at + offset);
    }
    u64::from_le_bytes(bytes) | SMALL_LETTERS
}
