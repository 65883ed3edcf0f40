//! The part of the Container Runtime Interface (`runtime.v1` of k8s.io/cri-api) that a kubelet needs to
//! run and stop pods: messages with the fields that are used, by their published numbers, and a client.
//!
//! A runtime takes absent fields for their defaults, and so does this for fields that it does not know.

use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use hyper::http::uri::PathAndQuery;
use prost::Message;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

/// A kubelet's connection to the runtime.
pub struct Cri {
    executor: Runtime,
    channel: Channel,
}

impl Cri {
    pub fn connect(socket: &Path) -> Result<Self> {
        let executor = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))?;
        let channel = executor.block_on(endpoint.connect())?;
        Ok(Self { executor, channel })
    }

    /// Runtime and network are up.
    pub fn ensure_ready(&self) -> Result<()> {
        let status: StatusResponse = self.call("Status", Empty {})?;
        let conditions = status.status.context("no status")?.conditions;
        let missing: Vec<_> = conditions.iter().filter(|condition| !condition.status).collect();
        ensure!(!conditions.is_empty() && missing.is_empty(), "{missing:?}");
        Ok(())
    }

    pub fn run_pod_sandbox(&self, config: &PodSandboxConfig) -> Result<String> {
        let request = RunPodSandboxRequest { config: Some(config.clone()) };
        self.call("RunPodSandbox", request).map(|answer: Id| answer.id)
    }

    /// The pod's address.
    pub fn address(&self, sandbox: &str) -> Result<String> {
        let answer: PodSandboxStatusResponse = self.call("PodSandboxStatus", id(sandbox))?;
        let network = answer.status.and_then(|status| status.network);
        Ok(network.context("the sandbox has no network")?.ip)
    }

    pub fn create_container(
        &self,
        sandbox: &str,
        config: ContainerConfig,
        of: &PodSandboxConfig,
    ) -> Result<String> {
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: Some(of.clone()),
        };
        self.call("CreateContainer", request).map(|answer: Id| answer.id)
    }

    pub fn start_container(&self, container: &str) -> Result<()> {
        self.call("StartContainer", id(container)).map(|Empty {}| ())
    }

    /// Runs a command in a container; gives its exit code.
    pub fn exec_sync(&self, container: &str, command: &[&str], timeout: i64) -> Result<i32> {
        let command = command.iter().map(|&word| word.to_owned()).collect();
        let request = ExecSyncRequest { container_id: container.to_owned(), command, timeout };
        self.call("ExecSync", request).map(|answer: ExecSyncResponse| answer.exit_code)
    }

    /// Sends the stop signal, and SIGKILL after so many seconds.
    pub fn stop_container(&self, container: &str, timeout: i64) -> Result<()> {
        let request = StopContainerRequest { container_id: container.to_owned(), timeout };
        self.call("StopContainer", request).map(|Empty {}| ())
    }

    pub fn remove_container(&self, container: &str) -> Result<()> {
        self.call("RemoveContainer", id(container)).map(|Empty {}| ())
    }

    pub fn stop_pod_sandbox(&self, sandbox: &str) -> Result<()> {
        self.call("StopPodSandbox", id(sandbox)).map(|Empty {}| ())
    }

    pub fn remove_pod_sandbox(&self, sandbox: &str) -> Result<()> {
        self.call("RemovePodSandbox", id(sandbox)).map(|Empty {}| ())
    }

    fn call<Q, A>(&self, method: &str, request: Q) -> Result<A>
    where
        Q: Message + Default + 'static,
        A: Message + Default + 'static,
    {
        let path = PathAndQuery::try_from(format!("/runtime.v1.RuntimeService/{method}"))?;
        let mut grpc = tonic::client::Grpc::new(self.channel.clone());
        let answer = self.executor.block_on(async {
            grpc.ready().await?;
            let codec = ProstCodec::<Q, A>::default();
            grpc.unary(tonic::Request::new(request), path, codec).await.map_err(anyhow::Error::from)
        });
        answer.map(tonic::Response::into_inner).map_err(|error| anyhow!("{method}: {error:#}"))
    }
}

