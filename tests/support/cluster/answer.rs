//! How the server answers.

use std::{convert::Infallible, io, sync::Arc};

use bytes::Bytes;
use http_body_util::{
    BodyExt,
    channel::{Channel, Sender},
};
use hyper::{Method, Request, Response, body::Incoming};
use serde_json::{Value, json};

use super::{Body, Shared, store::Selection};

impl Shared {
    pub(super) async fn answer(self: Arc<Self>, request: Request<Incoming>) -> io::Result<Response<Body>> {
        let (method, uri) = (request.method().clone(), request.uri().clone());
        self.requests.lock().unwrap().push(format!("{method} {uri}"));
        let content = request.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
        let query = uri.query().unwrap_or_default();
        let words: Vec<&str> = uri.path().trim_start_matches('/').split('/').collect();
        let (["api", "v1", rest @ ..] | ["apis", _, "v1", rest @ ..]) = words.as_slice() else {
            return Ok(failure(404));
        };
        Ok(match (&method, rest) {
            (&Method::POST, ["selfsubjectaccessreviews"]) => self.review(&content),
            (&Method::PATCH, ["namespaces", _, collection, name]) => self.patch(collection, name, &content),
            (&Method::GET, ["namespaces", _, "pods", name, "log"]) => self.log(name, query),
            (&Method::GET, ["namespaces", namespace, collection]) => {
                self.collection(collection, Some(namespace), query)
            }
            (&Method::GET, [collection]) => self.collection(collection, None, query),
            (&Method::GET, ["namespaces", _, collection, name]) => self
                .store
                .lock()
                .unwrap()
                .get(collection, name)
                .map_or_else(|| failure(404), |object| ok(&object)),
            _ => failure(404),
        })
    }

    fn review(&self, content: &[u8]) -> Response<Body> {
        let mut review: Value = serde_json::from_slice(content).unwrap();
        let attributes = &review["spec"]["resourceAttributes"];
        let text = |name: &str| attributes[name].as_str().unwrap_or_default().to_owned();
        let (resource, subresource) = (text("resource"), text("subresource"));
        let resource = if subresource.is_empty() { resource } else { format!("{resource}/{subresource}") };
        let denied = self.denied.lock().unwrap().contains(&(text("verb"), resource));
        review["status"] = json!({"allowed": !denied});
        ok(&review)
    }

    fn patch(&self, collection: &str, name: &str, content: &[u8]) -> Response<Body> {
        let patch: Value = serde_json::from_slice(content).unwrap();
        self.patches.lock().unwrap().push(patch.clone());
        let mut store = self.store.lock().unwrap();
        let Some(mut object) = store.get(collection, name) else { return failure(404) };
        merge(&mut object, &patch);
        let generation = object["metadata"]["generation"].as_i64().unwrap_or(1);
        object["metadata"]["generation"] = (generation + 1).into();
        store.put(collection, object.clone());
        drop(store);
        self.changes.send_modify(|count| *count += 1);
        ok(&object)
    }

    fn collection(
        self: &Arc<Self>,
        collection: &str,
        namespace: Option<&str>,
        query: &str,
    ) -> Response<Body> {
        let pairs = |text: String| {
            let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
            pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect::<Vec<_>>()
        };
        let fields = parameter(query, "fieldSelector").map(pairs).unwrap_or_default();
        let selection = Selection {
            collection: collection.to_owned(),
            namespace: namespace.map(str::to_owned),
            name: fields.into_iter().find(|(key, _)| key == "metadata.name").map(|(_, name)| name),
            labels: parameter(query, "labelSelector").map(pairs).unwrap_or_default(),
        };
        if parameter(query, "watch").is_none() {
            return ok(&self.store.lock().unwrap().list(&selection));
        }
        let since = parameter(query, "resourceVersion").map_or(0, |version| version.parse().unwrap());
        let (sender, body) = Channel::new(1);
        tokio::spawn(Arc::clone(self).watch(selection, since, sender));
        Response::new(body.boxed())
    }

    async fn watch(
        self: Arc<Self>,
        selection: Selection,
        mut since: u64,
        mut sender: Sender<Bytes, io::Error>,
    ) {
        let mut changes = self.changes.subscribe();
        loop {
            let events = self.store.lock().unwrap().since(since, &selection);
            for event in events {
                since = event.version;
                let line = json!({"type": event.kind, "object": event.object});
                if sender.send_data(format!("{line}\n").into()).await.is_err() {
                    return;
                }
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// A log from a time on, as it grows. A pod that is not there has none.
    fn log(self: &Arc<Self>, pod: &str, query: &str) -> Response<Body> {
        if self.store.lock().unwrap().get("pods", pod).is_none() {
            return failure(404);
        }
        if self.store.lock().unwrap().log(pod).unreadable {
            return failure(500);
        }
        let since = parameter(query, "sinceTime").unwrap_or_default();
        let (sender, body) = Channel::new(1);
        tokio::spawn(Arc::clone(self).follow(pod.to_owned(), since, sender));
        Response::new(body.boxed())
    }

    async fn follow(self: Arc<Self>, pod: String, since: String, mut sender: Sender<Bytes, io::Error>) {
        let mut changes = self.changes.subscribe();
        let ended = self.store.lock().unwrap().log(&pod).ended;
        let mut next = 0;
        // A runtime stamps a line when it is written, which is never before what was written before it.
        let mut written = String::new();
        loop {
            let log = self.store.lock().unwrap().log(&pod).after(next);
            for line in &log.lines {
                next += 1;
                let line_time = serde_json::from_str::<Value>(line).ok();
                let line_time = line_time.as_ref().and_then(|line| line["time"].as_str()).unwrap_or_default();
                written = written.max(line_time.to_owned());
                // Whole seconds, as a kubelet takes them.
                let is_old = written.as_str() < &since[..since.len().min(19)];
                if !is_old && sender.send_data(format!("{line}\n").into()).await.is_err() {
                    return;
                }
            }
            let gone = self.store.lock().unwrap().get("pods", &pod).is_none();
            if log.ended > ended || gone || changes.changed().await.is_err() {
                return;
            }
        }
    }
}

fn merge(object: &mut Value, patch: &Value) {
    match (object, patch) {
        (Value::Object(object), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(object.entry(key.clone()).or_insert(json!({})), value);
            }
        }
        (object, patch) => *object = patch.clone(),
    }
}

fn ok(object: &Value) -> Response<Body> {
    response(200, object)
}

fn failure(code: u16) -> Response<Body> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "not found", "reason": "NotFound", "code": code});
    response(code, &status)
}

fn response(code: u16, object: &Value) -> Response<Body> {
    let body = http_body_util::Full::new(Bytes::from(object.to_string()));
    let body = body.map_err(|never: Infallible| match never {}).boxed();
    Response::builder().status(code).header("content-type", "application/json").body(body).unwrap()
}

/// A parameter of a query. Of escapes, those of `=`, `,`, `/` and `:` are known.
fn parameter(query: &str, name: &str) -> Option<String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let value = pairs.into_iter().find(|(key, _)| *key == name)?.1;
    Some(value.replace("%3D", "=").replace("%2C", ",").replace("%2F", "/").replace("%3A", ":"))
}
