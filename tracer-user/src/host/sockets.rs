//! The sockets that exist in a network namespace, by sock_diag.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail};
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP},
    inet::{ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags},
};
use netlink_sys::{Socket, SocketAddr as NetlinkAddr, protocols::NETLINK_SOCK_DIAG};
use tracer_core::event::{TcpState, Tuple};

/// More than the kernel puts into one message of a dump (`NLMSG_GOODSIZE`, 32 KiB).
const BUFFER: usize = 64 * 1024;

/// A netlink socket in a network namespace: it asks that namespace, from wherever it is used.
pub struct SocketDiag(Socket);

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
        Ok(Self(socket))
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

    /// Number of UDP sockets: what they carry is not judged.
    ///
    /// # Errors
    /// If the kernel refuses the dump.
    pub fn udp_sockets(&self) -> Result<usize> {
        Ok(self.dump_both(IPPROTO_UDP, &StateFlags::all())?.len())
    }

    fn dump_both(&self, protocol: u8, states: &StateFlags) -> Result<Vec<InetResponseHeader>> {
        let mut sockets = self.dump(AF_INET, protocol, states)?;
        // A kernel without IPv6 has no such sockets.
        sockets.extend(self.dump(AF_INET6, protocol, states).unwrap_or_default());
        Ok(sockets)
    }

    fn dump(&self, family: u8, protocol: u8, states: &StateFlags) -> Result<Vec<InetResponseHeader>> {
        let socket_id = if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() };
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
        self.0.send(&bytes, 0).context("cannot ask for a dump of sockets")?;
        self.read_dump()
    }

    fn read_dump(&self) -> Result<Vec<InetResponseHeader>> {
        let mut sockets = Vec::new();
        let mut buffer = vec![0; BUFFER];
        loop {
            let mut room = &mut buffer[..];
            let size = self.0.recv(&mut room, 0).context("cannot read a dump of sockets")?;
            let mut rest = &buffer[..size];
            while !rest.is_empty() {
                let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest)
                    .context("cannot decode a dump of sockets")?;
                let length = (message.header.length as usize).next_multiple_of(4);
                match message.payload {
                    NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(socket)) => {
                        sockets.push(socket.header);
                    }
                    NetlinkPayload::Done(_) => return Ok(sockets),
                    NetlinkPayload::Error(error) => bail!("the kernel refuses a dump of sockets: {error}"),
                    _ => {}
                }
                rest = rest.get(length.max(4)..).unwrap_or_default();
            }
        }
    }
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
    }
}
