//! Servers that people know, rehearsed with settings that drain and with settings that do not: what
//! their clients see, and whether the verdict says so. The same runs make the tables of
//! docs/servers.md: `LASTPACKET_SERVERS_PAGE` names the page, `LASTPACKET_SERVERS_REPEAT` says how often
//! each row is rehearsed.

mod judge;
mod page;
mod rows;

use std::{
    collections::BTreeMap,
    env, fs,
    path::Path,
    process::{Command, ExitCode},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result, ensure};
use lastpacket_tests::{binary, needs, run};
use libtest_mimic::Arguments;

use self::{
    judge::{Seen, judge},
    rows::{OPTIONS, ROWS, Row},
};

/// What was seen of each row, by its test's name.
type Results = Arc<Mutex<BTreeMap<String, Vec<Seen>>>>;

/// Each has its own namespaces; more at once would be in each other's way on a small machine.
const AT_ONCE: usize = 2;

fn main() -> Result<ExitCode> {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_ONCE);
    let results = Results::default();
    let trials = ROWS.iter().map(|row| {
        let results = Arc::clone(&results);
        needs::live(test_name(row), move || rehearse(row, &results))
    });
    let trials = trials.collect();
    needs::explain_skips();
    let conclusion = libtest_mimic::run(&arguments, trials);
    let results = results.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(page) = env::var_os("LASTPACKET_SERVERS_PAGE")
        && results.len() == ROWS.len()
    {
        let text = fs::read_to_string(&page).context("cannot read the page")?;
        fs::write(&page, page::renew(&text, &results)?).context("cannot write the page")?;
    }
    Ok(conclusion.exit_code())
}

fn test_name(row: &Row) -> String {
    let server = row.server.split(' ').next().unwrap_or_default().replace('.', "");
    format!("{}::{}", server.to_lowercase(), row.name)
}

/// Rehearses a row as often as asked, by the very words that the page shows.
fn rehearse(row: &Row, results: &Results) -> Result<()> {
    let name = test_name(row);
    let mut faults = Vec::new();
    for number in 1..=repetitions()? {
        let run = run::start_command(command(row)?)?.finish()?;
        let (seen, found) = judge(row, &run).with_context(|| run.stderr.clone())?;
        if !found.is_empty() {
            let kept = run.keep(&format!("{}-{number}", name.replace("::", "-")))?;
            faults.extend(found.into_iter().map(|fault| format!("{fault} (lines in {kept})")));
        }
        let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
        results.entry(name.clone()).or_default().push(seen);
    }
    ensure!(faults.is_empty(), "{}\n  {}", row.words, faults.join("\n  "));
    Ok(())
}

fn repetitions() -> Result<u32> {
    match env::var("LASTPACKET_SERVERS_REPEAT") {
        Ok(text) => text.parse().with_context(|| format!("LASTPACKET_SERVERS_REPEAT={text} is no number")),
        Err(_) => Ok(1),
    }
}

/// The page's command, run in the workspace's root, where `lastpacket` and servers of PyPI are found.
fn command(row: &Row) -> Result<Command> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no workspace")?;
    let program = binary::lastpacket()?.parent().context("the binary is in no folder")?;
    let python = root.join("target/python/bin");
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = [program.to_owned(), python, "/usr/sbin".into()].into_iter().chain(env::split_paths(&path));
    let mut command = Command::new("sh");
    let words = format!("exec lastpacket rehearse {OPTIONS} {}", row.words);
    command.args(["-c", &words]).env("PATH", env::join_paths(folders)?).current_dir(root);
    Ok(command)
}
