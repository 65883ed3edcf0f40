//! One client connection: opened from a known address, carrying one request at a time.

#[cfg(test)]
mod tests;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http_body_util::BodyExt;
use hyper::{
    Response,
    body::Incoming,
    header::{CONNECTION, HeaderValue},
};
use tokio::{net::TcpSocket, time::timeout};

use super::{
    http::{self, Driver, Sender},
    message::Message,
    outcome::{Cause, Phase, h2_error},
    protocol::{Protocol, Stream},
    random::Random,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long an answer, or its next part, may take beyond what the request asks for.
const PATIENCE: Duration = Duration::from_secs(30);

/// What became of a request on an open connection.
#[derive(Debug)]
pub(crate) enum Exchange {
    /// A complete answer; `close` if the server closes the connection after it.
    Answered { status: u16, bytes: u64, close: bool },
    /// The connection was closed before a byte of the request was written: no failure.
    NotSent,
    /// It failed with the request in flight.
    Failed { cause: Cause, phase: Phase },
}

/// A connection that could not be opened.
pub(crate) struct ConnectFailure {
    pub(crate) local: SocketAddr,
    pub(crate) cause: Cause,
    pub(crate) phase: Phase,
}

/// An open connection; closed when dropped.
pub(crate) struct Connection {
    sender: Sender,
    driver: Driver,
    protocol: Protocol,
    ids: Random,
    pub(crate) local: SocketAddr,
    peer: SocketAddr,
    pub(crate) requests: u64,
}

impl Connection {
    /// Connects from `source`. The port is bound before, so that it is known also if this fails.
    pub(crate) async fn open(
        source: IpAddr,
        peer: SocketAddr,
        protocol: &Protocol,
    ) -> Result<Self, ConnectFailure> {
        let unbound = SocketAddr::new(source, 0);
        let (socket, local) = bind(unbound).map_err(|error| ConnectFailure {
            local: unbound,
            cause: Cause::of_io(&error),
            phase: Phase::Connect,
        })?;
        let failed = |cause, phase| ConnectFailure { local, cause, phase };
        let stream = match timeout(CONNECT_TIMEOUT, socket.connect(peer)).await {
            Err(_) => return Err(failed(Cause::ConnectTimeout, Phase::Connect)),
            Ok(connected) => connected.map_err(|error| failed(Cause::of_io(&error), Phase::Connect))?,
        };
        let started = async {
            let started = match protocol.secure(stream, peer.ip()).await? {
                Stream::Plain(stream) => http::start(stream, protocol.http2).await,
                Stream::Tls(stream) => http::start(*stream, protocol.http2).await,
            };
            started.map_err(|error| Cause::of_http(&error))
        };
        let phase = if protocol.is_tls() { Phase::Handshake } else { Phase::Connect };
        let started = timeout(CONNECT_TIMEOUT, started).await.unwrap_or(Err(Cause::ConnectTimeout));
        let (sender, driver) = started.map_err(|cause| failed(cause, phase))?;
        let ids = Random::for_client(u64::from(local.port()), crate::clock::mono_ns());
        Ok(Self { sender, driver, protocol: protocol.clone(), ids, local, peer, requests: 0 })
    }

    /// Sends a request and reads its whole answer.
    pub(crate) async fn exchange(&mut self, message: &Message) -> Exchange {
        if self.sender.ready().await.is_err() {
            return Exchange::NotSent;
        }
        let sent = Arc::new(AtomicBool::new(false));
        let Ok(request) = message.request(&self.protocol, self.peer, &mut self.ids, &sent) else {
            let cause = Cause::Other(format!("{} is no path", message.path));
            return Exchange::Failed { cause, phase: Phase::Send };
        };
        self.requests += 1;
        let patience = PATIENCE + message.upload + message.work;
        let phase = || if sent.load(Ordering::Relaxed) { Phase::Headers } else { Phase::Send };
        match timeout(patience, self.sender.send(request)).await {
            Ok(Ok(response)) => read(response, patience).await,
            Ok(Err(unsent)) if unsent.message().is_some() => Exchange::NotSent,
            Ok(Err(failed)) if was_refused(failed.error()) => Exchange::NotSent,
            Ok(Err(failed)) => Exchange::Failed { cause: Cause::of_http(failed.error()), phase: phase() },
            Err(_) => Exchange::Failed { cause: Cause::Timeout, phase: phase() },
        }
    }

    /// Waits until the connection is closed by the server. May be called once.
    pub(crate) async fn closed(&mut self) {
        self.driver.closed().await;
    }
}

fn bind(address: SocketAddr) -> io::Result<(TcpSocket, SocketAddr)> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(address)?;
    let local = socket.local_addr()?;
    Ok((socket, local))
}

/// Whether an HTTP/2 server says that it has not begun with the request: a client may send it again,
/// whatever it asks for, so that nothing is lost.
fn was_refused(error: &hyper::Error) -> bool {
    let Some(error) = h2_error(error) else { return false };
    let unprocessed = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
    error.is_remote()
        && (unprocessed || error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM))
}

fn asks_to_close(connection: &HeaderValue) -> bool {
    let options = connection.to_str().unwrap_or_default().split(',');
    options.map(str::trim).any(|option| option.eq_ignore_ascii_case("close"))
}

async fn read(response: Response<Incoming>, patience: Duration) -> Exchange {
    let (head, mut body) = response.into_parts();
    let close = head.headers.get_all(CONNECTION).iter().any(asks_to_close);
    let mut bytes = 0;
    loop {
        let cause = match timeout(patience, body.frame()).await {
            Ok(Some(Ok(frame))) => {
                bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                continue;
            }
            Ok(None) => return Exchange::Answered { status: head.status.as_u16(), bytes, close },
            Ok(Some(Err(error))) => Cause::of_http(&error).within_body(),
            Err(_) => Cause::Timeout,
        };
        return Exchange::Failed { cause, phase: Phase::Body };
    }
}
