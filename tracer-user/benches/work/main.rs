//! What user space does per record, counted: time, allocations, memory. `cargo xtask bench` runs it, also
//! under callgrind; it prints one JSON object.
//!
//! `work records N core|json`: N connections from opening to end, through decode and core (and JSON).
//! `work live N`: N connections opened and held.

mod counting;
mod synthetic;

use std::{env, hint::black_box, process::ExitCode, time::Instant};

use bytes::Bytes;
use tracer_core::{
    Tracer,
    input::{Clock, Input},
    output::Line,
};
use tracer_user::sink::{Render, jsonl::JsonLines};

/// Connections whose records are made at a time, so that they stay in the cache as the ring buffer's do.
const BATCH: u64 = 200;
/// Connections before the counting begins: tables have grown by then to their steady size.
const WARM_UP: u64 = 300_000;

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

/// One turn of the pipeline: records in, lines out.
struct Turn {
    tracer: Tracer,
    lines: Vec<Line>,
    json: Vec<u8>,
    with_json: bool,
}

impl Turn {
    fn take(&mut self, records: Vec<Bytes>, last: u64) {
        for record in records {
            self.tracer.step(Input::Record(record), &mut self.lines);
        }
        let mono = last * synthetic::RECORDS_OF_LIFE * synthetic::STEP;
        self.tracer.step(Input::Tick(Clock { mono, wall: 0 }), &mut self.lines);
        if self.with_json {
            self.lines.iter().for_each(|line| JsonLines.line(line, &mut self.json));
        }
        black_box(&self.json);
        self.json.clear();
        black_box(&self.lines);
        self.lines.clear();
    }
}

fn records(count: u64, with_json: bool) -> serde_json::Value {
    let mut turn = Turn { tracer: synthetic::tracer(), lines: Vec::new(), json: Vec::new(), with_json };
    let warm_up = WARM_UP.min(count);
    run(&mut turn, 0, warm_up);
    let (seconds, allocations) = run(&mut turn, warm_up, warm_up + count);
    let records = count * synthetic::RECORDS_OF_LIFE;
    serde_json::json!({
        "records": records,
        "seconds": seconds,
        "records_per_second": records as f64 / seconds,
        "allocations_per_record": allocations as f64 / records as f64,
    })
}

/// Seconds and allocations of the turns alone, without making the records.
fn run(turn: &mut Turn, from: u64, to: u64) -> (f64, u64) {
    let (mut seconds, mut allocations) = (0.0, 0);
    let mut first = from;
    while first < to {
        let last = (first + BATCH).min(to);
        let batch = synthetic::lives(first, last);
        let (began, counted) = (Instant::now(), counting::allocations());
        turn.take(batch, last);
        seconds += began.elapsed().as_secs_f64();
        allocations += counting::allocations() - counted;
        first = last;
    }
    (seconds, allocations)
}

fn live(count: u64) -> serde_json::Value {
    let mut turn =
        Turn { tracer: synthetic::tracer(), lines: Vec::new(), json: Vec::new(), with_json: false };
    let before = counting::bytes();
    let mut first = 0;
    while first < count {
        let last = (first + BATCH).min(count);
        turn.take(synthetic::openings(first, last), last);
        first = last;
    }
    let bytes = counting::bytes() - before;
    serde_json::json!({
        "connections": count,
        "mebibytes": bytes as f64 / f64::from(1 << 20),
        "peak_mebibytes": counting::peak() as f64 / f64::from(1 << 20),
    })
}
