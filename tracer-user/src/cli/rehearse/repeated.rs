//! Many rehearsals as text: a line for each, then how many ended how.

use std::{collections::BTreeMap, fmt::Write};

use tracer_core::{
    output::{Body, Line, RehearsalEvent},
    verdict::Verdict,
    words,
};

use crate::sink::Render;

/// See the module.
#[derive(Default)]
pub(super) struct Repeated {
    rehearsals: u32,
    results: BTreeMap<&'static str, u32>,
}

impl Render for Repeated {
    fn line(&mut self, line: &Line, bytes: &mut Vec<u8>) {
        let text = match &line.body {
            Body::Verdict(verdict) => self.verdict(verdict),
            Body::Rehearsal(clients) => requests(clients),
            _ => return,
        };
        bytes.extend(text.into_bytes());
    }

    fn end(&mut self, bytes: &mut Vec<u8>) {
        let results: Vec<String> =
            self.results.iter().map(|(word, count)| format!("{count} {word}")).collect();
        bytes.extend(format!("\n{} rehearsals: {}\n", self.rehearsals, results.join(", ")).into_bytes());
    }
}

impl Repeated {
    fn verdict(&mut self, verdict: &Verdict) -> String {
        self.rehearsals += 1;
        let word = verdict.result.word();
        *self.results.entry(word).or_default() += 1;
        let mut text = format!("{:>4}  {:<8}", self.rehearsals, word.to_uppercase());
        match verdict.result {
            words::Result::Cut => {
                let _ = write!(text, "  {} lost", verdict.lost);
            }
            words::Result::Unproven => {
                let _ = write!(text, "  {}", verdict.reasons.join("; "));
            }
            _ => {}
        }
        if verdict.doubts > 0 {
            let _ = write!(text, "  {} not provable", verdict.doubts);
        }
        text
    }
}

/// The rest of the line that the verdict began.
fn requests(clients: &RehearsalEvent) -> String {
    let mut text = format!("  requests: {} answered, {} failed", clients.answered, clients.failed);
    let unexplained = clients.failed.saturating_sub(clients.explained);
    if unexplained > 0 {
        let _ = write!(text, ", {unexplained} NOT EXPLAINED");
    }
    if !clients.unseen_losses.is_empty() {
        let _ = write!(text, ", {} losses NO CLIENT SAW", clients.unseen_losses.len());
    }
    text + "\n"
}
