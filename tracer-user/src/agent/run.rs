//! The agent's wiring: happenings on the node and from the API, one after the other, to the follower.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use anyhow::Result;
use kube::Client;
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval},
};
use tracer_core::output::Line;

use super::{
    cuts::Cuts,
    follow::Follower,
    look::{Looked, look_regularly},
    on_node::OnNode,
};
use crate::{
    clock,
    host::{cgroup::Hierarchy, limits},
    kube::{
        list_watch::Timing,
        watch::{ApiUpdate, Update, Watched, watch},
    },
    pipeline::Pipeline,
    serve::Readiness,
};

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
    /// Post a Warning Event on pods that were cut.
    pub warnings: bool,
}

/// What happened that the agent must act on.
enum Happening {
    Looked(Looked),
    Api(Box<Update>),
    LookForEnds,
}

/// Follows all pods of the node until `stop` is done. `observe` sees every line.
///
/// # Errors
/// If there is no cgroup hierarchy, or the pipeline fails.
pub async fn run(
    mut pipeline: Pipeline,
    settings: Settings,
    readiness: Arc<Readiness>,
    mut observe: impl FnMut(&Line) + 'static,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    limits::lift_open_files();
    let hierarchy = Hierarchy::of_containers()?;
    let (happen, mut happenings) = mpsc::channel(256);
    let (hurry, hurried) = watch::channel(false);
    let (tell, looked) = (happen.clone(), Happening::Looked);
    tokio::spawn(look_regularly(hierarchy, pipeline.take_cgroups()?, hurried, tell, looked));
    if let Some(client) = settings.client.clone() {
        tokio::spawn(follow_api(client, settings.node.clone(), happen));
    }
    let cuts = Rc::new(RefCell::new(Cuts::default()));
    let collected = Rc::clone(&cuts);
    pipeline.observe(Box::new(move |line| {
        collected.borrow_mut().collect(line);
        observe(line);
    }));
    readiness.hooks_attached(true);
    let mut agent =
        Agent { follower: Follower::default(), cuts, settings, hurry, looked: false, listed: false };
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
        agent.act(&mut pipeline, happening)?;
        readiness.inventory_complete(agent.is_complete());
    }
    pipeline.close()
}

struct Agent {
    follower: Follower,
    cuts: Rc<RefCell<Cuts>>,
    settings: Settings,
    hurry: watch::Sender<bool>,
    /// The cgroups were looked through.
    looked: bool,
    /// The API has told its pods.
    listed: bool,
}

impl Agent {
    fn act(&mut self, pipeline: &mut Pipeline, happening: Happening) -> Result<()> {
        let now = clock::mono_ns();
        let mut on_node = OnNode { pipeline, settings: &self.settings };
        match happening {
            Happening::Looked(looked) => {
                on_node.pipeline.set_probers(&looked.probers)?;
                self.follower.scanned(&looked.pods, now, &mut on_node)?;
                self.looked = true;
            }
            Happening::Api(update) => {
                self.listed |= update.what == ApiUpdate::Synced(Watched::Pods);
                self.follower.told(*update, &mut on_node)?;
            }
            Happening::LookForEnds => self.follower.look_for_ends(now, &mut on_node)?,
        }
        // Where a container has no pid namespace of its own, only its cgroup tells that it is gone.
        let exiting = self.follower.any_exiting(&on_node);
        self.hurry.send_if_modified(|hurry| std::mem::replace(hurry, exiting) != exiting);
        let follower = &self.follower;
        self.cuts.borrow_mut().post(&self.settings, |uid| follower.pod(uid).cloned());
        self.follower.forget_ended();
        Ok(())
    }

    fn is_complete(&self) -> bool {
        self.looked && (self.listed || self.settings.client.is_none())
    }
}

async fn follow_api(client: Client, node: String, happen: mpsc::Sender<Happening>) {
    let (tell, mut updates) = mpsc::channel(256);
    tokio::spawn(watch(client, node, Timing::default(), tell));
    while let Some(update) = updates.recv().await {
        if happen.send(Happening::Api(Box::new(update))).await.is_err() {
            return;
        }
    }
}
