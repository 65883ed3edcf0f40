//! Whether a row's rehearsal came out as its settings promise, and its verdict as its clients saw it.

use anyhow::Result;
use lastpacket_tests::{events::Events, run::Run};
use tracer_core::words::Result as Answer;

use crate::rows::{Clients, Row};

/// The numbers of one rehearsal.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub answer: Answer,
    pub lost: u64,
    pub doubts: u64,
    /// Requests without a whole answer.
    pub failed: u64,
    /// Whole answers with a 5xx status.
    pub server_errors: u64,
    pub requests: u64,
}

/// What was seen, and what is wrong with it.
///
/// # Errors
/// If the rehearsal has no verdict.
pub fn judge(row: &Row, run: &Run) -> Result<(Seen, Vec<String>)> {
    let (verdict, clients) = (run.lines.verdict()?, run.lines.rehearsal()?);
    let seen = Seen {
        answer: verdict.result,
        lost: verdict.lost,
        doubts: verdict.doubts,
        failed: clients.failed,
        server_errors: clients.server_errors,
        requests: clients.answered + clients.failed,
    };
    let mut faults = Vec::new();
    let told = || format!("{} with {} lost and {} doubts", seen.answer, seen.lost, seen.doubts);
    // What the server itself refused within HTTP/2 its connection carried as any answer.
    let unsaid = seen.failed - clients.failures.iter().filter(|failure| failure.is_by_word()).count() as u64;
    let races = clients.failures.iter().all(|failure| failure.kind == "keep-alive");
    match row.clients {
        Clients::Races if !races => {
            faults.push(format!("{} requests failed, not all on kept connections", seen.failed));
        }
        Clients::Served if seen.failed > 0 => faults.push(format!("{} requests failed", seen.failed)),
        Clients::Cut if seen.failed + seen.server_errors == 0 => faults.push("no request failed".to_owned()),
        Clients::Served | Clients::Races if seen.server_errors > 0 => {
            faults.push(format!("{} requests were answered 5xx", seen.server_errors));
        }
        Clients::Served | Clients::Races
            if unsaid == 0 && !matches!(seen.answer, Answer::Drained | Answer::Late) =>
        {
            faults.push(format!("all clients were served, but the verdict is {}", told()));
        }
        // A failure may be one that the kernel's view does not prove: then the verdict has doubts.
        _ if unsaid > 0 && seen.lost + seen.doubts == 0 || seen.answer == Answer::Unproven => {
            faults.push(format!("{unsaid} requests failed, but the verdict is {}", told()));
        }
        _ => {}
    }
    for failure in clients.failures.iter().filter(|failure| failure.is_unexplained()) {
        faults.push(format!("not explained: {failure:?}"));
    }
    faults.extend(clients.unseen_losses.iter().map(|loss| format!("no client saw {loss:?}")));
    Ok((seen, faults))
}
