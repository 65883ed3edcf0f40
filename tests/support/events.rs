//! Reading events: the questions that tests ask of a run's lines.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use tracer_core::{
    output::{Body, ConnectionEvent, Line, PhaseEvent, RehearsalEvent, ResetEvent},
    verdict::Verdict,
    words::Phase,
};

/// Questions to a list of lines.
pub trait Events {
    /// The bodies of all lines.
    fn bodies(&self) -> impl Iterator<Item = &Body>;

    /// Connections that were opened or found.
    fn opened(&self) -> Vec<&ConnectionEvent> {
        self.bodies()
            .filter_map(|body| if let Body::ConnectionOpened(event) = body { Some(event) } else { None })
            .collect()
    }

    /// Connections that ended.
    fn closed(&self) -> Vec<&ConnectionEvent> {
        self.bodies()
            .filter_map(|body| if let Body::ConnectionClosed(event) = body { Some(event) } else { None })
            .collect()
    }

    /// Resets of both directions.
    fn resets(&self) -> Vec<&ResetEvent> {
        self.bodies()
            .filter_map(|body| if let Body::Reset(event) = body { Some(event) } else { None })
            .collect()
    }

    /// Phases in order.
    fn phases(&self) -> Vec<&PhaseEvent> {
        self.bodies()
            .filter_map(|body| if let Body::Phase(event) = body { Some(event) } else { None })
            .collect()
    }

    /// The one verdict.
    ///
    /// # Errors
    /// If there is none, or more than one.
    fn verdict(&self) -> Result<&Verdict> {
        let mut verdicts =
            self.bodies().filter_map(|body| if let Body::Verdict(event) = body { Some(event) } else { None });
        let verdict = verdicts.next().context("there is no verdict")?;
        ensure!(verdicts.next().is_none(), "there are several verdicts");
        Ok(verdict)
    }

    /// What the clients of a rehearsal saw.
    ///
    /// # Errors
    /// If it is not there.
    fn rehearsal(&self) -> Result<&RehearsalEvent> {
        let found =
            self.bodies().find_map(|body| if let Body::Rehearsal(event) = body { Some(event) } else { None });
        Ok(found.context("no line tells what the clients saw")?)
    }
}

impl Events for [Line] {
    fn bodies(&self) -> impl Iterator<Item = &Body> {
        self.iter().map(|line| &line.body)
    }
}

/// Every line has the number after the one before it.
///
/// # Errors
/// If there is a gap.
pub fn ensure_no_gaps(lines: &[Line]) -> Result<()> {
    for (line, expected) in lines.iter().zip(1..) {
        ensure!(line.seq == expected, "line {expected} has the number {}", line.seq);
    }
    Ok(())
}

/// All books of a verdict balance.
///
/// # Errors
/// With the ones that do not.
pub fn ensure_balanced(verdict: &Verdict) -> Result<()> {
    let unbalanced: Vec<_> = verdict.books.iter().filter(|book| !book.balanced).collect();
    ensure!(!verdict.books.is_empty(), "the verdict has no books");
    ensure!(unbalanced.is_empty(), "books that do not balance: {unbalanced:?}");
    Ok(())
}

/// The names of phases in the order in which a run entered them.
#[must_use]
pub fn phase_names(phases: &[&PhaseEvent]) -> Vec<Phase> {
    phases.iter().map(|event| event.phase).collect()
}

/// The other end of the connection that a line is about.
#[must_use]
pub fn peer_of(line: &Line) -> Option<SocketAddr> {
    let network = match &line.body {
        Body::Reset(event) => event.network,
        Body::ConnectionClosed(event) | Body::ConnectionOpened(event) => event.network,
        _ => return None,
    };
    Some(SocketAddr::new(network.peer.address, network.peer.port))
}
