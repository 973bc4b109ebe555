//! Frames of 9000 octets over the whole path: received in several chunks, sealed in one piece, sent in several parts.

mod common;

use std::time::Duration;

use common::{FAMILIES, HOSTS, Path, options};
use twinseal_lab::traffic::Until;
use twinseal_lab::{IcmpError, PingConfig};
use twinseal_testbed::plan::{Host, Router, Underlay};

const MTU: u32 = 9000;
/// Octets of packet that one chunk, of 2048, of the packet memory can receive.
const CHUNK: usize = 1792;
/// What the tunnel adds over IPv4, with the Ethernet header.
const OUTER: usize = 92 + 14;

#[test]
fn jumbo_frames_pass_over_ipv4() {
    jumbo_frames_pass(Underlay::V4, 8908);
}

#[test]
fn jumbo_frames_pass_over_ipv6() {
    jumbo_frames_pass(Underlay::V6, 8888);
}

fn jumbo_frames_pass(underlay: Underlay, inner_mtu: usize) {
    let mut options = options();
    (options.mtu, options.underlay) = (MTU, underlay);
    let Some(mut path) = Path::start(options) else {
        return;
    };
    for v6 in FAMILIES {
        for from in HOSTS {
            for packet in sizes(inner_mtu) {
                ping(&mut path, from, v6, packet);
            }
        }
        too_big(&mut path, v6, inner_mtu);
    }
    // The lab's kernel copies each of these a dozen times: a modest rate, and every packet counts.
    path.payload = inner_mtu - 48;
    let loads: Vec<_> = HOSTS
        .iter()
        .map(|&from| path.send(from, from == Host::A, 16, 300.0, Until::Count(600)))
        .collect();
    for load in loads {
        let summary = load.finish();
        assert_eq!(summary.sent, 600);
        path.assert_perfect(&summary);
    }
    path.finish();
}

/// Sizes of inner packets: the largest, and those around what fills one, two, ... chunks, as a host sends them and as
/// they are sealed.
fn sizes(inner_mtu: usize) -> Vec<usize> {
    let chunks = (1..=5).flat_map(|n| [n * CHUNK - 14, n * CHUNK - OUTER]);
    let around = chunks.flat_map(|size| [size - 1, size, size + 1]);
    let sizes = around.chain([100, 1747, 1770, inner_mtu]);
    sizes.filter(|&size| size <= inner_mtu).collect()
}

#[track_caller]
fn ping(path: &mut Path, from: Host, v6: bool, packet: usize) {
    let config = PingConfig {
        count: 2,
        interval: Duration::from_millis(5),
        size: packet - if v6 { 48 } else { 28 },
        dont_fragment: true,
        ..PingConfig::default()
    };
    let result = path.ping(from, v6, &config);
    let good = result.all_answered() && result.damaged + result.duplicates == 0;
    assert!(
        good,
        "{packet} octets from {from:?}: {result}; {:?}",
        path.drops()
    );
}

/// One octet more than fits is answered with the MTU, and counted.
#[track_caller]
fn too_big(path: &mut Path, v6: bool, inner_mtu: usize) {
    let before = path.dropped(Router::EdgeA, "packet_too_big");
    let config = PingConfig {
        count: 1,
        size: inner_mtu + 1 - if v6 { 48 } else { 28 },
        dont_fragment: true,
        timeout: Duration::from_millis(500),
        ..PingConfig::default()
    };
    let result = path.ping(Host::A, v6, &config);
    let (kind, code) = if v6 { (2, 0) } else { (3, 4) };
    let expected = IcmpError {
        from: Host::A.gateway(v6),
        kind,
        code,
        mtu: inner_mtu as u32,
    };
    assert_eq!(result.errors, [expected], "{result}; {:?}", path.drops());
    assert_eq!(path.dropped(Router::EdgeA, "packet_too_big"), before + 1);
}
