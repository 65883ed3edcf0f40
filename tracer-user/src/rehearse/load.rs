//! Client load across the veth, with the manners of a load balancer: until it learns that the pod
//! is going it opens new connections; afterwards it only uses up those it has. It never retries.

mod client;
mod connection;
mod http;
mod message;
mod outcome;
mod plan;
mod protocol;
mod random;
mod summary;

use std::net::SocketAddr;

use hyper::Method;
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::{Instant, timeout_at},
};

use self::{
    client::{Client, Stage},
    random::Random,
    summary::Recorder,
};
pub(crate) use self::{
    connection::{Connection, Exchange},
    message::Message,
};
pub use self::{
    outcome::{Cause, Outcome, Phase, RequestResult},
    plan::{Group, Kind, LoadPlan, LoadSpec},
    protocol::Protocol,
    summary::{Counts, Summary},
};
use super::sandbox::{CLIENT, ClientNet};

/// A running load. Dropping it aborts what is in flight.
pub struct Load {
    stage: watch::Sender<Stage>,
    recorder: Recorder,
    clients: JoinHandle<()>,
}

impl Load {
    /// Starts all clients of `plan` against `target`.
    #[must_use]
    pub fn start(net: &ClientNet, plan: &LoadPlan, target: SocketAddr) -> Self {
        let (stage, watched) = watch::channel(Stage::Running);
        let recorder = Recorder::default();
        let mut clients = JoinSet::new();
        let mut number = 0;
        for group in &plan.spec.0 {
            let tasks = if group.kind == Kind::Fresh { 1 } else { group.count };
            for _ in 0..tasks {
                let client = Client {
                    kind: group.kind,
                    source: CLIENT.matching(target.ip()),
                    target,
                    message: message(plan, group),
                    protocol: plan.protocol.clone(),
                    stage: watched.clone(),
                    recorder: recorder.clone(),
                    random: Random::for_client(plan.seed, number),
                };
                number += 1;
                match group.kind {
                    Kind::Fresh => clients.spawn_on(client.run_fresh(group.count), net.runtime()),
                    _ => clients.spawn_on(client.run(), net.runtime()),
                };
            }
        }
        let clients = net.runtime().spawn(async move { while clients.join_next().await.is_some() {} });
        Self { stage, recorder, clients }
    }

    /// From now on no new connections: the load balancer has learned that the pod is going.
    pub fn stop_new(&self) {
        self.advance(Stage::NoNewConnections);
    }

    /// The results until now.
    #[must_use]
    pub fn snapshot(&self) -> Summary {
        self.recorder.summary()
    }

    /// Starts no more requests, waits for those in flight until `deadline`, then aborts the rest.
    pub async fn finish(mut self, deadline: Instant) -> Summary {
        self.advance(Stage::NoNewRequests);
        if timeout_at(deadline, &mut self.clients).await.is_err() {
            self.advance(Stage::Aborted);
            // An aborted client ends at its next step, at the latest after a think time.
            let _ = (&mut self.clients).await;
        }
        self.recorder.summary()
    }

    fn advance(&self, to: Stage) {
        self.stage.send_if_modified(|stage| {
            let later = *stage < to;
            *stage = to.max(*stage);
            later
        });
    }
}

fn message(plan: &LoadPlan, group: &Group) -> Message {
    match group.kind {
        Kind::KeepAlive | Kind::Idle => Message::new(Method::GET, plan.path.clone()),
        Kind::Fresh => Message { close: true, ..Message::new(Method::GET, plan.path.clone()) },
        Kind::Long => {
            let path = plan.long_path.replace("{ms}", &group.duration.as_millis().to_string());
            Message { work: group.duration, ..Message::new(Method::GET, path) }
        }
        Kind::Stream => Message::new(Method::GET, "/stream".to_owned()),
        Kind::Upload => {
            Message { upload: group.duration, ..Message::new(Method::POST, "/upload".to_owned()) }
        }
    }
}
