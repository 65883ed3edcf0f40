//! Multipath TCP: each subflow is a TCP socket of its own; the connection above it is none.

use anyhow::Result;
use socket2::{Protocol, Socket};
use tracer_core::words::{ClosedBy, Confidence, Ending};

use super::{
    BOTH, Case,
    expect::{Connection, Expected, Reset},
};
use crate::scene::{Pair, Scene, pause, read_some, send, socket};

pub const CASES: &[Case] = &[
    Case {
        name: "mptcp_server",
        families: BOTH,
        play: mptcp_server,
        // The protocol's own worker closes subflows.
        expected: || Expected::one(Connection::served(Ending::IdleClosed).by(ClosedBy::Kernel)),
    },
    Case {
        name: "mptcp_unread",
        families: BOTH,
        play: mptcp_unread,
        expected: || {
            // The connection above has taken the data from the subflow, so that nothing is unread there; and
            // MPTCP resets before the state changes.
            let reset = Reset::act("TCP_ABORT_ON_CLOSE", Ending::ResetAbort, Confidence::Certain).of_live();
            Expected::one(Connection::served(Ending::ResetAbort).lost(Confidence::Certain)).with(reset)
        },
    },
];

fn pair(scene: &mut Scene) -> Result<Pair> {
    let own = |namespace| socket(namespace, scene.family, Protocol::MPTCP);
    let (listener, client): (Socket, Socket) = (own(&scene.link.server)?, own(&scene.link.client)?);
    let listener = scene.listen_on(listener, scene.server(), 16)?;
    let client = scene.bind_client(client, scene.client())?;
    client.connect(&scene.address_of(&listener)?)?;
    let (server, _) = listener.accept()?;
    Ok(Pair { listener, client, server })
}

fn mptcp_server(scene: &mut Scene) -> Result<()> {
    let Pair { listener, client, server } = pair(scene)?;
    send(&client, &[b'x'; 10])?;
    read_some(&server)?;
    send(&server, b"y")?;
    read_some(&client)?;
    pause(20);
    drop(server);
    scene.read_to_end(&client)?;
    drop((client, listener));
    pause(100);
    Ok(())
}

fn mptcp_unread(scene: &mut Scene) -> Result<()> {
    let Pair { listener, client, server } = pair(scene)?;
    send(&client, &[b'x'; 10])?;
    pause(50);
    drop(server);
    pause(50);
    scene.read_to_end(&client)?;
    drop((client, listener));
    pause(100);
    Ok(())
}
