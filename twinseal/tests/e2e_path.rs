//! What hosts see of a path of three daemons: AF_XDP on veths in namespaces, every packet sealed twice.

mod common;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{FAMILIES, HOSTS, PATIENCE, Path, logs, options};
use serde_json::Value;
use twinseal_api::v1::{self, item::Item};
use twinseal_lab::capture::{Capture, CaptureLimits, Captured};
use twinseal_lab::traffic::Until;
use twinseal_lab::{IcmpError, PingConfig, ping};
use twinseal_testbed::items::set;
use twinseal_testbed::plan::{EAST, EDGE_PORT, Host, Router, Underlay, WEST};

/// Bytes of an inner packet that fit an underlay of 1500, over IPv4 and over IPv6.
const INNER_MTU: usize = 1408;
const INNER_MTU_V6: usize = 1388;
/// The UDP port of links.
const LINK_PORT: u16 = 21_591;

#[test]
fn packets_of_every_size_pass_up_to_the_inner_mtu() {
    let Some(mut path) = Path::start(options()) else {
        return;
    };
    assert_sizes(&mut path, INNER_MTU);
    path.finish();
}

#[test]
fn all_works_over_an_ipv6_underlay() {
    let mut options = options();
    options.underlay = Underlay::V6;
    let Some(mut path) = Path::start(options) else {
        return;
    };
    assert_sizes(&mut path, INNER_MTU_V6);
    let loads: Vec<_> = FAMILIES
        .iter()
        .map(|&v6| path.send(Host::A, v6, 500, 1_000.0, Until::Count(2_000)))
        .collect();
    for load in loads {
        let summary = load.finish();
        assert_eq!(summary.flows, 500);
        path.assert_perfect(&summary);
    }
    path.finish();
}

/// Pings of all sizes that fit are answered; the first that does not fit is answered by the edge with the MTU.
fn assert_sizes(path: &mut Path, inner_mtu: usize) {
    for v6 in FAMILIES {
        let headers = if v6 { 48 } else { 28 };
        for from in HOSTS {
            for packet in [headers + 12, 100, 576, 1280, inner_mtu - 1, inner_mtu] {
                let config = PingConfig {
                    size: packet - headers,
                    dont_fragment: true,
                    ..PingConfig::default()
                };
                let result = path.ping(from, v6, &config);
                let good = result.all_answered() && result.damaged + result.duplicates == 0;
                assert!(
                    good,
                    "{packet} bytes from {from:?}: {result}; {:?}",
                    path.drops()
                );
            }
            // One only: the host's kernel learns from the answer, and sends no other.
            let config = PingConfig {
                count: 1,
                size: inner_mtu + 1 - headers,
                dont_fragment: true,
                timeout: Duration::from_millis(500),
                ..PingConfig::default()
            };
            let result = path.ping(from, v6, &config);
            let (kind, code) = if v6 { (2, 0) } else { (3, 4) };
            let too_big = IcmpError {
                from: from.gateway(v6),
                kind,
                code,
                mtu: inner_mtu as u32,
            };
            assert_eq!(result.errors, [too_big], "{result}; {:?}", path.drops());
        }
    }
    for router in [Router::EdgeA, Router::EdgeB] {
        assert_eq!(path.dropped(router, "packet_too_big"), 2);
    }
}

/// Its addresses are the end of the way, not a hop of it.
#[test]
fn the_far_edges_own_addresses_answer() {
    let Some(path) = Path::start(options()) else {
        return;
    };
    for v6 in FAMILIES {
        for from in HOSTS {
            let far = from.other().gateway(v6);
            for ttl in [None, Some(2)] {
                let config = PingConfig {
                    ttl,
                    ..PingConfig::default()
                };
                let result = ping(path.network.host(from), far, &config).expect("a ping");
                let good = result.all_answered() && result.damaged + result.duplicates == 0;
                assert!(good, "{far} from {from:?}: {result}");
            }
        }
    }
    path.finish();
}

