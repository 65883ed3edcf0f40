//! Joining, step by step.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tracer_core::words::Result;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A join of deployment/web of shop, and a time that passes by itself.
struct Test {
    join: Join,
    start: Instant,
    now: Duration,
    rows: Vec<Row>,
    /// Numbers of the lines that were told.
    heard: Vec<u64>,
}

impl Test {
    /// A Deployment that is complete, a pod, an agent on its node.
    fn new() -> Self {
        let start = Instant::now();
        let patience = Patience { verdict: 45 * SECOND, settle: 2 * SECOND, all: 600 * SECOND };
        let name = "deployment/web".parse().unwrap();
        let join = Join::new(name, "shop".to_owned(), patience, start);
        Self { join, start, now: Duration::ZERO, rows: Vec::new(), heard: Vec::new() }
    }

    fn running() -> Self {
        let mut test = Self::new();
        test.workload(1, true);
        test.step(Input::Pod(pod()));
        test.step(Input::PodsComplete);
        test.step(Input::AgentCame { node: "n".to_owned(), pod: "agent".to_owned() });
        test.step(Input::AgentsComplete);
        test
    }

    fn step(&mut self, input: Input) {
        for news in self.join.step(input, self.start + self.now) {
            match news {
                News::Row(row) => self.rows.push(*row),
                News::Line(line) => self.heard.push(line.seq),
            }
        }
    }

    fn pass(&mut self, seconds: u32) {
        self.now += seconds * SECOND;
        self.step(Input::Tick);
    }

    fn workload(&mut self, revision: i32, complete: bool) {
        let mut status = Status { desired: 1, complete, ..Status::default() };
        let annotations = [("revision".to_owned(), revision.to_string())].into();
        status.template.metadata.get_or_insert_default().annotations = Some(annotations);
        self.step(Input::Workload(Box::new(status)));
    }

    fn terminate(&mut self) {
        self.step(Input::Pod(Pod { deleted: true, ..pod() }));
    }

    fn gone(&mut self) {
        self.step(Input::PodGone { uid: "uid".to_owned() });
    }

    fn line(&mut self, seq: u64, body: &Value) {
        self.step(Input::Line { node: "n".to_owned(), line: Box::new(line(seq, body)) });
    }

    fn end(&self) -> Option<End> {
        self.join.end(self.start + self.now)
    }

    fn results(&self) -> Vec<Result> {
        self.rows.iter().map(|row| row.result).collect()
    }
}

fn pod() -> Pod {
    Pod {
        uid: "uid".to_owned(),
        cgroup_uid: "uid".to_owned(),
        name: "web-1".to_owned(),
        node: Some("n".to_owned()),
        ..Pod::default()
    }
}

fn line(seq: u64, body: &Value) -> Line {
    let mut line = json!({
        "schema": "lastpacket.dev/v1", "time": "2026-11-21T08:00:00Z", "mono_ns": 1, "node": "n",
        "agent": {"run_id": "run"}, "seq": seq, "target": {"name": "shop/web-1", "netns": 1},
        "k8s": {"namespace": {"name": "shop"}, "pod": {"name": "web-1", "uid": "uid"},
            "deployment": {"name": "web"}},
    });
    line.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    serde_json::from_value(line).unwrap()
}

fn started() -> Value {
    json!({"type": "target_started", "late": false})
}

fn verdict(result: &str) -> Value {
    json!({
        "type": "verdict", "result": result, "reasons": [], "doubts": 0, "lost": 0, "losses": [],
        "connections": {"opened": 0, "found": 0, "ended": 0, "open": 0, "from_peers": 0},
        "traffic": {}, "containers": [], "books": [], "evidence": {"first_seq": 1, "last_seq": 8},
    })
}

#[test]
fn a_pod_that_ends_in_a_rollout_has_a_row() {
    let mut test = Test::running();
    test.workload(2, false);
    test.terminate();
    test.line(9, &verdict("drained"));
    test.gone();
    assert_eq!(test.results(), [Result::Drained]);
    test.workload(2, true);
    assert_eq!(test.end(), None, "other pods may come by the other watch");
    test.pass(2);
    assert_eq!(test.end(), Some(End::Complete));
    let (rows, total) = test.join.finish(&End::Complete);
    assert!(rows.is_empty() && total.pods == 1 && total.rollout == "complete", "{total:?}");
}