fn id(id: &str) -> Id {
    Id { id: id.to_owned() }
}

/// `NamespaceMode`: the pod's, for its network; and the container's own, for its processes.
pub const POD: i32 = 0;
/// See [`POD`].
pub const CONTAINER: i32 = 1;
/// The node's: of a pod on the host network.
pub const NODE: i32 = 2;

/// Declares messages: the fields with their kinds and numbers.
macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty [$($tag:tt)*],)* })*) => {
        $($(#[$doc])*
        #[derive(Clone, PartialEq, Message)]
        pub struct $name { $(#[prost($($tag)*)] pub $field: $type,)* })*
    };
}

messages! {
    Empty {}
    /// All messages that carry the id of a sandbox or container, and nothing else of use, have it first.
    Id { id: String [string, tag = "1"], }
    Condition {
        kind: String [string, tag = "1"],
        status: bool [bool, tag = "2"],
        reason: String [string, tag = "3"],
        message: String [string, tag = "4"],
    }
    RuntimeStatus { conditions: Vec<Condition> [message, repeated, tag = "1"], }
    StatusResponse { status: Option<RuntimeStatus> [message, optional, tag = "1"], }
    RunPodSandboxRequest { config: Option<PodSandboxConfig> [message, optional, tag = "1"], }
    PodSandboxConfig {
        metadata: Option<PodMetadata> [message, optional, tag = "1"],
        hostname: String [string, tag = "2"],
        dns: Option<DnsConfig> [message, optional, tag = "4"],
        linux: Option<LinuxSandbox> [message, optional, tag = "8"],
    }
    PodMetadata {
        name: String [string, tag = "1"],
        uid: String [string, tag = "2"],
        namespace: String [string, tag = "3"],
    }
    DnsConfig { servers: Vec<String> [string, repeated, tag = "1"], }
    LinuxSandbox {
        cgroup_parent: String [string, tag = "1"],
        security: Option<SandboxSecurity> [message, optional, tag = "2"],
    }
    SandboxSecurity { namespaces: Option<Namespaces> [message, optional, tag = "1"], }
    Namespaces {
        network: i32 [int32, tag = "1"],
        pid: i32 [int32, tag = "2"],
    }
    PodSandboxStatusResponse { status: Option<PodSandboxStatus> [message, optional, tag = "1"], }
    PodSandboxStatus { network: Option<PodNetwork> [message, optional, tag = "5"], }
    PodNetwork { ip: String [string, tag = "1"], }
    CreateContainerRequest {
        pod_sandbox_id: String [string, tag = "1"],
        config: Option<ContainerConfig> [message, optional, tag = "2"],
        sandbox_config: Option<PodSandboxConfig> [message, optional, tag = "3"],
    }
    ContainerConfig {
        metadata: Option<ContainerMetadata> [message, optional, tag = "1"],
        image: Option<Image> [message, optional, tag = "2"],
        command: Vec<String> [string, repeated, tag = "3"],
        linux: Option<LinuxContainer> [message, optional, tag = "15"],
    }
    ContainerMetadata {
        name: String [string, tag = "1"],
        attempt: u32 [uint32, tag = "2"],
    }
    Image { image: String [string, tag = "1"], }
    LinuxContainer { security: Option<Security> [message, optional, tag = "2"], }
    Security { namespaces: Option<Namespaces> [message, optional, tag = "3"], }
    StopContainerRequest {
        container_id: String [string, tag = "1"],
        timeout: i64 [int64, tag = "2"],
    }
    ExecSyncRequest {
        container_id: String [string, tag = "1"],
        command: Vec<String> [string, repeated, tag = "2"],
        timeout: i64 [int64, tag = "3"],
    }
    ExecSyncResponse { exit_code: i32 [int32, tag = "3"], }
}
