//! `portcullis bench`: everything is measured and printed, also by a run that is too short to mean anything.

use serde_json::Value;

use super::command::portcullis;

#[test]
fn a_quick_run_prints_every_part_with_its_floor() {
    let quick = ["bench", "--quick", "--json", "--interval-us", "500"];
    let finished = portcullis(quick).finish();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let rows: Vec<Value> = finished
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("one object a line"))
        .collect();
    let is_there = |bench: &str| rows.iter().any(|row| row["bench"] == bench);
    for bench in [
        "memory-copy",
        "cross-core-hand-over",
        "round-trip-apart-p50",
        "round-trip-one-core-p50",
        "paced-wake-up-apart-p99",
        "samples-batch-default",
        "cpu-batch-1",
        "large-in-process",
        "large-shared-view",
        "large-copied-out-time",
        "latency-p50",
        "local-call-p50",
        "local-calls-in-actix-context",
        "bridged-call-p50",
        "bridged-call-one-core-p99",
        "bridged-call-asleep-p50",
        "bridged-calls",
        "component-call-p50",
        "call-with-100-handles",
        "cpu-with-10-sessions",
        "cpu-with-10-hosts",
    ] {
        assert!(is_there(bench), "{bench} in {}", finished.stdout);
    }
    for row in rows {
        let value = row["value"].as_f64().expect("a number");
        assert!(value > 0.0, "{row}");
        if row["floor"].is_string() {
            assert!(row["floor_value"].as_f64() > Some(0.0), "{row}");
            assert!(row["ratio"].as_f64() > Some(0.0), "{row}");
        }
    }
}
