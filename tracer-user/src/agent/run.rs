//! The agent's wiring: what the node and the API tell goes through the inventory to the pipeline.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use kube::Client;
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval},
};
use tracer_core::{
    event::TargetId,
    input::{End, InventoryUpdate, NewContainer, NewTarget},
    lifecycle::Source,
    output::{EndpointEvent, Line, Subject},
};

use super::inventory::{Command, Inventory, Meta};
use crate::{
    clock,
    host::{
        cgroup,
        netns::Netns,
        pods::{self, Container, Pod},
        process,
    },
    kernel::probes::ScopeKey,
    kube::{
        facts::{EndpointChange, PodFacts},
        list_watch::Timing,
        watch::{ApiUpdate, Update, Watched, watch},
    },
    pipeline::{Pipeline, TargetSpec},
    serve::Readiness,
};

/// How often cgroups are looked through, whether or not anything told of a change.
const SCAN: Duration = Duration::from_secs(5);
/// A change that the API or the kernel tells is looked at after this time, and others with it.
const SCAN_SOON: Duration = Duration::from_millis(50);
/// How often it is looked whether observation of a pod ends.
const ENDS: Duration = Duration::from_millis(100);

/// How the agent runs.
pub struct Settings {
    /// The node's name in the API.
    pub node: String,
    /// Health checkers' addresses.
    pub checkers: Vec<tracer_core::input::Network>,
    /// Ports whose protocol never answers.
    pub one_way: Vec<u16>,
    /// The API; `None` to go without.
    pub client: Option<Client>,
}

/// What happened that the agent must act on.
enum Happening {
    Scanned(Vec<Pod>),
    Api(Box<Update>),
    LookForEnds,
}

/// Follows all pods of the node until `stop` is done.
///
/// # Errors
/// If there is no cgroup v2 hierarchy, or the pipeline fails.
pub async fn run(
    mut pipeline: Pipeline,
    settings: Settings,
    readiness: Arc<Readiness>,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let root = cgroup::mount_point().context("no cgroup v2 hierarchy is mounted; run `lastpacket check`")?;
    let (happen, mut happenings) = mpsc::channel(256);
    let (scan_soon, soon) = watch::channel(());
    tokio::spawn(scan_regularly(root, soon, happen.clone()));
    let api = settings.client.clone().map(|client| follow_api(client, settings.node.clone(), happen.clone()));
    let api = api.map(tokio::spawn);
    let mut agent = Agent { inventory: Inventory::new(settings.node.clone()), addresses: BTreeMap::new(), settings, scan_soon };
    readiness.hooks_attached(true);
    if api.is_none() {
        readiness.inventory_complete(true);
    }
    let mut ends = interval(ENDS);
    ends.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stop = std::pin::pin!(stop);
    loop {
        let (_keep, mut none) = mpsc::channel(1);
        let next = async {
            tokio::select! {
                happening = happenings.recv() => happening,
                _ = ends.tick() => Some(Happening::LookForEnds),
                () = &mut stop => None,
            }
        };
        let Some(happening) = pipeline.run(&mut none, next).await? else { break };
        agent.act(&mut pipeline, happening, &readiness)?;
    }
    pipeline.close()
}

struct Agent {
    inventory: Inventory,
    /// Targets by the addresses of their pods, for endpoints.
    addresses: BTreeMap<String, TargetId>,
    settings: Settings,
    scan_soon: watch::Sender<()>,
}
