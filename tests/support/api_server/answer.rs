//! How the server answers: lists in pages, watches, reviews of permissions, created objects.

use std::{collections::VecDeque, future, io, sync::Arc, time::Instant};

use bytes::Bytes;
use http_body_util::{
    BodyExt,
    channel::{Channel, Sender},
};
use hyper::{Method, Request, Response, body::Incoming};
use serde_json::{Value, json, value::RawValue};

use super::{Body, Collection, Fault, Received, Shared, Verb, full, response};

impl Shared {
    pub(super) async fn answer(self: Arc<Self>, request: Request<Incoming>) -> io::Result<Response<Body>> {
        let query = request.uri().query().unwrap_or_default().to_owned();
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/api/v1/pods") => self.collection(Collection::Pods, query).await,
            (&Method::GET, "/apis/discovery.k8s.io/v1/endpointslices") => {
                self.collection(Collection::Slices, query).await
            }
            (&Method::POST, path) => {
                let is_review = path.ends_with("/selfsubjectaccessreviews");
                let object = request.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
                Ok(self.created(serde_json::from_slice(&object)?, is_review))
            }
            _ => Ok(status(404)),
        }
    }

    async fn collection(
        self: Arc<Self>,
        collection: Collection,
        query: String,
    ) -> io::Result<Response<Body>> {
        let verb = if parameter(&query, "watch").is_some() { Verb::Watch } else { Verb::List };
        let fault = {
            let mut log = self.log.lock().unwrap();
            log.received.push(Received { collection, verb, query: query.clone(), at: Instant::now() });
            log.faults.get_mut(&(collection, verb)).and_then(VecDeque::pop_front)
        };
        if verb == Verb::Watch {
            self.watched();
        }
        match (fault, verb) {
            (Some(Fault::Status(code)), _) => Ok(status(code)),
            (Some(Fault::Refuse), _) => Err(io::Error::other("refused")),
            (Some(Fault::Hang), _) => future::pending().await,
            (Some(Fault::Malformed(_)), Verb::List) => Ok(response(200, r#"{"kind":"PodList","items":["#)),
            (_, Verb::List) => Ok(self.list(collection, &query)),
            (fault, Verb::Watch) => {
                let (sender, body) = Channel::new(1);
                let since =
                    parameter(&query, "resourceVersion").map_or(0, |version| version.parse().unwrap());
                tokio::spawn(self.watch(collection, since, fault, sender));
                Ok(Response::new(body.boxed()))
            }
        }
    }

    /// A page of the objects as they are now; later pages show them as they were for the first.
    fn list(&self, collection: Collection, query: &str) -> Response<Body> {
        let playlist = &self.playlists[&collection];
        let now = self.now();
        let happened = playlist.events.partition_point(|event| event.at <= now);
        let token = parameter(query, "continue").and_then(|token| token.split_once('-'));
        let (happened, from): (usize, usize) = token
            .map_or((happened, 0), |(happened, from)| (happened.parse().unwrap(), from.parse().unwrap()));
        let limit = parameter(query, "limit").map_or(usize::MAX, |limit| limit.parse().unwrap());
        let (objects, version) = playlist.objects(happened);
        let to = from.saturating_add(limit).min(objects.len());
        let mut metadata = json!({"resourceVersion": version.to_string()});
        if to < objects.len() {
            metadata["continue"] = format!("{happened}-{to}").into();
        }
        let items: Vec<&str> = objects[from..to].iter().map(|object| object.get()).collect();
        let (kind, api) = match collection {
            Collection::Pods => ("PodList", "v1"),
            Collection::Slices => ("EndpointSliceList", "discovery.k8s.io/v1"),
        };
        let items = items.join(",");
        response(
            200,
            format!(r#"{{"kind":"{kind}","apiVersion":"{api}","metadata":{metadata},"items":[{items}]}}"#),
        )
    }

    /// Sends what happened since a version, then what happens, each at its time, until the fault.
    async fn watch(
        self: Arc<Self>,
        collection: Collection,
        since: u64,
        fault: Option<Fault>,
        mut sender: Sender<Bytes, io::Error>,
    ) {
        let mut began = self.began.subscribe();
        let events = self.playlists[&collection].events.iter().filter(|event| event.version > since);
        for (sent, event) in events.enumerate() {
            match fault {
                Some(Fault::End(after)) if after == sent => return,
                Some(Fault::Silent(after)) if after == sent => future::pending().await,
                _ => {}
            }
            let _ = began.wait_for(Option::is_some).await;
            tokio::time::sleep_until(self.at(event.at).unwrap().into()).await;
            let line = match fault {
                Some(Fault::Cut(after)) if after == sent => {
                    let _ = sender.send_data(half(&event.line)).await;
                    return sender.abort(io::Error::other("cut"));
                }
                Some(Fault::Gone(after)) if after == sent => {
                    let line = json!({"type": "ERROR", "object": failure(410)});
                    let _ = sender.send_data(format!("{line}\n").into()).await;
                    return;
                }
                Some(Fault::Malformed(after)) if after == sent => r#"{"type":"MODIFIED","object":{]}"#,
                Some(Fault::Alien(after)) if after == sent => r#"{"type":"MODIFIED","object":7}"#,
                _ => event.line.get(),
            };
            if sender.send_data(format!("{line}\n").into()).await.is_err() {
                return;
            }
        }
        future::pending::<()>().await;
    }

    fn created(&self, mut object: Value, is_review: bool) -> Response<Body> {
        let mut log = self.log.lock().unwrap();
        if is_review {
            let attributes = &object["spec"]["resourceAttributes"];
            let denied = log
                .denied
                .iter()
                .any(|(verb, resource)| attributes["verb"] == **verb && attributes["resource"] == **resource);
            object["status"] = json!({"allowed": !denied});
        } else {
            log.posted.push(object.clone());
        }
        response(201, object.to_string())
    }
}

/// Half of a line: a broken connection does not care for lines.
fn half(line: &RawValue) -> Bytes {
    Bytes::copy_from_slice(&line.get().as_bytes()[..line.get().len() / 2])
}

/// A status as the API server tells it. Where it is too busy it does not even make an object of it.
fn status(code: u16) -> Response<Body> {
    if code != 429 {
        return response(code, failure(code).to_string());
    }
    let builder = Response::builder().status(429).header("retry-after", "1");
    builder.body(full("Too many requests, please try again later.\n")).unwrap()
}

fn failure(code: u16) -> Value {
    let (reason, message) = match code {
        403 => ("Forbidden", "pods is forbidden: User \"system:serviceaccount:x:y\" cannot list resource"),
        410 => ("Expired", "too old resource version: 1 (2)"),
        _ => ("InternalError", "it does not work"),
    };
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code})
}

/// A parameter of a query; none of those looked at here has escapes.
fn parameter<'query>(query: &'query str, name: &str) -> Option<&'query str> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}
