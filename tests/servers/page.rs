//! The tables of docs/servers.md, made from what was seen.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use crate::{
    judge::Seen,
    rows::{ROWS, Row},
    test_name,
};

const END: &str = "<!-- end of rows -->";

/// The page with its tables replaced.
///
/// # Errors
/// If a section's marks are missing.
pub fn renew(page: &str, results: &BTreeMap<String, Vec<Seen>>) -> Result<String> {
    let mut page = page.to_owned();
    for server in ROWS.iter().map(|row| row.server) {
        let begin = format!("<!-- rows: {server} -->\n");
        let (before, rest) = page.split_once(&begin).with_context(|| format!("the page lacks {begin}"))?;
        let (_, after) = rest.split_once(END).with_context(|| format!("{begin} has no end"))?;
        page = format!("{before}{begin}{}{END}{after}", table(server, results));
    }
    Ok(page)
}

fn table(server: &str, results: &BTreeMap<String, Vec<Seen>>) -> String {
    let rows = ROWS.iter().filter(|row| row.server == server).map(|row| {
        let seen = results.get(&test_name(row)).map(Vec::as_slice).unwrap_or_default();
        format!("| `{}` | {} | {} | {} |\n", words(row), clients(seen), verdicts(seen), row.why)
    });
    let heads = "\n| `lastpacket rehearse $OPTIONS …` | clients | verdict | why |\n|---|---|---|---|\n";
    format!("{heads}{}\n", rows.collect::<String>())
}

/// Without the gaps that an option left out leaves.
fn words(row: &Row) -> String {
    row.words.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn clients(seen: &[Seen]) -> String {
    let sum = |number: fn(&Seen) -> u64| seen.iter().map(number).sum::<u64>();
    let failed = format!("{} of {} failed", sum(|seen| seen.failed), sum(|seen| seen.requests));
    match sum(|seen| seen.server_errors) {
        0 => failed,
        errors => format!("{failed}, {errors} answered 5xx"),
    }
}

/// Each verdict with how often it was given and the least and most losses that it told.
fn verdicts(seen: &[Seen]) -> String {
    let mut by_answer: BTreeMap<_, Vec<Seen>> = BTreeMap::new();
    for seen in seen {
        by_answer.entry(seen.answer.word()).or_default().push(*seen);
    }
    let told = by_answer.into_iter().map(|(word, seen)| {
        let mut text = format!("**{}**", word.to_uppercase());
        for (what, number) in [("lost", Seen::lost as fn(&Seen) -> u64), ("not provable", Seen::doubts)] {
            let most = seen.iter().map(number).max().unwrap_or(0);
            let least = seen.iter().map(number).min().unwrap_or(0);
            match (least, most) {
                (_, 0) => {}
                (least, most) if least == most => text.push_str(&format!(", {most} {what}")),
                (least, most) => text.push_str(&format!(", {least} to {most} {what}")),
            }
        }
        if seen.len() > 1 {
            text.push_str(&format!(", in {} runs", seen.len()));
        }
        text
    });
    told.collect::<Vec<_>>().join("; ")
}

impl Seen {
    const fn lost(&self) -> u64 {
        self.lost
    }

    const fn doubts(&self) -> u64 {
        self.doubts
    }
}
