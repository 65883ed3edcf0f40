//! The sockets that exist in a network namespace, and those that are destroyed in it, by sock_diag.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload, Nla as _,
};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP},
    inet::{ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags, nlas::Nla},
};
use netlink_sys::{Socket, SocketAddr as NetlinkAddr, protocols::NETLINK_SOCK_DIAG};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracer_core::event::{TcpState, Tuple};

/// More than the kernel puts into one message of a dump (`NLMSG_GOODSIZE`, 32 KiB).
const BUFFER: usize = 64 * 1024;

/// A netlink socket in a network namespace: it asks that namespace, from wherever it is used.
pub struct SocketDiag {
    socket: Socket,
    /// Ids of the cgroups whose sockets count; empty for all.
    among: Vec<u64>,
}

/// `INET_DIAG_CGROUP_ID` of `linux/inet_diag.h`: told of every socket from Linux 5.9 on.
const INET_DIAG_CGROUP_ID: u16 = 21;

/// Connections that exist, with their states.
pub type Connections = Vec<(Tuple, TcpState)>;

impl SocketDiag {
    /// Opens one in the namespace of the calling thread.
    ///
    /// # Errors
    /// If the kernel has no sock_diag.
    pub fn of_this_thread() -> Result<Self> {
        let mut socket = Socket::new(NETLINK_SOCK_DIAG).context("cannot open a sock_diag socket")?;
        socket.bind_auto().context("cannot bind a sock_diag socket")?;
        socket.connect(&NetlinkAddr::new(0, 0)).context("cannot connect a sock_diag socket")?;
        Ok(Self { socket, among: Vec::new() })
    }

    /// From now on only sockets in these cgroups count; all if there are none.
    pub fn restrict(&mut self, cgroups: Vec<u64>) {
        self.among = cgroups;
    }

    /// Ports that TCP sockets listen on.
    ///
    /// # Errors
    /// If the kernel refuses the dump.
    pub fn listening(&self) -> Result<Vec<u16>> {
        let sockets = self.dump_both(IPPROTO_TCP, &StateFlags::LISTEN)?;
        Ok(sockets.iter().map(|socket| socket.socket_id.source_port).collect())
    }

    /// TCP connections that exist: those that were made and are not over. What is half open (SYN_RECV)
    /// is none yet: if it becomes one, a record tells. What the pod has closed and the peer has
    /// acknowledged (TIME_WAIT, and FIN_WAIT2 without a process) is none any more: its socket's last
    /// change of state is past.
    ///
    /// # Errors
    /// If the kernel refuses the dump.
    pub fn connections(&self) -> Result<Connections> {
        let over = StateFlags::TIME_WAIT | StateFlags::CLOSE;
        let states = StateFlags::all() - StateFlags::LISTEN - StateFlags::SYN_RECV - over;
        let sockets = self.dump_both(IPPROTO_TCP, &states)?;
        let is_left =
            |socket: &&InetResponseHeader| socket.state == TcpState::FinWait2 as u8 && socket.inode == 0;
        Ok(sockets
            .iter()
            .filter(|socket| !is_left(socket))
            .filter_map(|socket| Some((tuple(&socket.socket_id), TcpState::from_number(socket.state)?)))
            .collect())
    }

    /// TCP connections of a local port on which something may still be under way: neither end has said
    /// its last, or what the pod sent is not acknowledged.
    ///
    /// # Errors
    /// If the kernel refuses the dump.
    pub fn busy_connections(&self, port: u16) -> Result<Vec<Tuple>> {
        let over = StateFlags::LISTEN | StateFlags::FIN_WAIT2 | StateFlags::TIME_WAIT | StateFlags::CLOSE;
        let states = StateFlags::all() - over;
        let mut tuples = Vec::new();
        for family in [AF_INET, AF_INET6] {
            let mut wanted = any_socket(family);
            // The kernel compares it (`inet_diag_dump_icsk`), so that a dump is as short as it can be.
            wanted.source_port = port;
            match self.dump(family, IPPROTO_TCP, &states, wanted) {
                Ok(sockets) => tuples.extend(sockets.iter().map(|socket| tuple(&socket.socket_id))),
                // A kernel without IPv6 has no such sockets.
                Err(_) if family == AF_INET6 => {}
                Err(error) => return Err(error),
            }
        }
        Ok(tuples)
    }

