//! The well-known shutdown experiments, reproduced and judged: clients, HAProxy, gateway pods and a
//! backend, each in a network namespace of its own; the pods are terminated as a kubelet does it, once
//! with the settings that everybody begins with and once with better ones.
//!
//! `LASTPACKET_SCENARIOS` names those to play, separated by commas; `LASTPACKET_SCENARIOS_FULL` gives them their original durations. Artefacts of each run are in
//! `target/scenarios`.

mod backend;
mod balancer;
mod clients;
mod container;
mod evidence;
mod gateway;
mod plays;
mod pod;
mod stage;

use std::{
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
};

use lastpacket_tests::{needs, programs};
use libtest_mimic::{Arguments, Trial};

use self::plays::{PLAYS, Play};

/// Each has its own namespaces; more at once would be in each other's way on a small machine.
const AT_ONCE: usize = 2;

/// Rows of the table: the play's name, what was expected, what was seen.
type Table = Arc<Mutex<Vec<[String; 3]>>>;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_ONCE);
    let table = Table::default();
    let named = std::env::var("LASTPACKET_SCENARIOS").unwrap_or_default();
    let is_named = |play: &&Play| named.split(',').any(|name| play.name.starts_with(name));
    let trials = PLAYS.iter().filter(is_named).map(|play| trial(*play, Arc::clone(&table))).collect();
    needs::explain_skips();
    let conclusion = libtest_mimic::run(&arguments, trials);
    let mut rows = table.lock().unwrap_or_else(PoisonError::into_inner).clone();
    rows.sort();
    print(&rows);
    conclusion.exit_code()
}

fn trial(play: Play, table: Table) -> Trial {
    let missing = ["haproxy", "nginx", "curl", "nsenter"].iter().find(|name| programs::find(name).is_err());
    needs::live(play.name, move || {
        if let Some(missing) = missing {
            anyhow::bail!("there is no {missing}; `cargo xtask programs` installs it");
        }
        let played = (play.run)(play.name);
        let seen = played.as_ref().map_or_else(|error| format!("WRONG: {error:#}"), Clone::clone);
        let row = [play.name.to_owned(), play.expected.to_owned(), seen];
        table.lock().unwrap_or_else(PoisonError::into_inner).push(row);
        played.map(|_| ())
    })
}

fn print(rows: &[[String; 3]]) {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (names, expected) = (width(0), width(1));
    for [name, wanted, seen] in rows {
        println!("{name:<names$}  {wanted:<expected$}  {seen}");
    }
}
