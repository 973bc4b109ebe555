//! The traffic generator over real interfaces.

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use common::{lab, net};
use twinseal_lab::frame::UdpFrame;
use twinseal_lab::impair::Impairment;
use twinseal_lab::traffic::{
    Load, Marker, RawConfig, RawSender, Receiver, Sender, SenderConfig, Summary, Until,
};
use twinseal_lab::wire::ImpairedWire;
use twinseal_lab::{Lab, Namespace, PingConfig, VethConfig, ping};

const MARKER: Marker = *b"\xc3TwnSl\x9a\x01";
const QUIET: Duration = Duration::from_secs(2);

fn pair(lab: &Lab) -> (Namespace, Namespace) {
    let a = lab.namespace("a").expect("namespace");
    let b = lab.namespace("b").expect("namespace");
    let veth = VethConfig::new((&a, "eth0"), (&b, "eth0")).addresses(
        &[net("10.0.0.1/24"), net("fd00::1/64")],
        &[net("10.0.0.2/24"), net("fd00::2/64")],
    );
    lab.veth(&veth).expect("veth");
    // Neighbours are resolved before anything is counted: the kernel keeps few packets while it asks.
    for dst in ["10.0.0.2", "fd00::2"] {
        let result = ping(&a, dst.parse().expect("address"), &PingConfig::default()).expect("ping");
        assert!(result.all_answered(), "{result}");
    }
    (a, b)
}

fn load(flows: u32, count: u64, pps: f64) -> Load {
    Load {
        marker: MARKER,
        first_flow: 100,
        flows,
        payload_size: 200,
        pps,
        until: Until::Count(count),
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("address and port")
}

#[test]
fn sockets_send_exactly_and_all_arrives() {
    let Some(lab) = lab("tudp") else { return };
    let (a, b) = pair(&lab);
    for (bind, flows) in [("10.0.0.2:7001", 1), ("[fd00::2]:7001", 300)] {
        let receiver = Receiver::start(&b, address(bind), MARKER).expect("receiver");
        let config = SenderConfig::new(receiver.address(), flows);
        let sent = Sender::open(&a, &config)
            .and_then(|mut sender| sender.send(&load(flows, 6_001, 20_000.0)))
            .expect("send");
        assert_eq!((sent.packets, sent.per_flow.len()), (6_001, flows as usize));
        receiver.wait_for(sent.packets, QUIET);
        let tally = receiver.stop().expect("stop");
        let summary = tally.summary(&sent);
        assert!(summary.is_perfect(), "{bind}: {summary:?}");
        assert_eq!(
            (summary.received, summary.foreign, summary.flows),
            (6_001, 0, u64::from(flows))
        );
        assert_eq!(summary.bytes, 6_001 * 200);
        assert!(summary.latency.min > 0 && summary.latency.p50 <= summary.latency.max);
    }
}

#[test]
fn ten_thousand_flows_of_crafted_frames_arrive() {
    let Some(lab) = lab("traw") else { return };
    let (a, b) = pair(&lab);
    for (src, dst) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
        let dst = dst.parse().expect("address");
        let receiver = Receiver::start(&b, SocketAddr::new(dst, 0), MARKER).expect("receiver");
        let config = RawConfig {
            frame: UdpFrame {
                dst_mac: b.mac("eth0").expect("mac"),
                src_mac: a.mac("eth0").expect("mac"),
                src: src.parse().expect("address"),
                dst,
                src_port: 0,
                dst_port: receiver.address().port(),
                ttl: 64,
                traffic_class: 0,
            },
            src_ports: 10_000..=19_999,
        };
        let running = RawSender::open(&a, "eth0", &config)
            .expect("sender")
            .start(load(10_000, 30_000, 40_000.0));
        let sent = running.join().expect("send");
        receiver.wait_for(sent.packets, QUIET);
        let tally = receiver.stop().expect("stop");
        let summary = tally.summary(&sent);
        assert!(summary.is_perfect(), "{summary:?}");
        assert_eq!((summary.flows, summary.received), (10_000, 30_000));
        assert!(
            tally
                .flows()
                .all(|(id, flow)| (100..10_100).contains(&id) && flow.received == 3)
        );
    }
}

