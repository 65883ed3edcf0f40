//! A Kubernetes API server that a test writes to: objects, their watches, logs that grow, reviews of
//! permissions, patches.

mod answer;
mod store;

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use store::Store;
use tokio::{net::TcpListener, runtime::Runtime, sync::watch};

type Body = BoxBody<Bytes, io::Error>;

/// A running server, on threads of its own. It ends when it is dropped.
pub struct Cluster {
    shared: Arc<Shared>,
    url: String,
    _runtime: Runtime,
}

#[derive(Default)]
struct Shared {
    store: Mutex<Store>,
    /// Grows with every change of the store.
    changes: watch::Sender<u64>,
    denied: Mutex<BTreeSet<(String, String)>>,
    requests: Mutex<Vec<String>>,
    patches: Mutex<Vec<Value>>,
}

impl Cluster {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared::default());
        runtime.spawn(serve(listener, Arc::clone(&shared)));
        Self { shared, url, _runtime: runtime }
    }

    /// A kubeconfig whose current context leads here, into this namespace.
    #[must_use]
    pub fn kubeconfig(&self, namespace: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
             clusters: [{{name: test, cluster: {{server: \"{}\"}}}}]\n\
             users: [{{name: test, user: {{}}}}]\n\
             contexts: [{{name: test, context: {{cluster: test, user: test, namespace: {namespace}}}}}]\n",
            self.url
        )
    }

    /// Adds or replaces an object of a collection such as `pods`, by its namespace and name.
    pub fn put(&self, collection: &str, object: Value) {
        self.change(|store| store.put(collection, object));
    }

    /// Removes an object.
    pub fn delete(&self, collection: &str, name: &str) {
        self.change(|store| store.delete(collection, name));
    }

    /// Changes an object in place.
    pub fn edit(&self, collection: &str, name: &str, edit: impl FnOnce(&mut Value)) {
        self.change(|store| {
            let mut object = store.get(collection, name).unwrap();
            edit(&mut object);
            store.put(collection, object);
        });
    }

    /// Adds a line to a pod's log.
    pub fn log(&self, pod: &str, line: &str) {
        self.change(|store| store.log(pod).lines.push(line.to_owned()));
    }

    /// Ends the streams of a pod's log that are open now.
    pub fn end_logs(&self, pod: &str) {
        self.change(|store| store.log(pod).ended += 1);
    }

    /// Rotates a pod's log: what it held is not given any more, and its streams end.
    pub fn rotate_log(&self, pod: &str) {
        self.change(|store| {
            let log = store.log(pod);
            log.lines.clear();
            log.ended += 1;
        });
    }

    /// From now on a pod's log cannot be read.
    pub fn break_log(&self, pod: &str) {
        self.change(|store| {
            let log = store.log(pod);
            (log.unreadable, log.ended) = (true, log.ended + 1);
        });
    }

    fn change(&self, change: impl FnOnce(&mut Store)) {
        change(&mut self.shared.store.lock().unwrap());
        self.shared.changes.send_modify(|count| *count += 1);
    }

    /// Denies a permission; a subresource as `pods/log`.
    pub fn deny(&self, verb: &str, resource: &str) {
        self.shared.denied.lock().unwrap().insert((verb.to_owned(), resource.to_owned()));
    }

    /// Requests until now, with their queries.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// Patches until now. Each was merged into its object.
    #[must_use]
    pub fn patches(&self) -> Vec<Value> {
        self.shared.patches.lock().unwrap().clone()
    }
}

impl Default for Cluster {
    fn default() -> Self {
        Self::new()
    }
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
            // A client that goes away is none of a test's concern.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
