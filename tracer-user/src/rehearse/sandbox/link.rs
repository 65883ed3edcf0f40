//! The veth between server and clients: created across the two namespaces, never seen by the host.

use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd,
};

use anyhow::{Context, Result};
use futures::TryStreamExt;
use rtnetlink::{
    Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, new_connection,
    packet_route::{
        address::{AddressAttribute, AddressFlags, AddressHeaderFlags},
        link::{InfoData, InfoVeth},
    },
};

/// The server's addresses.
pub const SERVER: Addresses = Addresses::ending_in(2);
/// Where the load's clients come from.
pub const CLIENT: Addresses = Addresses::ending_in(1);
/// Where readiness checks come from, so that they can be told from traffic.
pub const CHECKER: Addresses = Addresses::ending_in(3);

const SERVER_DEVICE: &str = "lp-server";
const CLIENT_DEVICE: &str = "lp-client";

/// One party's address in each family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// In 10.99.0.0/24.
    pub v4: Ipv4Addr,
    /// In fd99::/64.
    pub v6: Ipv6Addr,
}

impl Addresses {
    const fn ending_in(last: u8) -> Self {
        Self { v4: Ipv4Addr::new(10, 99, 0, last), v6: Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, last as u16) }
    }

    /// The address of the same family as `other`.
    #[must_use]
    pub fn matching(self, other: IpAddr) -> IpAddr {
        if other.is_ipv4() { self.v4.into() } else { self.v6.into() }
    }
}

/// Brings up the server's side; to be run in its netns. The other end starts in `clients`.
pub(super) async fn set_up_server(clients: &File) -> Result<()> {
    with_netlink(async |netlink| {
        let mut pair = LinkVeth::new(SERVER_DEVICE, CLIENT_DEVICE).up();
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(CLIENT_DEVICE.to_owned())
            .setns_by_fd(clients.as_raw_fd())
            .build();
        pair = pair.set_info_data(InfoData::Veth(InfoVeth::Peer(peer)));
        netlink.link().add(pair.build()).execute().await.context("cannot create a veth pair")?;
        bring_up(&netlink, "lo").await?;
        let device = bring_up(&netlink, SERVER_DEVICE).await?;
        assign(&netlink, device, SERVER).await
    })
    .await
}

/// Brings up the clients' side; to be run in their netns.
pub(super) async fn set_up_clients() -> Result<()> {
    with_netlink(async |netlink| {
        bring_up(&netlink, "lo").await?;
        let device = bring_up(&netlink, CLIENT_DEVICE).await?;
        assign(&netlink, device, CLIENT).await?;
        assign(&netlink, device, CHECKER).await
    })
    .await
}

async fn with_netlink<T>(job: impl AsyncFnOnce(Handle) -> Result<T>) -> Result<T> {
    let (connection, netlink, _) = new_connection().context("cannot open a netlink socket")?;
    let connection = tokio::spawn(connection);
    let done = job(netlink).await;
    connection.abort();
    done
}

async fn bring_up(netlink: &Handle, name: &str) -> Result<u32> {
    let mut found = netlink.link().get().match_name(name.to_owned()).execute();
    let link = found.try_next().await?.with_context(|| format!("no network device {name} in the sandbox"))?;
    let index = link.header.index;
    let up = LinkMessageBuilder::<LinkUnspec>::new().index(index).up().build();
    netlink.link().set(up).execute().await.with_context(|| format!("cannot bring {name} up"))?;
    Ok(index)
}

async fn assign(netlink: &Handle, device: u32, addresses: Addresses) -> Result<()> {
    let v4 = netlink.address().add(device, addresses.v4.into(), 24);
    v4.execute().await.with_context(|| format!("cannot assign {}", addresses.v4))?;
    let mut v6 = netlink.address().add(device, addresses.v6.into(), 64);
    // Without duplicate detection the address can be used at once.
    v6.message_mut().header.flags |= AddressHeaderFlags::Nodad;
    v6.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    match v6.execute().await {
        // A kernel without IPv6 (EAFNOSUPPORT, EOPNOTSUPP) or with it disabled (EACCES): IPv4 is enough.
        Err(rtnetlink::Error::NetlinkError(_)) | Ok(()) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot assign {}", addresses.v6)),
    }
}
