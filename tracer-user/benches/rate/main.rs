//! Records a second on one core, through decode and core, and on to JSON lines.

#[path = "../common/mod.rs"]
mod common;

use bytes::Bytes;
use common::{BATCH, Turn, synthetic};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

fn rate(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("records");
    group.throughput(Throughput::Elements(BATCH * synthetic::RECORDS_OF_LIFE));
    for (name, with_json) in [("core", false), ("json", true)] {
        let mut turn = Turn::new(with_json);
        let mut next = 0;
        let mut batch = || -> (Vec<Bytes>, u64) {
            let first = next;
            next += BATCH;
            (synthetic::records(first, next, synthetic::RECORDS_OF_LIFE), next)
        };
        // Tables have grown by then to their steady size.
        for _ in 0..WARM_UP / BATCH {
            let (records, last) = batch();
            turn.take(records, last);
        }
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                &mut batch,
                |(records, last)| turn.take(records, last),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

/// Connections before the counting begins.
const WARM_UP: u64 = 1_000_000;

criterion_group!(benches, rate);
criterion_main!(benches);
