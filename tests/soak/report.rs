//! The numbers of all rehearsals, as docs/accuracy.md keeps them.

use std::{collections::BTreeMap, fmt::Write};

use crate::{check::Score, plan::Plan};

/// See the module.
pub struct Report {
    first: u64,
    count: u64,
    by_server: BTreeMap<String, Score>,
    wrong: u64,
}

impl Report {
    pub fn new(first: u64, count: u64) -> Self {
        Self { first, count, by_server: BTreeMap::new(), wrong: 0 }
    }

    pub fn add(&mut self, plan: &Plan, score: &Score, faults: usize) {
        self.by_server.entry(plan.server.clone()).or_default().add(score);
        self.wrong += u64::from(faults > 0);
    }

    /// Rehearsals that were judged wrongly.
    pub fn wrong(&self) -> u64 {
        self.wrong
    }

    /// All of it as Markdown.
    pub fn text(&self) -> String {
        let mut total = Score::default();
        self.by_server.values().for_each(|score| total.add(score));
        let mut text = format!(
            "# Accuracy\n\nRandomised rehearsals: servers that end in all manners, clients of all kinds. \
             What the clients themselves saw is the truth; failures and losses are matched by the \
             addresses of their connection.\n\n```\ncargo xtask test --soak {} --seed {}\n```\n\n\
             | number | value |\n|---|---|\n",
            self.count, self.first
        );
        let confirmed = total.sure.saturating_sub(total.unseen);
        for (name, value) in [
            ("rehearsals", total.runs.to_string()),
            ("judged wrongly", self.wrong.to_string()),
            ("requests answered", total.answered.to_string()),
            ("requests failed", total.failures.to_string()),
            ("recall: failures explained by a loss", share(total.explained, total.failures)),
            ("precision: certain and likely losses that a client saw", share(confirmed, total.sure)),
            ("failures explained by a possible loss only", share(total.possible, total.explained)),
            ("possible losses that no client saw", total.doubts.to_string()),
        ] {
            let _ = writeln!(text, "| {name} | {value} |");
        }
        text.push_str("\n## By server\n\n| server | rehearsals | failed | explained | of these possible | certain and likely | unseen | doubts unseen |\n|---|---|---|---|---|---|---|---|\n");
        for (server, s) in &self.by_server {
            let _ = writeln!(
                text,
                "| {server} | {} | {} | {} | {} | {} | {} | {} |",
                s.runs, s.failures, s.explained, s.possible, s.sure, s.unseen, s.doubts
            );
        }
        text
    }
}

fn share(part: u64, whole: u64) -> String {
    let percent = if whole == 0 { 100.0 } else { 100.0 * part as f64 / whole as f64 };
    format!("{percent:.2} % ({part} of {whole})")
}
