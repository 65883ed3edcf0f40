//! A container as the API describes it: what stops it, and how it ended last.

use k8s_openapi::api::core::v1::{
    Container, ContainerStateTerminated, ContainerStatus, Lifecycle, LifecycleHandler, PodSpec, PodStatus,
};

use super::pod::wall_ns;

/// A container of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerFacts {
    /// Its name.
    pub name: String,
    /// What it is to the pod.
    pub kind: ContainerKind,
    /// Its id without the runtime's prefix, once it was created.
    pub id: Option<String>,
    /// Its preStop hook.
    pub pre_stop: Option<PreStop>,
    /// The stop signal that the pod names or the kubelet reports; else the image decides.
    pub stop_signal: Option<String>,
    /// How often it was started again.
    pub restart_count: u32,
    /// Whether it is running.
    pub running: bool,
    /// How it ended, this time or, if it was started again, the last time.
    pub last_exit: Option<LastExit>,
}

/// What a container is to its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerKind {
    /// One of the pod's main containers.
    Main,
    /// It runs to its end before the main ones start.
    Init,
    /// An init container that is always restarted: it runs beside the main ones and is stopped after
    /// them (KEP-753).
    Sidecar,
    /// Added to a running pod to debug it; it has no hooks.
    Ephemeral,
}

/// A preStop hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreStop {
    /// A command in the container.
    Exec,
    /// A request by the kubelet.
    HttpGet,
    /// A connection by the kubelet; accepted by the API, never run.
    TcpSocket,
    /// The kubelet waits so many seconds.
    Sleep(u64),
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastExit {
    /// Id of the container that ended, without the runtime's prefix.
    pub id: Option<String>,
    /// Its exit code.
    pub code: i32,
    /// The signal that killed it, where the runtime tells.
    pub signal: Option<i32>,
    /// The kubelet's word for it: `Completed`, `Error`, `OOMKilled`.
    pub reason: Option<String>,
    /// When, in nanoseconds since 1970; the API has whole seconds.
    pub finished: Option<i64>,
}

/// All containers of a pod.
pub(super) fn containers(spec: &PodSpec, status: Option<&PodStatus>) -> Vec<ContainerFacts> {
    let statuses = |of: fn(&PodStatus) -> Option<&Vec<ContainerStatus>>| {
        status.and_then(of).map(Vec::as_slice).unwrap_or_default()
    };
    let main = statuses(|status| status.container_statuses.as_ref());
    let init = statuses(|status| status.init_container_statuses.as_ref());
    let ephemeral = statuses(|status| status.ephemeral_container_statuses.as_ref());
    let main = spec
        .containers
        .iter()
        .map(|container| facts(&container.name, ContainerKind::Main, container.lifecycle.as_ref(), main));
    let init =
        spec.init_containers.iter().flatten().map(|container| {
            facts(&container.name, init_kind(container), container.lifecycle.as_ref(), init)
        });
    let ephemeral = spec
        .ephemeral_containers
        .iter()
        .flatten()
        .map(|container| facts(&container.name, ContainerKind::Ephemeral, None, ephemeral));
    main.chain(init).chain(ephemeral).collect()
}

fn init_kind(container: &Container) -> ContainerKind {
    match container.restart_policy.as_deref() {
        Some("Always") => ContainerKind::Sidecar,
        _ => ContainerKind::Init,
    }
}

fn facts(
    name: &str,
    kind: ContainerKind,
    lifecycle: Option<&Lifecycle>,
    statuses: &[ContainerStatus],
) -> ContainerFacts {
    let status = statuses.iter().find(|status| status.name == name);
    let state = status.and_then(|status| status.state.as_ref());
    let last_state = status.and_then(|status| status.last_state.as_ref());
    let ended = state.and_then(|state| state.terminated.as_ref());
    let ended = ended.or_else(|| last_state.and_then(|state| state.terminated.as_ref()));
    let asked_for = lifecycle.and_then(|lifecycle| lifecycle.stop_signal.clone());
    ContainerFacts {
        name: name.to_owned(),
        kind,
        id: status.and_then(|status| id(status.container_id.as_deref())),
        pre_stop: lifecycle.and_then(|lifecycle| pre_stop(lifecycle.pre_stop.as_ref()?)),
        stop_signal: asked_for.or_else(|| status.and_then(|status| status.stop_signal.clone())),
        restart_count: status.map_or(0, |status| status.restart_count.unsigned_abs()),
        running: state.is_some_and(|state| state.running.is_some()),
        last_exit: ended.map(last_exit),
    }
}

/// `containerd://ID`.
fn id(text: Option<&str>) -> Option<String> {
    let (_, id) = text?.split_once("://")?;
    (!id.is_empty()).then(|| id.to_owned())
}

fn pre_stop(handler: &LifecycleHandler) -> Option<PreStop> {
    if let Some(sleep) = &handler.sleep {
        return Some(PreStop::Sleep(u64::try_from(sleep.seconds).unwrap_or(0)));
    }
    let exec = handler.exec.as_ref().map(|_| PreStop::Exec);
    let http = handler.http_get.as_ref().map(|_| PreStop::HttpGet);
    exec.or(http).or_else(|| handler.tcp_socket.as_ref().map(|_| PreStop::TcpSocket))
}

fn last_exit(state: &ContainerStateTerminated) -> LastExit {
    LastExit {
        id: id(state.container_id.as_deref()),
        code: state.exit_code,
        signal: state.signal,
        reason: state.reason.clone(),
        finished: state.finished_at.as_ref().map(wall_ns),
    }
}
