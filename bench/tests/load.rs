//! `twinseal-bench load` for real, though with little to load.

use std::process::Command;

use serde_json::Value;

#[test]
fn a_node_is_loaded_and_loses_nothing_while_its_routes_change() {
    let done = Command::new(env!("CARGO_BIN_EXE_twinseal-bench"))
        .args(["load", "--json", "--seconds", "1", "--rate", "2000"])
        .args(["--v4", "500", "--v6", "50", "--vrfs", "5"])
        .args(["--circuits", "20", "--links", "4", "--keyed", "3"])
        .args(["--pps", "5000", "--keep-tables"])
        .output()
        .expect("the program runs");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
    let found: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    let count = |what: &str| {
        let mut lines = found["lines"].as_array().expect("lines").iter();
        let line = lines.find(|line| line["what"] == what);
        line.and_then(|line| line["count"].as_u64())
    };
    assert_eq!(count("IPv4 routes"), Some(500));
    assert_eq!(count("keys"), Some(6));
    assert_eq!(found["lost"], 0);
    assert!(found["packets"].as_u64() > Some(100), "{found:#}");
    assert!(found["updates_per_second"].as_f64() > Some(0.0));
}