#[test]
fn a_route_is_traced_hop_by_hop() {
    let Some(mut path) = Path::start(options()) else {
        return;
    };
    for v6 in FAMILIES {
        for from in HOSTS {
            let hops = [from.gateway(v6), from.other().gateway(v6)];
            for (ttl, hop) in (1..).zip(hops) {
                let result = path.ping(from, v6, &with_ttl(ttl));
                let expired = IcmpError {
                    from: hop,
                    kind: if v6 { 3 } else { 11 },
                    code: 0,
                    mtu: 0,
                };
                assert_eq!(result.errors, [expired; 3], "{result}; {:?}", path.drops());
                assert_eq!(result.received, 0);
            }
            // Transit routers are no hop of the tenant's: the third is the host itself.
            assert!(path.ping(from, v6, &with_ttl(3)).all_answered());
        }
    }
    path.finish();
}

fn with_ttl(ttl: u8) -> PingConfig {
    PingConfig {
        count: 3,
        ttl: Some(ttl),
        timeout: Duration::from_millis(500),
        ..PingConfig::default()
    }
}

#[test]
fn ten_thousand_flows_keep_their_order() {
    let Some(mut path) = Path::start(options()) else {
        return;
    };
    let load = path.send(Host::A, false, 10_000, 4_000.0, Until::Count(20_000));
    let summary = load.finish();
    assert_eq!((summary.flows, summary.sent), (10_000, 20_000));
    path.assert_perfect(&summary);
    path.finish();
}

#[test]
fn two_workers_share_flows_and_keep_their_order() {
    let mut options = options();
    options.workers = 2;
    let Some(mut path) = Path::start(options) else {
        return;
    };
    let captures = [WEST, EAST].map(|link| {
        let limits = CaptureLimits {
            snaplen: 64,
            ..CaptureLimits::default()
        };
        let only_links = Box::new(|frame: &[u8]| link_source_port(frame).is_some());
        Capture::start(path.network.switch(link), "p0", limits, Some(only_links))
            .expect("a capture")
    });
    let load = path.send_by_sockets(256, 4_000.0, Until::Count(12_800));
    let summary = load.finish();
    assert_eq!(summary.flows, 256);
    path.assert_perfect(&summary);
    let [west, east] = captures.map(|capture| capture.stop().expect("captured frames"));
    // Four lanes a worker (the default): edge A fills all of both, and transit spreads them anew.
    assert_eq!(source_ports(&west).len(), 8, "{:?}", source_ports(&west));
    assert!(source_ports(&east).len() > 2, "{:?}", source_ports(&east));
    for router in Router::ALL {
        let stats = path.controller.stats(router).expect("counters");
        let busy = stats.workers.iter().filter(|worker| worker.packets > 0);
        assert_eq!(busy.count(), 2, "workers of {}", router.name());
    }
    path.finish();
}

#[test]
fn a_worker_serves_all_queues_of_a_device() {
    let mut options = options();
    options.queues = Some(3);
    let Some(mut path) = Path::start(options) else {
        return;
    };
    let load = path.send_by_sockets(64, 2_000.0, Until::Count(6_400));
    let summary = load.finish();
    assert_eq!(summary.flows, 64);
    path.assert_perfect(&summary);
    // The host's kernel has spread them; no frame met a queue without a socket, and each was counted once.
    let stats = path.controller.stats(Router::EdgeA).expect("counters");
    for port in stats.ports {
        let steered = |name| {
            let found = port.steering.iter().find(|counter| counter.name == name);
            found.expect("a verdict").value
        };
        assert_eq!(steered("no_socket"), 0, "{}", port.port);
        assert_eq!(
            steered("redirected"),
            port.received_packets,
            "{}",
            port.port
        );
    }
    path.finish();
}

#[test]
fn a_device_with_fewer_queues_than_workers_is_refused() {
    let mut options = options();
    (options.workers, options.queues) = (2, Some(1));
    let Some(mut path) = Path::without_tables(options) else {
        return;
    };
    let refused = path.controller.start(&path.plan, &path.network);
    let why = format!("{:#}", refused.expect_err("a worker without a queue"));
    assert!(why.contains("1 queues and the node 2 workers"), "{why}");
    path.finish();
}

/// The outer UDP source ports of frames from A to B.
fn source_ports(captured: &Captured) -> BTreeSet<u16> {
    let ports = captured.packets.iter();
    ports.filter_map(|frame| link_source_port(frame)).collect()
}

