//! The stage: clients, load balancer, pods and backend, each in a network namespace of its own, all on
//! one switch.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use lastpacket_tests::netns::Namespace;

use crate::backend;

/// Where clients come from.
const CLIENTS: u8 = 1;
/// Where the load balancer listens, and where its connections to pods come from.
pub const BALANCER: u8 = 2;
/// Where its health checks come from.
pub const CHECKS: u8 = 3;
/// The first pod's; the others follow.
const FIRST_POD: u8 = 11;
const BACKEND: u8 = 100;
/// How many pods there is room for.
pub const PODS: u8 = 4;

/// See the module.
pub struct Stage {
    pub clients: Namespace,
    pub balancer: Namespace,
    pods: Vec<Namespace>,
    _backend: Namespace,
    _switch: Namespace,
    /// Where a run's artefacts are kept.
    pub folder: PathBuf,
}

impl Stage {
    /// A new one, with the backend at work; what an earlier run left in the folder is removed.
    ///
    /// # Errors
    /// Without root or `ip`.
    pub fn new(name: &str) -> Result<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/scenarios").join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).context("cannot make the folder of artefacts")?;
        let switch = Namespace::new()?;
        switch.ip("link add br0 type bridge forward_delay 0\nlink set br0 up\n")?;
        let clients = host(&switch, &[CLIENTS])?;
        let balancer = host(&switch, &[BALANCER, CHECKS])?;
        let pods = (0..PODS).map(|pod| host(&switch, &[FIRST_POD + pod])).collect::<Result<_>>()?;
        let backend = host(&switch, &[BACKEND])?;
        backend::start(&backend)?;
        Ok(Self {
            clients,
            balancer,
            pods,
            _backend: backend,
            _switch: switch,
            folder: folder.canonicalize()?,
        })
    }

    /// The namespace of a pod, counted from 0.
    pub fn pod(&self, number: usize) -> &Namespace {
        &self.pods[number]
    }

    /// A file among the artefacts.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// A namespace with these addresses, plugged into the switch.
fn host(switch: &Namespace, addresses: &[u8]) -> Result<Namespace> {
    let namespace = Namespace::new()?;
    let first = addresses[0];
    switch.ip(&format!(
        "link add v{first} type veth peer name eth0 netns {}\nlink set v{first} master br0 up\n",
        namespace.path()
    ))?;
    let addresses: String =
        addresses.iter().map(|last| format!("addr add {}/24 dev eth0\n", address(*last))).collect();
    namespace.ip(&format!("{addresses}link set eth0 up\n"))?;
    Ok(namespace)
}

/// An address on the switch.
pub fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 98, 0, last)
}

/// The address of a pod, counted from 0.
pub fn pod_address(number: usize) -> Ipv4Addr {
    address(FIRST_POD + u8::try_from(number).unwrap_or(0))
}

/// Where gateways find the backend.
pub fn backend_address() -> String {
    format!("{}:{}", address(BACKEND), backend::PORT)
}
