//! The two watches of an agent: the pods of its node, and all EndpointSlices, since those cannot be
//! selected by node.

use std::fmt::{self, Debug, Display};

use k8s_openapi::serde::de::DeserializeOwned;
use kube::{Api, Client, Resource};
use tokio::sync::mpsc;
use tracer_core::input::Clock;

use super::{
    facts::{EndpointChange, PodFacts},
    known::{Endpoints, Known, Pods},
    list_watch::{ListWatch, Timing},
};

/// A fact from the API.
#[derive(Clone, Debug)]
pub struct Update {
    /// When it was received.
    pub received: Clock,
    /// What it is.
    pub what: ApiUpdate,
}

/// What the API told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiUpdate {
    /// A pod of the node is there, or something of it changed.
    Pod(Box<PodFacts>),
    /// A pod is no longer in the API; its containers may still run (forced deletion).
    PodGone {
        /// Its uid.
        uid: String,
    },
    /// An endpoint of the node changed. Before the first `Synced` of the endpoints, it was there
    /// already.
    Endpoint(EndpointChange),
    /// A full list was told: what is known is complete.
    Synced(Watched),
    /// Facts do not come until `Back`.
    Away {
        /// Which.
        watched: Watched,
        /// Why.
        reason: String,
    },
    /// Facts come again, from where they stopped.
    Back(Watched),
}

/// A collection that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Watched {
    /// The node's pods.
    Pods,
    /// EndpointSlices.
    EndpointSlices,
}

impl Display for Watched {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Pods => "pods",
            Self::EndpointSlices => "endpointslices",
        })
    }
}

/// Watches until nobody receives any more. A receiver that is slow slows the watches down; nothing is
/// dropped here.
pub async fn watch(client: Client, node: String, timing: Timing, updates: mpsc::Sender<Update>) {
    let of_node = format!("spec.nodeName={node}");
    let pods = ListWatch::new(Api::all(client.clone()), Some(of_node), timing);
    let slices = ListWatch::new(Api::all(client), None, timing);
    tokio::select! {
        () = follow(pods, Pods::default(), &updates) => {}
        () = follow(slices, Endpoints::new(node), &updates) => {}
        () = updates.closed() => {}
    }
}

async fn follow<K, T>(mut list_watch: ListWatch<K>, mut known: T, updates: &mpsc::Sender<Update>)
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    T: Known<K>,
{
    loop {
        let (received, change) = list_watch.next().await;
        for what in known.step(change) {
            match &what {
                ApiUpdate::Away { watched, reason } => {
                    log::warn!("no {watched} from the Kubernetes API: {reason}");
                }
                ApiUpdate::Back(watched) => log::info!("{watched} come from the Kubernetes API again"),
                _ => {}
            }
            if updates.send(Update { received, what }).await.is_err() {
                return;
            }
        }
    }
}
