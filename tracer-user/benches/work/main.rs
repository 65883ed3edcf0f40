//! What user space does per record, counted: allocations, memory, and under callgrind instructions.
//! `cargo xtask bench` runs it; it prints one JSON object.
//!
//! `work records N core|json`: N connections from opening to end, through decode and core (and JSON).
//! `work live N`: N connections opened and held.

#[path = "../common/mod.rs"]
mod common;
mod counting;

use std::{env, fs, process::ExitCode};

use common::{BATCH, Turn, synthetic};

/// Of a connection's records, those that open it.
const OPENING: u64 = 2;
/// Connections before the counting begins: tables have grown by then to their steady size.
const WARM_UP: u64 = 1_000_000;

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["records", count, sink @ ("core" | "json")] => {
            count.parse().ok().map(|count| records(count, sink == "json"))
        }
        ["live", count] => count.parse().ok().map(live),
        _ => None,
    };
    match result {
        Some(result) => {
            println!("{result}");
            ExitCode::SUCCESS
        }
        None => {
            eprintln!("usage: work records N core|json | work live N");
            ExitCode::from(2)
        }
    }
}

fn records(count: u64, with_json: bool) -> serde_json::Value {
    let mut turn = Turn::new(with_json);
    let warm_up = WARM_UP.min(count);
    run(&mut turn, 0, warm_up);
    let steady = counting::bytes();
    let allocations = run(&mut turn, warm_up, warm_up + count);
    let records = count * synthetic::RECORDS_OF_LIFE;
    serde_json::json!({
        "records": records,
        "allocations_per_record": allocations as f64 / records as f64,
        "bytes_grown": counting::bytes() as f64 - steady as f64,
    })
}

/// Allocations of the turns alone, without making the records.
fn run(turn: &mut Turn, from: u64, to: u64) -> u64 {
    let mut allocations = 0;
    let mut first = from;
    while first < to {
        let last = (first + BATCH).min(to);
        let batch = synthetic::records(first, last, synthetic::RECORDS_OF_LIFE);
        let counted = counting::allocations();
        turn.take(batch, last);
        allocations += counting::allocations() - counted;
        first = last;
    }
    allocations
}

fn live(count: u64) -> serde_json::Value {
    let mut turn = Turn::new(false);
    let before = counting::bytes();
    let mut first = 0;
    while first < count {
        let last = (first + BATCH).min(count);
        turn.take(synthetic::records(first, last, OPENING), last);
        first = last;
    }
    let bytes = counting::bytes() - before;
    serde_json::json!({
        "connections": count,
        "mebibytes": bytes as f64 / f64::from(1 << 20),
        "peak_resident_mebibytes": peak_resident(),
    })
}

/// The most memory that this process had resident, in MiB, as the kernel counts it.
fn peak_resident() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<f64>().ok()? / 1024.0)
}
