//! What the clients of a rehearsal saw, beside what was traced: what does not match comes first.

use std::collections::BTreeMap;

use tracer_core::output::{FailedRequest, RehearsalEvent, UnseenLoss};

use super::{
    names,
    style::{BAD, GOOD, Look, STRONG, wrap},
    table::table,
};

/// Requests and losses that do not match, told one by one.
const SHOWN: usize = 20;

/// All of it, line by line.
pub(super) fn tell(look: Look, event: &RehearsalEvent) -> Vec<String> {
    let answered = names::count(event.answered, "request answered", "requests answered");
    let errors = match event.server_errors {
        0 => String::new(),
        errors => format!(" ({errors} of them 5xx)"),
    };
    let mut lines = vec![format!(
        "{}  {answered}{errors}, {} failed, {} still open when the load ended",
        look.paint(STRONG, "clients"),
        event.failed,
        event.aborted
    )];
    let puzzles: Vec<&FailedRequest> =
        event.failures.iter().filter(|failure| failure.is_unexplained()).collect();
    lines.extend(first(look, &puzzles, |failure| unexplained(failure)));
    lines.extend(first(look, &event.unseen_losses.iter().collect::<Vec<_>>(), |loss| unseen(loss)));
    let by_word = event.failures.iter().filter(|failure| failure.is_by_word()).count() as u64;
    if by_word > 0 {
        lines.push(format!(
            "  {by_word} failed by the server's own word (HTTP/2), which the connection carried"
        ));
    }
    lines.push(match (event.failed - by_word, event.explained) {
        (0, _) if event.failed == 0 && event.unseen_losses.is_empty() => {
            format!("  {}", look.paint(GOOD, "no request failed, and no loss was traced"))
        }
        (0, _) => "  no other request failed".to_owned(),
        (failed, explained) if failed == explained => {
            format!(
                "  {}",
                look.paint(
                    GOOD,
                    &format!("all {failed} failures are explained by a loss on the same connection")
                )
            )
        }
        (failed, explained) => {
            let text =
                format!("{explained} of {failed} failures are explained by a loss on the same connection");
            format!("  {}", look.paint(BAD, &text))
        }
    });
    lines.extend(explained(look, event));
    lines
}

fn first<T>(look: Look, all: &[T], tell: impl Fn(&T) -> String) -> Vec<String> {
    let lines = all.iter().take(SHOWN).flat_map(|one| wrap(&tell(one), look.width() - 4));
    let mut lines: Vec<String> = lines.map(|line| format!("  {}", look.paint(BAD, &line))).collect();
    if all.len() > SHOWN {
        lines.push(format!("  … and {} more", all.len() - SHOWN));
    }
    lines
}

fn unexplained(request: &FailedRequest) -> String {
    let [kind, local, cause, phase] =
        [&request.kind, &request.local, &request.cause, &request.phase].map(|text| names::clean(text));
    format!("NOT EXPLAINED: {kind} from {local}: {cause} while {phase}")
}

fn unseen(loss: &UnseenLoss) -> String {
    format!("NO CLIENT SAW: {}: {} ({})", names::clean(&loss.peer), loss.ending, loss.confidence)
}

/// What clients saw and what was traced, by kind.
fn explained(look: Look, event: &RehearsalEvent) -> Vec<String> {
    let mut kinds: BTreeMap<[String; 3], u64> = BTreeMap::new();
    for failure in &event.failures {
        if let Some((ending, confidence)) = failure.explained_by.zip(failure.confidence) {
            let cause = format!("{}, {}", names::clean(&failure.cause), names::clean(&failure.phase));
            *kinds.entry([cause, ending.word().to_owned(), confidence.word().to_owned()]).or_default() += 1;
        }
    }
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let rows = kinds
        .into_iter()
        .map(|([cause, ending, confidence], count)| vec![count.to_string(), ending, confidence, cause]);
    table(look, &["count", "traced as", "loss", "what clients saw"], &rows.collect::<Vec<_>>())
}
