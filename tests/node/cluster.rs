//! The one node that all tests share: network, containerd, images.

use std::{
    path::PathBuf,
    sync::{Mutex, OnceLock},
};

use anyhow::{Result, anyhow};

use crate::{containerd::Containerd, cri::Cri, images, machine, network::Network};

/// A node.
pub struct Node {
    pub network: Network,
    pub cri: Cri,
    pub containerd: Mutex<Containerd>,
}

impl Node {
    /// A folder for what tests write; gone with the node.
    pub fn folder(&self) -> Result<PathBuf> {
        let containerd = self.containerd.lock().map_err(|_| anyhow!("a test panicked"))?;
        Ok(containerd.folder().to_owned())
    }
}

static NODE: OnceLock<Result<Node, String>> = OnceLock::new();

/// The node, made for the first test that needs it.
pub fn node() -> Result<&'static Node> {
    let node = NODE.get_or_init(|| make().map_err(|error| format!("{error:#}")));
    node.as_ref().map_err(|error| anyhow!("{error}"))
}

/// Ends it, if there is one.
pub fn end() {
    if let Some(Ok(node)) = NODE.get()
        && let Ok(mut containerd) = node.containerd.lock()
    {
        containerd.end();
    }
}

fn make() -> Result<Node> {
    machine::ensure_isolated()?;
    let network = Network::new()?;
    let mut containerd = Containerd::start(&network.node, images::PAUSE)?;
    let archives = images::make(containerd.folder())?;
    let cri = containerd.client()?;
    archives.iter().try_for_each(|archive| containerd.import(archive))?;
    Ok(Node { network, cri, containerd: Mutex::new(containerd) })
}
