//! How a request ended, as its client saw it.

use std::{error::Error, fmt, io, iter::successors, net::SocketAddr};

use super::plan::Kind;

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestResult {
    /// Which client sent it.
    pub kind: Kind,
    /// The client's end of the connection; port 0 if it got none.
    pub local: SocketAddr,
    /// The server's end.
    pub peer: SocketAddr,
    /// Whether the connection had carried a request before.
    pub reused: bool,
    /// When the client began, with connecting if it had to; in ns of `CLOCK_MONOTONIC`.
    pub start_mono_ns: u64,
    /// When the answer was complete or the failure seen; in ns of `CLOCK_MONOTONIC`.
    pub end_mono_ns: u64,
    /// How it ended.
    pub outcome: Outcome,
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A complete answer, of whatever status.
    Ok {
        /// The HTTP status.
        status: u16,
        /// Length of the body.
        bytes: u64,
    },
    /// A transport error or a truncated answer.
    Failed {
        /// What the client saw.
        cause: Cause,
        /// How far it had come.
        phase: Phase,
    },
    /// The load ended first: nobody's failure.
    Aborted,
}

/// How far a request had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// No connection yet.
    Connect,
    /// Connected, within the TLS handshake.
    Handshake,
    /// The request was not wholly sent.
    Send,
    /// The answer had not begun.
    Headers,
    /// The answer was under way.
    Body,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Connect => "connecting",
            Self::Handshake => "in the TLS handshake",
            Self::Send => "sending",
            Self::Headers => "waiting for the answer",
            Self::Body => "reading the answer",
        })
    }
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// The connection was refused.
    Refused,
    /// The connection was reset.
    Reset,
    /// The connection was closed before the answer.
    Eof,
    /// The connection was closed within the answer.
    Truncated,
    /// The answer took too long.
    Timeout,
    /// The connection took too long.
    ConnectTimeout,
    /// The server itself said so within HTTP/2: GOAWAY or RST_STREAM with an error code.
    ServerError(String),
    /// Something else, such as an answer that is no HTTP.
    Other(String),
}

impl Cause {
    pub(super) fn of_io(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            // Writing after a reset was seen is told as a broken pipe.
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => {
                Self::Reset
            }
            io::ErrorKind::UnexpectedEof => Self::Eof,
            io::ErrorKind::TimedOut => Self::Timeout,
            _ => Self::Other(error.to_string()),
        }
    }

    pub(super) fn of_http(error: &hyper::Error) -> Self {
        if let Some(error) = sources(error).find_map(|error| error.downcast_ref::<io::Error>()) {
            return Self::of_io(error);
        }
        if let Some(error) = h2_error(error) {
            return Self::of_h2(error);
        }
        if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
            return Self::Eof;
        }
        Self::Other(error.to_string())
    }

    fn of_h2(error: &h2::Error) -> Self {
        match error.get_io() {
            // h2 itself says so of streams whose connection was closed; the kernel's error has a number.
            Some(io) if io.kind() == io::ErrorKind::BrokenPipe && io.raw_os_error().is_none() => Self::Eof,
            Some(io) => Self::of_io(io),
            None if error.is_remote() && error.reason().is_some() => Self::ServerError(error.to_string()),
            None => Self::Other(error.to_string()),
        }
    }

    pub(super) fn within_body(self) -> Self {
        if self == Self::Eof { Self::Truncated } else { self }
    }
}

fn sources(error: &hyper::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    successors(error.source(), |error| (*error).source())
}

/// What HTTP/2 says of an error, if it does.
pub(super) fn h2_error(error: &hyper::Error) -> Option<&h2::Error> {
    sources(error).find_map(|error| error.downcast_ref())
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Refused => "connection refused",
            Self::Reset => "connection reset",
            Self::Eof => "closed without an answer",
            Self::Truncated => "answer cut off",
            Self::Timeout => "no answer in time",
            Self::ConnectTimeout => "no connection in time",
            Self::ServerError(text) | Self::Other(text) => text,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_the_kernel_says() {
        for (code, cause) in [
            (libc::ECONNREFUSED, Cause::Refused),
            (libc::ECONNRESET, Cause::Reset),
            (libc::EPIPE, Cause::Reset),
            (libc::ETIMEDOUT, Cause::Timeout),
        ] {
            assert_eq!(Cause::of_io(&io::Error::from_raw_os_error(code)), cause);
        }
        let unreachable = io::Error::from_raw_os_error(libc::EHOSTUNREACH);
        assert!(matches!(Cause::of_io(&unreachable), Cause::Other(_)));
        assert_eq!(Cause::Eof.within_body(), Cause::Truncated);
        assert_eq!(Cause::Reset.within_body(), Cause::Reset);
    }
}
