//! Waiting until ports are idle: no connection, and no new one, for a while. For preStop hooks, in the
//! pod's own network namespace and without any privilege.

mod idleness;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

pub use self::idleness::{Answer, Idleness, Peer, Settings};
use crate::host::sockets::{DestroyedSockets, SocketDiag};

/// How often the open connections are looked at.
const LOOK: Duration = Duration::from_millis(50);
/// Looking takes at most one part in so many of the time, or a pod with many connections would slow
/// itself down as it ends.
const SHARE: u32 = 20;

/// Waits until the ports are idle or the time is up. `tell` sees how it stands after every look.
///
/// A connection that opens and ends between two looks is told by the kernel when its socket is destroyed;
/// where that is told too late to be in time for a look, it is by less than a look.
///
/// # Errors
/// If the kernel does not show the sockets of this namespace.
pub fn wait(settings: Settings, mut tell: impl FnMut(&Idleness, Instant)) -> Result<Answer> {
    const HINT: &str = "wait-idle needs the kernel's sock_diag in the pod's own network namespace";
    // Listened to before the first look, so that nothing lies between.
    let destroyed = DestroyedSockets::of_this_thread().context(HINT)?;
    let sockets = SocketDiag::of_this_thread().context(HINT)?;
    let ports = settings.ports.clone();
    let mut idleness = Idleness::new(settings, Instant::now());
    loop {
        let began = Instant::now();
        let mut open = Vec::new();
        for port in &ports {
            open.extend(sockets.busy_connections(*port).context(HINT)?);
        }
        // What ended before that look was destroyed before it.
        idleness.ended(&destroyed.wait(Duration::ZERO)?, began);
        let now = Instant::now();
        idleness.looked(&open, now);
        tell(&idleness, now);
        if let Some(mut answer) = idleness.answer(now) {
            let listening = sockets.listening().context(HINT)?;
            answer.not_listening.retain(|port| !listening.contains(port));
            return Ok(answer);
        }
        let next = LOOK.max(began.elapsed() * SHARE);
        let until = (now + next).min(idleness.earliest_answer(now));
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            let ended = destroyed.wait(left)?;
            idleness.ended(&ended, Instant::now());
        }
    }
}
