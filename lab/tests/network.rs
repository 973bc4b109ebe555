//! Real namespaces, veths and bridges.

mod common;

use std::num::NonZeroU32;
use std::process::Command;
use std::time::Duration;

use common::{lab, net};
use twinseal_lab::capture::{Capture, CaptureLimits};
use twinseal_lab::impair::Impairment;
use twinseal_lab::inject::Injector;
use twinseal_lab::wire::ImpairedWire;
use twinseal_lab::{Lab, LabError, Namespace, PingConfig, Route, VethConfig, ping};

/// Two namespaces joined by a veth, 10.0.0.1 and fd00::1 in one, .2 and ::2 in the other.
fn pair(lab: &Lab) -> (Namespace, Namespace) {
    let a = lab.namespace("a").expect("namespace");
    let b = lab.namespace("b").expect("namespace");
    let veth = VethConfig::new((&a, "eth0"), (&b, "eth0")).addresses(
        &[net("10.0.0.1/24"), net("fd00::1/64")],
        &[net("10.0.0.2/24"), net("fd00::2/64")],
    );
    lab.veth(&veth).expect("veth");
    (a, b)
}

fn quick(count: u32) -> PingConfig {
    PingConfig {
        count,
        interval: Duration::from_millis(1),
        ..PingConfig::default()
    }
}

#[test]
fn two_namespaces_ping_by_both_families_at_once() {
    let Some(lab) = lab("tping") else { return };
    let (a, b) = pair(&lab);
    for dst in ["10.0.0.2", "fd00::2"] {
        let dst = dst.parse().expect("address");
        for size in [12, 1400] {
            let config = PingConfig { size, ..quick(20) };
            let result = ping(&a, dst, &config).expect("ping");
            assert!(result.all_answered(), "{dst}, {size} bytes: {result}");
            assert_eq!((result.sent, result.duplicates, result.damaged), (20, 0, 0));
            assert_eq!(result.rtt.len(), 20);
        }
        assert_eq!(
            a.neighbour("eth0", dst).expect("neighbour"),
            Some(b.mac("eth0").expect("mac"))
        );
    }
    let nobody = "10.0.0.77".parse().expect("address");
    assert_eq!(a.neighbour("eth0", nobody).expect("neighbour"), None);
    let config = PingConfig {
        timeout: Duration::from_millis(50),
        ..quick(2)
    };
    let result = ping(&a, nobody, &config).expect("ping");
    assert_eq!(result.received, 0, "{result}");
}

#[test]
fn ping_tells_why_nothing_comes_back() {
    let Some(lab) = lab("twhy") else { return };
    let (a, b) = pair(&lab);
    let c = lab.namespace("c").expect("namespace");
    let mut veth = VethConfig::new((&b, "eth1"), (&c, "eth0"));
    veth.mtu = 1300;
    lab.veth(&veth.addresses(&[net("10.0.1.1/24")], &[net("10.0.1.2/24")]))
        .expect("veth");
    b.sysctl("net/ipv4/ip_forward", "1").expect("sysctl");
    let route = |to: &str, via: &str| Route::to(net(to)).via(via.parse().expect("address"));
    a.add_route(&route("10.0.1.0/24", "10.0.0.2"))
        .expect("route");
    c.add_route(&route("10.0.0.0/24", "10.0.1.1").dev("eth0").mtu(1200))
        .expect("route");
    let dst = "10.0.1.2".parse().expect("address");
    assert!(ping(&a, dst, &quick(3)).expect("ping").all_answered());

    let config = PingConfig {
        ttl: Some(1),
        timeout: Duration::from_secs(1),
        ..quick(1)
    };
    let result = ping(&a, dst, &config).expect("ping");
    assert_eq!((result.received, result.errors.len()), (0, 1), "{result}");
    let error = result.errors[0];
    assert_eq!((error.kind, error.code), (11, 0));
    assert_eq!(error.from.to_string(), "10.0.0.2");

    let config = PingConfig {
        dont_fragment: true,
        size: 1372,
        ..config
    };
    let result = ping(
        &a,
        dst,
        &PingConfig {
            ttl: None,
            ..config
        },
    )
    .expect("ping");
    assert_eq!(
        result.errors.first().map(|e| (e.kind, e.code, e.mtu)),
        Some((3, 4, 1300)),
        "{result}"
    );

    veth = VethConfig::new((&b, "eth2"), (&c, "eth1"));
    let (b6, c6) = ([net("fd01::1/64")], [net("fd01::2/64")]);
    lab.veth(&veth.addresses(&b6, &c6)).expect("veth");
    b.sysctl("net/ipv6/conf/all/forwarding", "1")
        .expect("sysctl");
    a.add_route(&route("fd01::/64", "fd00::2")).expect("route");
    let config = PingConfig {
        ttl: Some(1),
        timeout: Duration::from_secs(1),
        ..quick(1)
    };
    let result = ping(&a, "fd01::2".parse().expect("address"), &config).expect("ping");
    let error = result
        .errors
        .first()
        .map(|e| (e.kind, e.code, e.from.to_string()));
    assert_eq!(error, Some((3, 0, "fd00::2".to_owned())), "{result}");

    let unrouted = "192.0.2.1".parse().expect("address");
    let result = ping(&a, unrouted, &quick(1)).expect("ping");
    assert_eq!((result.sent, result.refused), (0, 1), "{result}");
}

