//! Looks at the node's cgroups and processes: regularly, and at once when the kernel tells of a change.

use std::time::Duration;

use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};
use tracer_common::{CgroupRecord, Pod as _};

use crate::{
    host::{
        cgroup::Hierarchy,
        pods::{Found, Pod, Scanner},
        probers::Probers,
    },
    kernel::ring::Records,
};

/// How often, whether or not anything told of a change.
const REGULARLY: Duration = Duration::from_secs(5);
/// How often while a container is exiting: without a pid namespace of its own, only its cgroup tells that
/// nothing of it is left.
const IN_A_HURRY: Duration = Duration::from_millis(200);
/// Changes come in groups: a container's cgroup, then its process.
const GROUP: Duration = Duration::from_millis(5);
/// How soon to look again at containers that are being made; then twice as long each time.
const UNSETTLED: Duration = Duration::from_millis(10);

/// What was seen at one look.
pub(super) struct Looked {
    /// Pods that run.
    pub(super) pods: Vec<Pod>,
    /// Processes whose connections are probes.
    pub(super) probers: Vec<u32>,
}

/// Looks until nobody listens any more. `cgroups` tells of cgroups that are made or entered, `hurry`
/// whether a container is exiting.
pub(super) async fn look_regularly<T>(
    hierarchy: Hierarchy,
    mut cgroups: Records,
    mut hurry: watch::Receiver<bool>,
    tell: mpsc::Sender<T>,
    as_told: impl Fn(Looked) -> T,
) {
    let (mut scanner, mut probers) = (Scanner::new(hierarchy), Probers::default());
    let mut unsettled_wait = UNSETTLED;
    loop {
        let look = tokio::task::spawn_blocking(move || {
            let (found, pids) = (scanner.look(), probers.look().to_vec());
            (scanner, probers, found, pids)
        });
        let Ok((same, also_same, Found { pods, unsettled }, pids)) = look.await else { return };
        (scanner, probers) = (same, also_same);
        if tell.send(as_told(Looked { pods, probers: pids })).await.is_err() {
            return;
        }
        unsettled_wait = if unsettled { (2 * unsettled_wait).min(REGULARLY) } else { UNSETTLED };
        let pause = match (unsettled, *hurry.borrow_and_update()) {
            (true, _) => unsettled_wait / 2,
            (false, true) => IN_A_HURRY,
            (false, false) => REGULARLY,
        };
        tokio::select! {
            () = sleep(pause) => {}
            Ok(()) = hurry.changed() => {}
            told = of_pods(&mut cgroups) => if told { unsettled_wait = UNSETTLED; sleep(GROUP).await },
        }
    }
}

/// Waits until a pod's cgroup is told. False when that cannot be told any more.
async fn of_pods(cgroups: &mut Records) -> bool {
    let mut batch = Vec::new();
    loop {
        if cgroups.ready().await.is_err() {
            std::future::pending::<()>().await;
        }
        let mut of_pods = false;
        loop {
            cgroups.take(&mut batch);
            if batch.is_empty() {
                break;
            }
            of_pods |= batch
                .drain(..)
                .any(|record| CgroupRecord::read_from(&record).is_some_and(|record| is_of_pod(&record)));
        }
        if of_pods {
            return true;
        }
    }
}

/// Whether a path leads below the pods of a node: `/kubepods/…`, `/kubepods.slice/…`, below any prefix.
fn is_of_pod(record: &CgroupRecord) -> bool {
    let name = b"kubepods";
    record.path.windows(name.len()).take_while(|window| window[0] != 0).any(|window| window == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_cgroups_of_pods_are_worth_a_look() {
        let of_pod = |text: &str| {
            let mut record = CgroupRecord { path: [0; CgroupRecord::PATH] };
            record.path[..text.len()].copy_from_slice(text.as_bytes());
            is_of_pod(&record)
        };
        assert!(of_pod("/kubepods/burstable/podb5/6386"));
        assert!(of_pod("/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice"));
        assert!(!of_pod("/system.slice/ssh.service"));
        assert!(!of_pod(""));
    }
}
