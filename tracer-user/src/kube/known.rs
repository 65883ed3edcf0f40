//! What the API told of this node so far, so that only what changed goes on, and what vanished while
//! nobody watched is told too.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

use k8s_openapi::api::{core::v1::Pod, discovery::v1::EndpointSlice};

use super::{
    facts::{Conditions, Endpoint, EndpointChange, PodFacts, endpoints_of_node},
    list_watch::Change,
    watch::{ApiUpdate, Watched},
};

/// What is known of a collection.
pub(super) trait Known<K> {
    /// Which collection it is.
    const WATCHED: Watched;
    /// An object as it is now.
    fn apply(&mut self, object: &K, updates: &mut Vec<ApiUpdate>);
    /// An object is gone.
    fn delete(&mut self, object: &K, updates: &mut Vec<ApiUpdate>);
    /// A full list starts.
    fn list_starts(&mut self);
    /// A full list ended: what it did not name is gone.
    fn list_ends(&mut self, updates: &mut Vec<ApiUpdate>);

    /// What a change means.
    fn step(&mut self, change: Change<K>) -> Vec<ApiUpdate> {
        let (mut updates, watched) = (Vec::new(), Self::WATCHED);
        match change {
            Change::ListStarts => self.list_starts(),
            Change::Listed(object) | Change::Applied(object) => self.apply(&object, &mut updates),
            Change::Deleted(object) => self.delete(&object, &mut updates),
            Change::ListEnds => {
                self.list_ends(&mut updates);
                updates.push(ApiUpdate::Synced(watched));
            }
            Change::Away(reason) => updates.push(ApiUpdate::Away { watched, reason }),
            Change::Back => updates.push(ApiUpdate::Back(watched)),
        }
        updates
    }
}

/// The node's pods by uid.
#[derive(Default)]
pub(super) struct Pods {
    known: BTreeMap<String, PodFacts>,
    unlisted: BTreeSet<String>,
}

impl Known<Pod> for Pods {
    const WATCHED: Watched = Watched::Pods;

    fn apply(&mut self, pod: &Pod, updates: &mut Vec<ApiUpdate>) {
        let Some(mut facts) = PodFacts::read(pod) else { return };
        self.unlisted.remove(&facts.uid);
        let known = self.known.get(&facts.uid);
        if let Some(known) = known {
            keep_first_request(known, &mut facts);
        }
        if known != Some(&facts) {
            self.known.insert(facts.uid.clone(), facts.clone());
            updates.push(ApiUpdate::Pod(Box::new(facts)));
        }
    }

    fn delete(&mut self, pod: &Pod, updates: &mut Vec<ApiUpdate>) {
        // A forced deletion can be all there is to see.
        self.apply(pod, updates);
        if let Some(uid) = &pod.metadata.uid
            && self.known.remove(uid).is_some()
        {
            updates.push(ApiUpdate::PodGone { uid: uid.clone() });
        }
    }

    fn list_starts(&mut self) {
        self.unlisted = self.known.keys().cloned().collect();
    }

    fn list_ends(&mut self, updates: &mut Vec<ApiUpdate>) {
        for uid in mem::take(&mut self.unlisted) {
            self.known.remove(&uid);
            updates.push(ApiUpdate::PodGone { uid });
        }
    }
}

/// The kubelet's last act is a deletion with a grace period of 0, which sets `deletionTimestamp` to
/// that moment [measured]. What counts is the first request.
fn keep_first_request(known: &PodFacts, facts: &mut PodFacts) {
    if let (Some(known), Some(deletion)) = (&known.deletion, &mut facts.deletion) {
        deletion.requested = deletion.requested.min(known.requested);
    }
}

/// The node's endpoints by slice, each by its namespace and name. Nothing is kept of slices without
/// an endpoint here.
pub(super) struct Endpoints {
    node: String,
    slices: BTreeMap<SliceName, BTreeMap<Endpoint, Conditions>>,
    unlisted: BTreeSet<SliceName>,
}

type SliceName = (String, String);

impl Endpoints {
    pub(super) fn new(node: String) -> Self {
        Self { node, slices: BTreeMap::new(), unlisted: BTreeSet::new() }
    }

    fn replace(
        &mut self,
        name: SliceName,
        now: BTreeMap<Endpoint, Conditions>,
        updates: &mut Vec<ApiUpdate>,
    ) {
        let was = self.slices.get(&name);
        let touched: BTreeSet<Endpoint> =
            was.into_iter().flat_map(BTreeMap::keys).chain(now.keys()).cloned().collect();
        let before: Vec<_> = touched.iter().map(|endpoint| self.conditions(endpoint)).collect();
        if now.is_empty() {
            self.slices.remove(&name);
        } else {
            self.slices.insert(name, now);
        }
        for (endpoint, before) in touched.into_iter().zip(before) {
            let after = self.conditions(&endpoint);
            if before != after {
                updates.push(ApiUpdate::Endpoint(EndpointChange { endpoint, before, after }));
            }
        }
    }

    /// An endpoint can be in two slices while the controller moves it from one to the other.
    fn conditions(&self, endpoint: &Endpoint) -> Option<Conditions> {
        let told = self.slices.values().filter_map(|slice| slice.get(endpoint));
        told.copied().reduce(Conditions::either)
    }
}

impl Known<EndpointSlice> for Endpoints {
    const WATCHED: Watched = Watched::EndpointSlices;

    fn apply(&mut self, slice: &EndpointSlice, updates: &mut Vec<ApiUpdate>) {
        let Some(name) = slice_name(slice) else { return };
        self.unlisted.remove(&name);
        let now = endpoints_of_node(slice, &self.node);
        self.replace(name, now, updates);
    }

    fn delete(&mut self, slice: &EndpointSlice, updates: &mut Vec<ApiUpdate>) {
        let Some(name) = slice_name(slice) else { return };
        self.unlisted.remove(&name);
        self.replace(name, BTreeMap::new(), updates);
    }

    fn list_starts(&mut self) {
        self.unlisted = self.slices.keys().cloned().collect();
    }

    fn list_ends(&mut self, updates: &mut Vec<ApiUpdate>) {
        for name in mem::take(&mut self.unlisted) {
            self.replace(name, BTreeMap::new(), updates);
        }
    }
}

fn slice_name(slice: &EndpointSlice) -> Option<SliceName> {
    Some((slice.metadata.namespace.clone()?, slice.metadata.name.clone()?))
}

#[cfg(test)]
#[path = "known_tests.rs"]
mod tests;
