//! The clients: what each kind does with its connections while the load goes through its stages.

use std::{
    future::Future,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    connection::{Connection, Exchange},
    message::Message,
    outcome::{Outcome, RequestResult},
    plan::Kind,
    protocol::Protocol,
    random::Random,
    summary::Recorder,
};
use crate::clock::mono_ns;

const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
/// More than this many fresh requests at once wait for one another.
const FRESH_AT_ONCE: usize = 1024;

/// What clients may still do; each stage allows less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Running,
    NoNewConnections,
    NoNewRequests,
    Aborted,
}

/// One client, or for `fresh` the source of many.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) kind: Kind,
    pub(super) source: IpAddr,
    pub(super) target: SocketAddr,
    pub(super) message: Message,
    pub(super) protocol: Protocol,
    pub(super) stage: watch::Receiver<Stage>,
    pub(super) recorder: Recorder,
    pub(super) random: Random,
}

/// What a request left behind.
enum Next {
    Reuse,
    Reconnect,
    Stop,
}

impl Client {
    /// Opens connections as long as it may, and uses each until it is closed.
    pub(super) async fn run(mut self) {
        while self.stage() == Stage::Running {
            let start = mono_ns();
            let Some(mut connection) = self.connect(start).await else {
                sleep(RECONNECT_PAUSE).await;
                continue;
            };
            let next = match self.kind {
                Kind::Idle => self.hold(&mut connection, start).await,
                _ => self.use_up(&mut connection, start).await,
            };
            drop(connection);
            if matches!(next, Next::Stop) {
                return;
            }
            sleep(self.random.think_time()).await;
        }
    }

    /// Opens `per_second` connections a second for a request each.
    pub(super) async fn run_fresh(self, per_second: u32) {
        let mut ticks = interval(Duration::from_secs(1) / per_second);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut requests = JoinSet::new();
        while self.stage() == Stage::Running {
            requests.spawn(self.clone().once());
            while requests.try_join_next().is_some() {}
            if requests.len() >= FRESH_AT_ONCE {
                requests.join_next().await;
            }
            let mut stage = self.stage.clone();
            tokio::select! {
                _ = ticks.tick() => {}
                _ = stage.wait_for(|stage| *stage > Stage::Running) => break,
            }
        }
        requests.join_all().await;
    }

    async fn once(self) {
        let start = mono_ns();
        if let Some(mut connection) = self.connect(start).await {
            self.request(&mut connection, start).await;
        }
    }

    async fn use_up(&mut self, connection: &mut Connection, mut start: u64) -> Next {
        loop {
            match self.request(connection, start).await {
                Next::Reuse => {}
                ended => return ended,
            }
            sleep(self.random.think_time()).await;
            if self.stage() >= Stage::NoNewRequests {
                return Next::Stop;
            }
            start = mono_ns();
        }
    }

    async fn hold(&mut self, connection: &mut Connection, start: u64) -> Next {
        match self.request(connection, start).await {
            Next::Reuse => {}
            ended => return ended,
        }
        let mut stage = self.stage.clone();
        tokio::select! {
            () = connection.closed() => Next::Reconnect,
            _ = stage.wait_for(|stage| *stage >= Stage::NoNewRequests) => Next::Stop,
        }
    }

    async fn connect(&self, start: u64) -> Option<Connection> {
        match self.unless_aborted(Connection::open(self.source, self.target, &self.protocol)).await {
            Some(Ok(connection)) => Some(connection),
            Some(Err(failure)) => {
                let outcome = Outcome::Failed { cause: failure.cause, phase: failure.phase };
                self.record(failure.local, false, start, outcome);
                None
            }
            None => {
                self.record(SocketAddr::new(self.source, 0), false, start, Outcome::Aborted);
                None
            }
        }
    }

    async fn request(&self, connection: &mut Connection, start: u64) -> Next {
        let (local, reused) = (connection.local, connection.requests > 0);
        let exchange = self.unless_aborted(connection.exchange(&self.message)).await;
        let (outcome, next) = match exchange {
            Some(Exchange::NotSent) => return Next::Reconnect,
            Some(Exchange::Answered { status, bytes, close }) => {
                (Outcome::Ok { status, bytes }, if close { Next::Reconnect } else { Next::Reuse })
            }
            Some(Exchange::Failed { cause, phase }) => (Outcome::Failed { cause, phase }, Next::Reconnect),
            None => (Outcome::Aborted, Next::Stop),
        };
        self.record(local, reused, start, outcome);
        next
    }

    fn record(&self, local: SocketAddr, reused: bool, start_mono_ns: u64, outcome: Outcome) {
        self.recorder.record(RequestResult {
            kind: self.kind,
            local,
            peer: self.target,
            reused,
            start_mono_ns,
            end_mono_ns: mono_ns(),
            outcome,
        });
    }

    /// A load whose handle is gone is aborted.
    fn stage(&self) -> Stage {
        if self.stage.has_changed().is_err() { Stage::Aborted } else { *self.stage.borrow() }
    }

    async fn unless_aborted<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut stage = self.stage.clone();
        tokio::select! {
            biased;
            done = work => Some(done),
            _ = stage.wait_for(|stage| *stage == Stage::Aborted) => None,
        }
    }
}
