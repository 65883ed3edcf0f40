//! The objects of the server and their history.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// See the module.
#[derive(Default)]
pub struct Store {
    version: u64,
    objects: BTreeMap<(String, String), Value>,
    history: Vec<Event>,
    logs: BTreeMap<String, Log>,
}

/// A change of an object.
#[derive(Clone)]
pub struct Event {
    pub version: u64,
    pub collection: String,
    pub kind: &'static str,
    pub object: Value,
}

/// A pod's log.
#[derive(Clone, Default)]
pub struct Log {
    pub lines: Vec<String>,
    /// How often its streams were ended.
    pub ended: u64,
    /// Nobody gets it.
    pub unreadable: bool,
}

impl Log {
    /// What follows these lines; of a log that was rotated meanwhile nothing may.
    pub fn after(&self, lines: usize) -> Self {
        Self { lines: self.lines.get(lines..).unwrap_or_default().to_vec(), ..*self }
    }
}

/// Which objects are asked for.
#[derive(Clone, Default)]
pub struct Selection {
    pub collection: String,
    pub namespace: Option<String>,
    pub name: Option<String>,
    pub labels: Vec<(String, String)>,
}

impl Selection {
    pub fn selects(&self, collection: &str, object: &Value) -> bool {
        let metadata = &object["metadata"];
        let is = |value: &Value, wanted: &Option<String>| {
            wanted.as_ref().is_none_or(|wanted| value == wanted.as_str())
        };
        collection == self.collection
            && is(&metadata["namespace"], &self.namespace)
            && is(&metadata["name"], &self.name)
            && self.labels.iter().all(|(key, value)| metadata["labels"][key] == value.as_str())
    }
}

impl Store {
    pub fn put(&mut self, collection: &str, mut object: Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let known = self.objects.insert((collection.to_owned(), name), object.clone());
        let kind = if known.is_some() { "MODIFIED" } else { "ADDED" };
        self.history.push(Event { version: self.version, collection: collection.to_owned(), kind, object });
    }

    pub fn delete(&mut self, collection: &str, name: &str) {
        self.version += 1;
        let mut object = self.objects.remove(&(collection.to_owned(), name.to_owned())).unwrap();
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let (version, collection) = (self.version, collection.to_owned());
        self.history.push(Event { version, collection, kind: "DELETED", object });
    }

    pub fn get(&self, collection: &str, name: &str) -> Option<Value> {
        self.objects.get(&(collection.to_owned(), name.to_owned())).cloned()
    }

    pub fn list(&self, selection: &Selection) -> Value {
        let selected =
            self.objects.iter().filter(|((collection, _), object)| selection.selects(collection, object));
        let items: Vec<&Value> = selected.map(|(_, object)| object).collect();
        json!({"kind": "List", "metadata": {"resourceVersion": self.version.to_string()}, "items": items})
    }

    /// What happened after a version.
    pub fn since(&self, version: u64, selection: &Selection) -> Vec<Event> {
        let later = self.history.iter().filter(|event| event.version > version);
        later.filter(|event| selection.selects(&event.collection, &event.object)).cloned().collect()
    }

    pub fn log(&mut self, pod: &str) -> &mut Log {
        self.logs.entry(pod.to_owned()).or_default()
    }
}
