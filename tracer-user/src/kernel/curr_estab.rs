//! What the kernel's `CurrEstab` counts, found out by trying: connections of our own on the loopback
//! interface, half closed between two readings.
//!
//! The version does not tell: Linux 6.11 began to count CLOSE_WAIT (`tcp_set_state`), and stable and
//! distributions' kernels took that over.

use std::{
    io::Read,
    net::{Ipv4Addr, Ipv6Addr, Shutdown, TcpListener, TcpStream},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use tracer_core::books::CurrEstabRule;

use crate::host::counters::TotalsReader;

/// Connections of one attempt. Others of the namespace come and go within the same millisecond.
const CONNECTIONS: u64 = 16;
/// By how much others may have changed the level, so that the answer is still clear.
const TOLERANCE: u64 = CONNECTIONS / 4;
const ATTEMPTS: usize = 8;
/// On the loopback interface an answer takes microseconds, unless something drops it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Tries it in this thread's network namespace.
///
/// # Errors
/// If that has no loopback interface, or is too busy.
pub fn measure() -> Result<CurrEstabRule> {
    for _ in 0..ATTEMPTS {
        if let Some(rule) = rule(fall_at_half_close()?) {
            return Ok(rule);
        }
    }
    bail!("connections of others on this machine come and go too fast")
}

/// The clients' ends leave ESTABLISHED, the servers' go from there into CLOSE_WAIT.
fn rule(fall: u64) -> Option<CurrEstabRule> {
    if fall.abs_diff(CONNECTIONS) <= TOLERANCE {
        Some(CurrEstabRule::EstablishedAndCloseWait)
    } else if fall.abs_diff(2 * CONNECTIONS) <= TOLERANCE {
        Some(CurrEstabRule::Established)
    } else {
        None
    }
}

/// By how much the level fell when the clients of connections had closed, and the servers had not.
fn fall_at_half_close() -> Result<u64> {
    let totals = TotalsReader::open(Path::new("/proc/thread-self/net"))?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .or_else(|_| TcpListener::bind((Ipv6Addr::LOCALHOST, 0)))
        .context("cannot listen on the loopback interface")?;
    let mut connections =
        (0..CONNECTIONS).map(|_| connect(&listener)).collect::<Result<Vec<(TcpStream, TcpStream)>>>()?;
    let before = totals.read()?.current_established;
    for (client, server) in &mut connections {
        client.shutdown(Shutdown::Write).context("cannot close a connection")?;
        // The end of the stream: the FIN is there.
        let length = server.read(&mut [0]).context("a connection's end does not arrive")?;
        ensure!(length == 0, "somebody else's data");
    }
    Ok(before.saturating_sub(totals.read()?.current_established))
}

fn connect(listener: &TcpListener) -> Result<(TcpStream, TcpStream)> {
    let client = TcpStream::connect_timeout(&listener.local_addr()?, PATIENCE)
        .context("cannot connect on the loopback interface")?;
    let (server, _) = listener.accept().context("cannot accept on the loopback interface")?;
    server.set_read_timeout(Some(PATIENCE))?;
    Ok((client, server))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fall_tells_the_rule_if_it_is_clear() {
        let both = Some(CurrEstabRule::EstablishedAndCloseWait);
        let one = Some(CurrEstabRule::Established);
        assert_eq!([12, 16, 20].map(rule), [both; 3]);
        assert_eq!([28, 32, 36].map(rule), [one; 3]);
        assert_eq!([0, 11, 24, 37, u64::MAX].map(rule), [None; 5]);
    }

    #[test]
    fn a_kernel_always_gives_the_same_answer() {
        let first = measure().unwrap();
        assert!((0..3).all(|_| measure().unwrap() == first));
    }
}
