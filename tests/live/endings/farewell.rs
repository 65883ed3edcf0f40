//! TLS and HTTP/2 say farewell when they close. Farewells that are left unread or that never arrive are no
//! loss, though the kernel's numbers are those of a request or of an answer cut short.

use anyhow::Result;
use socket2::{SockFilter, Socket};
use tracer_core::words::Ending;

use super::{
    CERTAIN, HEAD, POSSIBLE, Play, PlayOfAnswers, REQUEST, TLS_ALERT, TLS_DATA, Told, asked, record,
};
use crate::scene::{Pair, Scene, pause, read_some, send};

/// `BPF_RET | BPF_K`, and no byte of the segment is kept.
const DROP_ALL: [SockFilter; 1] = [SockFilter::new(0x06, 0, 0, 0)];

pub const PLAYS: [(&str, Play, [Told; 1]); 3] = [
    ("a_long_tls_farewell_left_unread_is_a_doubt", long_farewell_unread, [(Ending::ResetUnread, POSSIBLE)]),
    ("a_tls_request_left_unread_is_lost", request_unread, [(Ending::ResetUnread, CERTAIN)]),
    ("an_answer_that_crosses_with_a_farewell_is_a_doubt", answer_crosses, [(Ending::MidResponse, POSSIBLE)]),
];

/// How they are told, and how where nothing is seen of what is said: a doubt.
pub const PLAYS_OF_ANSWERS: [PlayOfAnswers; 3] = [
    (
        "a_tls_farewell_left_unread_is_no_loss",
        farewell_unread,
        (Ending::ResetUnread, None),
        (Ending::ResetUnread, POSSIBLE),
    ),
    (
        "farewells_that_cross_are_no_loss",
        farewells_cross,
        (Ending::LateClose, None),
        (Ending::MidResponse, POSSIBLE),
    ),
    (
        "an_answer_cut_short_is_lost_though_the_client_spoke_last",
        cut_and_cross,
        (Ending::MidResponse, CERTAIN),
        (Ending::MidResponse, POSSIBLE),
    ),
];

/// A request and its answer over TLS.
fn exchanged(scene: &mut Scene) -> Result<Pair> {
    let pair = asked(scene, &record(TLS_DATA, 90))?;
    send(&pair.server, &record(TLS_DATA, 80))?;
    read_some(&pair.client)?;
    Ok(pair)
}

fn farewell_unread(scene: &mut Scene) -> Result<()> {
    leave_unread(scene, &record(TLS_DATA, TLS_ALERT))
}

/// As TLS 1.2 says it: with a number in front.
fn long_farewell_unread(scene: &mut Scene) -> Result<()> {
    leave_unread(scene, &record(21, 26))
}

fn request_unread(scene: &mut Scene) -> Result<()> {
    leave_unread(scene, &record(TLS_DATA, 90))
}

fn leave_unread(scene: &mut Scene, words: &[u8]) -> Result<()> {
    let pair = exchanged(scene)?;
    send(&pair.client, words)?;
    pause(20);
    drop(pair.server);
    scene.read_to_end(&pair.client)
}

/// Both close at once: the server's farewell is not acknowledged when the client's draws the reset.
fn farewells_cross(scene: &mut Scene) -> Result<()> {
    let pair = exchanged(scene)?;
    cross(pair, &[&record(TLS_DATA, TLS_ALERT)])
}

/// What the client has read of the answer by then nobody but the client knows.
fn answer_crosses(scene: &mut Scene) -> Result<()> {
    let pair = exchanged(scene)?;
    cross(pair, &[&record(TLS_DATA, 90), &record(TLS_DATA, TLS_ALERT)])
}

/// Of an answer that announces its length, and by what the kernel tells as a reset that was received.
fn cut_and_cross(scene: &mut Scene) -> Result<()> {
    let pair = asked(scene, REQUEST)?;
    cross(pair, &[HEAD, &[b'x'; 400]])
}

/// The server says these things and closes; none of it reaches the client before that says farewell.
fn cross(pair: Pair, words: &[&[u8]]) -> Result<()> {
    let Pair { client, server, .. } = pair;
    become_deaf(&client)?;
    words.iter().try_for_each(|words| send(&server, words))?;
    drop(server);
    send(&client, &record(TLS_DATA, TLS_ALERT))?;
    pause(20);
    Ok(())
}

/// The client's kernel takes no segment any more, and acknowledges none.
fn become_deaf(client: &Socket) -> Result<()> {
    Ok(client.attach_filter(&DROP_ALL)?)
}
