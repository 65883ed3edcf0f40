//! The demonstration: exit codes, verdicts, and lines that the schema knows.

use anyhow::{Context, Result, anyhow, ensure};
use lastpacket_tests::{
    events::{Events, ensure_balanced, ensure_no_gaps},
    needs,
};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use tracer_core::{output::Line, words};

use crate::program::{Ended, lastpacket, run};

pub fn trials() -> Vec<Trial> {
    vec![
        needs::live("demo::an_abrupt_server_is_cut", || demo("abrupt", words::Result::Cut, 1)),
        needs::live("demo::a_graceful_server_is_drained", || demo("graceful", words::Result::Drained, 0)),
        needs::live("demo::the_text_tells_the_verdict", text),
        needs::anywhere("demo::the_schema_knows_no_nonsense", nonsense),
    ]
}

fn demo(behaviour: &str, result: words::Result, code: i32) -> Result<()> {
    let ended = run(lastpacket(["rehearse", "--demo", behaviour, "--format", "json"])?)?;
    ensure!(ended.status.code() == Some(code), "{}: {}", ended.status, ended.stderr);
    ensure_valid(&ended)?;
    let lines: Vec<Line> = ended.stdout.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    ensure_no_gaps(&lines)?;
    let (verdict, clients) = (lines.verdict()?, lines.rehearsal()?);
    ensure!(verdict.result == result, "the verdict is {}: {:?}", verdict.result, verdict.reasons);
    ensure_balanced(verdict)?;
    ensure!((clients.failed > 0) == (code == 1), "{} requests failed", clients.failed);
    ensure!(clients.explained == clients.failed, "not explained: {:#?}", clients.failures);
    ensure!(clients.unseen_losses.is_empty(), "losses that no client saw: {:#?}", clients.unseen_losses);
    Ok(())
}

fn text() -> Result<()> {
    let ended = run(lastpacket(["rehearse", "--demo", "abrupt", "--format", "text"])?)?;
    ensure!(ended.status.code() == Some(1), "{}: {}", ended.status, ended.stderr);
    for word in ["CUT", "SIGTERM", "refused"] {
        ensure!(ended.stdout.contains(word), "{word} is not in:\n{}", ended.stdout);
    }
    Ok(())
}

fn schema() -> Result<jsonschema::Validator> {
    let ended = run(lastpacket(["schema"])?)?;
    ensure!(ended.status.success(), "{}", ended.stderr);
    let schema: Value = serde_json::from_str(&ended.stdout)?;
    jsonschema::validator_for(&schema).map_err(|error| anyhow!("the schema itself is wrong: {error}"))
}

fn ensure_valid(ended: &Ended) -> Result<()> {
    let schema = schema()?;
    for line in ended.stdout.lines() {
        let value: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
        schema.validate(&value).map_err(|error| anyhow!("{error} at {}: {line}", error.instance_path()))?;
    }
    Ok(())
}

fn nonsense() -> Result<()> {
    let schema = schema()?;
    for value in [json!({}), json!([]), json!({ "schema": "lastpacket.dev/v1", "type": "nonsense" })] {
        ensure!(!schema.is_valid(&value), "the schema knows {value}");
    }
    Ok(())
}
