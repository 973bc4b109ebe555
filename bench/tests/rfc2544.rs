//! `twinseal-bench rfc2544` for real: on a lab with our daemons, and on two devices with a kernel in between. Figures are
//! not judged; the accounts are.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use twinseal_lab::{IpNet, Lab, VethConfig};

const BENCH: &str = env!("CARGO_BIN_EXE_twinseal-bench");
/// Only a guard against hanging for ever.
const PATIENCE: Duration = Duration::from_secs(120);

fn lab_available() -> bool {
    if let Err(why) = Lab::available() {
        eprintln!("SKIPPED: {why}");
        return false;
    }
    true
}

fn net(text: &str) -> IpNet {
    text.parse().expect("an address with a prefix length")
}

/// What must hold of any results, also where other programs of the machine did not let the generator keep up.
#[track_caller]
fn check(results: &Value, sizes: &[&str]) {
    let found: Vec<_> = results["sizes"].as_array().expect("sizes").iter().collect();
    let names: Vec<_> = found
        .iter()
        .filter_map(|size| size["size"].as_str())
        .collect();
    assert_eq!(names, sizes);
    let mut all_found = true;
    for size in found {
        let throughput = &size["throughput"];
        let pps = throughput["pps"]["median"].as_f64().expect("a rate");
        let has_rate = ["found", "at-least-generator", "at-least-tried"]
            .contains(&throughput["finding"].as_str().expect("a finding"));
        assert_eq!(has_rate, pps > 0.0, "{size:#}");
        all_found &= has_rate && throughput["contradicted_by_pps"].is_null();
        for tolerant in size["tolerant"].as_array().expect("rates with loss") {
            assert_eq!(tolerant["tolerated_loss"], 0.005);
            all_found &= tolerant["finding"] != "inconclusive" && tolerant["finding"] != "lossy";
        }
        let latency = size["latency"].as_array().expect("latencies");
        assert_eq!(latency.len(), if has_rate { 3 } else { 0 });
        for at in latency {
            let times = ["p50_us", "p90_us", "p99_us", "p999_us", "p9999_us"];
            let times: Vec<_> = times
                .into_iter()
                .filter_map(|p| at[p]["median"].as_f64())
                .collect();
            assert!(0.0 < times[0] && times.is_sorted(), "{at:#}");
            let packets = at["packets"].as_u64().expect("a count");
            assert_eq!(at["p9999_us"].is_null(), packets < 100_000, "{at:#}");
        }
        // Steps are tenths of the first, or say that they are not.
        let loss = size["loss"].as_array().expect("loss rates");
        let number = |at: &Value, what: &str| at[what].as_f64().expect("a number");
        let highest = number(&loss[0], "asked_pps");
        for at in loss {
            assert!(at["lost"].as_u64() <= at["sent"].as_u64(), "{at:#}");
            let asked = number(at, "asked_pps");
            assert!(
                (asked / highest - number(at, "load")).abs() < 1e-6,
                "{at:#}"
            );
            if at["kept_up"] == true {
                assert!(number(at, "offered_pps") > asked * 0.95, "{at:#}");
            }
        }
        assert!(
            size["back_to_back"]["packets"]["median"].as_f64() > Some(0.0),
            "{size:#}"
        );
    }
    let verdict = results["verdict"].as_str().expect("a verdict");
    assert_eq!(verdict == "success", all_found, "{}", results["reasons"]);
    let total = &results["total"];
    let count = |what: &str| total[what].as_u64().expect("a count");
    assert_eq!(
        count("sent"),
        count("received") + count("lost"),
        "{total:#}"
    );
    assert_eq!(count("duplicates") + count("damaged"), 0, "{total:#}");
}

#[test]
fn a_lab_is_measured_and_every_packet_accounted_for() {
    let program = Path::new(BENCH).with_file_name("twinseal");
    if !lab_available() {
        return;
    }
    if !program.exists() {
        eprintln!("SKIPPED: {} is not there: cargo build", program.display());
        return;
    }
    let done = Command::new(BENCH)
        .args([
            "rfc2544",
            "--quick",
            "--json",
            "--sizes",
            "imix,1400",
            "--bidirectional",
            "--transit",
        ])
        .output()
        .expect("the program runs");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(
        matches!(done.status.code(), Some(0 | 3)),
        "{said}\n{}",
        String::from_utf8_lossy(&done.stdout)
    );
    let results: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    check(&results, &["imix", "1400"]);
    assert_eq!(results["both_ways"], true);
    let nodes = results["dut"]["nodes"].as_array().expect("nodes");
    assert_eq!(nodes.len(), 3);
    assert!(
        nodes
            .iter()
            .all(|node| node["sockets"][0]["bind"][0] == "copy"),
        "{nodes:?}"
    );
    assert!(results["machine"]["kernel"].is_string());

    // Each lost packet was counted by whoever dropped it.
    let total = &results["total"];
    let drops = total["drops"].as_object().expect("drops of our own nodes");
    let drops: u64 = drops.values().filter_map(Value::as_u64).sum();
    let own = total["receiver_drops"].as_u64().expect("a count");
    let late = total["late"].as_u64().expect("a count");
    let explained = drops + own + late;
    assert!(total["lost"].as_u64() <= Some(explained), "{total:#}");
}

#[test]
fn devices_of_this_machine_are_measured_whatever_is_in_between() {
    if !lab_available() {
        return;
    }
    let lab = Lab::new("xrfc").expect("a lab");
    let [tester, router] = ["tester", "router"].map(|role| lab.namespace(role).expect("namespace"));
    for (device, ours, theirs) in [
        (
            "tx0",
            ["10.1.0.2/24", "fd01::2/64"],
            ["10.1.0.1/24", "fd01::1/64"],
        ),
        (
            "rx0",
            ["10.2.0.2/24", "fd02::2/64"],
            ["10.2.0.1/24", "fd02::1/64"],
        ),
    ] {
        let veth = VethConfig::new((&tester, device), (&router, device));
        lab.veth(&veth.addresses(&ours.map(net), &theirs.map(net)))
            .expect("veth");
    }
    for forwarding in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        router.sysctl(forwarding, "1").expect("forwarding");
    }
    let mac = router
        .mac("tx0")
        .expect("mac")
        .map(|octet| format!("{octet:02x}"))
        .join(":");
    for (src, dst, next_hop) in [
        ("10.1.0.2", "10.2.0.2", ["--gateway", "10.1.0.1"]),
        ("fd01::2", "fd02::2", ["--gateway", "fd01::1"]),
        ("10.1.0.2", "10.2.0.2", ["--dst-mac", mac.as_str()]),
    ] {
        let mut command = Command::new(BENCH);
        command.args([
            "rfc2544", "--quick", "--json", "--sizes", "100", "--tx", "tx0", "--rx", "rx0",
        ]);
        command.args(["--src", src, "--dst", dst]).args(next_hop);
        let mut process = tester.spawn(command).expect("the program runs");
        let status = process.wait(PATIENCE).expect("a status");
        let text = process.log_text();
        assert!(
            matches!(status.and_then(|it| it.code()), Some(0 | 3)),
            "{text}"
        );
        let json = &text[text.find('{').expect("JSON")..];
        let json = &json[..=json.rfind('}').expect("JSON")];
        let results: Value = serde_json::from_str(json).expect("JSON");
        check(&results, &["100"]);
        assert_eq!(results["total"]["drops"], Value::Null);
    }
}
