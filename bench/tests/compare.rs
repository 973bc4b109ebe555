//! `twinseal-bench compare` with real daemons, and that its counts add up.

use std::path::Path;
use std::process::Command;

use twinseal_bench::compare::{Comparison, Rate};
use twinseal_lab::Lab;
use twinseal_lab::traffic::Finding;

#[test]
fn a_quick_comparison_adds_up() {
    let bench = Path::new(env!("CARGO_BIN_EXE_twinseal-bench"));
    let twinseal = bench.with_file_name("twinseal");
    if let Err(why) = Lab::available() {
        eprintln!("SKIPPED: {why}");
        return;
    }
    if !twinseal.exists() {
        eprintln!("SKIPPED: {} is not there: cargo build", twinseal.display());
        return;
    }
    let done = Command::new(bench)
        .args(["compare", "--quick", "--json"])
        .args(["--only", "kernel,twinseal", "--sizes", "64,1400"])
        .output()
        .expect("the program runs");
    let said = String::from_utf8_lossy(&done.stderr);
    // 3: on a busy machine the sender may not keep up, and says so.
    assert!(matches!(done.status.code(), Some(0 | 3)), "{said}");
    let comparison: Comparison = serde_json::from_slice(&done.stdout).expect("JSON");

    let names: Vec<_> = comparison.peers.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["kernel", "twinseal"]);
    assert!(comparison.peers.iter().all(|it| it.version.is_some()));
    assert_eq!(comparison.rounds.len(), 2, "{said}");
    for round in &comparison.rounds {
        assert_eq!(round.rates.len(), 2);
        for rate in &round.rates {
            assert!(rate.received > 0 && rate.received <= rate.sent, "{rate:?}");
        }
        let pings = &round.round_trip;
        assert!(pings.p50_us > 0.0 && pings.p50_us <= pings.p99_us);
    }
    let made = |rate: &Rate| rate.finding != Finding::Inconclusive;
    for metric in &comparison.metrics {
        // A rate that was not found has no line.
        let all = comparison
            .rounds
            .iter()
            .flat_map(|round| &round.rates)
            .all(made);
        if !all && metric.id.starts_with("rate-") {
            continue;
        }
        let lines: Vec<_> = metric.lines.iter().map(|it| it.peer.as_str()).collect();
        assert_eq!(lines, ["kernel", "twinseal"]);
        // Nobody else seals here.
        assert_eq!(metric.best_sealed, None);
    }

    let round = &comparison.rounds[1];
    let counts = round.counts.as_ref().expect("the daemons count");
    let sent: u64 = round.rates.iter().map(|rate| rate.sent).sum();
    let received: u64 = round.rates.iter().map(|rate| rate.received).sum();
    let passed: Vec<u64> = counts.passed.iter().map(|it| it.packets).collect();
    let [a_in, a_out, b_in, b_out] = passed[..] else {
        panic!("{counts:?}")
    };
    let way = [sent, a_in, a_out, b_in, b_out, received];
    assert!(way.is_sorted_by(|before, after| before >= after), "{way:?}");
    // Inside of the daemons nothing is lost without a reason.
    let drops: u64 = counts.drops.values().sum();
    assert_eq!((a_in - a_out) + (b_in - b_out), drops, "{counts:?}");
}
