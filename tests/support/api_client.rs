//! The real client of the Kubernetes API, and all that it tells of a server that plays.

use std::time::{Duration, Instant};

use tokio::{sync::mpsc, time::timeout};
use tracer_user::kube::{
    client,
    list_watch::Timing,
    watch::{Update, watch},
};

use crate::api_server::ApiServer;

/// Waits short enough for tests.
#[must_use]
pub fn fast() -> Timing {
    Timing {
        answer: Duration::from_secs(5),
        silence: Duration::from_secs(2),
        first_wait: Duration::from_millis(40),
        longest_wait: Duration::from_millis(200),
        page: 500,
    }
}

/// Watches until the play is over and nothing more comes.
pub async fn updates_of(server: &ApiServer, timing: Timing) -> Vec<Update> {
    const LONGEST: Duration = Duration::from_secs(60);
    let client = client::with(server.config()).unwrap();
    let (sender, mut receiver) = mpsc::channel(16);
    let watching = tokio::spawn(watch(client, "node1".to_owned(), timing, sender));
    let (mut updates, began) = (Vec::new(), Instant::now());
    loop {
        match timeout(Duration::from_millis(800), receiver.recv()).await {
            Ok(update) => updates.push(update.expect("the watch does not end by itself")),
            Err(_) if server.is_over() => break,
            Err(_) => assert!(began.elapsed() < LONGEST, "it does not end: {updates:#?}"),
        }
    }
    drop(receiver);
    timeout(Duration::from_secs(5), watching).await.expect("the watch ends with its receiver").unwrap();
    updates
}
