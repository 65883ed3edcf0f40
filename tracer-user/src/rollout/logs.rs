//! An agent's log, followed through the API for as long as its pod is there.

use std::time::Duration;

use anyhow::{Context, Result};
use futures::{AsyncBufReadExt, StreamExt};
use k8s_openapi::{api::core::v1::Pod, jiff};
use kube::{Api, api::LogParams};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tracer_core::output::Timestamp;

use super::input::Input;

/// The agent's container, as `deploy/manifest.yaml` names it.
const CONTAINER: &str = "agent";

/// Which log.
pub(super) struct Log {
    pub(super) pods: Api<Pod>,
    pub(super) pod: String,
    pub(super) node: String,
    /// From how long ago.
    pub(super) since: Duration,
    /// Before a log that ended is asked for again.
    pub(super) pause: Duration,
}

/// Follows it until the pod is gone, or nobody listens any more. The API server ends logs as it pleases,
/// and the container's ends with the container: what is not there yet is asked for again.
pub(super) async fn follow(log: Log, tell: mpsc::Sender<Input>) {
    let mut last: Option<Timestamp> = None;
    let began = Instant::now();
    while !tell.is_closed() {
        let since = log.since + began.elapsed();
        let reason = match read(&log, since, &mut last, &tell).await {
            Ok(()) => None,
            Err(error) if is_gone(&error) => return,
            Err(error) => Some(format!("{error:#}")),
        };
        // Nobody listens any more when the watch has ended.
        let _ = tell.send(Input::AgentTrouble { node: log.node.clone(), reason }).await;
        sleep(log.pause).await;
    }
}

fn is_gone(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(kube::Error::Api(status)) if status.code == 404)
}

async fn read(
    log: &Log,
    since: Duration,
    last: &mut Option<Timestamp>,
    tell: &mpsc::Sender<Input>,
) -> Result<()> {
    let params = LogParams {
        container: Some(CONTAINER.to_owned()),
        follow: true,
        // By the node's own clock as soon as that is known; `seq` tells what comes twice.
        since_time: last.and_then(whole_second_of),
        since_seconds: last.is_none().then(|| i64::try_from(since.as_secs()).unwrap_or(i64::MAX).max(1)),
        ..LogParams::default()
    };
    let stream = log.pods.log_stream(&log.pod, &params).await.context("the API does not give it")?;
    let mut lines = stream.lines();
    while let Some(text) = lines.next().await {
        let text = text.context("it broke off")?;
        if text.trim().is_empty() {
            continue;
        }
        let input = input(log.node.clone(), &text);
        if let Input::Line { line, .. } = &input {
            *last = Some(line.time);
        }
        if tell.send(input).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// The second that a time lies in: `LogParams` would round half a second up, past lines not yet read.
fn whole_second_of(time: Timestamp) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_second(time.0.div_euclid(1_000_000_000)).ok()
}

fn input(node: String, text: &str) -> Input {
    if let Ok(line) = serde_json::from_str(text) {
        return Input::Line { node, line };
    }
    match serde_json::from_str(text) {
        Ok(place) => Input::Newer { node, place },
        Err(_) => Input::Garbage { node },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_asked_for_from_the_second_of_its_last_line() {
        let last = "1970-01-01T02:11:47.685333463Z".parse::<jiff::Timestamp>().unwrap();
        let last = Timestamp(i64::try_from(last.as_nanosecond()).unwrap());
        assert_eq!(whole_second_of(last).unwrap().to_string(), "1970-01-01T02:11:47Z");
    }
}
