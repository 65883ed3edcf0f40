//! HTTP on an open stream: one sender for both versions, and a task that drives the connection.

use std::{future::Future, time::Duration};

use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::{TrySendError, http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
    task::JoinHandle,
    time::sleep,
};

use super::message::Body;

/// How long saying good-bye (`close_notify`, GOAWAY, FIN) may take.
const CLOSING: Duration = Duration::from_secs(1);

/// Sends requests over a connection of either version.
pub(super) enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Sender {
    /// Waits until a request may be sent; an error if the server has closed, or sent GOAWAY.
    pub(super) async fn ready(&mut self) -> hyper::Result<()> {
        match self {
            Self::Http1(sender) => sender.ready().await,
            Self::Http2(sender) => sender.ready().await,
        }
    }

    pub(super) async fn send(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Body>>> {
        match self {
            Self::Http1(sender) => sender.try_send_request(request).await,
            Self::Http2(sender) => sender.try_send_request(request).await,
        }
    }
}

/// The task behind a sender. When dropped the connection closes as a client's does that has no more
/// requests: with TLS and HTTP/2 saying so, and with a FIN.
pub(super) struct Driver {
    task: JoinHandle<()>,
    _closing: oneshot::Sender<()>,
}

impl Driver {
    /// Waits until the connection is closed. May be called once.
    pub(super) async fn closed(&mut self) {
        let _ = (&mut self.task).await;
    }

    /// Errors reach the request in flight; without one they are an idle close.
    fn start<T>(connection: impl Future<Output = hyper::Result<T>> + Send + 'static) -> Self {
        let (closing, closed) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let too_long = async {
                let _ = closed.await;
                sleep(CLOSING).await;
            };
            tokio::select! {
                _ = connection => {}
                () = too_long => {}
            }
        });
        Self { task, _closing: closing }
    }
}

pub(super) async fn start(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    http2: bool,
) -> hyper::Result<(Sender, Driver)> {
    let stream = TokioIo::new(stream);
    if http2 {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
        return Ok((Sender::Http2(sender), Driver::start(connection)));
    }
    let (sender, connection) = http1::handshake(stream).await?;
    Ok((Sender::Http1(sender), Driver::start(connection)))
}
