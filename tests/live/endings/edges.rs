//! The two ends of a connection's life: a handshake whose listener goes, and an interface that goes.

use anyhow::{Result, ensure};
use lastpacket_tests::events::Events;
use tracer_core::words::{self, Ending};

use super::{CERTAIN, HEAD, IDLE, REQUEST, asked, ensure_told, trace};
use crate::{
    options::defer_accept,
    scene::{Scene, pause, read_some, send},
};

/// For the client the connection is there; for the server it is not yet, since the listener puts accepting
/// off until there is data.
pub fn refused_handshake() -> Result<()> {
    let run = trace(&[], |scene| {
        let listener = scene.listen(16)?;
        defer_accept(&listener, 30)?;
        let client = scene.connect(&listener)?;
        pause(20);
        drop(listener);
        send(&client, REQUEST)?;
        scene.read_to_end(&client)?;
        ensure!(scene.notes.contains(&"ECONNRESET".into()), "the client saw {:?}", scene.notes);
        Ok(())
    })?;
    let told: Vec<_> = run.lines.resets().iter().map(|reset| (reset.ending, reset.confidence)).collect();
    ensure!(told == [(Some(Ending::RefusedHandshake), CERTAIN)], "{told:?}");
    let verdict = run.lines.verdict()?;
    ensure!(verdict.result == words::Result::Cut && verdict.lost == 1, "{verdict:#?}");
    ensure!(
        verdict.losses.iter().all(|loss| loss.ending == Ending::RefusedHandshake),
        "{:?}",
        verdict.losses
    );
    Ok(())
}

/// The same with a listener that stays.
pub fn deferred_handshake() -> Result<()> {
    let run = trace(&[], |scene| {
        let listener = scene.listen(16)?;
        defer_accept(&listener, 30)?;
        let client = scene.connect(&listener)?;
        pause(20);
        send(&client, REQUEST)?;
        let (server, _) = listener.accept()?;
        read_some(&server)?;
        send(&server, &[HEAD, &[b'x'; 500]].concat())?;
        drop(server);
        scene.read_to_end(&client)
    })?;
    ensure_told(&run, &[IDLE])
}

pub fn open_at_teardown() -> Result<()> {
    let mut kept = None;
    let run = trace(&[], |scene| {
        kept = Some(asked(scene, REQUEST)?);
        tear_down(scene)
    })?;
    ensure_told(&run, &[(Ending::OpenAtTeardown, CERTAIN)])
}

/// The server has closed and the client knows: only the client's own close is missing.
pub fn closed_at_teardown() -> Result<()> {
    let mut kept = None;
    let run = trace(&[], |scene| {
        let pair = asked(scene, REQUEST)?;
        send(&pair.server, &[HEAD, &[b'x'; 500]].concat())?;
        drop(pair.server);
        scene.read_to_end(&pair.client)?;
        kept = Some(pair.client);
        tear_down(scene)
    })?;
    ensure_told(&run, &[IDLE])
}

/// As when the runtime removes the sandbox.
fn tear_down(scene: &Scene) -> Result<()> {
    pause(50);
    scene.link.client.ip("link del vA")
}