/// The UDP source port, if the frame is IPv4 to a link's port.
fn link_source_port(frame: &[u8]) -> Option<u16> {
    let port = |at: usize| Some(u16::from_be_bytes(*frame.get(at..)?.first_chunk()?));
    (port(12)? == 0x0800 && port(36)? == LINK_PORT).then(|| port(34))?
}

#[test]
fn keys_rotate_under_load_without_loss() {
    let Some(mut path) = Path::start(options()) else {
        return;
    };
    let traffic = path.send_all_ways(8, 500.0);
    for _ in 0..4 {
        path.controller.rotate(&mut path.plan).expect("a rotation");
        // Traffic has passed with the new keys alone before they are replaced.
        let before: Vec<_> = traffic.iter().map(|load| load.received()).collect();
        let moved = || (traffic.iter().zip(&before)).all(|(load, &n)| load.received() >= n + 20);
        wait_until(moved);
        for router in Router::ALL {
            let state = path.controller.get(router).expect("the state");
            let epochs = state
                .keys
                .iter()
                .filter_map(|key| Some(key.key.as_ref()?.epoch));
            let epochs: BTreeSet<_> = epochs.collect();
            assert_eq!(
                epochs,
                BTreeSet::from([path.plan.epoch()]),
                "{}",
                router.name()
            );
        }
    }
    path.assert_all_came(traffic);
    assert_eq!(path.plan.epoch(), 5);
    path.finish();
}

