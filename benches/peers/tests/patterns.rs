//! What is measured beside channels works: every value arrives, and is verified.

use std::{fs, process::Command};

use serde_json::Value;

fn figures(cases: &str, peers: &str) -> Vec<Value> {
    let place = std::env::temp_dir().join(format!("waterway-peers-{}-{}", std::process::id(), cases.replace(',', "-")));
    let mut harness = Command::new(env!("CARGO_BIN_EXE_waterway-peers"));
    harness.args(["--cases", cases, "--peers", peers, "--runs", "1", "--seconds", "0.01", "--json"]).arg(&place);
    let output = harness.output().expect("the harness runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let json = fs::read_to_string(&place).expect("the harness has written it");
    fs::remove_file(place).expect("it is ours");
    let all: Value = serde_json::from_str(&json).expect("it is JSON");
    all["figures"].as_array().expect("there are some").clone()
}

fn all_are_measured(cases: &str, peers: &str) {
    let figures = figures(cases, peers);
    let expected = cases.split(',').count() * peers.split(',').count();
    assert_eq!(figures.len(), expected, "{figures:?}");
    for figure in figures {
        assert_eq!(figure["failures"], Value::Array(Vec::new()), "{figure}");
        assert!(figure["ns"].as_f64().is_some_and(|nanos| nanos > 0.0), "{figure}");
    }
}

#[test]
fn a_call_is_answered() {
    all_are_measured("call", "waterway,waterway-call");
    #[cfg(feature = "peers")]
    all_are_measured("call", "iceoryx2-call");
    #[cfg(feature = "tonic")]
    all_are_measured("call", "tonic");
}

#[test]
fn the_latest_value_is_whole_and_the_last() {
    all_are_measured("watch-4K,watch-written-64B,watch-written-4K,watch-send-64B", "waterway-watch,tokio-watch");
    #[cfg(feature = "peers")]
    all_are_measured("watch-written-4K,watch-send-64B", "iceoryx2-blackboard");
}

#[test]
fn all_receivers_get_all_messages() {
    all_are_measured("broadcast-64B-4,publish-64B-4,publish-64K-1", "waterway-broadcast,tokio-broadcast");
    #[cfg(feature = "peers")]
    all_are_measured("broadcast-64B-4,publish-64K-1", "iceoryx2-broadcast");
}
