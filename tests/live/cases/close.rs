//! Connections that end by FINs.

use std::{
    io::{IoSlice, Write},
    os::fd::{AsRawFd, OwnedFd},
};

use anyhow::{Result, ensure};
use lastpacket_tests::machine::kernel_version;
use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};
use tracer_core::words::{ClosedBy, Ending};

use super::{
    BOTH, Case,
    expect::{Connection, Expected},
};
use crate::{
    children,
    scene::{Pair, Scene, pause, read_eof, read_some, send},
};

pub const CASES: &[Case] = &[
    Case {
        name: "fin_client_first",
        families: BOTH,
        play: fin_client_first,
        expected: || Expected::one(Connection::served(Ending::PeerClosed)),
    },
    Case {
        name: "peer_fin_then_close_without_reading_eof",
        families: BOTH,
        play: peer_fin_then_close_without_reading_eof,
        expected: || Expected::one(Connection::served(Ending::PeerClosed)),
    },
    Case {
        name: "server_first",
        families: BOTH,
        play: server_first,
        expected: || Expected::one(Connection::served(Ending::IdleClosed)),
    },
    Case {
        name: "server_response_then_immediate_close_200k",
        families: BOTH,
        play: server_response_then_immediate_close_200k,
        expected: || Expected::one(Connection::served(Ending::IdleClosed)),
    },
    Case {
        name: "child_exit_after_response_200k",
        families: BOTH,
        play: child_exit_after_response_200k,
        expected: || Expected::one(Connection::served(Ending::IdleClosed).by(ClosedBy::Exit)),
    },
    Case {
        name: "child_killed_idle",
        families: BOTH,
        play: child_killed_idle,
        expected: || Expected::one(Connection::served(Ending::IdleClosed).by(ClosedBy::Exit)),
    },
    Case {
        name: "threaded_child_leader_exits_first",
        families: BOTH,
        play: threaded_child_leader_exits_first,
        expected: || Expected::one(Connection::served(Ending::IdleClosed).by(ClosedBy::Exit)),
    },
    Case {
        name: "scm_rights_in_flight_gc",
        families: BOTH,
        play: scm_rights_in_flight_gc,
        expected: || Expected::one(Connection::served(Ending::IdleClosed).by(collector())),
    },
];

fn fin_client_first(scene: &mut Scene) -> Result<()> {
    let pair = scene.pair()?;
    pair.exchange()?;
    let Pair { client, server, listener } = pair;
    drop(client);
    read_eof(&server)?;
    drop((server, listener));
    Ok(())
}

fn peer_fin_then_close_without_reading_eof(scene: &mut Scene) -> Result<()> {
    let Pair { client, server, listener } = exchanged(scene)?;
    drop(client);
    pause(20);
    drop((server, listener));
    Ok(())
}

fn server_first(scene: &mut Scene) -> Result<()> {
    let Pair { client, server, listener } = exchanged(scene)?;
    drop(server);
    scene.read_to_end(&client)?;
    drop((client, listener));
    Ok(())
}

fn server_response_then_immediate_close_200k(scene: &mut Scene) -> Result<()> {
    let pair = scene.pair()?;
    pair.ask()?;
    pair.server.set_send_buffer_size(600_000)?;
    pair.server.set_nonblocking(true)?;
    let mut to = &pair.server;
    let sent = to.write(&vec![b'y'; 200_000])?;
    drop(pair.server);
    scene.note("server sent");
    scene.note(sent);
    scene.read_to_end(&pair.client)
}

fn child_exit_after_response_200k(scene: &mut Scene) -> Result<()> {
    let listener = scene.listen(16)?;
    let client = scene.connect(&listener)?;
    send(&client, &[b'x'; 10])?;
    let status = children::start(&scene.link.server, "answer-and-exit", &listener)?.wait()?;
    ensure!(status.success(), "the server's child: {status}");
    scene.read_to_end(&client)
}

fn child_killed_idle(scene: &mut Scene) -> Result<()> {
    let listener = scene.listen(16)?;
    let client = scene.connect(&listener)?;
    send(&client, &[b'x'; 10])?;
    let mut child = children::start(&scene.link.server, "answer-and-wait", &listener)?;
    read_some(&client)?;
    child.kill()?;
    child.wait()?;
    scene.read_to_end(&client)
}

fn threaded_child_leader_exits_first(scene: &mut Scene) -> Result<()> {
    let listener = scene.listen(16)?;
    let client = scene.connect(&listener)?;
    send(&client, &[b'x'; 10])?;
    let mut child = children::start(&scene.link.server, "leader-exits-first", &listener)?;
    read_some(&client)?;
    child.wait()?;
    scene.read_to_end(&client)
}

/// Nobody but a cycle of messages under way holds the socket: the kernel's collector closes it.
fn scm_rights_in_flight_gc(scene: &mut Scene) -> Result<()> {
    let Pair { client, server, listener } = exchanged(scene)?;
    let (a, b) = unix_pair()?;
    pass(&a, &[server.as_raw_fd()])?;
    pass(&a, &[b.as_raw_fd(), a.as_raw_fd()])?;
    pass(&b, &[b.as_raw_fd(), a.as_raw_fd()])?;
    drop((server, a, b));
    // Closing any of their kind sets the collector going.
    drop(unix_pair()?);
    pause(300);
    scene.read_to_end(&client)?;
    drop((client, listener));
    Ok(())
}

/// Who collects descriptors in flight: a kernel thread, and before 5.15 the task that closed the last
/// socket of their kind (`unix_gc` called by `unix_release_sock`).
fn collector() -> ClosedBy {
    if kernel_version().is_ok_and(|version| version < (5, 15)) {
        ClosedBy::Application
    } else {
        ClosedBy::Kernel
    }
}

/// A connection after a request and its answer.
fn exchanged(scene: &mut Scene) -> Result<Pair> {
    let pair = scene.pair()?;
    pair.exchange_and_pause()?;
    Ok(pair)
}

fn unix_pair() -> Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::SOCK_CLOEXEC)?)
}

fn pass(over: &OwnedFd, descriptors: &[i32]) -> Result<()> {
    let rights = [ControlMessage::ScmRights(descriptors)];
    sendmsg::<()>(over.as_raw_fd(), &[IoSlice::new(b"z")], &rights, MsgFlags::empty(), None)?;
    Ok(())
}