#[test]
fn the_tally_agrees_with_a_bad_wire() {
    let Some(lab) = lab("tbad") else { return };
    let [a, wire, b] = ["a", "wire", "b"].map(|role| lab.namespace(role).expect("namespace"));
    let left = VethConfig::new((&a, "eth0"), (&wire, "p0"));
    lab.veth(&left.addresses(&[net("10.3.0.1/24")], &[]))
        .expect("veth");
    let right = VethConfig::new((&b, "eth0"), (&wire, "p1"));
    lab.veth(&right.addresses(&[net("10.3.0.2/24")], &[]))
        .expect("veth");
    let receiver = Receiver::start(&b, address("10.3.0.2:7002"), MARKER).expect("receiver");
    a.set_neighbour(
        "eth0",
        "10.3.0.2".parse().expect("address"),
        b.mac("eth0").expect("mac"),
    )
    .expect("neighbour");
    // IPv6 chatter of the interfaces shares the wire; without it the counters are ours alone.
    for (ns, ifname) in [(&a, "eth0"), (&b, "eth0"), (&wire, "p0"), (&wire, "p1")] {
        ns.sysctl(&format!("net/ipv6/conf/{ifname}/disable_ipv6"), "1")
            .expect("sysctl");
    }
    let bad = Impairment {
        loss: 0.05,
        duplicate: 0.05,
        reorder: 0.05,
        seed: 7,
        ..Impairment::default()
    };
    let relay = ImpairedWire::start(&wire, "p0", "p1", bad, Impairment::default()).expect("wire");
    let mut sender = Sender::open(&a, &SenderConfig::new(receiver.address(), 1)).expect("sender");
    let sent = sender.send(&load(1, 5_000, 10_000.0)).expect("send");
    receiver.wait_for(5_000, Duration::from_millis(500));
    let Summary {
        lost,
        duplicates,
        reordered,
        socket_drops,
        ..
    } = receiver.stop().expect("stop").summary(&sent);
    let counters = relay.a_to_b();
    assert_eq!((counters.missed, counters.unsent, socket_drops), (0, 0, 0));
    assert_eq!(
        (lost, duplicates),
        (counters.impairment.lost, counters.impairment.duplicated)
    );
    assert!(
        (150..350).contains(&lost) && (150..350).contains(&duplicates),
        "{lost} lost, {duplicates} twice"
    );
    // The wire counts late copies too, the tally only first arrivals.
    assert!(
        reordered > 100 && reordered <= counters.impairment.reordered,
        "{reordered}: {counters:?}"
    );
}

#[test]
fn a_load_can_be_stopped_and_counts_what_left() {
    let Some(lab) = lab("tstop") else { return };
    let (a, b) = pair(&lab);
    let receiver = Receiver::start(&b, address("10.0.0.2:7003"), MARKER).expect("receiver");
    let sender = Sender::open(&a, &SenderConfig::new(receiver.address(), 4)).expect("sender");
    let endless = Load {
        until: Until::Elapsed(Duration::from_secs(3600)),
        ..load(4, 0, 5_000.0)
    };
    let running = sender.start(endless);
    receiver.wait_for(500, QUIET);
    let sent = running.stop().expect("stop");
    assert!(sent.packets >= 500 && sent.packets == sent.per_flow.iter().sum::<u64>());
    receiver.wait_for(sent.packets, QUIET);
    let summary = receiver.stop().expect("stop").summary(&sent);
    assert!(summary.is_perfect(), "{summary:?}");
}

#[test]
fn a_load_that_cannot_be_is_refused() {
    let Some(lab) = lab("tnoload") else { return };
    let (a, _b) = pair(&lab);
    let mut sender =
        Sender::open(&a, &SenderConfig::new(address("10.0.0.2:7004"), 1)).expect("sender");
    let tiny = Load {
        payload_size: 27,
        ..load(1, 1, 1.0)
    };
    assert!(sender.send(&tiny).is_err());
    let mut huge = RawConfig {
        frame: UdpFrame {
            dst_mac: [2; 6],
            src_mac: [2; 6],
            src: "10.0.0.1".parse().expect("address"),
            dst: "fd00::2".parse().expect("address"),
            src_port: 0,
            dst_port: 1,
            ttl: 1,
            traffic_class: 0,
        },
        src_ports: 1..=1,
    };
    assert!(RawSender::open(&a, "eth0", &huge).is_err());
    huge.frame.dst = "10.0.0.2".parse().expect("address");
    let mut raw = RawSender::open(&a, "eth0", &huge).expect("sender");
    assert!(
        raw.send(&Load {
            payload_size: 70_000,
            ..load(1, 1, 1.0)
        })
        .is_err()
    );
    let error = raw
        .send(&Load {
            payload_size: 3_000,
            ..load(1, 1, 1.0)
        })
        .expect_err("above the MTU");
    assert!(error.to_string().contains("eth0"), "{error}");
}
