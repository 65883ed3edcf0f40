//! Connections that never came to be: nothing listens, or nobody accepts.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::Result;
use lastpacket_tests::netns::Family;
use socket2::{Protocol, SockAddr, Socket};
use tracer_core::{
    event::SegmentClass,
    words::{self, Confidence, Ending},
};

use super::{
    BOTH, Case, V4, V6,
    expect::{Expected, Reset},
};
use crate::scene::{Scene, pause, socket};

/// Nothing listens here.
const CLOSED: u16 = 7000;

pub const CASES: &[Case] = &[
    Case { name: "refused", families: V4, play: refused, expected: one_refused },
    Case { name: "refused_v6", families: V6, play: refused, expected: one_refused },
    Case {
        name: "fin_rst_v6_no_route_back",
        families: V6,
        play: v6_no_route_back,
        // Traced, though without a route no reset leaves: the one known exception to the books.
        expected: || Expected { unsent_resets: 1, ..one_refused() },
    },
    Case { name: "v4_refused_no_route_back", families: V4, play: v4_no_route_back, expected: one_refused },
    Case {
        name: "accept_overflow_silent",
        families: BOTH,
        play: accept_overflow_silent,
        expected: one_of_the_backlog,
    },
];

fn one_refused() -> Expected {
    let refused = Some(Confidence::Certain);
    Expected::nothing().with(Reset::drawn("NO_SOCKET", SegmentClass::None, Ending::Refused, refused))
}

/// One got into the queue; the others were dropped, as the listener's counters tell.
fn one_of_the_backlog() -> Expected {
    let queued = super::reset::aborted("TCP_STATE", Ending::ResetBacklog, Confidence::Possible);
    Expected { result: words::Result::Cut, dropped: 3, ..queued }
}

fn refused(scene: &mut Scene) -> Result<()> {
    let client = scene.client_socket()?;
    connect_in_vain(scene, &client)
}

fn connect_in_vain(scene: &mut Scene, client: &Socket) -> Result<()> {
    let to = SocketAddr::new(scene.family.server(), CLOSED);
    let connected = client.connect_timeout(&to.into(), Duration::from_millis(300));
    scene.note_error(connected);
    Ok(())
}

fn v6_no_route_back(scene: &mut Scene) -> Result<()> {
    scene.link.client.ip("addr add fd77::1/128 dev lo nodad")?;
    let client = socket(&scene.link.client, Family::V6, Protocol::TCP)?;
    let from = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);
    let client = scene.bind_client(client, (from, 0).into())?;
    connect_in_vain(scene, &client)
}

fn v4_no_route_back(scene: &mut Scene) -> Result<()> {
    scene.link.client.ip("addr add 10.77.0.1/32 dev lo")?;
    scene.link.server.sysctl("net.ipv4.conf.all.rp_filter", "0")?;
    scene.link.server.sysctl("net.ipv4.conf.vB.rp_filter", "0")?;
    let client = socket(&scene.link.client, Family::V4, Protocol::TCP)?;
    let client = scene.bind_client(client, (Ipv4Addr::new(10, 77, 0, 1), 0).into())?;
    connect_in_vain(scene, &client)
}

/// The queue has room for one; the others get no answer at all.
fn accept_overflow_silent(scene: &mut Scene) -> Result<()> {
    let listener = scene.listen(0)?;
    let to: SockAddr = scene.address_of(&listener)?;
    let mut clients = Vec::new();
    for _ in 0..4 {
        let client = scene.client_socket()?;
        client.set_nonblocking(true)?;
        // In progress, as it does not wait.
        let _ = client.connect(&to);
        clients.push(client);
    }
    pause(300);
    drop(clients);
    pause(50);
    drop(listener);
    Ok(())
}
