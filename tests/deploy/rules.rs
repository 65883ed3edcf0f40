//! Alert rules and dashboard, judged by promtool; and the names of the metrics, everywhere the same.

use std::{collections::BTreeSet, fmt::Write, fs};

use anyhow::{Context, Result, ensure};
use lastpacket_tests::{needs::anywhere, programs::with_programs};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    files::{read, run, scratch},
    scrape,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        with_programs("rules_are_valid", &["promtool"], || {
            run("promtool", &["check", "rules", "deploy/rules.yaml"]).map(drop)
        }),
        with_programs("rules_fire_and_fall_silent", &["promtool"], || {
            run("promtool", &["test", "rules", "deploy/rules_test.yaml"]).map(drop)
        }),
        with_programs("dashboard_queries_are_valid", &["promtool"], queries_are_valid),
        anywhere("metrics_have_the_same_names_everywhere", names_agree),
    ]
}

/// promtool knows no dashboards, but every query can stand in a rule.
fn queries_are_valid() -> Result<()> {
    let board: Value = serde_json::from_str(&read("deploy/dashboard.json")?)?;
    let panels = board["panels"].as_array().context("no panels")?;
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let mut rules = "groups:\n  - name: dashboard\n    rules:\n".to_owned();
    for (number, target) in targets.enumerate() {
        let query = target["expr"].as_str().context("a target without query")?;
        let query = query.replace("$__rate_interval", "5m").replace("$__range", "6h");
        let query = serde_json::to_string(&query)?;
        write!(rules, "      - record: query:{number}\n        expr: {query}\n")?;
    }
    let file = scratch("dashboard")?.join("rules.yaml");
    fs::write(&file, rules)?;
    run("promtool", &["check", "rules", file.to_str().context("no name")?]).map(drop)
}

fn names_agree() -> Result<()> {
    let served = names(&scrape::metrics()?.encode());
    ensure!(served.len() == 10, "{served:?}");
    ensure!(names(&read("docs/metrics.md")?) == served, "docs/metrics.md has others than {served:?}");
    for file in ["deploy/dashboard.json", "deploy/rules.yaml"] {
        let unknown: Vec<_> = names(&read(file)?).difference(&served).cloned().collect();
        ensure!(unknown.is_empty(), "{file} asks for {unknown:?}");
    }
    Ok(())
}

/// Metrics in a text, histograms by their base name.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.lines().filter(|line| !line.starts_with("# ")).flat_map(|line| {
        line.split(|character: char| !(character.is_ascii_alphanumeric() || character == '_'))
    });
    let names = words.filter(|word| word.starts_with("lastpacket_") && !word.starts_with("lastpacket__"));
    let base = |name: &str| {
        let parts = ["_bucket", "_sum", "_count"];
        parts.iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name).to_owned()
    };
    names.map(base).collect()
}
