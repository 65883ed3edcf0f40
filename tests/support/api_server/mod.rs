//! A Kubernetes API server that plays recordings: LIST and WATCH with their real bytes and timing, or
//! faster, and with whatever can go wrong.

mod answer;
mod playlist;

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    io,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt, combinators::BoxBody};
use hyper::{Response, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
pub use playlist::Playlist;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

/// A collection that the server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Collection {
    /// Pods, of one node.
    Pods,
    /// EndpointSlices.
    Slices,
}

/// What is asked of a collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// GET.
    List,
    /// GET with `watch=true`.
    Watch,
}

/// What goes wrong with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Another status than 200; 429 comes with `Retry-After: 1`.
    Status(u16),
    /// The connection is closed without an answer.
    Refuse,
    /// No answer ever comes.
    Hang,
    /// The answer is no JSON; in a watch, the line in place of the event after so many.
    Malformed(usize),
    /// In a watch, the line in place of the event after so many is JSON, and no event.
    Alien(usize),
    /// The connection breaks in the middle of the event after so many.
    Cut(usize),
    /// The watch ends orderly after so many events.
    End(usize),
    /// The watch tells after so many events that its version is too old.
    Gone(usize),
    /// The watch falls silent after so many events.
    Silent(usize),
}

/// A request that was received.
#[derive(Clone, Debug)]
pub struct Received {
    /// Of what.
    pub collection: Collection,
    /// What.
    pub verb: Verb,
    /// Its query.
    pub query: String,
    /// When.
    pub at: Instant,
}

/// A running server. It ends when it is dropped.
pub struct ApiServer {
    shared: Arc<Shared>,
    url: String,
    task: JoinHandle<()>,
}

struct Shared {
    playlists: HashMap<Collection, Playlist>,
    speed: f64,
    /// The recording's clock when it begins to play.
    epoch: Duration,
    /// When it began to play: when every collection was watched.
    began: watch::Sender<Option<Instant>>,
    log: Mutex<Log>,
}

#[derive(Default)]
struct Log {
    faults: HashMap<(Collection, Verb), VecDeque<Fault>>,
    received: Vec<Received>,
    denied: Vec<(String, String)>,
    posted: Vec<serde_json::Value>,
}

type Body = BoxBody<Bytes, io::Error>;

impl ApiServer {
    /// Plays a recording so many times as fast as it was recorded.
    pub async fn play(recording: &str, speed: f64) -> Self {
        let folder = folder(recording);
        let pods = Playlist::read(&folder.join("pods.jsonl.gz"));
        let slices = Playlist::read(&folder.join("endpointslices.jsonl.gz"));
        let first = [pods.events.first(), slices.events.first()].into_iter().flatten().map(|event| event.at);
        // A little time before the first event, so that both lists are told by then.
        let epoch = first.min().unwrap_or_default().saturating_sub(Duration::from_millis(300).mul_f64(speed));
        Self::start(pods, slices, speed, epoch).await
    }

    /// Plays what a test has written; times count from when it begins to play.
    pub async fn written(pods: Playlist, slices: Playlist) -> Self {
        Self::start(pods, slices, 1.0, Duration::ZERO).await
    }

    /// Has so many pods, and nothing happens to them.
    pub async fn with_pods(count: usize) -> Self {
        let pods = Playlist::read(&folder("idle-delete").join("pods.jsonl.gz"));
        Self::start(pods.copies(count), Playlist::empty(), 1.0, Duration::ZERO).await
    }

    async fn start(pods: Playlist, slices: Playlist, speed: f64, epoch: Duration) -> Self {
        let shared = Arc::new(Shared {
            playlists: HashMap::from([(Collection::Pods, pods), (Collection::Slices, slices)]),
            speed,
            epoch,
            began: watch::Sender::new(None),
            log: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(serve(listener, Arc::clone(&shared)));
        Self { shared, url, task }
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A configuration that leads here.
    pub fn config(&self) -> kube::Config {
        kube::Config::new(self.url.parse().unwrap())
    }

    /// Lets the next request of this kind go wrong that has no fault yet.
    pub fn fault(&self, collection: Collection, verb: Verb, fault: Fault) {
        self.shared.log.lock().unwrap().faults.entry((collection, verb)).or_default().push_back(fault);
    }

    /// Denies a permission.
    pub fn deny(&self, verb: &str, resource: &str) {
        self.shared.log.lock().unwrap().denied.push((verb.to_owned(), resource.to_owned()));
    }

    /// Requests of this kind until now.
    pub fn received(&self, collection: Collection, verb: Verb) -> Vec<Received> {
        let log = self.shared.log.lock().unwrap();
        let mine =
            log.received.iter().filter(|received| (received.collection, received.verb) == (collection, verb));
        mine.cloned().collect()
    }

    /// Objects that were created until now.
    pub fn posted(&self) -> Vec<serde_json::Value> {
        self.shared.log.lock().unwrap().posted.clone()
    }

    /// Whether all faults have happened and all of the recording was played.
    pub fn is_over(&self) -> bool {
        let ends = self.shared.playlists.values().filter_map(|playlist| playlist.events.last());
        let played = ends.map(|event| event.at).max().is_none_or(|end| self.shared.now() >= end);
        played && self.shared.log.lock().unwrap().faults.values().all(VecDeque::is_empty)
    }

    /// When an event of the recording was received, by this machine's clock while it is played.
    pub fn at(&self, recorded: Duration) -> Option<Instant> {
        self.shared.at(recorded)
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn folder(recording: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings/kubernetes-1.36").join(recording)
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let shared = Arc::clone(&shared);
                async move { shared.answer(request).await }
            });
            // Broken connections are part of the play.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

impl Shared {
    /// The recording's clock.
    fn now(&self) -> Duration {
        let began = *self.began.borrow();
        began.map_or(Duration::ZERO, |began| self.epoch + began.elapsed().mul_f64(self.speed))
    }

    fn at(&self, recorded: Duration) -> Option<Instant> {
        let began = *self.began.borrow();
        began.map(|began| began + recorded.saturating_sub(self.epoch).div_f64(self.speed))
    }

    /// The play begins when every collection was watched once.
    fn watched(&self) {
        let log = self.log.lock().unwrap();
        let is_watched = |collection: &Collection| {
            log.received.iter().any(|other| (other.collection, other.verb) == (*collection, Verb::Watch))
        };
        if self.playlists.keys().all(is_watched) && self.began.borrow().is_none() {
            self.began.send_replace(Some(Instant::now()));
        }
    }
}

fn full(text: impl Into<Bytes>) -> Body {
    http_body_util::Full::new(text.into()).map_err(|never: Infallible| match never {}).boxed()
}

fn response(status: u16, text: impl Into<Bytes>) -> Response<Body> {
    let builder = Response::builder().status(status).header("content-type", "application/json");
    builder.body(full(text)).unwrap()
}
