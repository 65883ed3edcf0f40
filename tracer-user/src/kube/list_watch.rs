//! Follows a collection of the API: lists it, watches it, and recovers from whatever happens to the
//! connection.
//!
//! `kube-runtime`'s watcher is not used: it passes over an event that it cannot parse, waits forever
//! for an answer to a list, and opens a watch that ends at once again and again without a pause.

use std::{collections::VecDeque, fmt::Debug, time::Duration};

use futures::{StreamExt, stream::BoxStream};
use k8s_openapi::serde::de::DeserializeOwned;
use kube::{
    Api, Error, Resource,
    api::{ListParams, WatchEvent, WatchParams},
};
use tokio::time::{Instant, sleep, timeout};
use tracer_core::input::Clock;

use super::trouble::{Backoff, Trouble};
use crate::clock;

/// How long to wait for what.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// For an answer, with the repetitions that the server asks for by 429 and `Retry-After`.
    pub answer: Duration,
    /// For a sign of life of a watch: API servers send a bookmark every 60 to 75 seconds.
    pub silence: Duration,
    /// Before the first repetition after a failure; then twice as long each time.
    pub first_wait: Duration,
    /// Before any repetition.
    pub longest_wait: Duration,
    /// How many objects to list at once: bounds the memory that a page takes.
    pub page: u32,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(30),
            silence: Duration::from_secs(80),
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(30),
            page: 100,
        }
    }
}

/// What happened to a collection.
#[derive(Debug)]
pub enum Change<K> {
    /// A full list starts: what is not in it is gone.
    ListStarts,
    /// An object of the list.
    Listed(K),
    /// The list is complete.
    ListEnds,
    /// An object was added or changed.
    Applied(K),
    /// An object was deleted; this was its last state.
    Deleted(K),
    /// The API is away, or answers what cannot be used.
    Away(String),
    /// It is back.
    Back,
}

/// A collection that is followed.
pub struct ListWatch<K> {
    api: Api<K>,
    fields: Option<String>,
    labels: Option<String>,
    timing: Timing,
    state: State<K>,
    told: VecDeque<(Clock, Change<K>)>,
    away: Option<String>,
    backoff: Backoff,
    wait: Option<Duration>,
}

enum State<K> {
    /// Nothing is known, or what is known may have a gap.
    Stale,
    /// A part of the list is told; the rest goes by this token.
    Listing { rest: String },
    /// All is told up to a version; no watch is open.
    Told { version: String },
    /// All is told up to a version, and what comes after is on its way.
    Watching { version: String, stream: Events<K>, opened: Instant },
}

type Events<K> = BoxStream<'static, kube::Result<WatchEvent<K>>>;