#[test]
fn the_row_is_there_also_if_the_watch_of_pods_comes_last() {
    let mut test = Test::running();
    test.workload(2, false);
    test.line(9, &verdict("cut"));
    test.workload(2, true);
    test.pass(3);
    test.terminate();
    test.gone();
    test.pass(50);
    assert_eq!(test.results(), [Result::Cut], "once");
    assert_eq!(test.end(), Some(End::Complete));
}

#[test]
fn the_row_is_there_also_if_the_news_of_the_rollout_comes_last() {
    let mut test = Test::running();
    test.terminate();
    test.line(9, &verdict("cut"));
    test.gone();
    test.pass(30);
    assert!(test.rows.is_empty(), "{:?}", test.rows);
    test.workload(2, false);
    assert_eq!(test.results(), [Result::Cut]);
    test.workload(2, true);
    test.pass(60);
    assert_eq!((test.results(), test.end()), (vec![Result::Cut], Some(End::Complete)), "once");
}

#[test]
fn a_pod_that_ends_while_nothing_is_rolled_out_is_nobodys_question() {
    let mut test = Test::running();
    test.terminate();
    test.line(9, &verdict("cut"));
    test.gone();
    test.pass(100);
    test.workload(2, false);
    test.pass(100);
    assert!(test.rows.is_empty(), "{:?}", test.rows);
}

#[test]
fn a_pod_without_a_verdict_is_unproven_after_some_patience() {
    let mut test = Test::running();
    test.workload(2, false);
    test.terminate();
    test.gone();
    test.workload(2, true);
    test.pass(44);
    assert_eq!((test.results(), test.end()), (vec![], None));
    test.pass(1);
    assert_eq!(test.results(), [Result::Unproven]);
    assert_eq!(test.end(), Some(End::Complete));
}

#[test]
fn a_pod_that_its_agent_gives_up_is_unproven() {
    let mut test = Test::running();
    test.workload(2, false);
    test.terminate();
    test.line(9, &json!({"type": "target_ended", "reason": "it was not terminated"}));
    test.gone();
    assert_eq!(test.results(), [Result::Unproven]);
    assert!(test.rows[0].reasons[0].contains("it was not terminated"), "{:?}", test.rows);
}

#[test]
fn a_container_that_was_restarted_leaves_its_pod_open() {
    let mut test = Test::running();
    test.workload(2, false);
    test.line(9, &verdict("cut"));
    test.line(10, &started());
    test.terminate();
    assert_eq!(test.results(), [Result::Cut]);
    test.workload(2, true);
    test.pass(5);
    assert_eq!(test.end(), None, "it is still to end");
    test.line(11, &verdict("drained"));
    test.gone();
    assert_eq!(test.results(), [Result::Cut, Result::Drained]);
    assert_eq!(test.end(), Some(End::Complete));
}

#[test]
fn a_gap_in_what_a_verdict_rests_on_spoils_it_unless_it_is_cut() {
    for (given, result) in [("drained", Result::Unproven), ("idle", Result::Unproven), ("cut", Result::Cut)] {
        let mut test = Test::running();
        test.workload(2, false);
        test.terminate();
        test.line(1, &started());
        test.line(9, &verdict(given));
        assert_eq!(test.results(), [result], "{given}");
        assert!(test.rows[0].reasons[0].contains("seq 2 to 8"), "{:?}", test.rows[0].reasons);
    }
    let mut test = Test::running();
    test.workload(2, false);
    test.line(8, &started());
    test.line(9, &verdict("drained"));
    assert_eq!(test.results(), [Result::Drained], "the lines before were not asked for");
}

