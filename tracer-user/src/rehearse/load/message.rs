//! A request as clients send it: with the headers that real clients and balancers add.

use std::{
    convert::Infallible,
    net::SocketAddr,
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
    Method, Request,
    body::Frame,
    header::{ACCEPT, ACCEPT_LANGUAGE, CONNECTION, CONTENT_LENGTH, HOST, USER_AGENT},
};
use tokio::time::sleep;

use super::{protocol::Protocol, random::Random};

pub(super) const UPLOAD_INTERVAL: Duration = Duration::from_millis(100);
const UPLOAD_CHUNK: &[u8] = &[b'u'; 1024];
const AGENT: &str = concat!("lastpacket-rehearse/", env!("CARGO_PKG_VERSION"));

pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

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

    /// The request to `peer`; `sent` tells when its body was wholly handed over. `id` tells it from
    /// all others, so that HTTP/2 cannot shrink it to a few bytes of known headers.
    pub(super) fn request(
        &self,
        protocol: &Protocol,
        peer: SocketAddr,
        id: &mut Random,
        sent: &Arc<AtomicBool>,
    ) -> hyper::http::Result<Request<Body>> {
        let mut request = Request::builder().method(&self.method);
        request = if protocol.http2 {
            request.uri(format!("{}://{peer}{}", protocol.scheme(), self.path))
        } else {
            request.uri(&self.path).header(HOST, peer.to_string())
        };
        request = request.header(USER_AGENT, AGENT).header(ACCEPT, "*/*").header(ACCEPT_LANGUAGE, "en");
        let trace = format!("00-{:016x}{:016x}-{:016x}-01", id.next(), id.next(), id.next());
        request = request.header("x-request-id", format!("{:016x}", id.next())).header("traceparent", trace);
        if self.close && !protocol.http2 {
            request = request.header(CONNECTION, "close");
        }
        let chunks = self.upload.as_millis() / UPLOAD_INTERVAL.as_millis();
        if chunks == 0 {
            sent.store(true, Ordering::Relaxed);
            return request.body(Empty::new().boxed_unsync());
        }
        let length = (chunks * UPLOAD_CHUNK.len() as u128).to_string();
        request.header(CONTENT_LENGTH, length).body(slow_body(chunks, Arc::clone(sent)))
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
