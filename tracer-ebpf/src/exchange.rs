//! What applications read from a connection and write to it: the size of a request without an
//! answer, and the age of an answer that is under way. Per call, not per packet.

use core::mem::{self, offset_of};

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use tracer_common::{Answer, CONVERSATION, Exchange, Mode, Protocol};

use crate::{
    call,
    http1::{self, Written},
    maps::EXCHANGES,
    offsets::{Loaded, field},
    scope, sock,
    units::{self, Content, Units, Way},
};

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const TCP_CLOSE: u8 = 7;
const MSG_PEEK: i32 = 2;
/// What HTTP/2 itself says (SETTINGS, PING, GOAWAY) is at most so long in TLS, and so may an answer be.
pub const SMALL: u32 = 64;

/// What is known of a connection between its calls.
#[repr(C)]
pub struct Conversation {
    /// Whose it is: user space forgets what a target leaves ([`CONVERSATION`]).
    target: u32,
    reserved: u32,
    /// What is told of it.
    pub exchange: Exchange,
    /// Bytes of an HTTP/1 answer that are still to be written.
    pub left: u64,
    /// Where reading stands.
    pub read: Units,
    /// Where writing stands.
    pub written: Units,
    /// HTTP/2 streams whose answer is not whole.
    pub streams: u32,
    /// The highest of them.
    pub last_stream: u32,
    /// 1 if the HTTP/1 request is a HEAD: its answer has no body.
    pub is_head: u32,
    /// With whom it is, see [`peer`].
    peer: u32,
    /// Sequence number up to which was read (`copied_seq`), when that was seen last.
    read_to: u32,
    /// Sequence number up to which was written (`write_seq`), when that was seen last.
    written_to: u32,
    /// [`Exchange::last_read_at`] before that was read of which it is not known whether it is a request.
    pub asked_before: u64,
}

const _: () = assert!(size_of::<Conversation>() == CONVERSATION && offset_of!(Conversation, target) == 0);

/// How every conversation begins. Zeros on the stack would be written byte by byte, by a call of `memset`.
// SAFETY: integers only.
static NOTHING_KNOWN: Conversation = unsafe { mem::zeroed() };

/// An application read `length` bytes.
#[inline(always)]
pub fn read(sk: u64, length: i32, flags: i32) {
    if length <= 0 || flags & MSG_PEEK != 0 {
        return;
    }
    let Some(target) = armed(sk) else { return };
    let Some((conversation, tcp)) = kept(sk, target) else { return };
    let call = call::current();
    conversation.exchange.known = 1;
    conversation.read_to = field!(tcp, copied_seq, by Loaded);
    let first = call.and_then(|call| call.piece(0, length as u32)).map_or(0, |piece| piece.address);
    if conversation.exchange.protocol == Protocol::UNKNOWN && first != 0 {
        units::recognise(conversation, Way::Read, first);
    }
    let content = units::content(conversation, Way::Read, call, length as u32);
    if content.bytes > 0 {
        take_request(conversation, content, first);
    }
    count_streams(conversation);
}

#[inline(always)]
fn take_request(conversation: &mut Conversation, content: Content, first: u64) {
    let start: [u8; 5] = call::read(first);
    if conversation.exchange.unanswered == 0 {
        conversation.is_head = u32::from(start == *b"HEAD ");
        conversation.asked_before = conversation.exchange.last_read_at;
        conversation.exchange.asks = u8::from(start[..3].iter().all(u8::is_ascii_uppercase));
    }
    let exchange = &mut conversation.exchange;
    // HTTP/2 within TLS says some of its own in records as small as the smallest requests.
    let small = exchange.protocol == Protocol::TLS && content.largest <= SMALL;
    if !small {
        exchange.doubtful = 0;
    } else if exchange.unanswered == 0 {
        exchange.doubtful = 1;
    }
    exchange.unanswered = exchange.unanswered.saturating_add(content.bytes);
    exchange.answered = 0;
    exchange.last_read_at = now();
    exchange.first_write_at = 0;
    exchange.previous_write_at = 0;
    // A pipeline's next request comes while the answer to the one before is being written.
    if exchange.answer != Answer::UNDER_WAY {
        exchange.answer = Answer::UNKNOWN;
    }
}

/// An application wrote `length` bytes.
#[inline(always)]
pub fn written(sk: u64, length: i32) {
    if length <= 0 {
        return;
    }
    let Some(target) = armed(sk) else { return };
    let Some((conversation, tcp)) = kept(sk, target) else { return };
    let call = call::current();
    conversation.exchange.known = 1;
    conversation.written_to = field!(tcp, write_seq, by Loaded);
    if conversation.exchange.protocol == Protocol::UNKNOWN
        && let Some(piece) = call.and_then(|call| call.piece(0, length as u32))
    {
        units::recognise(conversation, Way::Written, piece.address);
    }
    let is_answer = match conversation.exchange.protocol {
        // A farewell, or what else only the protocol needs.
        Protocol::TLS | Protocol::HTTP2 => {
            units::content(conversation, Way::Written, call, length as u32).bytes > 0
        }
        _ => http1::written(conversation, call, length as u32) == Written::Answer,
    };
    let exchange = &mut conversation.exchange;
    if !is_answer {
        exchange.farewell = exchange.farewell.saturating_add(length as u32);
    } else if exchange.protocol == Protocol::TLS && exchange.unanswered > 0 && length as u32 <= SMALL {
        exchange.doubtful = 1;
        exchange.farewell = 0;
    } else {
        take_answer(exchange, length as u32);
    }
    count_streams(conversation);
}