    /// Number of UDP sockets: what they carry is not judged.
    ///
    /// # Errors
    /// If the kernel refuses the dump.
    pub fn udp_sockets(&self) -> Result<usize> {
        Ok(self.dump_both(IPPROTO_UDP, &StateFlags::all())?.len())
    }

    fn dump_both(&self, protocol: u8, states: &StateFlags) -> Result<Vec<InetResponseHeader>> {
        let mut sockets = self.dump(AF_INET, protocol, states, any_socket(AF_INET))?;
        // A kernel without IPv6 has no such sockets.
        let of_v6 = self.dump(AF_INET6, protocol, states, any_socket(AF_INET6));
        sockets.extend(of_v6.unwrap_or_default());
        Ok(sockets)
    }

    fn dump(
        &self,
        family: u8,
        protocol: u8,
        states: &StateFlags,
        socket_id: SocketId,
    ) -> Result<Vec<InetResponseHeader>> {
        let request = InetRequest {
            family,
            protocol,
            extensions: ExtensionFlags::empty(),
            states: states.clone(),
            socket_id,
        };
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0).context("cannot ask for a dump of sockets")?;
        self.read_dump()
    }

    fn counts(&self, attributes: &[Nla]) -> bool {
        self.among.is_empty() || cgroup(attributes).is_some_and(|id| self.among.contains(&id))
    }

    fn read_dump(&self) -> Result<Vec<InetResponseHeader>> {
        let mut sockets = Vec::new();
        let mut buffer = vec![0; BUFFER];
        loop {
            let mut room = &mut buffer[..];
            let size = self.socket.recv(&mut room, 0).context("cannot read a dump of sockets")?;
            if read_sockets(&buffer[..size], |attributes| self.counts(attributes), &mut sockets)? {
                return Ok(sockets);
            }
        }
    }
}

/// TCP sockets of a network namespace as they are destroyed, whatever end they came to. The kernel tells
/// everybody in the namespace, without any privilege (`NL_CFG_F_NONROOT_RECV` of `diag_net_init`).
pub struct DestroyedSockets(Socket);

/// What came of waiting for sockets to be destroyed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Destroyed {
    /// Connections whose sockets were.
    pub connections: Vec<Tuple>,
    /// There were others, too many to be told of.
    pub missed: bool,
}

impl DestroyedSockets {
    /// `SKNLGRP_INET_TCP_DESTROY` (1) and `SKNLGRP_INET6_TCP_DESTROY` (3) of `linux/sock_diag.h`, as bits.
    const GROUPS: u32 = 0b101;
    /// Room for some thousands of them; the kernel gives less where `net.core.rmem_max` says so.
    const ROOM: usize = 4 << 20;

    /// Listens in the network namespace of the calling thread.
    ///
    /// # Errors
    /// If the kernel has no sock_diag.
    pub fn of_this_thread() -> Result<Self> {
        let mut socket = Socket::new(NETLINK_SOCK_DIAG).context("cannot open a sock_diag socket")?;
        socket.set_rx_buf_sz(Self::ROOM).context("cannot make room for what sock_diag tells")?;
        socket
            .bind(&NetlinkAddr::new(0, Self::GROUPS))
            .context("this kernel does not tell of sockets that are destroyed (Linux 4.2 does)")?;
        Ok(Self(socket))
    }