#[test]
fn a_capture_sees_both_directions_whole() {
    let Some(lab) = lab("tcap") else { return };
    let (a, b) = pair(&lab);
    let icmp = |frame: &[u8]| frame.get(12..14) == Some(&[8, 0]) && frame.get(23) == Some(&1);
    let limits = CaptureLimits::default();
    let capture = Capture::start(&b, "eth0", limits, Some(Box::new(icmp))).expect("capture");
    let dst = "10.0.0.2".parse().expect("address");
    assert!(ping(&a, dst, &quick(10)).expect("ping").all_answered());
    let captured = capture.stop().expect("stop");
    assert_eq!(captured.packets.len(), 20);
    assert_eq!((captured.truncated, captured.dropped), (false, 0));
    let kinds: Vec<u8> = captured.packets.iter().map(|p| p[34]).collect();
    assert_eq!(kinds.iter().filter(|k| **k == 8).count(), 10);
    assert_eq!(kinds.iter().filter(|k| **k == 0).count(), 10);
    assert!(captured.packets.iter().all(|p| p.len() == 14 + 20 + 8 + 56));
    let path = lab.directory().join("t.pcap");
    captured.write_pcap(&path).expect("pcap");
    let len = std::fs::metadata(&path).expect("file").len();
    assert_eq!(len, 24 + 20 * (16 + 98));
}

#[test]
fn a_capture_keeps_to_its_limits_and_samples() {
    let Some(lab) = lab("tlim") else { return };
    let (a, b) = pair(&lab);
    let mine = || Box::new(|frame: &[u8]| frame.get(12..14) == Some(&[0x88, 0xb5]));
    let few = CaptureLimits {
        max_packets: 7,
        snaplen: 60,
        sample_one_in: None,
    };
    let sampled = CaptureLimits {
        sample_one_in: NonZeroU32::new(4),
        ..CaptureLimits::default()
    };
    let few = Capture::start(&b, "eth0", few, Some(mine())).expect("capture");
    let sampled = Capture::start(&b, "eth0", sampled, Some(mine())).expect("capture");
    let mut frame = vec![0xff; 100];
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    let injector = Injector::open(&a, "eth0").expect("injector");
    injector.send_all(&vec![frame; 4000]).expect("send");
    let few = few.stop().expect("stop");
    assert_eq!((few.packets.len(), few.truncated), (7, true));
    assert!(few.packets.iter().all(|p| p.len() == 60));
    let sampled = sampled.stop().expect("stop").packets.len();
    assert!((800..1200).contains(&sampled), "{sampled} of 4000");
}

#[test]
fn vlan_tags_stay_in_captured_and_relayed_frames() {
    let Some(lab) = lab("tvlan") else { return };
    let [a, wire, b] = ["a", "wire", "b"].map(|role| lab.namespace(role).expect("namespace"));
    lab.veth(&VethConfig::new((&a, "eth0"), (&wire, "p0")))
        .expect("veth");
    lab.veth(&VethConfig::new((&b, "eth0"), (&wire, "p1")))
        .expect("veth");
    let perfect = Impairment::default();
    let relay = ImpairedWire::start(&wire, "p0", "p1", perfect, perfect).expect("wire");
    let tagged = |f: &[u8]| f.get(12..14) == Some(&[0x81, 0x00]);
    let limits = CaptureLimits::default();
    let capture = Capture::start(&b, "eth0", limits, Some(Box::new(tagged))).expect("capture");
    let mut frame: Vec<u8> = (0..80).collect();
    frame[..18].copy_from_slice(&[
        2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8, 0x81, 0, 0x20, 0x05, 0x88, 0xb5,
    ]);
    Injector::open(&a, "eth0")
        .expect("injector")
        .send(&frame)
        .expect("send");
    wait_until(|| capture.seen() == 1);
    assert_eq!(capture.stop().expect("stop").packets, [frame]);
    assert!(relay.a_to_b().impairment.forwarded >= 1);
}

