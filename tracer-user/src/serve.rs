//! The agent's HTTP server: `/metrics`, `/healthz`, `/readyz`.

use std::{
    convert::Infallible,
    io::ErrorKind,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};

/// Where the agent listens unless told otherwise: all addresses of both families.
pub const DEFAULT_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::UNSPECIFIED), 9750);

/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 64;
/// How long a client may take to say what it wants.
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// How long a connection may last in all: its reader may be slow.
const CONNECTION_TIME: Duration = Duration::from_secs(30);
/// How long to wait when no connection can be accepted, for want of file descriptors.
const EXHAUSTED: Duration = Duration::from_millis(100);

const TEXT: &str = "text/plain; charset=utf-8";

/// What must be true before the agent sees every pod.
#[derive(Debug, Default)]
pub struct Readiness {
    hooks_attached: AtomicBool,
    inventory_complete: AtomicBool,
}

impl Readiness {
    /// Tells whether the kernel programs are attached.
    pub fn hooks_attached(&self, yes: bool) {
        self.hooks_attached.store(yes, Ordering::Relaxed);
    }

    /// Tells whether all pods of the node are known.
    pub fn inventory_complete(&self, yes: bool) {
        self.inventory_complete.store(yes, Ordering::Relaxed);
    }

    /// What is missing, in words; nothing when ready.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let needs = [
            (&self.hooks_attached, "the kernel programs are not attached yet"),
            (&self.inventory_complete, "the pods of this node are not all known yet"),
        ];
        let unmet = needs.into_iter().filter(|(met, _)| !met.load(Ordering::Relaxed));
        unmet.map(|(_, words)| words).collect()
    }
}

/// The metrics as text, made anew for every scrape.
pub type Render = Box<dyn Fn() -> String + Send + Sync>;

/// What is served.
pub struct Pages {
    /// Makes the page `/metrics`.
    pub metrics: Render,
    /// The type of that page.
    pub metrics_type: &'static str,
    /// What `/readyz` answers from.
    pub readiness: Arc<Readiness>,
}

/// Listens on an address. Where the machine has no IPv6, all addresses means all of IPv4.
///
/// # Errors
/// If the port is taken or the address is not this machine's.
pub async fn listen(address: SocketAddr) -> Result<TcpListener> {
    let bound = match TcpListener::bind(address).await {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && error.kind() != ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    };
    bound.map_err(|error| {
        let remedy = match error.kind() {
            ErrorKind::AddrInUse => "another program listens there; choose another port",
            ErrorKind::AddrNotAvailable => "no interface has this address; choose one that has",
            _ => "choose another address",
        };
        anyhow::Error::new(error).context(format!("cannot serve metrics on {address}: {remedy}"))
    })
}

/// Serves until it is dropped.
///
/// # Errors
/// None in practice: only if the process-wide limit on connections is closed.
pub async fn serve(listener: TcpListener, pages: Pages) -> Result<Infallible> {
    let pages = Arc::new(pages);
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = Arc::clone(&room).acquire_owned().await.context("the server was closed")?;
        let Ok((stream, _)) = listener.accept().await else {
            sleep(EXHAUSTED).await;
            continue;
        };
        let pages = Arc::clone(&pages);
        tokio::spawn(async move {
            // What becomes of a client that does not take its answer is no concern of the agent.
            let _ = timeout(CONNECTION_TIME, converse(stream, pages)).await;
            drop(place);
        });
    }
}

/// One request a connection: scrapes are rare, and idle connections would hold the places.
async fn converse(stream: TcpStream, pages: Arc<Pages>) -> hyper::Result<()> {
    let service = service_fn(move |request| {
        let answer = answer(&request, &pages);
        async move { Ok::<_, Infallible>(answer) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIME)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

fn answer(request: &Request<Incoming>, pages: &Pages) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = page(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/metrics" => page(StatusCode::OK, pages.metrics_type, (pages.metrics)()),
        "/healthz" => page(StatusCode::OK, TEXT, "ok\n"),
        "/readyz" => match pages.readiness.missing().as_slice() {
            [] => page(StatusCode::OK, TEXT, "ready\n"),
            missing => page(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{}\n", missing.join("\n"))),
        },
        _ => page(StatusCode::NOT_FOUND, TEXT, "there are /metrics, /healthz and /readyz\n"),
    }
}

fn page(status: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests;
