//! The demonstration server: two ways to take a SIGTERM, one that cuts requests off and one that
//! drains. It speaks HTTP/1.1 and HTTP/2, and TLS if asked to.

use std::{
    convert::Infallible,
    net::Ipv4Addr,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Request, Response, StatusCode, Version,
    body::{Frame, Incoming},
    header::{CONNECTION, HeaderValue},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::certificate::{CERTIFICATE_VARIABLE, KEY_VARIABLE, server_config};

/// How long there must have been no new connection and no request before the listener closes.
const QUIET: Duration = Duration::from_millis(1200);
/// How long closing the idle connections may take.
const CLOSING: Duration = Duration::from_secs(5);
const WORK: Duration = Duration::from_millis(5);
const CHUNK_INTERVAL: Duration = Duration::from_millis(100);

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What the server does at SIGTERM or SIGINT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Behaviour {
    /// Exits at once, with requests in flight.
    Abrupt,
    /// Goes unready, keeps answering until traffic has stopped, closes, exits.
    Graceful,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Serving,
    Draining,
    Closing,
}

/// Serves on `port` of all IPv4 addresses until stopped by a signal.
///
/// Errors: the port is taken, or there is no certificate. It installs its signal handlers first: PID 1
/// has no default ones.
pub async fn run(behaviour: Behaviour, port: u16, tls: bool) -> Result<()> {
    let mut stop = StopSignals::install()?;
    let tls = if tls { Some(acceptor()?) } else { None };
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await;
    let listener =
        listener.with_context(|| format!("cannot listen on port {port}; choose another with --port"))?;
    let activity = Activity::default();
    let stage = watch::Sender::new(Stage::Serving);
    let mut connections = JoinSet::new();
    let quiet = activity.quiet();
    let mut drained = pin!(async {
        stop.wait().await;
        if behaviour == Behaviour::Abrupt {
            std::process::exit(0);
        }
        stage.send_replace(Stage::Draining);
        activity.touch();
        quiet.await;
    });
    loop {
        tokio::select! {
            () = &mut drained => break,
            accepted = listener.accept() => {
                // A connection that was reset in the backlog is no reason to stop.
                let Ok((stream, _)) = accepted else { continue };
                activity.touch();
                let (tls, stage, activity) = (tls.clone(), stage.subscribe(), activity.clone());
                connections.spawn(async move {
                    match tls {
                        None => serve(stream, stage, activity).await,
                        Some(tls) => if let Ok(stream) = tls.accept(stream).await {
                            serve(stream, stage, activity).await;
                        },
                    }
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    stage.send_replace(Stage::Closing);
    let _ = timeout(CLOSING, connections.join_all()).await;
    Ok(())
}

struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn install() -> Result<Self> {
        let install = |kind| signal(kind).context("cannot install a signal handler");
        Ok(Self {
            terminate: install(SignalKind::terminate())?,
            interrupt: install(SignalKind::interrupt())?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// When something last happened, and how many requests are in flight.
#[derive(Clone)]
struct Activity(Arc<Mutex<(Instant, usize)>>);

impl Default for Activity {
    fn default() -> Self {
        Self(Arc::new(Mutex::new((Instant::now(), 0))))
    }
}

impl Activity {
    fn touch(&self) {
        self.update(|in_flight| in_flight);
    }

    fn begin(&self) -> InFlight {
        self.update(|in_flight| in_flight + 1);
        InFlight(self.clone())
    }

    fn update(&self, change: impl FnOnce(usize) -> usize) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = (Instant::now(), change(state.1));
    }

    /// Waits until nothing is in flight and nothing has happened for the quiet time.
    async fn quiet(&self) {
        loop {
            let (last, in_flight) = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            if in_flight == 0 && now >= last + QUIET {
                return;
            }
            sleep_until((last + QUIET).max(now + WORK)).await;
        }
    }
}

/// A request being answered.
struct InFlight(Activity);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.update(|in_flight| in_flight.saturating_sub(1));
    }
}

fn acceptor() -> Result<TlsAcceptor> {
    let file = |name| std::env::var_os(name).with_context(|| format!("{name} names no file"));
    let (certificate, key) = (file(CERTIFICATE_VARIABLE)?, file(KEY_VARIABLE)?);
    Ok(TlsAcceptor::from(Arc::new(server_config(certificate.as_ref(), key.as_ref())?)))
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    stage: watch::Receiver<Stage>,
    activity: Activity,
) {
    let mut closing = stage.clone();
    let answered_last = Arc::new(Notify::new());
    let last = Arc::clone(&answered_last);
    let service = service_fn(move |request: Request<Incoming>| {
        let (stage, in_flight, last) = (stage.clone(), activity.begin(), Arc::clone(&last));
        async move {
            // HTTP/2 has no "connection: close": its GOAWAY ends the connection instead.
            let http2 = request.version() == Version::HTTP_2;
            let response = answer(request, stage.clone(), in_flight).await;
            if http2 && *stage.borrow() != Stage::Serving {
                last.notify_one();
            }
            Ok::<_, Infallible>(response)
        }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let close = async {
        tokio::select! {
            // A client that went away is none of our business.
            _ = closing.wait_for(|stage| *stage == Stage::Closing) => {}
            () = answered_last.notified() => {}
        }
    };
    tokio::select! {
        _ = &mut connection => {}
        () = close => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

async fn answer(
    request: Request<Incoming>,
    stage: watch::Receiver<Stage>,
    in_flight: InFlight,
) -> Response<Body> {
    let may_close = request.version() != Version::HTTP_2;
    let mut response = match request.uri().path() {
        "/" => {
            sleep(WORK).await;
            text(StatusCode::OK, "hello\n")
        }
        "/ready" if *stage.borrow() == Stage::Serving => text(StatusCode::OK, "ready\n"),
        "/ready" => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        "/slow" => {
            sleep(asked_for(request.uri().query())).await;
            text(StatusCode::OK, "done\n")
        }
        "/stream" => Response::new(chunks(stage.clone(), in_flight)),
        "/upload" => match request.into_body().collect().await {
            Ok(_) => text(StatusCode::OK, "received\n"),
            Err(_) => text(StatusCode::BAD_REQUEST, "incomplete\n"),
        },
        _ => text(StatusCode::NOT_FOUND, "not found\n"),
    };
    if may_close && *stage.borrow() != Stage::Serving {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Full::from(text).boxed_unsync());
    *response.status_mut() = status;
    response
}

fn asked_for(query: Option<&str>) -> Duration {
    let parameters = query.unwrap_or_default().split('&');
    let asked = parameters.filter_map(|parameter| parameter.strip_prefix("ms=")?.parse().ok()).next();
    Duration::from_millis(asked.unwrap_or(1000))
}

/// A chunk each 100 ms, until the server drains: then the body ends as it should.
fn chunks(stage: watch::Receiver<Stage>, in_flight: InFlight) -> Body {
    let frames = stream::unfold((stage, in_flight), |(stage, in_flight)| async move {
        sleep(CHUNK_INTERVAL).await;
        let serving = *stage.borrow() == Stage::Serving;
        serving.then(|| (Ok(Frame::data(Bytes::from_static(b"tick\n"))), (stage, in_flight)))
    });
    StreamBody::new(frames).boxed_unsync()
}