#[test]
fn a_bridge_is_a_switch_and_its_ports_can_be_captured() {
    let Some(lab) = lab("tbr") else { return };
    let [a, b, c, switch] =
        ["a", "b", "c", "switch"].map(|role| lab.namespace(role).expect("namespace"));
    for (host, port, address) in [
        (&a, "p0", "10.1.0.1/24"),
        (&b, "p1", "10.1.0.2/24"),
        (&c, "p2", "10.1.0.3/24"),
    ] {
        let veth = VethConfig::new((host, "eth0"), (&switch, port));
        lab.veth(&veth.addresses(&[net(address)], &[]))
            .expect("veth");
    }
    lab.bridge(&switch, "br0", &["p0", "p1", "p2"])
        .expect("bridge");
    let echo = |f: &[u8]| f.get(12..14) == Some(&[8, 0]) && f.get(23) == Some(&1);
    let limits = CaptureLimits::default();
    let on_path = Capture::start(&switch, "p1", limits, Some(Box::new(echo))).expect("capture");
    let dst = "10.1.0.2".parse().expect("address");
    let result = ping(&a, dst, &quick(10)).expect("ping");
    assert!(result.all_answered(), "{result}");
    assert_eq!(on_path.stop().expect("stop").packets.len(), 20);
    assert!(ping(&c, dst, &quick(2)).expect("ping").all_answered());
}

#[test]
fn a_vxlan_tunnel_carries_packets_between_its_ends() {
    let Some(lab) = lab("tvxlan") else { return };
    let (a, b) = pair(&lab);
    for (ns, ends, inner) in [
        (&a, ["10.0.0.1", "10.0.0.2"], "10.9.0.1/24"),
        (&b, ["10.0.0.2", "10.0.0.1"], "10.9.0.2/24"),
    ] {
        let [local, remote] = ends.map(|end| end.parse().expect("address"));
        if let Err(e) = lab.vxlan(ns, "vx0", 42, local, remote) {
            eprintln!("SKIPPED: this kernel has no VXLAN: {e}");
            return;
        }
        ns.add_address("vx0", inner.parse().expect("network"))
            .expect("address");
    }
    let sent = || b.interface("vx0").expect("vx0").stats.tx_packets;
    let before = sent();
    let result = ping(&a, "10.9.0.2".parse().expect("address"), &quick(3)).expect("ping");
    assert!(result.all_answered(), "{result}");
    assert!(sent() >= before + 3);
}

#[test]
fn an_impaired_wire_does_what_it_is_told() {
    let Some(lab) = lab("twire") else { return };
    let [a, wire, b] = ["a", "wire", "b"].map(|role| lab.namespace(role).expect("namespace"));
    let left = VethConfig::new((&a, "eth0"), (&wire, "p0"));
    lab.veth(&left.addresses(&[net("10.2.0.1/24")], &[]))
        .expect("veth");
    let right = VethConfig::new((&b, "eth0"), (&wire, "p1"));
    lab.veth(&right.addresses(&[net("10.2.0.2/24")], &[]))
        .expect("veth");
    let dst = "10.2.0.2".parse().expect("address");
    // ARP must not be hit by the loss.
    a.set_neighbour("eth0", dst, b.mac("eth0").expect("mac"))
        .expect("neighbour");
    b.set_neighbour(
        "eth0",
        "10.2.0.1".parse().expect("address"),
        a.mac("eth0").expect("mac"),
    )
    .expect("neighbour");
    let lossy = Impairment {
        loss: 0.2,
        seed: 42,
        ..Impairment::default()
    };
    let slow = Impairment {
        delay: Duration::from_millis(20),
        ..Impairment::default()
    };
    let relay = ImpairedWire::start(&wire, "p0", "p1", lossy, slow).expect("wire");
    let config = PingConfig {
        timeout: Duration::from_millis(500),
        ..quick(500)
    };
    let result = ping(&a, dst, &config).expect("ping");
    assert!((60..=140).contains(&result.lost()), "{result}");
    assert!(result.min() >= Duration::from_millis(20), "{result}");
    assert_eq!(result.damaged + result.duplicates, 0);
    let (there, back) = (relay.a_to_b(), relay.b_to_a());
    assert!(
        there.impairment.lost >= u64::from(result.lost()),
        "{there:?}"
    );
    assert_eq!(
        (
            there.missed,
            there.unsent,
            back.missed,
            back.impairment.lost
        ),
        (0, 0, 0, 0)
    );
    drop(relay);
    let result = ping(
        &a,
        dst,
        &PingConfig {
            timeout: Duration::from_millis(50),
            ..quick(2)
        },
    )
    .expect("ping");
    assert_eq!(result.received, 0, "a dropped wire carries nothing");
}

