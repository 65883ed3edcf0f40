//! What an application read from a connection and wrote to it last, as the kernel programs tell it.

use super::Mono;

/// The last exchange on a connection, seen at the application's own calls (`sock_recv_length`,
/// `sock_send_length`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Exchange {
    /// Bytes read since the last write: a request without an answer. 0 if the last call was a write.
    pub unanswered: u32,
    /// Bytes that had been read without an answer when the last answer began.
    pub before_answer: u32,
    /// Bytes written since the last read: the answer so far.
    pub answered: u32,
    /// Size of the last write in bytes.
    pub last_write: u32,
    /// When the answer began; 0 if there is none.
    pub first_write_at: Mono,
    /// When the application last wrote; 0 if never.
    pub last_write_at: Mono,
    /// When it wrote before that within the same answer; 0 if it did not.
    pub previous_write_at: Mono,
    /// When it last read of a request; 0 if never.
    pub last_read_at: Mono,
    /// How far the last answer has come.
    pub answer: Answer,
    /// Over TLS: what is unanswered may be no request, or so little was written since that it may be an
    /// answer or not.
    pub doubtful: bool,
    /// Bytes written since that no answer is made of: a TLS alert, HTTP/2's own frames.
    pub farewell: u32,
    /// What is spoken.
    pub protocol: Protocol,
    /// What is unanswered begins as an HTTP/1 request does.
    pub asks: bool,
}

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Protocol {
    /// Nothing that is understood.
    #[default]
    Other,
    /// HTTP/1.
    Http1,
    /// TLS, whatever within.
    Tls,
    /// HTTP/2 in clear text.
    Http2,
}

/// How far the last answer on a connection has come, by what the application wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Answer {
    /// Nothing tells: the protocol is not understood, or is encrypted.
    #[default]
    Unknown,
    /// Some of it is still to be written.
    UnderWay,
    /// All of it was written, and so was every one before.
    Whole,
    /// It has no length: the close is its end.
    UntilClose,
}
