//! Metrics from synthetic lines.

use serde_json::{Value, json};
use tracer_core::output::{Line, SCHEMA};

use super::Metrics;

/// A line of the pod `web-1` of the Deployment `web`.
fn line(kind: &str, body: &Value) -> Line {
    of("web", kind, body)
}

fn of(deployment: &str, kind: &str, body: &Value) -> Line {
    let k8s = json!({"namespace": {"name": "shop"}, "pod": {"name": format!("{deployment}-1"), "uid": "u"},
        "deployment": {"name": deployment}});
    about(&json!({"target": {"name": "t", "netns": 1}, "k8s": k8s}), kind, body)
}

fn about(subject: &Value, kind: &str, body: &Value) -> Line {
    let mut line = json!({"schema": SCHEMA, "type": kind, "time": "2026-11-21T08:01:46Z", "mono_ns": 1,
        "node": "n", "agent": {"run_id": "r"}, "seq": 1});
    for fields in [subject, body] {
        line.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    }
    serde_json::from_value(line).unwrap()
}

fn reset() -> Value {
    json!({"container": {"name": "c"}, "phase": "after_exit", "direction": "sent", "reason": "NO_SOCKET",
        "network": {"type": "ipv4", "local": {"address": "10.0.0.1", "port": 80},
            "peer": {"address": "10.0.0.2", "port": 4000}},
        "role": "server", "origin": "peer", "hop": "external"})
}

/// Stopped at 10 s, exited at 12 s, the last traffic 0.5 s before; one peer came until 11 s.
fn verdict(result: &str) -> Value {
    let start =
        |phase, seconds: u64| json!({"phase": phase, "mono_ns": seconds * 1_000_000_000, "source": "kernel"});
    let loss = |confidence, count| {
        json!({"ending": "refused", "phase": "after_exit", "container": "c",
        "confidence": confidence, "count": count, "peers": []})
    };
    let book = |name, events| json!({"name": name, "kernel": 1, "events": events, "balanced": events == 1});
    json!({"result": result, "reasons": [], "doubts": 3, "lost": 6,
        "losses": [loss("certain", 4), loss("likely", 2), loss("possible", 3)],
        "connections": {"opened": 0, "found": 0, "ended": 0, "open": 0, "from_peers": 0},
        "traffic": {"quiet_ns": 500_000_000}, "udp_not_judged": 0,
        "containers": [{"name": "c", "phases": [start("running", 1), start("stop_signal", 10),
            start("exiting", 12), start("after_exit", 13)]}],
        "findings": [],
        "peers": {"each": [
            {"address": "10.0.0.2", "connections": 1, "last_after_mono_ns": 11_000_000_000u64, "lost": 0, "doubts": 0},
            {"address": "10.0.0.3", "connections": 1, "lost": 0, "doubts": 0}]},
        "books": [book("OutRsts", 1), book("records", 2)], "evidence": {"first_seq": 1, "last_seq": 2}})
}

#[track_caller]
fn has(metrics: &Metrics, sample: &str) {
    let text = metrics.encode();
    assert!(text.lines().any(|line| line == sample), "no {sample} in\n{text}");
}

