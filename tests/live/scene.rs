//! The stage of one case: a client's and a server's namespace, the server's traced by a `lastpacket`
//! of its own, and notes of what the client saw.

use std::{
    io::{ErrorKind, Read, Write},
    mem::MaybeUninit,
    net::SocketAddr,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lastpacket_tests::netns::{Family, Link, Namespace};
use nix::errno::Errno;
use serde_json::Value;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// The first port that cases listen on.
const FIRST_PORT: u16 = 8001;

/// See the module.
pub struct Scene {
    /// Where it plays.
    pub link: Link,
    /// Which protocol it talks.
    pub family: Family,
    /// What the client saw, in order, in the words of the reference.
    pub notes: Vec<Value>,
    /// The client's ends of all connections.
    pub clients: Vec<SocketAddr>,
    next_port: u16,
}

/// A connection with both its ends and its listener.
pub struct Pair {
    pub listener: Socket,
    pub client: Socket,
    pub server: Socket,
}

impl Pair {
    /// A request of 10 bytes and its answer.
    pub fn exchange(&self) -> Result<()> {
        self.ask()?;
        send(&self.server, &[b'y'; 10])?;
        read_some(&self.client)
    }

    /// An exchange, and then silence: what the server sends just before its close may be a farewell.
    pub fn exchange_and_pause(&self) -> Result<()> {
        self.exchange()?;
        pause(20);
        Ok(())
    }

    /// A request of 10 bytes, read by the server.
    pub fn ask(&self) -> Result<()> {
        send(&self.client, &[b'x'; 10])?;
        read_some(&self.server)
    }
}

impl Scene {
    pub fn new(family: Family) -> Result<Self> {
        Ok(Self { link: Link::new()?, family, notes: Vec::new(), clients: Vec::new(), next_port: FIRST_PORT })
    }

    pub fn note(&mut self, note: impl Into<Value>) {
        self.notes.push(note.into());
    }

    /// A listener of the server with this backlog.
    pub fn listen(&mut self, backlog: i32) -> Result<Socket> {
        let socket = socket(&self.link.server, self.family, Protocol::TCP)?;
        self.listen_on(socket, self.server(), backlog)
    }

    /// Makes a socket listen on the next port of an address.
    pub fn listen_on(&mut self, socket: Socket, mut address: SocketAddr, backlog: i32) -> Result<Socket> {
        address.set_port(self.next_port);
        self.next_port += 1;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(backlog)?;
        Ok(socket)
    }

    /// The server's address with port 0.
    pub fn server(&self) -> SocketAddr {
        (self.family.server(), 0).into()
    }

    /// The client's address with port 0.
    pub fn client(&self) -> SocketAddr {
        (self.family.client(), 0).into()
    }

    /// A client's socket, whose end of the connection is known before it connects.
    pub fn client_socket(&mut self) -> Result<Socket> {
        let socket = socket(&self.link.client, self.family, Protocol::TCP)?;
        self.bind_client(socket, self.client())
    }

    /// Binds a client's socket and remembers where.
    pub fn bind_client(&mut self, socket: Socket, address: SocketAddr) -> Result<Socket> {
        socket.bind(&address.into())?;
        self.clients.push(socket.local_addr()?.as_socket().context("no address")?);
        Ok(socket)
    }

    /// A client's connection to a listener.
    pub fn connect(&mut self, listener: &Socket) -> Result<Socket> {
        let socket = self.client_socket()?;
        socket.connect(&self.address_of(listener)?)?;
        Ok(socket)
    }

    /// Where clients reach a listener.
    pub fn address_of(&self, listener: &Socket) -> Result<SockAddr> {
        let port = listener.local_addr()?.as_socket().context("no address")?.port();
        Ok(SocketAddr::new(self.family.server(), port).into())
    }

    /// A connection that the server accepted.
    pub fn pair(&mut self) -> Result<Pair> {
        let listener = self.listen(16)?;
        self.pair_at(listener)
    }

    /// A connection to this listener, accepted.
    pub fn pair_at(&mut self, listener: Socket) -> Result<Pair> {
        let client = self.connect(&listener)?;
        let (server, _) = listener.accept()?;
        Ok(Pair { listener, client, server })
    }

    /// Notes an error of a system call by its name, and nothing if it went well.
    pub fn note_error<T>(&mut self, result: std::io::Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.note(error_name(&error));
                None
            }
        }
    }

    /// The client reads until the end: notes the number of bytes and how it ended.
    pub fn read_to_end(&mut self, client: &Socket) -> Result<()> {
        client.set_read_timeout(Some(Duration::from_secs(3)))?;
        let (mut total, mut from, mut buffer) = (0, client, vec![0; 65536]);
        loop {
            match from.read(&mut buffer) {
                Ok(0) => break self.notes.extend([total.into(), "eof".into()]),
                Ok(bytes) => total += bytes,
                Err(error) => break self.notes.extend([total.into(), error_name(&error).into()]),
            }
        }
        Ok(())
    }
}

/// A TCP or MPTCP socket of a namespace.
pub fn socket(namespace: &Namespace, family: Family, protocol: Protocol) -> Result<Socket> {
    let domain = if family == Family::V4 { Domain::IPV4 } else { Domain::IPV6 };
    namespace.enter(|| Ok(Socket::new(domain, Type::STREAM, Some(protocol))?))
}

/// Sends all of these bytes.
pub fn send(socket: &Socket, bytes: &[u8]) -> Result<()> {
    let mut to = socket;
    Ok(to.write_all(bytes)?)
}

/// Reads once.
pub fn read_some(socket: &Socket) -> Result<()> {
    let bytes = socket.recv(&mut [MaybeUninit::uninit(); 100])?;
    ensure!(bytes > 0, "end of file instead of data");
    Ok(())
}

/// Reads the peer's FIN.
pub fn read_eof(socket: &Socket) -> Result<()> {
    let bytes = socket.recv(&mut [MaybeUninit::uninit(); 100])?;
    ensure!(bytes == 0, "data instead of end of file");
    Ok(())
}

pub fn pause(milliseconds: u64) {
    thread::sleep(Duration::from_millis(milliseconds));
}

fn error_name(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => "timeout".to_owned(),
        _ => format!("{:?}", Errno::from_raw(error.raw_os_error().unwrap_or(0))),
    }
}
