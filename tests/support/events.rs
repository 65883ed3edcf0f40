//! Reading events: the questions that tests ask of a run's lines.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use tracer_core::{
    output::{Body, ConnectionEvent, Line, LostEvent, PhaseEvent, RehearsalEvent, ResetEvent},
    verdict::Verdict,
    words::Phase,
};

use crate::machine;

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

/// Nothing was lost on the way from the kernel to here, but for what [`unseen_calls`] counts.
///
/// # Errors
/// With what was.
pub fn ensure_nothing_lost(lines: &[Line]) -> Result<()> {
    let lost: Vec<_> = losses(lines).filter(|lost| !is_of_calls(lost)).collect();
    ensure!(lost.is_empty(), "lost: {lost:?}");
    Ok(())
}

/// Reads and writes of applications that the kernel did not show: it skips a program that another task is in,
/// where tracepoints are preemptible (from 7.0 on). None on other kernels.
#[must_use]
pub fn unseen_calls(lines: &[Line]) -> u64 {
    losses(lines).filter(|lost| is_of_calls(lost)).map(|lost| lost.count).sum()
}

fn losses(lines: &[Line]) -> impl Iterator<Item = &LostEvent> {
    lines.iter().filter_map(|line| if let Body::Lost(lost) = &line.body { Some(lost) } else { None })
}

fn is_of_calls(lost: &LostEvent) -> bool {
    let hook = lost.hook.as_deref().unwrap_or_default();
    let preemptible = machine::kernel_version().is_ok_and(|version| version >= (7, 0));
    preemptible && matches!(hook, "sock_recv_length" | "sock_send_length")
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
