//! The pod under rehearsal: containers that share a netns, all of which vanish with us.
//!
//! No namespace has a name and no device is in the host's netns, so that even a `kill -9` of
//! lastpacket leaves nothing but an empty cgroup, which the next run removes.

mod cgroup;
mod container;
mod link;
mod output;
pub(crate) mod process;
mod threads;

use std::{fs::File, future::Future, pin::Pin};

use anyhow::{Context, Result};
use futures::future::select_all;
use nix::sched::CloneFlags;

pub(crate) use self::container::command_of;
use self::threads::{NamespaceThread, local_runtime};
pub use self::{
    cgroup::Cgroup,
    container::{Container, ContainerSpec, User},
    link::{Addresses, CHECKER, CLIENT, SERVER},
    output::OutputTail,
    process::Exit,
    threads::ClientNet,
};

/// A sandbox with nothing running in it yet: the moment to begin tracing.
pub struct Namespaces {
    // Dropped in this order.
    clients: ClientNet,
    server: NamespaceThread,
    name: String,
}

impl Namespaces {
    /// Creates both sides and the veth between them. `name` is the cgroups', to be unique among this
    /// process' sandboxes. Errors: no privilege for namespaces, no veth.
    pub async fn create(name: &str) -> Result<Self> {
        let clients = ClientNet::start().await?;
        let server = NamespaceThread::start("lp-server", None, CloneFlags::CLONE_NEWNET).await?;
        let peer = clients.netns().try_clone().context("cannot duplicate a descriptor")?;
        server.run(move || local_runtime()?.block_on(link::set_up_server(&peer))).await??;
        clients.runtime().spawn(link::set_up_clients()).await??;
        // As container runtimes do: low ports need no privilege. Where /proc/sys is read-only they do.
        let low_ports = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
        server.run(move || drop(std::fs::write(low_ports, "0"))).await?;
        Ok(Self { clients, server, name: name.to_owned() })
    }

    /// Starts a single container that runs a program with its arguments. Its output goes to `log` too,
    /// if there is one.
    ///
    /// Errors: it cannot be run.
    pub async fn start(self, words: &[String], log: Option<File>) -> Result<Sandbox> {
        let spec =
            ContainerSpec { name: "server".to_owned(), words: words.to_vec(), ..ContainerSpec::default() };
        self.start_all(vec![spec], log.as_ref()).await
    }

    /// Starts all containers, of which the first is the main one; sidecars first, as a kubelet does.
    ///
    /// Errors: there is none, or one cannot be run.
    pub async fn start_all(self, specs: Vec<ContainerSpec>, log: Option<&File>) -> Result<Sandbox> {
        let mut numbered: Vec<(usize, ContainerSpec)> = specs.into_iter().enumerate().collect();
        numbered.sort_by_key(|(number, spec)| (!spec.sidecar, *number));
        let mut started = Vec::new();
        for (number, spec) in numbered {
            let log = log.map(File::try_clone).transpose().context("cannot duplicate a descriptor")?;
            started.push((number, self.start_one(spec, log).await?));
        }
        started.sort_by_key(|(number, _)| *number);
        let mut containers = started.into_iter().map(|(_, container)| container);
        let main = containers.next().context("there is no container to start")?;
        Ok(Sandbox { main, others: containers.collect(), namespaces: self })
    }

    /// A thread can have children in one new pid namespace only: so each container has a thread.
    async fn start_one(&self, spec: ContainerSpec, log: Option<File>) -> Result<Container> {
        let netns = || File::open("/proc/thread-self/ns/net");
        let netns = self.server.run(netns).await?.context("cannot open the server's netns")?;
        let thread = NamespaceThread::start("lp-container", Some(netns), CloneFlags::CLONE_NEWPID).await?;
        let cgroup = Cgroup::create(&format!("{}-{}", self.name, spec.name))?;
        Container::start(spec, thread, cgroup, log).await
    }

    /// The clients' side of the veth.
    #[must_use]
    pub fn clients(&self) -> &ClientNet {
        &self.clients
    }

    /// Runs `job` on a thread inside the server's netns.
    pub async fn run_inside<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        self.server.run(job).await
    }
}

/// Running containers in their namespaces. Dropping it kills them and removes all.
pub struct Sandbox {
    // Dropped in this order.
    main: Container,
    others: Vec<Container>,
    namespaces: Namespaces,
}

impl Sandbox {
    /// The main container: the server.
    #[must_use]
    pub fn main(&self) -> &Container {
        &self.main
    }

    /// The containers beside the main one.
    #[must_use]
    pub fn others(&self) -> &[Container] {
        &self.others
    }

    /// All containers, the main one first.
    pub fn containers(&self) -> impl Iterator<Item = &Container> {
        std::iter::once(&self.main).chain(&self.others)
    }

    /// What is around the containers.
    #[must_use]
    pub fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }

    /// Waits until one of the containers has ended.
    ///
    /// # Errors
    /// If a process was reaped by somebody else.
    pub async fn any_exited(&self) -> Result<(&Container, Exit)> {
        type Ended<'a> = Pin<Box<dyn Future<Output = Result<(&'a Container, Exit)>> + 'a>>;
        let wait = |container| -> Ended<'_> {
            Box::pin(async move { Ok((container, Container::exited(container).await?)) })
        };
        select_all(self.containers().map(wait)).await.0
    }

    /// How the server ended, if it has.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        self.main.exit()
    }

    /// The server's pid as the host sees it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.main.pid()
    }

    /// Waits until the server and with it every process of its pid namespace has ended.
    pub async fn exited(&self) -> Result<Exit> {
        self.main.exited().await
    }

    /// Sends a signal to the server.
    pub fn signal(&self, signal: i32) -> Result<()> {
        self.main.signal(signal)
    }
}