#[inline(always)]
fn take_answer(exchange: &mut Exchange, length: u32) {
    let now = now();
    if exchange.unanswered != 0 {
        exchange.before_answer = exchange.unanswered;
    }
    exchange.unanswered = 0;
    exchange.doubtful = 0;
    exchange.farewell = 0;
    exchange.answered = exchange.answered.saturating_add(length);
    exchange.last_write = length;
    if exchange.first_write_at == 0 {
        exchange.first_write_at = now;
    } else {
        exchange.previous_write_at = exchange.last_write_at;
    }
    exchange.last_write_at = now;
}

/// HTTP/2 tells by its streams what is under way.
#[inline(always)]
fn count_streams(conversation: &mut Conversation) {
    if conversation.exchange.protocol != Protocol::HTTP2 {
        return;
    }
    conversation.exchange.answer = if conversation.streams > 0 {
        Answer::UNDER_WAY
    } else {
        conversation.exchange.unanswered = 0;
        Answer::WHOLE
    };
}

/// What is told of a socket's last exchange: nothing if some of it was not seen.
#[inline(always)]
pub fn of(tcp: u64) -> Exchange {
    // SAFETY: the value is copied; a thread that reads or writes at the same moment may tear it, which costs
    // accuracy of that connection's ending only.
    match unsafe { EXCHANGES.get(tcp) } {
        Some(conversation) if conversation.peer == peer(tcp) && conversation.is_complete(tcp) => {
            conversation.exchange
        }
        _ => Exchange::default(),
    }
}

impl Conversation {
    /// Whether the socket stands where the last calls left it. A call that was not seen (the kernel skips a
    /// program that is running already, `__bpf_trace_run`) may have been the answer. The FIN of either side
    /// counts 1.
    #[inline(always)]
    fn is_complete(&self, tcp: u64) -> bool {
        let (read_to, written_to): (u32, u32) =
            (field!(tcp, copied_seq, by Loaded), field!(tcp, write_seq, by Loaded));
        read_to.wrapping_sub(self.read_to) <= 1 && written_to.wrapping_sub(self.written_to) <= 1
    }
}

/// What is known of a socket's last exchange, in its place: the kernel, asked to replace an entry, takes new
/// memory, may have none at hand, and leaves what is true no more. With the socket as one of TCP. `None` if the
/// table is full, which loses the detail, not the connection.
#[inline(always)]
fn kept(sk: u64, target: u32) -> Option<(&'static mut Conversation, u64)> {
    let (peer, tcp) = (peer(sk), sock::as_tcp(sk)?);
    // SAFETY: entries stay valid while the program runs, any bytes are one, and two threads may tear it as in
    // `of`.
    let entry = || EXCHANGES.get_ptr_mut(sk).map(|entry| unsafe { &mut *entry });
    if let Some(conversation) = entry()
        && conversation.peer == peer
    {
        return Some((conversation, tcp));
    }
    EXCHANGES.insert(sk, &NOTHING_KNOWN, 0).ok()?;
    let conversation = entry()?;
    conversation.target = target;
    conversation.peer = peer;
    conversation.read_to = field!(tcp, copied_seq, by Loaded);
    conversation.written_to = field!(tcp, write_seq, by Loaded);
    Some((conversation, tcp))
}

/// The other end of a connection. It tells it from one whose socket had the same address and closed unseen.
#[inline(always)]
fn peer(sk: u64) -> u32 {
    let (address, port): (u32, u16) = (field!(sk, skc_daddr, by Loaded), field!(sk, skc_dport, by Loaded));
    address ^ u32::from(port)
}

/// Forgets a socket that closed.
#[inline(always)]
pub fn forget(sk: u64) {
    let _ = EXCHANGES.remove(sk);
}

/// The target of a socket, if it is armed. Sockets of all families pass here, so that the cheap tests come first. What
/// is left to read of a socket that closed tells nothing any more, and nobody would forget it.
#[inline(always)]
fn armed(sk: u64) -> Option<u32> {
    if !scope::is_any_armed() {
        return None;
    }
    let family: u16 = field!(sk, skc_family, by Loaded);
    if family != AF_INET && family != AF_INET6 || field!(sk, skc_state: u8, by Loaded) == TCP_CLOSE {
        return None;
    }
    let entry = scope::find::<Loaded>(sock::net::<Loaded>(sk), || sock::cgroup::<Loaded>(sk))?;
    (entry.mode == Mode::ARMED && sock::is_tcp(sk)).then_some(entry.target)
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper takes nothing and is allowed in every tracing program.
    unsafe { bpf_ktime_get_ns() }
}