    /// Waits for some, for so long at most.
    ///
    /// # Errors
    /// If the kernel tells what is not understood.
    pub fn wait(&self, patience: Duration) -> Result<Destroyed> {
        let mut destroyed = Destroyed::default();
        // Rounded up, or the last fraction of a millisecond would be spent in a busy loop.
        let patience = i32::try_from(patience.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
        let timeout = PollTimeout::try_from(patience).context("no such time to wait")?;
        poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], timeout)
            .context("cannot wait for sockets to be destroyed")?;
        let (mut sockets, mut buffer) = (Vec::new(), vec![0; BUFFER]);
        loop {
            let mut room = &mut buffer[..];
            match self.0.recv(&mut room, libc::MSG_DONTWAIT) {
                Ok(size) => drop(read_sockets(&buffer[..size], |_| true, &mut sockets)?),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => destroyed.missed = true,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("cannot read which sockets were destroyed"),
            }
        }
        let connected = sockets.iter().filter(|socket| socket.socket_id.destination_port != 0);
        destroyed.connections = connected.map(|socket| tuple(&socket.socket_id)).collect();
        Ok(destroyed)
    }
}

/// Takes the sockets out of a buffer of messages, and says whether a dump ends with it.
fn read_sockets(
    mut rest: &[u8],
    counts: impl Fn(&[Nla]) -> bool,
    sockets: &mut Vec<InetResponseHeader>,
) -> Result<bool> {
    while !rest.is_empty() {
        let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest)
            .context("cannot decode what sock_diag tells")?;
        let length = (message.header.length as usize).next_multiple_of(4);
        match message.payload {
            NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(socket)) if counts(&socket.nlas) => {
                sockets.push(socket.header);
            }
            NetlinkPayload::Done(_) => return Ok(true),
            NetlinkPayload::Error(error) => bail!("the kernel refuses a dump of sockets: {error}"),
            _ => {}
        }
        rest = rest.get(length.max(4)..).unwrap_or_default();
    }
    Ok(false)
}

fn any_socket(family: u8) -> SocketId {
    if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() }
}

fn cgroup(attributes: &[Nla]) -> Option<u64> {
    attributes.iter().filter(|attribute| attribute.kind() == INET_DIAG_CGROUP_ID).find_map(|attribute| {
        let mut id = [0; 8];
        (attribute.value_len() == id.len()).then(|| attribute.emit_value(&mut id))?;
        Some(u64::from_ne_bytes(id))
    })
}

fn tuple(id: &SocketId) -> Tuple {
    let address = |ip: IpAddr, port| SocketAddr::new(ip.to_canonical(), port);
    Tuple::new(
        address(id.source_address, id.source_port),
        address(id.destination_address, id.destination_port),
    )
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    #[test]
    fn own_sockets_are_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        let _udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let diag = SocketDiag::of_this_thread().unwrap();
        assert!(diag.listening().unwrap().contains(&address.port()));
        let tuple = Tuple::new(client.local_addr().unwrap(), address);
        let connections = diag.connections().unwrap();
        for end in [tuple, tuple.mirrored()] {
            assert!(connections.contains(&(end, TcpState::Established)), "{connections:?}");
        }
        assert!(diag.udp_sockets().unwrap() >= 1);
        assert_eq!(diag.busy_connections(address.port()).unwrap(), [tuple.mirrored()]);
    }

    #[test]
    fn connections_are_told_when_they_are_over() {
        let destroyed = DestroyedSockets::of_this_thread().unwrap();
        let listener = TcpListener::bind("[::]:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let tuple = Tuple::new(client.local_addr().unwrap(), client.peer_addr().unwrap());
        let (accepted, _) = listener.accept().unwrap();
        drop((client, accepted));
        let mut told = Vec::new();
        while told.len() < 2 {
            let now = destroyed.wait(Duration::from_secs(5)).unwrap();
            assert!(!now.connections.is_empty(), "only {told:?}");
            // Other tests have sockets too.
            told.extend(now.connections.into_iter().filter(|it| [tuple, tuple.mirrored()].contains(it)));
        }
    }
}