#[test]
fn a_verdict_counts_termination_losses_durations_and_books() {
    let metrics = Metrics::new(false);
    metrics.observe(&line("verdict", &verdict("cut")));
    has(&metrics, r#"lastpacket_pod_terminations_total{namespace="shop",workload="web",verdict="cut"} 1"#);
    has(
        &metrics,
        r#"lastpacket_losses_total{namespace="shop",workload="web",ending="refused",phase="after_exit"} 6"#,
    );
    has(&metrics, r#"lastpacket_phase_duration_seconds_sum{phase="stop_signal"} 2.0"#);
    has(&metrics, r#"lastpacket_phase_duration_seconds_sum{phase="exiting"} 1.0"#);
    has(&metrics, "lastpacket_quiet_seconds_sum 0.5");
    has(&metrics, "lastpacket_peer_lag_seconds_sum 1.0");
    has(&metrics, "lastpacket_peer_lag_seconds_count 1");
    has(&metrics, "lastpacket_books_mismatch_total 1");
    let text = metrics.encode();
    assert!(!text.contains(r#"phase="running""#), "{text}");
}

#[test]
fn traffic_after_the_exit_is_no_quiet_time_at_all() {
    let metrics = Metrics::new(false);
    let mut late = verdict("late");
    late["traffic"]["quiet_ns"] = json!(-1_000_000_000);
    metrics.observe(&line("verdict", &late));
    has(&metrics, r#"lastpacket_quiet_seconds_bucket{le="0.0"} 1"#);
    has(&metrics, "lastpacket_quiet_seconds_sum 0.0");
}

#[test]
fn resets_are_counted_by_direction_phase_and_reason() {
    let metrics = Metrics::new(false);
    let mut without_reason = reset();
    without_reason.as_object_mut().unwrap().remove("reason");
    metrics.observe(&line("reset", &reset()));
    metrics.observe(&line("reset", &reset()));
    metrics.observe(&line("reset", &without_reason));
    let labels = r#"namespace="shop",workload="web",direction="sent",phase="after_exit""#;
    has(&metrics, &format!(r#"lastpacket_tcp_resets_total{{{labels},reason="NO_SOCKET"}} 2"#));
    has(&metrics, &format!(r#"lastpacket_tcp_resets_total{{{labels},reason="unknown"}} 1"#));
}

#[test]
fn what_was_lost_is_told_from_what_belongs_to_nobody() {
    let metrics = Metrics::new(false);
    let lost = |stage| json!({"stage": stage, "reason": "a \"reason\"", "count": 7});
    metrics.observe(&about(&json!({}), "lost", &lost("ring_buffer")));
    metrics.observe(&about(&json!({}), "lost", &lost("attribute")));
    has(&metrics, r#"lastpacket_events_lost_total{stage="ring_buffer",reason="a \"reason\""} 7"#);
    has(&metrics, r#"lastpacket_events_unattributed_total{reason="a \"reason\""} 7"#);
}

#[test]
fn every_verdict_is_zero_as_soon_as_a_workload_is_in_scope() {
    let metrics = Metrics::new(false);
    metrics.observe(&line("target_started", &json!({"late": false})));
    for verdict in ["drained", "late", "cut", "idle", "unproven"] {
        let labels = format!(r#"namespace="shop",workload="web",verdict="{verdict}""#);
        has(&metrics, &format!("lastpacket_pod_terminations_total{{{labels}}} 0"));
    }
}

#[test]
fn pods_are_told_apart_only_on_request() {
    let metrics = Metrics::new(true);
    metrics.observe(&line("verdict", &verdict("cut")));
    let labels = r#"namespace="shop",workload="web",pod="web-1",verdict="cut""#;
    has(&metrics, &format!("lastpacket_pod_terminations_total{{{labels}}} 1"));
}

#[test]
fn workloads_are_named_by_their_owner_or_by_what_is_known() {
    let metrics = Metrics::new(false);
    let target = json!({"name": "netns:7", "netns": 7});
    let namespace = json!({"name": "shop"});
    let subjects = [
        (json!({"target": target}), "", "netns:7"),
        (json!({"target": target, "k8s": {"pod": {"uid": "u"}}}), "unknown", "unknown"),
        (
            json!({"target": target, "k8s": {"namespace": namespace, "pod": {"uid": "u", "name": "bare"}}}),
            "shop",
            "bare",
        ),
        (
            json!({"target": target, "k8s": {"namespace": namespace, "pod": {"uid": "u", "name": "x"},
                "job": {"name": "backup-29384720"}}}),
            "shop",
            "backup",
        ),
    ];
    for (subject, namespace, workload) in subjects {
        metrics.observe(&about(&subject, "verdict", &verdict("idle")));
        let labels = format!(r#"namespace="{namespace}",workload="{workload}",verdict="idle""#);
        has(&metrics, &format!("lastpacket_pod_terminations_total{{{labels}}} 1"));
    }
}

#[test]
fn label_sets_beyond_the_bound_are_counted_together() {
    let metrics = Metrics::new(false);
    for number in 0..super::LABEL_SETS + 5 {
        metrics.observe(&of(&format!("w{number}"), "reset", &reset()));
    }
    metrics.observe(&of("w0", "reset", &reset()));
    let labels = r#"direction="sent",phase="after_exit",reason="NO_SOCKET""#;
    has(
        &metrics,
        &format!(r#"lastpacket_tcp_resets_total{{namespace="other",workload="other",{labels}}} 5"#),
    );
    has(&metrics, &format!(r#"lastpacket_tcp_resets_total{{namespace="shop",workload="w0",{labels}}} 2"#));
}

#[test]
fn the_version_is_told_and_the_text_ends_as_the_format_wants() {
    let text = Metrics::new(false).encode();
    assert!(text.contains(&format!(r#"lastpacket_build_info{{version="{}"}} 1"#, env!("CARGO_PKG_VERSION"))));
    assert!(text.ends_with("# EOF\n"));
}
