//! What the client tells of every recording, by golden files (`UPDATE=1` writes them anew), and when.

use std::{fs, path::Path, time::Duration};

use lastpacket_tests::api_server::{ApiServer, Collection, Verb};
use tracer_user::kube::{
    list_watch::Timing,
    watch::{ApiUpdate, Watched},
};

use super::{fast, noted, updates_of};

async fn is_golden(recording: &str) {
    let server = ApiServer::play(recording, 10.0).await;
    let updates = updates_of(&server, fast()).await;
    let text = format!("{}\n{}", noted(&updates, Watched::Pods), noted(&updates, Watched::EndpointSlices));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("kube/golden/{recording}.txt"));
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &text).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, golden, "{recording}; if this is meant, set UPDATE=1");
    let watches = server.received(Collection::Pods, Verb::Watch);
    assert!(watches.iter().all(|watch| watch.query.contains("fieldSelector=spec.nodeName%3Dnode1")));
    assert!(watches.iter().all(|watch| watch.query.contains("allowWatchBookmarks=true")));
}

macro_rules! golden {
    ($($name:ident: $recording:literal,)*) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            is_golden($recording).await;
        })*
    };
}

golden! {
    golden_graceful_deletion: "delete-graceful-under-load",
    golden_ignored_stop_signal: "delete-sigterm-ignored-under-load",
    golden_forced_deletion: "force-delete-under-load",
    golden_host_network: "hostnetwork-delete-under-load",
    golden_idle_deletion: "idle-delete",
    golden_restart_by_liveness: "liveness-restart-under-load",
    golden_rollout: "rollout-restart-under-load",
    golden_sidecar: "sidecar-delete-under-load",
    golden_tls_server: "tls-nginx-delete-under-load",
}

/// In real time: the deletion is stamped when it comes in, not when it is looked at, and its own times
/// are the API's.
#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_is_stamped_when_it_comes_in() {
    const SECOND: i64 = 1_000_000_000;
    // Milliseconds after the deletion, as the recording has them.
    let (terminating, removed) = (14, 5_381);
    let server = ApiServer::play("delete-graceful-under-load", 1.0).await;
    let updates = updates_of(&server, Timing::default()).await;
    let (pod, deletion) = updates
        .iter()
        .find_map(|update| match &update.what {
            ApiUpdate::Pod(pod) if pod.deletion.is_some() => Some((pod, update.received)),
            _ => None,
        })
        .unwrap();
    let facts = pod.deletion.unwrap();
    assert_eq!((facts.grace_seconds, facts.deadline - facts.requested), (10, 10 * SECOND));
    let change = |gone: bool| {
        let change = updates.iter().find(|update| match &update.what {
            ApiUpdate::Endpoint(change) if change.endpoint.pod_uid.as_ref() == Some(&pod.uid) => {
                match change.after {
                    Some(after) => !gone && after.terminating,
                    None => gone,
                }
            }
            _ => false,
        });
        Duration::from_nanos(change.unwrap().received.mono - deletion.mono)
    };
    for (was, recorded) in [(change(false), terminating), (change(true), removed)] {
        let recorded = Duration::from_millis(recorded);
        assert!(was.abs_diff(recorded) < Duration::from_millis(100), "{was:?}, recorded {recorded:?}");
    }
}