#[track_caller]
fn wait_until(done: impl Fn() -> bool) {
    let begin = std::time::Instant::now();
    while !done() {
        assert!(begin.elapsed() < PATIENCE, "it did not come to pass");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn tcp_of_real_programs_passes_both_ways() {
    if let Err(why) = Command::new("iperf3").arg("--version").output() {
        eprintln!("SKIPPED: iperf3 does not start ({why}); install it");
        return;
    }
    // With the offloads that the kernel gives to veths, and without.
    for offloads in [true, false] {
        let mut options = options();
        options.offloads = offloads;
        let Some(mut path) = Path::start(options) else {
            return;
        };
        let mut serve = Command::new("iperf3");
        serve.args(["--server", "--forceflush"]);
        let mut server = path.network.host(Host::B).spawn(serve).expect("iperf3");
        server
            .wait_for_log("Server listening", PATIENCE)
            .expect("iperf3 listens");
        for v6 in FAMILIES {
            for reverse in [false, true] {
                transfer(&path, Host::B.address(v6), reverse);
            }
        }
        for edge in [Router::EdgeA, Router::EdgeB] {
            let finished = path.offloaded(edge, "checksums_finished");
            assert_eq!(finished > 0, offloads, "{finished} at {}", edge.name());
        }
        path.finish();
    }
}

#[test]
fn udp_passes_whose_checksum_is_left_to_a_device() {
    let mut options = options();
    options.offloads = true;
    let Some(mut path) = Path::start(options) else {
        return;
    };
    let ways = HOSTS.iter().flat_map(|&from| FAMILIES.map(|v6| (from, v6)));
    let ways: Vec<_> = ways.collect();
    let send = |path: &Path| -> Vec<_> {
        let send = |&(from, v6)| path.send_from(from, v6, 4, 500.0, Until::Count(400));
        ways.iter().map(send).collect()
    };
    let loads = send(&path);
    for load in loads {
        let summary = load.finish();
        path.assert_perfect(&summary);
    }
    for edge in [Router::EdgeA, Router::EdgeB] {
        assert_eq!(path.offloaded(edge, "checksums_unfinishable"), 0);
        assert!(path.offloaded(edge, "checksums_finished") >= 800);
        let state = path.controller.get(edge).expect("the state");
        let done = |name: &str| {
            let port = state.ports.iter().find(|port| port.port == name);
            port.expect("a port").checksum.clone()
        };
        assert_eq!(done(EDGE_PORT), "finish");
        let underlay = if edge == Router::EdgeA { WEST } else { EAST };
        assert_eq!(done(underlay), "");
    }

    // Ports that trust hosts forward it as it is, and far hosts drop it.
    for checksum in [v1::Checksum::Trust, v1::Checksum::Auto] {
        for edge in [Router::EdgeA, Router::EdgeB] {
            let items = path.controller.get(edge).expect("the state").items;
            let ports = items.into_iter().filter_map(|item| item.item);
            let edge_port = ports.filter_map(|item| match item {
                Item::Port(port) if port.name == EDGE_PORT => Some(port),
                _ => None,
            });
            let changes = edge_port.map(|port| {
                set(Item::Port(v1::Port {
                    checksum: checksum.into(),
                    ..port
                }))
            });
            path.controller
                .apply(edge, changes.collect())
                .expect("an open port can change this");
        }
        for load in send(&path) {
            let summary = load.finish();
            match checksum {
                // One in 65,536 of unfinished checksums is right by chance.
                v1::Checksum::Trust => assert!(summary.lost + 3 >= summary.sent, "{summary:?}"),
                _ => path.assert_perfect(&summary),
            }
        }
    }
    path.finish();
}

#[test]
fn super_frames_are_told_with_what_helps() {
    if let Err(why) = Command::new("iperf3").arg("--version").output() {
        eprintln!("SKIPPED: iperf3 does not start ({why}); install it");
        return;
    }
    let mut options = options();
    // Before generic XDP nobody cuts what hosts leave to be cut.
    (options.offloads, options.edge_xdp) = (true, v1::XdpMode::Generic);
    options.extra = "events.file = \"-\"\n".to_owned();
    let Some(mut path) = Path::start(options) else {
        return;
    };
    let mut serve = Command::new("iperf3");
    serve.args(["--server", "--forceflush"]);
    let mut server = path.network.host(Host::B).spawn(serve).expect("iperf3");
    server
        .wait_for_log("Server listening", PATIENCE)
        .expect("iperf3 listens");
    let to = Host::B.address(false).to_string();
    let mut command = Command::new("iperf3");
    command.args(["--time", "60", "--client", &to]);
    let mut client = path.network.host(Host::A).spawn(command).expect("iperf3");
    let lost = |path: &mut Path| {
        let names = ["oversized", "super_frames"];
        names
            .map(|name| path.offloaded(Router::EdgeA, name))
            .iter()
            .sum::<u64>()
    };
    let begin = Instant::now();
    while lost(&mut path) == 0 {
        assert!(begin.elapsed() < PATIENCE, "{:?}", path.drops());
        std::thread::sleep(Duration::from_millis(20));
    }
    client.kill().expect("it ends");
    let help = "ethtool -K DEVICE tso off gso off";
    let explained = path.explain(Router::EdgeA, &to);
    assert!(explained.contains(help), "{explained}");
    wait_until(|| {
        let logs = logs(&path.network);
        let mut lines = logs.iter().flat_map(|(_, text)| text.lines());
        lines.any(|line| line.contains("twinseal.fault") && line.contains(help))
    });

    // And that does help.
    path.network
        .host(Host::A)
        .disable_offloads("eth0")
        .expect("no offloads");
    let before = lost(&mut path);
    server.kill().expect("it ends");
    let mut serve = Command::new("iperf3");
    serve.args(["--server", "--forceflush"]);
    let mut server = path.network.host(Host::B).spawn(serve).expect("iperf3");
    server
        .wait_for_log("Server listening", PATIENCE)
        .expect("iperf3 listens");
    transfer(&path, Host::B.address(false), false);
    assert_eq!(lost(&mut path), before);
    path.finish();
}

/// Moves 20 MB over TCP from host A to the server on host B, or the other way.
fn transfer(path: &Path, server: IpAddr, reverse: bool) {
    const BYTES: u64 = 20_000_000;
    let mut command = Command::new("iperf3");
    command.args([
        "--json",
        "--bytes",
        &BYTES.to_string(),
        "--client",
        &server.to_string(),
    ]);
    if reverse {
        command.arg("--reverse");
    }
    let mut client = path.network.host(Host::A).spawn(command).expect("iperf3");
    let status = client.wait(PATIENCE).expect("iperf3's status");
    let report = client.log_text();
    assert!(
        status.is_some_and(|status| status.success()),
        "{status:?} {report}"
    );
    let report: Value = serde_json::from_str(&report).expect("iperf3's report");
    // The sender ends the test with its last window still under way.
    let bytes = |who: &str| report["end"][who]["bytes"].as_u64().unwrap_or(0);
    let (sent, received) = (bytes("sum_sent"), bytes("sum_received"));
    assert!(sent >= BYTES && received > BYTES / 2, "{report:#}");
}
