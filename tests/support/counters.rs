//! The kernel's own TCP counters of a network namespace, read by the test itself.

use std::{collections::BTreeMap, fs};

use anyhow::{Context, Result};

use crate::netns::Namespace;

/// Counters by name.
pub type Counters = BTreeMap<String, u64>;

/// All `Tcp:` and `TcpExt:` counters of a namespace.
///
/// # Errors
/// If procfs cannot be read.
pub fn read(namespace: &Namespace) -> Result<Counters> {
    let text = namespace.enter(|| {
        let file = |name: &str| fs::read_to_string(format!("/proc/thread-self/net/{name}"));
        Ok(file("snmp")? + &file("netstat")?)
    })?;
    let mut counters = Counters::new();
    let lines: Vec<&str> = text.lines().collect();
    for pair in lines.chunks_exact(2) {
        let (names, values) = (pair[0].split_whitespace(), pair[1].split_whitespace());
        if pair[0].starts_with("Tcp:") || pair[0].starts_with("TcpExt:") {
            for (name, value) in names.zip(values).skip(1) {
                // Some are levels and limits below zero: no counters.
                if let Ok(value) = value.parse() {
                    counters.insert(name.to_owned(), value);
                }
            }
        }
    }
    counters.get("OutRsts").context("the kernel has no counter OutRsts")?;
    Ok(counters)
}

/// By how much a counter rose.
#[must_use]
pub fn rise(before: &Counters, after: &Counters, name: &str) -> u64 {
    let of = |counters: &Counters| counters.get(name).copied().unwrap_or(0);
    of(after).saturating_sub(of(before))
}
