//! What log collectors make of lines, and what can be wrong with them.

use std::{fs, io::Read, path::PathBuf};

use tracer_core::{
    output::{Body, Line},
    words::Result,
};

use super::{Counts, PATIENCE, Reader, Stream, line};

/// The lines of a recorded rehearsal, as they were written.
pub(in crate::report) fn recording(name: &str) -> Vec<String> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/timeline");
    let mut text = String::new();
    let file = fs::File::open(folder.join(format!("{name}.jsonl.gz"))).unwrap();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// Reads the lines of one stream.
pub(in crate::report) fn read<T: AsRef<[u8]>>(lines: &[T]) -> (Vec<Line>, Counts) {
    let (mut reader, mut stream, mut out) = (Reader::new(PATIENCE), Stream::default(), Vec::new());
    lines.iter().for_each(|line| reader.line(&mut stream, line.as_ref(), &mut out));
    reader.end_of(&stream, None);
    reader.end(&mut out);
    (out, reader.counts())
}

fn verdict(lines: &[Line]) -> (Result, String) {
    let mut verdicts = lines.iter().filter_map(|line| match &line.body {
        Body::Verdict(verdict) => Some((verdict.result, verdict.reasons.join("; "))),
        _ => None,
    });
    verdicts.next_back().expect("a verdict")
}

fn seqs(lines: &[Line]) -> Vec<u64> {
    lines.iter().map(|line| line.seq).collect()
}

#[test]
fn the_fast_way_reads_what_the_derived_one_reads() {
    let mut names = line::Names::default();
    for text in ["abrupt", "flood", "graceful", "killed", "nginx"].iter().flat_map(|name| recording(name)) {
        let line::Found::Event(fast) = line::find(&text, &mut names).remove(0) else { panic!("{text}") };
        let slow: Line = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&fast).unwrap(), serde_json::to_string(&slow).unwrap());
    }
}

#[test]
fn prefixes_of_collectors_are_taken_away() {
    let plain = recording("graceful");
    let (expected, _) = read(&plain);
    for prefix in [
        "[pod/lastpacket-x2x7p/agent] ",
        "2026-11-21T10:32:53.629819665Z ",
        "2026-11-21T10:32:53.629819665Z stdout F ",
        "2026-11-21T10:32:53.629819665+01:00 stdout F ",
        "lastpacket-1  | ",
    ] {
        let lines: Vec<String> = plain.iter().map(|line| format!("{prefix}{line}")).collect();
        let (events, counts) = read(&lines);
        assert_eq!(seqs(&events), seqs(&expected), "{prefix}");
        assert_eq!(counts, Counts { events: plain.len() as u64, ..Counts::default() }, "{prefix}");
    }
}

#[test]
fn lines_that_a_runtime_split_are_joined() {
    let mut lines = Vec::new();
    for line in recording("graceful") {
        let (half, rest) = line.split_at(line.len() / 2);
        lines.push(format!("2026-11-21T10:32:53.6Z stdout P {half}"));
        lines.push(format!("2026-11-21T10:32:53.6Z stdout F {rest}"));
    }
    let (events, counts) = read(&lines);
    assert_eq!((events.len(), counts.truncated), (lines.len() / 2, 0));
}

#[test]
fn bad_lines_are_counted_and_the_others_read() {
    let good = recording("graceful");
    let begin = &good[4][..good[4].len() / 2];
    let lines = [
        good[0].clone(),
        good[1].clone(),
        format!("{begin}{}", good[2]),
        begin.to_owned(),
        format!("{}{}", good[3], good[4]),
        "Starting lastpacket".to_owned(),
        r#"{"level":"info","msg":"not ours"}"#.to_owned(),
        good[5].replace("connection_opened", "future_event"),
        good[6].replace("\"running\"", "\"hibernating\""),
        r#"{"schema":"lastpacket.dev/v2","what":"ever"}"#.to_owned(),
        String::new(),
        "\u{fffd}\0\x1b[2J".to_owned(),
        good[0].clone(),
    ];
    let (events, counts) = read(&lines);
    assert_eq!(seqs(&events), [1, 2, 3, 4, 5]);
    let expected = Counts {
        events: 5,
        truncated: 1,
        interleaved: 2,
        newer: 3,
        garbage: 3,
        repeated: 1,
        ..Counts::default()
    };
    assert_eq!(counts, expected);
}

#[test]
fn any_bytes_are_no_reason_to_fail() {
    let line = recording("graceful").remove(3).into_bytes();
    for at in 0..line.len() {
        let mut bytes = line.clone();
        bytes[at] = 0xff;
        read(&[&bytes[..], &line[..at]]);
    }
}

#[test]
fn a_gap_leaves_the_verdict_unproven() {
    let mut lines = recording("graceful");
    assert_eq!(verdict(&read(&lines).0).0, Result::Drained);
    lines.drain(40..43);
    let (events, counts) = read(&lines);
    assert_eq!(counts.missing, 3);
    let (result, reasons) = verdict(&events);
    assert_eq!(result, Result::Unproven);
    assert!(reasons.contains("3 lines are missing in the recording, from seq 41 on"), "{reasons}");
}

#[test]
fn a_gap_does_not_take_losses_back() {
    let mut lines = recording("nginx");
    lines.remove(40);
    let (result, reasons) = verdict(&read(&lines).0);
    assert_eq!(result, Result::Cut);
    assert!(reasons.contains("1 line is missing"), "{reasons}");
}

/// Before its termination nothing of a pod is told that its verdict rests on.
#[test]
fn a_recording_may_begin_late_but_not_after_the_termination_did() {
    let lines = recording("graceful");
    assert_eq!(verdict(&read(&lines[10..]).0).0, Result::Drained);
    let stop = lines.iter().position(|line| line.contains("\"stop_signal\"")).unwrap();
    let (result, reasons) = verdict(&read(&lines[stop + 5..]).0);
    assert_eq!(result, Result::Unproven);
    assert!(reasons.contains("after the termination did"), "{reasons}");
}

#[test]
fn lines_come_in_order_and_once() {
    let good = recording("graceful");
    let mut lines = good.clone();
    lines[20..60].reverse();
    lines.extend_from_slice(&good[50..70]);
    let (events, counts) = read(&lines);
    assert_eq!(seqs(&events), seqs(&read(&good).0));
    assert_eq!((counts.repeated, counts.missing), (20, 0));
}

#[test]
fn a_line_that_is_not_understood_is_no_gap() {
    let mut lines = recording("graceful");
    lines[40] = lines[40].replace("\"type\":\"connection", "\"type\":\"future");
    let (events, counts) = read(&lines);
    assert_eq!((counts.newer, counts.missing), (1, 0));
    assert_eq!(verdict(&events).0, Result::Drained);
}
