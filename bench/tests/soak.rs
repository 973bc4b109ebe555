//! `twinseal-bench soak` for real, though not for hours: the same loop, the same accounts.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use twinseal_lab::Lab;

const BENCH: &str = env!("CARGO_BIN_EXE_twinseal-bench");

/// Runs a soak and returns what it found; none where none can run.
#[track_caller]
fn soak(arguments: &[&str]) -> Option<Value> {
    if let Err(why) = Lab::available() {
        eprintln!("SKIPPED: {why}");
        return None;
    }
    let program = Path::new(BENCH).with_file_name("twinseal");
    if !program.exists() {
        eprintln!("SKIPPED: {} is not there: cargo build", program.display());
        return None;
    }
    let done = Command::new(BENCH)
        .args([
            "soak",
            "--json",
            "--rotate-every",
            "1s",
            "--churn-every",
            "150ms",
        ])
        .args(arguments)
        .output()
        .expect("the program runs");
    let said = String::from_utf8_lossy(&done.stderr);
    let found = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{said}\n{found}");
    Some(serde_json::from_str(&found).expect("JSON"))
}

#[track_caller]
fn count(found: &Value, path: &str) -> u64 {
    found
        .pointer(path)
        .and_then(Value::as_u64)
        .unwrap_or_else(|| panic!("no {path} in {found:#}"))
}

#[track_caller]
fn check(found: &Value) {
    assert_eq!(found["failures"], Value::Array(Vec::new()));
    assert_eq!(found["unexplained"].as_i64(), Some(0), "{found:#}");
    let work = &found["work"];
    assert!(count(work, "/rotations") >= 3);
    assert!(count(work, "/tenants") >= 10);
    assert!(count(work, "/transactions") > 50);
    for load in ["/forward/summary", "/back"] {
        let load = found.pointer(load).expect("a load");
        assert!(count(load, "/received") > 1_000, "{load:#}");
        assert_eq!(
            count(load, "/sent"),
            count(load, "/received") + count(load, "/lost")
        );
    }
    for daemon in found["daemons"].as_array().expect("daemons") {
        let looks = daemon["looks"].as_array().expect("looks");
        assert!(looks.len() > 10, "{daemon:#}");
        assert!(
            count(daemon, "/rss_last") > 1 << 20 && count(daemon, "/fds_last") > 3,
            "{daemon:#}"
        );
    }
}

#[test]
fn keys_rotate_and_tables_churn_under_load_and_every_packet_is_accounted_for() {
    let Some(found) = soak(&["--duration", "8s", "--transit", "--pps", "3000"]) else {
        return;
    };
    check(&found);
    assert_eq!(found["daemons"].as_array().map(Vec::len), Some(3));
}

#[test]
fn bad_wires_are_accounted_for_to_the_last_packet() {
    let bad = [
        "--loss",
        "0.01",
        "--duplicate",
        "0.01",
        "--reorder",
        "0.01",
        "--delay",
        "1ms",
    ];
    let Some(found) = soak(&[&["--duration", "6s", "--pps", "2000"], &bad[..]].concat()) else {
        return;
    };
    check(&found);
    let lost = count(&found, "/forward/summary/lost");
    assert!(lost > 0 && count(&found, "/duplicated") > 0, "{found:#}");
    assert!(
        count(&found, "/drops/node-1 link_replayed") > 0,
        "{found:#}"
    );
}
