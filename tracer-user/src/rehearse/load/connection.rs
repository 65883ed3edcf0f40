//! One client connection: opened from a known address, carrying one request at a time.

#[cfg(test)]
mod tests;

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt, Empty, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response,
    body::{Frame, Incoming},
    client::conn::http1::{self, SendRequest},
    header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpSocket,
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::outcome::{Cause, Phase};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long an answer, or its next part, may take beyond what the request asks for.
const PATIENCE: Duration = Duration::from_secs(30);
const UPLOAD_INTERVAL: Duration = Duration::from_millis(100);
const UPLOAD_CHUNK: &[u8] = &[b'u'; 1024];

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A request to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) method: Method,
    pub(crate) path: String,
    /// How long the body takes to send: one KiB each 100 ms.
    pub(crate) upload: Duration,
    /// How long the server is asked to work.
    pub(crate) work: Duration,
    /// Whether the server is asked to close the connection after its answer.
    pub(crate) close: bool,
}

impl Message {
    pub(crate) fn new(method: Method, path: String) -> Self {
        Self { method, path, upload: Duration::ZERO, work: Duration::ZERO, close: false }
    }
}

/// What became of a request on an open connection.
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
}

/// An open connection; closed when dropped.
pub(crate) struct Connection {
    sender: SendRequest<Body>,
    driver: JoinHandle<()>,
    pub(crate) local: SocketAddr,
    peer: SocketAddr,
    pub(crate) requests: u64,
}

impl Connection {
    /// Connects from `source`. The port is bound before, so that it is known also if this fails.
    pub(crate) async fn open(source: IpAddr, peer: SocketAddr) -> Result<Self, ConnectFailure> {
        let unbound = SocketAddr::new(source, 0);
        let (socket, local) =
            bind(unbound).map_err(|error| ConnectFailure { local: unbound, cause: Cause::of_io(&error) })?;
        let failed = |cause| ConnectFailure { local, cause };
        let stream = match timeout(CONNECT_TIMEOUT, socket.connect(peer)).await {
            Err(_) => return Err(failed(Cause::ConnectTimeout)),
            Ok(connected) => connected.map_err(|error| failed(Cause::of_io(&error)))?,
        };
        let (sender, driver) = start_http(stream).await.map_err(|error| failed(Cause::of_http(&error)))?;
        Ok(Self { sender, driver, local, peer, requests: 0 })
    }

    /// Sends a request and reads its whole answer.
    pub(crate) async fn exchange(&mut self, message: &Message) -> Exchange {
        if self.sender.ready().await.is_err() {
            return Exchange::NotSent;
        }
        let sent = Arc::new(AtomicBool::new(false));
        let Ok(request) = self.request(message, &sent) else {
            let cause = Cause::Other(format!("{} is no path", message.path));
            return Exchange::Failed { cause, phase: Phase::Send };
        };
        self.requests += 1;
        let patience = PATIENCE + message.upload + message.work;
        let phase = || if sent.load(Ordering::Relaxed) { Phase::Headers } else { Phase::Send };
        match timeout(patience, self.sender.try_send_request(request)).await {
            Ok(Ok(response)) => read(response, patience).await,
            Ok(Err(unsent)) if unsent.message().is_some() => Exchange::NotSent,
            Ok(Err(failed)) => Exchange::Failed { cause: Cause::of_http(failed.error()), phase: phase() },
            Err(_) => Exchange::Failed { cause: Cause::Timeout, phase: phase() },
        }
    }

    /// Waits until the connection is closed by the server. May be called once.
    pub(crate) async fn closed(&mut self) {
        let _ = (&mut self.driver).await;
    }

    fn request(&self, message: &Message, sent: &Arc<AtomicBool>) -> hyper::http::Result<Request<Body>> {
        let mut request = Request::builder().method(&message.method).uri(&message.path);
        request = request.header(HOST, self.peer.to_string());
        if message.close {
            request = request.header(CONNECTION, "close");
        }
        let chunks = message.upload.as_millis() / UPLOAD_INTERVAL.as_millis();
        if chunks == 0 {
            sent.store(true, Ordering::Relaxed);
            return request.body(Empty::new().boxed_unsync());
        }
        let length = HeaderValue::from_str(&(chunks * UPLOAD_CHUNK.len() as u128).to_string())?;
        request.header(CONTENT_LENGTH, length).body(slow_body(chunks, Arc::clone(sent)))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

fn bind(address: SocketAddr) -> io::Result<(TcpSocket, SocketAddr)> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(address)?;
    let local = socket.local_addr()?;
    Ok((socket, local))
}

async fn start_http(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> hyper::Result<(SendRequest<Body>, JoinHandle<()>)> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Its error reaches the request in flight; without one it is an idle close.
    let driver = tokio::spawn(async move { drop(connection.await) });
    Ok((sender, driver))
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

fn slow_body(chunks: u128, sent: Arc<AtomicBool>) -> Body {
    let frames = stream::unfold(chunks, move |left| {
        let sent = Arc::clone(&sent);
        async move {
            if left == 0 {
                return None;
            }
            sleep(UPLOAD_INTERVAL).await;
            sent.store(left == 1, Ordering::Relaxed);
            Some((Ok(Frame::data(Bytes::from_static(UPLOAD_CHUNK))), left - 1))
        }
    });
    StreamBody::new(frames).boxed_unsync()
}
