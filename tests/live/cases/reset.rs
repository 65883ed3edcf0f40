//! Connections that the server's own act resets.

use std::{net::Ipv6Addr, os::fd::AsRawFd, time::Duration};

use anyhow::{Result, ensure};
use lastpacket_tests::netns::Family;
use socket2::Protocol;
use tracer_core::words::{Confidence, Ending};

use super::{
    BOTH, Case, V4,
    expect::{Connection, Expected, Reset},
};
use crate::scene::{Pair, Scene, pause, send, socket};

pub const CASES: &[Case] = &[
    Case {
        name: "linger0_close",
        families: BOTH,
        play: linger0_close,
        expected: || aborted("TCP_STATE", Ending::ResetAbort, Confidence::Possible),
    },
    Case {
        name: "unread_close",
        families: BOTH,
        play: unread_close,
        expected: || aborted("TCP_ABORT_ON_CLOSE", Ending::ResetUnread, Confidence::Certain),
    },
    Case {
        name: "backlog_unaccepted",
        families: BOTH,
        play: backlog_unaccepted,
        expected: three_of_the_backlog,
    },
    Case {
        name: "v4mapped_unread",
        families: V4,
        play: v4mapped_unread,
        expected: || aborted("TCP_ABORT_ON_CLOSE", Ending::ResetUnread, Confidence::Certain),
    },
    Case {
        name: "disconnect_established",
        families: BOTH,
        play: disconnect_established,
        expected: || aborted("TCP_STATE", Ending::ResetAbort, Confidence::Possible),
    },
    Case {
        name: "peer_fin_unread_close_notify",
        families: BOTH,
        play: peer_fin_unread_close_notify,
        expected: || aborted("TCP_ABORT_ON_CLOSE", Ending::ResetUnread, Confidence::Possible),
    },
];

/// One connection that the server's own reset ended.
pub fn aborted(reason: &str, ending: Ending, confidence: Confidence) -> Expected {
    Expected::one(Connection::served(ending).lost(confidence)).with(Reset::act(reason, ending, confidence))
}

fn three_of_the_backlog() -> Expected {
    let one = || Connection::served(Ending::ResetBacklog).lost(Confidence::Possible);
    let reset = || Reset::act("TCP_STATE", Ending::ResetBacklog, Confidence::Possible);
    Expected::one(one()).and(one()).and(one()).with(reset()).with(reset()).with(reset())
}

fn linger0_close(scene: &mut Scene) -> Result<()> {
    let Pair { listener, client, server } = scene.pair()?;
    server.set_linger(Some(Duration::ZERO))?;
    drop(server);
    scene.read_to_end(&client)?;
    drop((client, listener));
    Ok(())
}

fn unread_close(scene: &mut Scene) -> Result<()> {
    let pair = scene.pair()?;
    close_unread(scene, pair)
}

fn close_unread(scene: &mut Scene, pair: Pair) -> Result<()> {
    let Pair { listener, client, server } = pair;
    send(&client, &[b'x'; 10])?;
    pause(20);
    drop(server);
    scene.read_to_end(&client)?;
    drop((client, listener));
    Ok(())
}

fn backlog_unaccepted(scene: &mut Scene) -> Result<()> {
    let listener = scene.listen(16)?;
    let clients = [scene.connect(&listener)?, scene.connect(&listener)?, scene.connect(&listener)?];
    pause(20);
    drop(listener);
    pause(20);
    clients.iter().try_for_each(|client| scene.read_to_end(client))
}

fn v4mapped_unread(scene: &mut Scene) -> Result<()> {
    let listener = socket(&scene.link.server, Family::V6, Protocol::TCP)?;
    listener.set_only_v6(false)?;
    let listener = scene.listen_on(listener, (Ipv6Addr::UNSPECIFIED, 0).into(), 16)?;
    let pair = scene.pair_at(listener)?;
    close_unread(scene, pair)
}

fn disconnect_established(scene: &mut Scene) -> Result<()> {
    let Pair { listener, client, server } = scene.pair()?;
    disconnect(server.as_raw_fd())?;
    pause(20);
    drop(server);
    scene.read_to_end(&client)?;
    drop((client, listener));
    Ok(())
}

/// Connecting to no address disconnects.
fn disconnect(socket: i32) -> Result<()> {
    let nowhere = libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr>())?;
    // SAFETY: the address is a local that outlives the call, and the length is its own.
    let result = unsafe { libc::connect(socket, &raw const nowhere, length) };
    ensure!(result == 0, "connect to nowhere: {}", std::io::Error::last_os_error());
    Ok(())
}

fn peer_fin_unread_close_notify(scene: &mut Scene) -> Result<()> {
    let pair = scene.pair()?;
    pair.exchange()?;
    send(&pair.client, &[b'N'; 24])?;
    drop(pair.client);
    pause(30);
    Ok(())
}
