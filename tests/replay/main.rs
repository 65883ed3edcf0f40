//! Recordings of real pod terminations, lived through by the agent's own inventory and core behind the
//! real client of the Kubernetes API: phases and verdicts by golden files, and whether every client
//! failure is explained.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test a panic is the failure's message")]

mod driver;
mod explained;
mod golden;

use tracer_core::{output::Body, verdict::Verdict, words::Result};

use self::driver::Replay;

impl Replay {
    fn verdicts(&self) -> Vec<&Verdict> {
        let verdicts = self.lines.iter().filter_map(|line| match &line.body {
            Body::Verdict(verdict) => Some(&**verdict),
            _ => None,
        });
        verdicts.collect()
    }
}

/// How the clients of a run reached the pods.
#[derive(Clone, Copy, PartialEq)]
enum Clients {
    /// By the pods' own addresses: failures are known by their tuples.
    Direct,
    /// Through a Service, with another source port: by number and time.
    Service,
    /// There were none.
    None,
}

async fn replay(name: &str, clients: Clients) {
    let replay = Replay::of(name).await;
    golden::is_golden(name, &replay);
    explained::no_probe_is_a_loss(&replay);
    explained::books_balance(name, &replay);
    match clients {
        Clients::Direct => explained::by_tuple(name, &replay),
        Clients::Service => explained::by_time(name, &replay),
        Clients::None => {
            let results: Vec<_> = replay.verdicts().iter().map(|verdict| verdict.result).collect();
            assert_eq!(results, [Result::Idle], "{:#?}", replay.verdicts());
        }
    }
}

macro_rules! replays {
    ($($name:ident: $recording:literal, $clients:ident;)*) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            replay($recording, Clients::$clients).await;
        })*
    };
}

replays! {
    golden_graceful_deletion: "delete-graceful-under-load", Direct;
    golden_ignored_stop_signal: "delete-sigterm-ignored-under-load", Direct;
    golden_forced_deletion: "force-delete-under-load", Direct;
    golden_host_network: "hostnetwork-delete-under-load", Direct;
    golden_idle_deletion: "idle-delete", None;
    golden_restart_by_liveness: "liveness-restart-under-load", Direct;
    golden_rollout: "rollout-restart-under-load", Service;
    golden_sidecar: "sidecar-delete-under-load", Service;
    golden_tls_server: "tls-nginx-delete-under-load", Direct;
}
