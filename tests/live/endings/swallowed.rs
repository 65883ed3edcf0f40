//! Requests that come after the server's FIN, where the server reads on (`shutdown`, as web servers linger)
//! and throws away what it reads: no reset shows them.

use std::net::Shutdown;

use anyhow::Result;
use tracer_core::words::Ending;

use super::{
    CERTAIN, HEAD, IDLE, POSSIBLE, Play, PlayOfAnswers, REQUEST, TLS_ALERT, TLS_DATA, Told, asked, record,
};
use crate::scene::{Pair, Scene, pause, read_some, send};

/// The head of a request with a body of 1,000 bytes.
const UPLOAD: &[u8] = b"POST / HTTP/1.1\r\nHost: pod\r\nContent-Length: 1000\r\n\r\n";

pub const PLAYS: [(&str, Play, [Told; 1]); 2] = [
    ("an_upload_that_goes_on_after_its_answer_is_a_doubt", upload_goes_on, [(Ending::LateData, POSSIBLE)]),
    ("a_farewell_that_is_swallowed_after_the_fin_is_no_loss", late_farewell, [IDLE]),
];

/// How it is told, and how where nothing is seen of what is said.
pub const PLAY_OF_ANSWERS: PlayOfAnswers = (
    "a_request_that_is_swallowed_after_the_fin_is_lost",
    late_request,
    (Ending::LateData, CERTAIN),
    (Ending::LateData, POSSIBLE),
);

fn late_request(scene: &mut Scene) -> Result<()> {
    let pair = asked(scene, REQUEST)?;
    send(&pair.server, &[HEAD, &[b'x'; 500]].concat())?;
    linger(scene, pair, REQUEST)
}

fn upload_goes_on(scene: &mut Scene) -> Result<()> {
    let pair = asked(scene, UPLOAD)?;
    send(&pair.server, &[HEAD, &[b'x'; 500]].concat())?;
    linger(scene, pair, &[b'x'; 100])
}

fn late_farewell(scene: &mut Scene) -> Result<()> {
    let pair = asked(scene, &record(TLS_DATA, 90))?;
    send(&pair.server, &record(TLS_DATA, 80))?;
    send(&pair.server, &record(TLS_DATA, TLS_ALERT))?;
    linger(scene, pair, &record(TLS_DATA, TLS_ALERT))
}

/// The server closes for writing, reads what the client says then, and closes.
fn linger(scene: &mut Scene, pair: Pair, words: &[u8]) -> Result<()> {
    let Pair { client, server, .. } = pair;
    server.shutdown(Shutdown::Write)?;
    pause(20);
    send(&client, words)?;
    read_some(&server)?;
    drop(server);
    scene.read_to_end(&client)
}