#[test]
fn a_line_of_a_newer_agent_leaves_no_gap() {
    let mut test = Test::running();
    test.workload(2, false);
    test.terminate();
    test.line(1, &started());
    let place = Place { agent: line(2, &started()).agent, seq: 2 };
    test.step(Input::Newer { node: "n".to_owned(), place });
    test.step(Input::Garbage { node: "n".to_owned() });
    test.line(3, &verdict("drained"));
    assert_eq!(test.results(), [Result::Drained]);
}

#[test]
fn more_pods_than_there_should_be_are_waited_for() {
    let mut test = Test::running();
    test.workload(2, false);
    test.step(Input::Pod(Pod { uid: "new".to_owned(), cgroup_uid: "new".to_owned(), ..pod() }));
    test.workload(2, true);
    test.pass(10);
    assert_eq!(test.end(), None, "the old pod's deletion was not told yet");
    test.terminate();
    test.line(9, &verdict("late"));
    test.gone();
    assert_eq!(test.end(), Some(End::Complete));
}

#[test]
fn when_the_time_is_up_what_has_not_ended_is_unproven() {
    let mut test = Test::running();
    test.workload(2, false);
    test.terminate();
    test.pass(600);
    assert_eq!(test.end(), Some(End::TimedOut));
    let (rows, total) = test.join.finish(&End::TimedOut);
    assert_eq!((rows.len(), total.count(Result::Unproven), total.rollout), (1, 1, "timed_out"));
    let mut never = Test::running();
    never.pass(600);
    assert_eq!(never.end(), Some(End::NeverBegan));
}

#[test]
fn a_rollout_under_way_is_joined_with_what_the_logs_still_tell() {
    let mut test = Test::new();
    test.workload(1, false);
    let created = 1_795_248_000_000_000_000;
    let newest = Pod { uid: "new".to_owned(), created, revision: Some("b".to_owned()), ..pod() };
    test.step(Input::Pod(newest));
    test.step(Input::PodsComplete);
    let since = test.join.since().unwrap();
    assert_eq!(since.0, created - 30 * 1_000_000_000, "the pod before it may have ended first");
    test.step(Input::AgentsComplete);
    let mut before = line(8, &verdict("cut"));
    before.time = Timestamp(since.0 - 1);
    test.step(Input::Line { node: "n".to_owned(), line: Box::new(before) });
    assert!(test.rows.is_empty(), "it ended before the rollout began");
    let mut after = line(9, &verdict("drained"));
    after.time = Timestamp(since.0 + 1);
    test.step(Input::Line { node: "n".to_owned(), line: Box::new(after) });
    assert_eq!(test.results(), [Result::Drained], "of a pod that the API does not know any more");
}

#[test]
fn the_total_measures_the_lag_of_all_peers() {
    let mut test = Test::running();
    test.workload(2, false);
    let mut slow = verdict("drained");
    let peer = |address: &str, last: u64| json!({"address": address, "connections": 1, "last_after_mono_ns": last, "lost": 0, "doubts": 0});
    slow["peers"] = json!({"each": [peer("10.0.0.1", 2_000_000_000), peer("10.0.0.2", 4_500_000_000u64)]});
    let phase = |phase: &str, at: u64| json!({"phase": phase, "mono_ns": at, "source": "kernel"});
    slow["containers"] = json!([{"name": "web", "phases": [phase("running", 0),
        phase("pre_stop", 1_000_000_000), phase("stop_signal", 3_000_000_000u64),
        phase("exiting", 5_200_000_000u64)]}]);
    slow["findings"] = json!([{"id": "pre-stop-missing", "container": "web", "text": "t", "remedy": "r",
        "evidence": []}]);
    test.line(9, &slow);
    let (_, total) = test.join.finish(&End::Complete);
    let lag = total.propagation_lag.unwrap();
    assert_eq!((lag.peers, lag.p50, lag.p99, lag.max), (2, 1.0, 3.5, 3.5));
    let advice = total.advice.unwrap();
    assert_eq!((advice.pre_stop_seconds, advice.grace_seconds), (5, Some(9)), "3.5 + 1, + 2.2 + 1");
    assert_eq!(total.findings[0].pods, ["web-1"]);
}
