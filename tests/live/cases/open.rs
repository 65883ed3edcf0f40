//! Connections that the server opens itself, and special ways to open one to it.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Result, bail};
use lastpacket_tests::netns::Family;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Protocol, SockAddr, Socket};
use tracer_core::words::{Confidence, Ending, Role};

use super::{
    BOTH, Case,
    expect::{Connection, Expected, Reset},
};
use crate::{
    options::enable_fast_open,
    scene::{Pair, Scene, pause, read_eof, read_some, socket},
};

/// Nothing listens here.
const CLOSED: u16 = 7001;

pub const CASES: &[Case] = &[
    Case {
        name: "active_open_ok",
        families: BOTH,
        play: active_open_ok,
        expected: || Expected::one(Connection::outbound(Ending::IdleClosed)),
    },
    Case {
        name: "active_open_refused",
        families: BOTH,
        play: active_open_refused,
        expected: reset_by_the_peer,
    },
    Case {
        name: "active_open_port_in_use",
        families: BOTH,
        play: active_open_port_in_use,
        expected: port_in_use,
    },
    Case {
        name: "active_open_no_neighbour_then_close",
        families: BOTH,
        play: active_open_no_neighbour_then_close,
        expected: || Expected::one(never_established()),
    },
    Case {
        name: "active_open_no_route",
        families: BOTH,
        play: active_open_no_route,
        expected: Expected::nothing,
    },
    Case {
        name: "active_open_fastopen_defer_close",
        families: BOTH,
        play: active_open_fastopen_defer_close,
        expected: reset_by_the_peer,
    },
    Case {
        name: "syncookies",
        families: BOTH,
        play: syncookies,
        expected: || Expected::one(Connection::served(Ending::PeerClosed)),
    },
    Case {
        name: "tfo_server",
        families: BOTH,
        play: tfo_server,
        expected: || {
            let one = || Connection::served(Ending::Unanswered).lost(Confidence::Possible);
            Expected::one(one()).and(one())
        },
    },
];

fn never_established() -> Connection {
    Connection::outbound(Ending::TimedOut).by_nobody()
}

fn reset_by_the_peer() -> Expected {
    Expected::one(Connection::outbound(Ending::PeerReset).by_nobody()).with(Reset::received())
}

/// The second attempt finds its tuple in use and sends nothing; the first is reset by linger 0.
fn port_in_use() -> Expected {
    let reset = Reset {
        role: Role::Client,
        confidence: None,
        ..Reset::act("TCP_STATE", Ending::ResetAbort, Confidence::Possible)
    };
    let expected =
        Expected::one(never_established()).and(Connection::outbound(Ending::ResetAbort)).with(reset);
    Expected { unsent_opens: 1, ..expected }
}

fn server_socket(scene: &Scene) -> Result<Socket> {
    socket(&scene.link.server, scene.family, Protocol::TCP)
}

/// A listener on the client's side, and where it listens.
fn listener_of_client(scene: &Scene) -> Result<(Socket, SockAddr)> {
    let listener = socket(&scene.link.client, scene.family, Protocol::TCP)?;
    listener.bind(&scene.client().into())?;
    listener.listen(16)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

fn active_open_ok(scene: &mut Scene) -> Result<()> {
    let (listener, address) = listener_of_client(scene)?;
    let own = server_socket(scene)?;
    own.connect(&address)?;
    let (accepted, _) = listener.accept()?;
    drop(own);
    read_eof(&accepted)
}

fn active_open_refused(scene: &mut Scene) -> Result<()> {
    let own = server_socket(scene)?;
    let connected = own.connect(&closed_port_of_client(scene));
    scene.note_error(connected);
    Ok(())
}

fn closed_port_of_client(scene: &Scene) -> SockAddr {
    SocketAddr::new(scene.family.client(), CLOSED).into()
}

fn active_open_port_in_use(scene: &mut Scene) -> Result<()> {
    let (_listener, address) = listener_of_client(scene)?;
    let from: SockAddr = SocketAddr::new(scene.family.server(), 5555).into();
    let own = || -> Result<Socket> {
        let socket = server_socket(scene)?;
        socket.set_reuse_address(true)?;
        Ok(socket)
    };
    let (first, second) = (own()?, own()?);
    first.bind(&from)?;
    first.connect(&address)?;
    let failed = second.bind(&from).and_then(|()| second.connect(&address));
    scene.note_error(failed);
    drop(second);
    first.set_linger(Some(Duration::ZERO))?;
    drop(first);
    Ok(())
}

fn active_open_no_neighbour_then_close(scene: &mut Scene) -> Result<()> {
    let own = server_socket(scene)?;
    own.set_nonblocking(true)?;
    let nobody: SockAddr = SocketAddr::new(scene.family.host(77), 80).into();
    match own.connect(&nobody) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        other => bail!("{other:?}"),
    }
    pause(50);
    Ok(())
}

fn active_open_no_route(scene: &mut Scene) -> Result<()> {
    let own = server_socket(scene)?;
    let far: IpAddr = match scene.family {
        Family::V4 => Ipv4Addr::new(8, 8, 8, 8).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
    };
    let connected = own.connect(&SocketAddr::new(far, 80).into());
    scene.note_error(connected);
    Ok(())
}

/// Without a cookie it connects at once, as without Fast Open.
fn active_open_fastopen_defer_close(scene: &mut Scene) -> Result<()> {
    let own = server_socket(scene)?;
    setsockopt(&own, sockopt::TcpFastOpenConnect, &true)?;
    let connected = own.connect(&closed_port_of_client(scene));
    scene.note_error(connected);
    Ok(())
}

fn syncookies(scene: &mut Scene) -> Result<()> {
    scene.link.server.sysctl("net.ipv4.tcp_syncookies", "2")?;
    let Pair { listener, client, server } = scene.pair()?;
    drop(client);
    read_eof(&server)?;
    drop((server, listener));
    Ok(())
}

/// The first one fetches the cookie, the second one sends data in its SYN; none gets an answer.
fn tfo_server(scene: &mut Scene) -> Result<()> {
    scene.link.server.sysctl("net.ipv4.tcp_fastopen", "1027")?;
    scene.link.client.sysctl("net.ipv4.tcp_fastopen", "1029")?;
    let listener = scene.listen(16)?;
    enable_fast_open(&listener, 16)?;
    for _ in 0..2 {
        let client = scene.client_socket()?;
        let to = scene.address_of(&listener)?;
        client.send_to_with_flags(b"hello", &to, libc::MSG_FASTOPEN)?;
        let (server, _) = listener.accept()?;
        read_some(&server)?;
        drop(server);
        scene.read_to_end(&client)?;
    }
    Ok(())
}
