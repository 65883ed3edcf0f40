//! A recorded collection of the Kubernetes API: its objects at the beginning, byte by byte, and what
//! happened to them when.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
    time::Duration,
};

use flate2::read::GzDecoder;
use serde::Deserialize;
use serde_json::value::RawValue;

/// A collection and its history.
pub struct Playlist {
    items: Vec<Object>,
    version: u64,
    /// What happened, in order.
    pub events: Vec<Recorded>,
}

/// An object of the API.
#[derive(Clone)]
struct Object {
    uid: String,
    json: Box<RawValue>,
}

/// A WATCH event.
pub struct Recorded {
    /// When the recording's client received it; since the epoch of its clock.
    pub at: Duration,
    /// The object's version.
    pub version: u64,
    /// The bytes of the line.
    pub line: Box<RawValue>,
    deleted: bool,
    object: Object,
}

#[derive(Deserialize)]
struct Line {
    recv_mono_ns: u64,
    response: Option<Box<RawValue>>,
    event: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct List {
    metadata: Metadata,
    items: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Event {
    r#type: String,
    object: Box<RawValue>,
}

#[derive(Deserialize)]
struct WithMetadata {
    metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    uid: String,
    resource_version: String,
}

impl Metadata {
    fn version(&self) -> u64 {
        self.resource_version.parse().unwrap()
    }
}

fn metadata(object: &RawValue) -> Metadata {
    serde_json::from_str::<WithMetadata>(object.get()).unwrap().metadata
}

impl Object {
    fn new(json: Box<RawValue>) -> Self {
        Self { uid: metadata(&json).uid, json }
    }
}

impl Playlist {
    /// Reads `pods.jsonl.gz` or `endpointslices.jsonl.gz` of a recording.
    pub fn read(path: &Path) -> Self {
        let mut playlist = Self { items: Vec::new(), version: 0, events: Vec::new() };
        for line in BufReader::new(GzDecoder::new(File::open(path).unwrap())).lines() {
            let line: Line = serde_json::from_str(&line.unwrap()).unwrap();
            if let Some(response) = line.response {
                let list: List = serde_json::from_str(response.get()).unwrap();
                playlist.version = list.metadata.version();
                playlist.items = list.items.into_iter().map(Object::new).collect();
            }
            if let Some(json) = line.event {
                let event: Event = serde_json::from_str(json.get()).unwrap();
                playlist.events.push(Recorded {
                    at: Duration::from_nanos(line.recv_mono_ns),
                    version: metadata(&event.object).version(),
                    deleted: event.r#type == "DELETED",
                    object: Object::new(event.object),
                    line: json,
                });
            }
        }
        playlist
    }

    /// Objects, and what will happen to them when: the type of a WATCH event and the object then.
    pub fn written(items: &[serde_json::Value], events: &[(Duration, &str, serde_json::Value)]) -> Self {
        let raw = |value: &serde_json::Value| serde_json::value::to_raw_value(value).unwrap();
        let items: Vec<Object> = items.iter().map(|item| Object::new(raw(item))).collect();
        let version = items.iter().map(|item| metadata(&item.json).version()).max().unwrap_or(1);
        let recorded = |(at, kind, object): &(Duration, &str, serde_json::Value)| Recorded {
            at: *at,
            version: metadata(&raw(object)).version(),
            deleted: *kind == "DELETED",
            object: Object::new(raw(object)),
            line: raw(&serde_json::json!({"type": kind, "object": object})),
        };
        Self { items, version, events: events.iter().map(recorded).collect() }
    }

    /// Nothing ever.
    pub fn empty() -> Self {
        Self { items: Vec::new(), version: 1, events: Vec::new() }
    }

    /// So many copies of the first object, each with a uid and a name of its own, and no history.
    pub fn copies(&self, count: usize) -> Self {
        let first = &self.items[0];
        let copy = |index: usize| {
            let mut object: serde_json::Value = serde_json::from_str(first.json.get()).unwrap();
            object["metadata"]["uid"] = format!("uid-{index}").into();
            object["metadata"]["name"] = format!("pod-{index}").into();
            Object::new(serde_json::value::to_raw_value(&object).unwrap())
        };
        Self { items: (0..count).map(copy).collect(), version: self.version, events: Vec::new() }
    }

    /// The objects after so many events, and the version then.
    pub fn objects(&self, events: usize) -> (Vec<&RawValue>, u64) {
        let mut objects: BTreeMap<&str, &RawValue> =
            self.items.iter().map(|object| (object.uid.as_str(), &*object.json)).collect();
        for event in &self.events[..events] {
            if event.deleted {
                objects.remove(event.object.uid.as_str());
            } else {
                objects.insert(&event.object.uid, &event.object.json);
            }
        }
        let version = self.events[..events].last().map_or(self.version, |event| event.version);
        (objects.into_values().collect(), version.max(self.version))
    }
}