impl<K> ListWatch<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    /// Nothing is asked for before the first [`next`](Self::next).
    #[must_use]
    pub fn new(api: Api<K>, fields: Option<String>, timing: Timing) -> Self {
        Self {
            api,
            fields,
            labels: None,
            timing,
            state: State::Stale,
            told: VecDeque::new(),
            away: None,
            backoff: Backoff::new(timing.first_wait, timing.longest_wait),
            wait: None,
        }
    }

    /// Only objects with these labels.
    #[must_use]
    pub fn labelled(mut self, labels: String) -> Self {
        self.labels = Some(labels);
        self
    }

    /// The next change, and when it was received. Never ends.
    pub async fn next(&mut self) -> (Clock, Change<K>) {
        loop {
            if let Some(change) = self.told.pop_front() {
                return change;
            }
            if let Some(wait) = self.wait.take() {
                sleep(wait).await;
            }
            self.state = match std::mem::replace(&mut self.state, State::Stale) {
                State::Stale => self.list(None).await,
                State::Listing { rest } => self.list(Some(rest)).await,
                State::Told { version } => self.open(version).await,
                State::Watching { version, stream, opened } => self.read(version, stream, opened).await,
            };
        }
    }

    async fn list(&mut self, rest: Option<String>) -> State<K> {
        let params = ListParams {
            field_selector: self.fields.clone(),
            label_selector: self.labels.clone(),
            limit: Some(self.timing.page),
            continue_token: rest.clone(),
            ..ListParams::default()
        };
        let page = match answer(self.timing.answer, self.api.list(&params)).await {
            Ok(page) => page,
            Err(trouble) => {
                let gone = matches!(trouble, Trouble::Gone);
                self.failed(trouble);
                return rest.filter(|_| !gone).map_or(State::Stale, |rest| State::Listing { rest });
            }
        };
        self.answered();
        if rest.is_none() {
            self.tell(Change::ListStarts);
        }
        for object in page.items {
            self.tell(Change::Listed(object));
        }
        if let Some(rest) = page.metadata.continue_.filter(|rest| !rest.is_empty()) {
            return State::Listing { rest };
        }
        self.tell(Change::ListEnds);
        State::Told { version: page.metadata.resource_version.unwrap_or_default() }
    }

    async fn open(&mut self, version: String) -> State<K> {
        let params = WatchParams {
            field_selector: self.fields.clone(),
            label_selector: self.labels.clone(),
            ..WatchParams::default()
        };
        let answer = answer(self.timing.answer, self.api.watch(&params, &version)).await;
        match answer.map(StreamExt::boxed) {
            Ok(stream) => {
                self.answered();
                State::Watching { version, stream, opened: Instant::now() }
            }
            Err(trouble) => {
                let gone = matches!(trouble, Trouble::Gone);
                self.failed(trouble);
                if gone { State::Stale } else { State::Told { version } }
            }
        }
    }

    async fn read(&mut self, version: String, mut stream: Events<K>, opened: Instant) -> State<K> {
        let change = match timeout(self.timing.silence, stream.next()).await {
            Ok(Some(Ok(WatchEvent::Bookmark(bookmark)))) => {
                return State::Watching { version: bookmark.metadata.resource_version, stream, opened };
            }
            Ok(Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)))) => Change::Applied(object),
            Ok(Some(Ok(WatchEvent::Deleted(object)))) => Change::Deleted(object),
            Ok(Some(Ok(WatchEvent::Error(status)))) => {
                self.failed(Trouble::from(Error::Api(status)));
                return State::Stale;
            }
            // Servers end watches as they please, connections break, and some only fall silent. What
            // was missed comes again from the last version.
            Ok(Some(Err(Error::ReadEvents(_))) | None) | Err(_) => {
                if opened.elapsed() < self.timing.first_wait {
                    self.wait = Some(self.backoff.next());
                }
                return State::Told { version };
            }
            // An event that cannot be read is an event that is missing.
            Ok(Some(Err(error))) => {
                self.failed(Trouble::from(error));
                return State::Stale;
            }
        };
        let (Change::Applied(object) | Change::Deleted(object)) = &change else { return State::Stale };
        let version = object.meta().resource_version.clone().unwrap_or(version);
        self.tell(change);
        State::Watching { version, stream, opened }
    }

    fn tell(&mut self, change: Change<K>) {
        self.told.push_back((clock::now(), change));
    }

    fn answered(&mut self) {
        if self.away.take().is_some() {
            self.tell(Change::Back);
        }
    }

    /// Tells a trouble once, and lets some time pass. That a version is too old is none: it happens to
    /// every client now and then.
    fn failed(&mut self, trouble: Trouble) {
        self.wait = Some(self.backoff.next());
        let Trouble::Other(reason) = trouble else { return };
        if self.away.as_ref() != Some(&reason) {
            self.away = Some(reason.clone());
            self.tell(Change::Away(reason));
        }
    }
}

async fn answer<T>(limit: Duration, request: impl Future<Output = kube::Result<T>>) -> Result<T, Trouble> {
    match timeout(limit, request).await {
        Ok(answer) => answer.map_err(Trouble::from),
        Err(_) => Err(Trouble::Other(format!(
            "no answer within {} s, or only that it is too busy",
            limit.as_secs_f32()
        ))),
    }
}
