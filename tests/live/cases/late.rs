//! Segments that come after the server's close.

use anyhow::Result;
use tracer_core::{
    event::SegmentClass,
    words::{Confidence, Ending},
};

use super::{
    BOTH, Case,
    expect::{Connection, Expected, Reset},
};
use crate::scene::{Pair, Scene, pause, send};

/// The class of a segment of 18 or 20 bytes: a short request, or a farewell.
const SMALL: SegmentClass = SegmentClass::Small;

pub const CASES: &[Case] = &[
    Case { name: "late_data_timewait", families: BOTH, play: late_data_timewait, expected: small_and_late },
    Case {
        name: "late_data_three_segments",
        families: BOTH,
        play: late_data_three_segments,
        expected: small_and_late,
    },
    Case {
        name: "tls_like_graceful_drain_client_sends_alert_after_fin",
        families: BOTH,
        play: tls_like_graceful_drain_client_sends_alert_after_fin,
        expected: || {
            let reset = Reset::drawn("TCP_ABORT_ON_DATA", SegmentClass::TlsAlert, Ending::LateClose, None);
            Expected::one(Connection::served(Ending::LateClose)).with(reset)
        },
    },
];

/// The connection ended well, and what came later may have been a request.
fn small_and_late() -> Expected {
    let reset = Reset::drawn("TCP_TIMEWAIT_SOCKET", SMALL, Ending::LateData, Some(Confidence::Possible));
    Expected::one(Connection::served(Ending::IdleClosed)).with(reset)
}

fn late_data_timewait(scene: &mut Scene) -> Result<()> {
    let Pair { listener, client, server } = exchanged(scene)?;
    drop(server);
    // The client's kernel may acknowledge the FIN 40 ms later.
    pause(120);
    send(&client, b"GET / HTTP/1.1\r\n\r\n")?;
    pause(50);
    let sent = client.send(b"more");
    scene.note_error(sent);
    drop((client, listener));
    Ok(())
}

fn late_data_three_segments(scene: &mut Scene) -> Result<()> {
    let Pair { listener, client, server } = exchanged(scene)?;
    client.set_tcp_nodelay(true)?;
    drop(server);
    // The client's kernel may acknowledge the FIN 40 ms later.
    pause(120);
    for _ in 0..3 {
        let sent = client.send(&[b'q'; 20]);
        if scene.note_error(sent).is_none() {
            break;
        }
    }
    pause(200);
    drop((client, listener));
    Ok(())
}

/// The server says close_notify and closes; the client answers with its own.
fn tls_like_graceful_drain_client_sends_alert_after_fin(scene: &mut Scene) -> Result<()> {
    let pair = scene.pair()?;
    pair.exchange()?;
    let Pair { listener, client, server } = pair;
    send(&server, b"\x17\x03\x03\x00\x13aaaaaaaaaaaaaaaaaaa")?;
    pause(20);
    drop(server);
    scene.read_to_end(&client)?;
    send(&client, b"\x17\x03\x03\x00\x13aaaaaaaaaaaaaaaaaaa")?;
    drop(client);
    pause(30);
    drop(listener);
    Ok(())
}

fn exchanged(scene: &mut Scene) -> Result<Pair> {
    let pair = scene.pair()?;
    pair.exchange_and_pause()?;
    Ok(pair)
}
