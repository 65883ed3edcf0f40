//! The node's network: a namespace for the node, whose pods hang on it by CNI's `ptp`, and one for the
//! clients, who reach them through it.

use std::net::Ipv4Addr;

use anyhow::Result;
use lastpacket_tests::netns::Namespace;

/// Where pods get their addresses.
pub const POD_SUBNET: &str = "10.66.0.0/24";
/// The clients' own address.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 66, 255, 2);

/// See the module.
pub struct Network {
    /// Where the container runtime runs.
    pub node: Namespace,
    /// Where clients run.
    pub clients: Namespace,
}

impl Network {
    pub fn new() -> Result<Self> {
        let network = Self { node: Namespace::new()?, clients: Namespace::new()? };
        network.node.sysctl("net.ipv4.ip_forward", "1")?;
        // With equal numbers the kernel would put off bringing them up by as much as a second.
        let peer = format!("peer name clients index 1001 netns {}", network.clients.path());
        network.node.ip(&format!(
            "link add to-clients index 1000 type veth {peer}\naddr add 10.66.255.1/30 dev to-clients\nlink set to-clients up\n"
        ))?;
        network.clients.ip(&format!(
            "addr add {CLIENT}/30 dev clients\nlink set clients up\nroute add default via 10.66.255.1\n"
        ))?;
        Ok(network)
    }
}