#[test]
fn offloads_are_really_off() {
    let Some(lab) = lab("toff") else { return };
    let a = lab.namespace("a").expect("namespace");
    let b = lab.namespace("b").expect("namespace");
    let mut veth = VethConfig::new((&a, "off"), (&b, "off"));
    veth.queues = 3;
    lab.veth(&veth).expect("veth");
    veth = VethConfig::new((&a, "on"), (&b, "on"));
    veth.offloads = true;
    veth.mac_a = Some([2, 0, 0, 0, 0, 0xaa]);
    veth.mtu = 9000;
    lab.veth(&veth).expect("veth");
    let names = [
        "tx-checksum-ip-generic",
        "tx-tcp-segmentation",
        "tx-generic-segmentation",
        "tx-scatter-gather",
        "rx-gro",
        "rx-vlan-hw-parse",
        "tx-vlan-hw-insert",
    ];
    let on = a.features("on").expect("features");
    assert!(on["tx-checksum-ip-generic"] && on["tx-tcp-segmentation"]);
    for ns in [&a, &b] {
        let off = ns.features("off").expect("features");
        for name in names {
            assert_eq!(off.get(name), Some(&false), "{name}");
        }
    }
    assert_eq!(a.mac("on").expect("mac"), [2, 0, 0, 0, 0, 0xaa]);
    let interface = b.interface("on").expect("interface");
    assert_eq!(
        (interface.mtu, interface.up, interface.running),
        (9000, true, true)
    );
    // /sys shows the devices of the namespace, and their queues.
    let queues = a.run(|| std::fs::read_dir("/sys/class/net/off/queues").map(Iterator::count));
    assert_eq!(queues.expect("run").expect("sysfs"), 6);
}

#[test]
fn errors_say_which_object() {
    let Some(lab) = lab("terr") else { return };
    let a = lab.namespace("a").expect("namespace");
    let error = a.set_up("nope0").expect_err("no such interface");
    assert!(
        matches!(&error, LabError::Missing { name, .. } if name.contains("nope0")),
        "{error}"
    );
    assert!(matches!(lab.namespace("a"), Err(LabError::Exists { .. })));
    // The failed attempt does not make the first one's namespace fair game.
    assert!(a.path().exists());
    assert!(matches!(
        lab.namespace("Not/Good"),
        Err(LabError::Invalid { .. })
    ));
    assert!(matches!(Lab::new("../x"), Err(LabError::Invalid { .. })));
    assert!(matches!(
        a.sysctl("../etc/passwd", "1"),
        Err(LabError::Invalid { .. })
    ));
    let error = a
        .add_address("lo", net("127.0.0.1/8"))
        .expect_err("lo has it");
    assert!(
        error.to_string().contains("add 127.0.0.1/8 to lo"),
        "{error}"
    );
}

#[test]
fn code_and_processes_run_inside() {
    let Some(lab) = lab("tproc") else { return };
    let (a, _b) = pair(&lab);
    let outside = own_namespace();
    let inside = a.run(own_namespace).expect("run");
    assert_ne!(outside, inside);
    {
        let _guard = a.enter().expect("enter");
        assert_eq!(own_namespace(), inside);
    }
    assert_eq!(own_namespace(), outside);

    let mut command = Command::new("sh");
    command.args([
        "-c",
        "readlink /proc/self/ns/net; echo oops >&2; ls /sys/class/net; exec sleep 1000",
    ]);
    let mut process = a.spawn(command).expect("spawn");
    process
        .wait_for_log("lo", Duration::from_secs(10))
        .expect("log");
    let log = process.log_text();
    assert!(
        log.contains(&inside) && log.contains("oops") && log.contains("eth0"),
        "{log}"
    );
    assert!(process.is_running());
    let pid = process.id();
    drop(process);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());

    let mut command = Command::new("sh");
    command.args([
        "-c",
        "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done",
    ]);
    let mut process = a.spawn(command).expect("spawn");
    process
        .wait_for_log("ready", Duration::from_secs(10))
        .expect("log");
    let status = process
        .terminate(Duration::from_secs(10))
        .expect("terminate");
    assert_eq!(status.code(), Some(7));
}

fn own_namespace() -> String {
    let link = std::fs::read_link("/proc/thread-self/ns/net").expect("proc");
    link.to_string_lossy().into_owned()
}

fn wait_until(mut condition: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("it did not come to pass in five seconds");
}
