//! Frame in, verdict out: the program as the kernel runs it (`BPF_PROG_TEST_RUN`), with a real AF_XDP socket in its map.

mod common;
#[path = "fixtures/hidden.rs"]
mod hidden;
#[path = "fixtures/known.rs"]
mod known;

use std::net::{Ipv4Addr, Ipv6Addr};

use common::frames::*;
use common::{MAC, PORT, Xsk, frames, in_namespace, reference};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use twinseal_ebpf::Verdict::*;
use twinseal_ebpf::{Action, Role, Steering, Verdict, XdpMode};

const EDGE: Role = Role::Edge {
    mac: MAC,
    owned: false,
};
const OWNED: Role = Role::Edge {
    mac: MAC,
    owned: true,
};
const BRIDGE: Role = Role::Bridge { mac: MAC };
const UNDERLAY: Role = Role::Underlay;

const BROADCAST: [u8; 6] = [0xff; 6];
const OTHER: [u8; 6] = [0x02, 0, 0, 0, 0, 0x33];

struct Fixture {
    name: &'static str,
    role: Role,
    frame: Vec<u8>,
    verdict: Verdict,
}

#[rustfmt::skip]
fn fixtures() -> Vec<Fixture> {
    let f = |name, role, verdict, frame| Fixture { name, role, frame, verdict };
    let v4 = |to: [u8; 4]| eth(IPV4, ip4(TCP, to, vec![0; 20]));
    let v6 = |to: &str| eth(IPV6, ip6(TCP, to.parse::<Ipv6Addr>().unwrap(), vec![0; 20]));
    let ours = || udp(UDP_PORT);
    let mapped = Ipv4Addr::to_ipv6_mapped(&NODE4);
    vec![
        f("our endpoint, v4", UNDERLAY, Redirected, eth(IPV4, ip4(UDP, NODE4, ours()))),
        f("our endpoint, v6", UNDERLAY, Redirected, eth(IPV6, ip6(UDP, NODE6, ours()))),
        f("our endpoint, v6 link-local", UNDERLAY, Redirected, eth(IPV6, ip6(UDP, "fe80::1".parse::<Ipv6Addr>().unwrap(), ours()))),
        f("shortest datagram, v4", UNDERLAY, Redirected, eth(IPV4, ip4(UDP, NODE4, ours()[..8].to_vec()))),
        f("shortest datagram, v6", UNDERLAY, Redirected, eth(IPV6, ip6(UDP, NODE6, ours()[..8].to_vec()))),
        f("large frame", UNDERLAY, Redirected, eth(IPV4, ip4(UDP, NODE4, [ours(), vec![0; 2800]].concat()))),
        f("v4 options", UNDERLAY, Redirected, eth(IPV4, ip4_with(UDP, NODE4, 0, &[1; 8], ours()))),
        f("v4 all options", UNDERLAY, Redirected, eth(IPV4, ip4_with(UDP, NODE4, 0, &[1; 40], ours()))),
        f("port only where it would be without options", UNDERLAY, PassNotOurs, eth(IPV4, ip4_with(UDP, NODE4, 0, &ours()[..8], udp(9)))),
        f("reserved flag is no fragment", UNDERLAY, PassNotOurs, eth(IPV4, ip4_with(UDP, NODE4, 0x8000, &[], udp(53)))),
        f("other port, v4", UNDERLAY, PassNotOurs, eth(IPV4, ip4(UDP, NODE4, udp(51_821)))),
        f("port in the other byte order", UNDERLAY, PassNotOurs, eth(IPV4, ip4(UDP, NODE4, udp(UDP_PORT.swap_bytes())))),
        f("other port, v6", UNDERLAY, PassNotOurs, eth(IPV6, ip6(UDP, NODE6, udp(53)))),
        f("other address, v4", UNDERLAY, PassNotOurs, eth(IPV4, ip4(UDP, [192, 0, 2, 2], ours()))),
        f("other address, v6", UNDERLAY, PassNotOurs, eth(IPV6, ip6(UDP, "2001:db8::2".parse::<Ipv6Addr>().unwrap(), ours()))),
        f("mapped v4 in v6", UNDERLAY, PassNotOurs, eth(IPV6, ip6(UDP, mapped, ours()))),
        f("tcp to our port", UNDERLAY, PassNotOurs, eth(IPV4, ip4(TCP, NODE4, ours()))),
        f("ping of the node, v4", UNDERLAY, PassNotOurs, eth(IPV4, ip4(1, NODE4, echo(8)))),
        f("ping of the node, v6", UNDERLAY, PassNotOurs, eth(IPV6, ip6(58, NODE6, echo(128)))),
        f("neighbour solicitation", UNDERLAY, PassNotOurs, eth(IPV6, ip6(58, "ff02::1:ff00:1".parse::<Ipv6Addr>().unwrap(), echo(135)))),
        f("arp", UNDERLAY, PassNotIp, eth_to(BROADCAST, 0x0806, arp(NODE4))),
        f("lldp", UNDERLAY, PassNotIp, eth_to([1, 0x80, 0xc2, 0, 0, 0x0e], 0x88cc, vec![2, 7, 4])),
        f("mpls", UNDERLAY, PassNotIp, eth(0x8847, ip4(UDP, NODE4, ours()))),
        f("802.3 length", UNDERLAY, PassNotIp, eth(38, vec![0x42; 38])),
        f("802.1Q", UNDERLAY, PassVlan, eth(0x8100, tagged(IPV4, ip4(UDP, NODE4, ours())))),
        f("802.1ad", UNDERLAY, PassVlan, eth(0x88a8, tagged(IPV4, ip4(UDP, NODE4, ours())))),
        f("QinQ", UNDERLAY, PassVlan, eth(0x88a8, tagged(0x8100, tagged(IPV4, ip4(UDP, NODE4, ours()))))),
        f("old QinQ type", UNDERLAY, PassVlan, eth(0x9100, tagged(0x8100, tagged(IPV4, ip4(UDP, NODE4, ours()))))),
        f("priority tag", UNDERLAY, Redirected, eth(0x8100, priority(IPV4, ip4(UDP, NODE4, ours())))),
        f("priority tag, v6 with options", UNDERLAY, Redirected, eth(0x8100, priority(IPV6, ip6(60, NODE6, extension(UDP, 1, 0, ours()))))),
        f("VLAN 0 of a provider", UNDERLAY, PassVlan, eth(0x88a8, priority(IPV4, ip4(UDP, NODE4, ours())))),
        f("first fragment, v4", UNDERLAY, PassFragment, eth(IPV4, ip4_with(UDP, NODE4, 0x2000, &[], ours()))),
        f("last fragment, v4", UNDERLAY, PassFragment, eth(IPV4, ip4_with(UDP, NODE4, 0x00b9, &[], ours()))),
        f("far fragment, v4", UNDERLAY, PassFragment, eth(IPV4, ip4_with(UDP, NODE4, 0x1f00, &[], ours()))),
        f("fragment of tcp, v4", UNDERLAY, PassNotOurs, eth(IPV4, ip4_with(TCP, NODE4, 0x2000, &[], ours()))),
        f("fragment, v6", UNDERLAY, PassFragment, eth(IPV6, ip6(44, NODE6, fragment6(UDP, 1, ours())))),
        f("atomic fragment, v6", UNDERLAY, PassFragment, eth(IPV6, ip6(44, NODE6, fragment6(UDP, 0, ours())))),
        f("fragment behind options, v6", UNDERLAY, PassFragment, eth(IPV6, ip6(60, NODE6, extension(44, 0, 0, fragment6(UDP, 8, ours()))))),
        f("hop-by-hop", UNDERLAY, Redirected, eth(IPV6, ip6(0, NODE6, extension(UDP, 0, 0, ours())))),
        f("long destination options", UNDERLAY, Redirected, eth(IPV6, ip6(60, NODE6, extension(UDP, 31, 9, ours())))),
        f("longest destination options", UNDERLAY, Redirected, eth(IPV6, ip6(60, NODE6, extension(UDP, 255, 9, ours())))),
        f("routing header, arrived", UNDERLAY, Redirected, eth(IPV6, ip6(43, NODE6, extension(UDP, 2, 0, ours())))),
        f("routing header, on its way", UNDERLAY, PassExtension, eth(IPV6, ip6(43, NODE6, extension(UDP, 2, 1, ours())))),
        f("four extension headers", UNDERLAY, Redirected, eth(IPV6, ip6(0, NODE6, extension(60, 0, 0, extension(43, 0, 0, extension(60, 1, 0, extension(UDP, 0, 0, ours()))))))),
        f("five extension headers", UNDERLAY, PassExtension, eth(IPV6, ip6(0, NODE6, extension(60, 0, 0, extension(43, 0, 0, extension(60, 1, 0, extension(60, 0, 0, extension(UDP, 0, 0, ours())))))))),
        f("fragment as the fifth", UNDERLAY, PassFragment, eth(IPV6, ip6(0, NODE6, extension(60, 0, 0, extension(43, 0, 0, extension(60, 1, 0, extension(44, 0, 0, fragment6(UDP, 0, ours())))))))),
        f("tcp as the fifth", UNDERLAY, PassNotOurs, eth(IPV6, ip6(0, NODE6, extension(60, 0, 0, extension(43, 0, 0, extension(60, 1, 0, extension(TCP, 0, 0, ours()))))))),
        f("tcp behind options", UNDERLAY, PassNotOurs, eth(IPV6, ip6(60, NODE6, extension(TCP, 0, 0, ours())))),
        f("esp", UNDERLAY, PassNotOurs, eth(IPV6, ip6(50, NODE6, ours()))),
        f("no next header", UNDERLAY, PassNotOurs, eth(IPV6, ip6(59, NODE6, ours()))),
        f("options longer than the frame", UNDERLAY, PassTruncated, eth(IPV6, ip6(60, NODE6, [vec![UDP, 255, 0, 0], ours()].concat()))),
        f("version 6 as v4", UNDERLAY, PassMalformed, eth(IPV4, ip6(UDP, NODE6, ours()))),
        f("version 4 as v6", UNDERLAY, PassMalformed, eth(IPV6, ip4(UDP, NODE4, [ours(), ours()].concat()))),
        f("header length 4", UNDERLAY, PassMalformed, eth(IPV4, [vec![0x44], ip4(UDP, NODE4, ours())[1..].to_vec()].concat())),
        f("header length 0", UNDERLAY, PassMalformed, eth(IPV4, [vec![0x40], ip4(UDP, NODE4, ours())[1..].to_vec()].concat())),
        f("options cut", UNDERLAY, PassTruncated, eth(IPV4, ip4_with(UDP, NODE4, 0, &[1; 40], vec![])[..50].to_vec())),
        f("ethernet alone", UNDERLAY, PassTruncated, eth(IPV4, vec![])),

        f("routed, v4", EDGE, Redirected, v4([10, 9, 0, 1])),
        f("routed, v6", EDGE, Redirected, v6("2001:db8:9::1")),
        f("routed fragment, v4", EDGE, Redirected, eth(IPV4, ip4_with(UDP, [10, 9, 0, 1], 0x2001, &[], vec![1; 9]))),
        f("routed fragment, v6", EDGE, Redirected, eth(IPV6, ip6(44, "2001:db8:9::1".parse::<Ipv6Addr>().unwrap(), fragment6(UDP, 9, ours())))),
        f("routed with options", EDGE, Redirected, eth(IPV4, ip4_with(UDP, [10, 9, 0, 1], 0, &[1; 40], vec![]))),
        f("routed unique local, v6", EDGE, Redirected, v6("fd00::1")),
        f("tunnel to another node", EDGE, Redirected, eth(IPV4, ip4(UDP, [192, 0, 2, 9], ours()))),
        f("next to a local address", EDGE, Redirected, v4([10, 0, 0, 2])),
        f("169.253", EDGE, Redirected, v4([169, 253, 1, 1])),
        f("above link-local, v6", EDGE, Redirected, v6("fec0::1")),
        f("ssh to the host", EDGE, PassLocal, v4([10, 0, 0, 1])),
        f("bgp to the host's other address", EDGE, PassLocal, v4([192, 0, 2, 1])),
        f("ping of the host, v6", EDGE, PassLocal, eth(IPV6, ip6(58, "2001:db8:1::1".parse::<Ipv6Addr>().unwrap(), echo(128)))),
        f("arp request", EDGE, PassNotIp, eth_to(BROADCAST, 0x0806, arp([10, 0, 0, 1].into()))),
        f("arp reply", EDGE, PassNotIp, eth(0x0806, arp([10, 0, 0, 1].into()))),
        f("neighbour solicitation", EDGE, PassMulticast, eth_to([0x33, 0x33, 0xff, 0, 0, 1], IPV6, ip6(58, "ff02::1:ff00:1".parse::<Ipv6Addr>().unwrap(), echo(135)))),
        f("neighbour advertisement", EDGE, PassScope, v6("fe80::1")),
        f("end of link-local, v6", EDGE, PassScope, v6("febf:ffff::1")),
        f("dhcp discover", EDGE, PassMulticast, eth_to(BROADCAST, IPV4, ip4(UDP, [255; 4], udp(67)))),
        f("broadcast address to our mac", EDGE, PassMulticast, v4([255; 4])),
        f("multicast to our mac, v4", EDGE, PassMulticast, v4([239, 1, 2, 3])),
        f("multicast to our mac, v6", EDGE, PassMulticast, v6("ff0e::1")),
        f("ospf hello", EDGE, PassMulticast, eth_to([1, 0, 0x5e, 0, 0, 5], IPV4, ip4(89, [224, 0, 0, 5], vec![0; 44]))),
        f("unicast address in a broadcast frame", EDGE, UnicastInMulticast, eth_to(BROADCAST, IPV4, ip4(TCP, [10, 9, 0, 1], vec![]))),
        f("the machine's other address in a multicast frame", EDGE, UnicastInMulticast, eth_to([1, 0, 0x5e, 0, 0, 1], IPV4, ip4(1, [172, 31, 0, 1], echo(8)))),
        f("the same in a frame of link control", EDGE, UnicastInMulticast, eth_to([1, 0x80, 0xc2, 0, 0, 0x0e], IPV4, ip4(1, [172, 31, 0, 1], echo(8)))),
        f("the same with a priority tag", EDGE, UnicastInMulticast, eth_to(BROADCAST, 0x8100, priority(IPV4, ip4(1, [172, 31, 0, 1], echo(8))))),
        f("the same, v6", EDGE, UnicastInMulticast, eth_to([0x33, 0x33, 0, 0, 0, 1], IPV6, ip6(58, "2001:db8:11::1".parse::<Ipv6Addr>().unwrap(), echo(128)))),
        f("mapped v4 in a multicast frame", EDGE, UnicastInMulticast, eth_to([0x33, 0x33, 0, 0, 0, 1], IPV6, ip6(58, "::ffff:10.0.0.1".parse::<Ipv6Addr>().unwrap(), echo(128)))),
        f("another subnet's broadcast", EDGE, UnicastInMulticast, eth_to(BROADCAST, IPV4, ip4(UDP, [10, 11, 0, 255], udp(137)))),
        f("the subnet's broadcast", EDGE, PassMulticast, eth_to(BROADCAST, IPV4, ip4(UDP, SUBNET_BROADCAST, udp(137)))),
        f("the port's own address in a broadcast frame", EDGE, PassMulticast, eth_to(BROADCAST, IPV4, ip4(TCP, [10, 0, 0, 1], vec![]))),
        f("the port's own address in a multicast frame, v6", EDGE, PassMulticast, nd_to([0x33, 0x33, 0xff, 0, 0, 1], "2001:db8:1::1", 135, "2001:db8:1::1")),
        f("arp to link control", EDGE, PassNotIp, eth_to([1, 0x80, 0xc2, 0, 0, 0x0e], 0x0806, arp([10, 0, 0, 1].into()))),
        f("lldp", EDGE, PassNotIp, eth_to([1, 0x80, 0xc2, 0, 0, 0x0e], 0x88cc, vec![2, 7, 4])),
        f("IP over SNAP", EDGE, PassNotIp, eth(48, [vec![0xaa, 0xaa, 3, 0, 0, 0, 8, 0], ip4(TCP, [10, 0, 0, 1], vec![0; 20])].concat())),
        f("another station's frame", EDGE, PassOtherMac, eth_to(OTHER, IPV4, ip4(TCP, [10, 9, 0, 1], vec![]))),
        f("link-local, v4", EDGE, PassScope, v4([169, 254, 1, 1])),
        f("loopback, v4", EDGE, PassScope, v4([127, 0, 0, 1])),
        f("unspecified, v4", EDGE, PassScope, v4([0; 4])),
        f("this network, v4", EDGE, PassScope, v4([0, 1, 2, 3])),
        f("loopback, v6", EDGE, PassScope, v6("::1")),
        f("unspecified, v6", EDGE, PassScope, v6("::")),
        f("mapped v4, v6", EDGE, PassScope, v6("::ffff:10.9.0.1")),
        f("802.1Q", EDGE, PassVlan, eth(0x8100, tagged(IPV4, ip4(TCP, [10, 9, 0, 1], vec![])))),
        f("QinQ", EDGE, PassVlan, eth(0x88a8, tagged(0x8100, tagged(IPV4, ip4(TCP, [10, 9, 0, 1], vec![]))))),
        f("priority tag, v4", EDGE, Redirected, eth(0x8100, priority(IPV4, ip4(TCP, [10, 9, 0, 1], vec![])))),
        f("priority tag, v6", EDGE, Redirected, eth(0x8100, priority(IPV6, ip6(TCP, "2001:db8:9::1".parse::<Ipv6Addr>().unwrap(), vec![])))),
        f("priority tag, to the host", EDGE, PassLocal, eth(0x8100, priority(IPV4, ip4(TCP, [10, 0, 0, 1], vec![])))),
        f("priority tag, arp", EDGE, PassNotIp, eth_to(BROADCAST, 0x8100, priority(0x0806, arp([10, 0, 0, 1].into())))),
        f("priority tag and a VLAN", EDGE, PassVlan, eth(0x8100, priority(0x8100, tagged(IPV4, ip4(TCP, [10, 9, 0, 1], vec![]))))),
        f("two tags of VLAN 0", EDGE, PassVlan, eth(0x8100, priority(0x8100, priority(IPV4, ip4(TCP, [10, 9, 0, 1], vec![]))))),
        f("VLAN 0 of a provider", EDGE, PassVlan, eth(0x88a8, priority(0x0806, arp([10, 0, 0, 1].into())))),
        f("VLAN 0 of a customer in that of a provider", EDGE, PassVlan, eth(0x88a8, priority(0x8100, priority(IPV4, ip4(TCP, [10, 9, 0, 1], vec![]))))),
        f("VLAN 0 in a VLAN", EDGE, PassVlan, eth(0x8100, tagged(0x8100, priority(IPV4, ip4(TCP, [10, 9, 0, 1], vec![]))))),
        f("virtual router", EDGE, Redirected, eth_to(VIRTUAL, IPV4, ip4(TCP, [10, 9, 0, 1], vec![]))),
        f("virtual router, to the host", EDGE, PassLocal, eth_to(VIRTUAL, IPV4, ip4(TCP, [10, 0, 0, 1], vec![]))),
        f("another virtual router", EDGE, PassOtherMac, eth_to([0, 0, 0x5e, 0, 1, 8], IPV4, ip4(TCP, [10, 9, 0, 1], vec![]))),
        f("pppoe", EDGE, PassNotIp, eth(0x8864, vec![0x11; 40])),
        f("cut v4", EDGE, PassTruncated, v4([10, 9, 0, 1])[..33].to_vec()),
        f("cut v6", EDGE, PassTruncated, v6("2001:db8:9::1")[..53].to_vec()),
        f("cut options", EDGE, PassTruncated, eth(IPV4, ip4_with(UDP, [10, 9, 0, 1], 0, &[1; 40], vec![])[..59].to_vec())),
        f("version 5", EDGE, PassMalformed, eth(IPV4, [vec![0x55], ip4(TCP, [10, 9, 0, 1], vec![])[1..].to_vec()].concat())),
        f("version 7 as v6", EDGE, PassMalformed, eth(IPV6, vec![0x70; 60])),

        f("unicast", BRIDGE, Redirected, eth_to(OTHER, IPV4, ip4(TCP, [10, 0, 0, 1], vec![]))),
        f("arp", BRIDGE, Redirected, eth_to(BROADCAST, 0x0806, arp([10, 0, 0, 1].into()))),
        f("unknown type", BRIDGE, Redirected, eth_to(OTHER, 0x1234, vec![])),
        f("to the port itself", BRIDGE, PassLocal, eth(IPV4, ip4(TCP, [10, 9, 0, 1], vec![]))),
        f("stp", BRIDGE, PassLinkControl, eth_to([1, 0x80, 0xc2, 0, 0, 0], 39, vec![0x42; 39])),
        f("lacp", BRIDGE, PassLinkControl, eth_to([1, 0x80, 0xc2, 0, 0, 2], 0x8809, vec![1; 60])),
        f("last link control", BRIDGE, PassLinkControl, eth_to([1, 0x80, 0xc2, 0, 0, 0x0f], 0x88f7, vec![1; 60])),
        f("group address above link control", BRIDGE, Redirected, eth_to([1, 0x80, 0xc2, 0, 0, 0x10], 39, vec![0x42; 39])),
        f("priority tag", BRIDGE, PassVlan, eth_to(OTHER, 0x8100, priority(IPV4, vec![0; 40]))),
        f("802.1Q", BRIDGE, PassVlan, eth_to(OTHER, 0x8100, tagged(IPV4, vec![0; 40]))),
    ]
}

#[test]
fn fixtures_get_their_verdicts() {
    in_namespace(&[], || {
        for role in [UNDERLAY, EDGE, BRIDGE] {
            let port = Port::new(role);
            for fixture in fixtures().iter().filter(|fixture| fixture.role == role) {
                let name = fixture.name;
                assert_eq!(
                    port.outcome(&fixture.frame),
                    (fixture.verdict, done(role, fixture.verdict, &fixture.frame)),
                    "{role:?}: {name}"
                );
                // The oracle below is worth as much as it agrees with the fixtures.
                assert_eq!(
                    reference::verdict(role, &fixture.frame),
                    fixture.verdict,
                    "oracle: {role:?}: {name}"
                );
            }
        }
    });
}

/// What a port that is not owned does with a frame of this verdict.
fn done(role: Role, verdict: Verdict, frame: &[u8]) -> Action {
    match verdict {
        Redirected => Action::Redirect,
        _ if role == EDGE && reference::never(verdict, frame) => Action::Drop,
        _ => Action::Pass,
    }
}

#[test]
fn fixtures_cover_every_verdict() {
    // These depend on the port, not the frame alone, and have tests of their own.
    for verdict in Verdict::ALL.iter().filter(|v| {
        ![
            NoSocket,
            PassUnconfigured,
            NeighbourShare,
            Repeated,
            RouterClaim,
        ]
        .contains(v)
    }) {
        assert!(
            fixtures().iter().any(|fixture| fixture.verdict == *verdict),
            "{verdict:?}"
        );
    }
}

#[test]
fn a_frame_cut_anywhere_is_never_mistaken() {
    in_namespace(&[], || {
        for role in [UNDERLAY, EDGE, BRIDGE] {
            let port = Port::new(role);
            for fixture in fixtures().iter().filter(|fixture| fixture.role == role) {
                // The kernel's test run wants a whole Ethernet header, as do all senders.
                for length in 14..fixture.frame.len().min(130) {
                    let cut = &fixture.frame[..length];
                    let expected = reference::verdict(role, cut);
                    assert_eq!(
                        port.verdict(cut),
                        expected,
                        "{role:?}: {} cut to {length}",
                        fixture.name
                    );
                }
            }
            assert!(port.steering.dry_run(&[0; 13]).is_err());
        }
    });
}

#[test]
fn any_bytes_get_the_oracles_verdict() {
    in_namespace(&[], || {
        for role in [UNDERLAY, EDGE, BRIDGE] {
            let port = Port::new(role);
            let mut runner = TestRunner::new(Config {
                cases: 6_000,
                failure_persistence: None,
                ..Config::default()
            });
            let mut redirected = 0;
            runner
                .run(&any_frame(role), |frame| {
                    let verdict = reference::verdict(role, &frame);
                    let expected = (verdict, done(role, verdict, &frame));
                    prop_assert_eq!(port.outcome(&frame), expected);
                    Ok(())
                })
                .unwrap();
            for (name, count) in port.steering.counters().unwrap() {
                redirected += if name == "redirected" { count } else { 0 };
            }
            assert!(
                redirected > 300,
                "{role:?}: too few frames were ours to prove anything: {redirected}"
            );
        }
    });
}

/// Noise, and fixtures with some bytes changed and the end cut: near misses.
fn any_frame(role: Role) -> impl Strategy<Value = Vec<u8>> {
    let frames: Vec<_> = fixtures()
        .into_iter()
        .filter(|fixture| fixture.role == role)
        .map(|fixture| fixture.frame)
        .collect();
    let header_byte = prop_oneof![
        any::<u8>(),
        prop::sample::select(vec![
            0, 6, 17, 43, 44, 60, 0x45, 0x46, 0x60, 0x81, 0x86, 0x88, 0xa8, 0xdd, 0xff
        ]),
    ];
    let near_miss = (
        prop::sample::select(frames),
        prop::collection::vec((0usize..80, header_byte), 0..4),
        prop_oneof![3 => Just(usize::MAX), 1 => 14usize..100],
    )
        .prop_map(|(mut frame, changes, length)| {
            for (at, byte) in changes {
                if let Some(slot) = frame.get_mut(at) {
                    *slot = byte;
                }
            }
            frame.truncate(length);
            frame
        });
    let noise = prop::collection::vec(any::<u8>(), 14..200);
    prop_oneof![9 => near_miss, 1 => noise]
}

/// What would reach the kernel elsewhere reaches it on an owned port only if the kernel cannot forward it.
#[test]
fn an_owned_port_leaves_the_kernel_only_what_it_needs() {
    in_namespace(&[], || {
        let port = Port::new(OWNED);
        let outcome =
            |frame: &[u8]| match (reference::verdict(OWNED, frame), reference::refused(frame)) {
                (Redirected, _) => (Redirected, Action::Redirect),
                (verdict, None) => (verdict, Action::Pass),
                (_, Some(why)) => (why, Action::Drop),
            };
        let edge = fixtures().into_iter().filter(|it| it.role == EDGE);
        for Fixture { name, frame, .. } in edge {
            assert_eq!(port.outcome(&frame), outcome(&frame), "{name}");
        }
        let to = |to: [u8; 4]| eth(IPV4, ip4(UDP, to, udp(9)));
        for (frame, expected) in [
            (to([10, 9, 0, 1]), Action::Redirect),
            (to([10, 0, 0, 1]), Action::Pass),
            (to([224, 0, 0, 18]), Action::Pass),
            (to([255; 4]), Action::Pass),
            (to([224, 0, 1, 1]), Action::Drop),
            (to([169, 254, 1, 1]), Action::Drop),
            (
                eth_to(OTHER, IPV4, ip4(UDP, [10, 9, 0, 1], udp(9))),
                Action::Drop,
            ),
            (
                eth_to(BROADCAST, IPV4, ip4(UDP, [10, 9, 0, 1], udp(9))),
                Action::Drop,
            ),
            (
                eth_to(BROADCAST, 0x0806, arp([10, 0, 0, 1].into())),
                Action::Pass,
            ),
            (
                eth(0x8100, tagged(IPV4, ip4(UDP, [10, 9, 0, 1], udp(9)))),
                Action::Drop,
            ),
            (
                eth(0x8100, tagged(0x0806, arp([10, 0, 0, 1].into()))),
                Action::Drop,
            ),
            (eth(0x8847, vec![0; 40]), Action::Drop),
            // For the machine's addresses on other devices, from one that has it, and a reply to what the kernel asked.
            (
                eth_to(BROADCAST, 0x0806, arp([192, 0, 2, 99].into())),
                Action::Drop,
            ),
            (
                eth_to(BROADCAST, 0x0806, arp([10, 0, 0, 2].into())),
                Action::Pass,
            ),
            (
                eth(0x0806, reply(arp([192, 0, 2, 99].into()))),
                Action::Pass,
            ),
            (
                eth(0x0806, arp([10, 0, 0, 1].into())[..27].to_vec()),
                Action::Drop,
            ),
            (to_us4(5), Action::Drop),
            (to_us4(8), Action::Pass),
            (nd("ff02::1", 134, "::"), Action::Drop),
            (nd("ff02::1", 137, "::"), Action::Drop),
            (nd("2001:db8:1::1", 134, "::"), Action::Drop),
            (behind_options(nd("ff02::1", 134, "::"), 4), Action::Drop),
            (behind_options(nd("ff02::1", 134, "::"), 5), Action::Drop),
            (nd("ff02::2", 133, "::"), Action::Pass),
            (nd("ff02::1:ff00:1", 135, "2001:db8:1::1"), Action::Pass),
            (nd("2001:db8:1::1", 136, "2001:db8:1::7"), Action::Pass),
        ] {
            assert_eq!(port.outcome(&frame).1, expected, "{frame:x?}");
        }
        let mut runner = TestRunner::new(Config {
            cases: 6_000,
            failure_persistence: None,
            ..Config::default()
        });
        runner
            .run(&any_frame(EDGE), |frame| {
                prop_assert_eq!(port.outcome(&frame), outcome(&frame));
                Ok(())
            })
            .unwrap();
    });
}

/// An ICMP message to the host.
fn to_us4(kind: u8) -> Vec<u8> {
    eth(IPV4, ip4(1, [10, 0, 0, 1], echo(kind)))
}

/// A message of neighbour discovery to the port's MAC address or a group's.
fn nd(to: &str, kind: u8, target: &str) -> Vec<u8> {
    let mac = match to.parse::<Ipv6Addr>().unwrap().is_multicast() {
        true => [0x33, 0x33, 0, 0, 0, 1],
        false => MAC,
    };
    nd_to(mac, to, kind, target)
}

fn nd_to(mac: [u8; 6], to: &str, kind: u8, target: &str) -> Vec<u8> {
    let to: Ipv6Addr = to.parse().unwrap();
    let target: Ipv6Addr = target.parse().unwrap();
    let message = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &target.octets()].concat();
    eth_to(mac, IPV6, ip6(58, to, message))
}

/// An IPv6 frame with so many more headers before what it carries.
fn behind_options(mut frame: Vec<u8>, headers: usize) -> Vec<u8> {
    for _ in 0..headers {
        let payload = extension(frame[20], 0, 0, frame.split_off(54));
        frame[20] = 60;
        frame.extend(payload);
    }
    frame
}

fn reply(mut arp: Vec<u8>) -> Vec<u8> {
    arp[7] = 2;
    arp
}

/// Of what makes the kernel learn neighbours no more passes than the port's share, by whatever senders; the rest has
/// budgets of its own, and what the kernel asked for none.
#[test]
fn hosts_make_no_more_neighbours_than_their_share() {
    let flooded = |frame: &[u8], nth: u16| {
        let mut frame = frame.to_vec();
        let [high, low] = nth.to_be_bytes();
        // The senders: of ARP, of IPv4, of IPv6.
        let at = match u16::from_be_bytes([frame[12], frame[13]]) {
            0x0806 => 30,
            IPV4 => 28,
            _ => 36,
        };
        frame[at..at + 2].copy_from_slice(&[high, low]);
        frame
    };
    in_namespace(&[], move || {
        for role in [EDGE, OWNED] {
            let ask4 = eth_to(BROADCAST, 0x0806, arp([10, 0, 0, 1].into()));
            let ask6 = nd("ff02::1:ff00:1", 135, "2001:db8:1::1");
            let answer4 = eth(0x0806, reply(arp([10, 0, 0, 1].into())));
            let mut answer6 = nd("2001:db8:1::1", 136, "2001:db8:1::7");
            answer6[58] = 0x60;
            let echo4 = to_us4(8);
            let echo6 = eth(
                IPV6,
                ip6(58, "2001:db8:1::1".parse::<Ipv6Addr>().unwrap(), echo(128)),
            );
            for (name, flood) in [
                ("requests", ask4.clone()),
                (
                    "requests to link control",
                    [&[1, 0x80, 0xc2, 0, 0, 0x0e], &ask4[6..]].concat(),
                ),
                ("solicitations", ask6.clone()),
                ("behind headers", behind_options(ask6.clone(), 3)),
                ("router solicitations", nd("ff02::2", 133, "::")),
                ("advertisements", nd("ff02::1", 136, "2001:db8:1::7")),
                (
                    "replies to all",
                    eth_to(BROADCAST, 0x0806, reply(arp([10, 0, 0, 1].into()))),
                ),
                ("pings", echo4.clone()),
                (
                    "pings of a group",
                    eth_to(
                        [0x33, 0x33, 0, 0, 0, 1],
                        IPV6,
                        ip6(58, "ff02::1".parse::<Ipv6Addr>().unwrap(), echo(128)),
                    ),
                ),
                ("pings over IPv6", echo6.clone()),
            ] {
                let mut port = Port::new(role);
                port.steering.set_neighbours(40, 40).unwrap();
                let passed = (0..2_000)
                    .filter(|nth| port.outcome(&flooded(&flood, *nth)).1 == Action::Pass)
                    .count();
                // A half or a quarter of it, and the first of them at once.
                assert!((4..=40).contains(&passed), "{role:?}: {name}: {passed}");
                assert_eq!(
                    port.steering.above_share().unwrap(),
                    2_000 - passed as u64,
                    "{role:?}: {name}"
                );
                for answer in [&answer4, &answer6] {
                    for nth in 0..100 {
                        let action = port.outcome(&flooded(answer, nth)).1;
                        assert_eq!(action, Action::Pass, "{role:?}: {name}");
                    }
                }
                // Hosts of the others' kind find room, and who was let through stays so.
                let other = match name {
                    "pings" | "pings of a group" | "pings over IPv6" => &ask4,
                    _ => &echo4,
                };
                assert_eq!(port.outcome(other).1, Action::Pass, "{role:?}: {name}");
                if name == "pings" {
                    assert_eq!(port.outcome(&flooded(&flood, 0)).1, Action::Pass);
                }
            }
        }
        // What the kernel does not read costs nothing.
        let mut port = Port::new(EDGE);
        port.steering.set_neighbours(1, 1).unwrap();
        for nth in 0..200 {
            let frame = flooded(&eth_to(OTHER, 0x0806, arp([10, 0, 0, 1].into())), nth);
            assert_eq!(port.outcome(&frame), (PassNotIp, Action::Pass));
        }
    });
}

#[test]
fn an_owned_port_without_a_socket_drops() {
    in_namespace(&[], || {
        let mut port = Port::new(OWNED);
        let frame = eth(IPV4, ip4(TCP, [10, 9, 0, 1], vec![]));
        assert_eq!(port.outcome(&frame), (Redirected, Action::Redirect));
        port.steering.unregister(0).unwrap();
        assert_eq!(port.outcome(&frame), (NoSocket, Action::Drop));
    });
}

#[test]
fn without_a_socket_frames_pass() {
    in_namespace(&[], || {
        let mut port = Port::new(UNDERLAY);
        let frame = eth(IPV4, ip4(UDP, NODE4, udp(UDP_PORT)));
        assert_eq!(port.verdict(&frame), Redirected);
        port.steering.unregister(0).unwrap();
        assert_eq!(port.verdict(&frame), NoSocket);
        port.steering.unregister(0).expect("twice is no error");
        port.steering.register(0, &port.socket).unwrap();
        assert_eq!(port.verdict(&frame), Redirected);
    });
}

#[test]
fn a_closed_socket_leaves_the_map() {
    in_namespace(&[], || {
        let Port { steering, socket } = Port::new(UNDERLAY);
        drop(socket);
        let frame = eth(IPV4, ip4(UDP, NODE4, udp(UDP_PORT)));
        assert_eq!(steering.dry_run(&frame).unwrap(), Action::Pass);
    });
}

#[test]
fn addresses_endpoints_and_mac_can_change() {
    in_namespace(&[], || {
        let mut port = Port::new(UNDERLAY);
        let to = |address: [u8; 4]| eth(IPV4, ip4(UDP, address, udp(UDP_PORT)));
        port.steering
            .set_endpoints(&[
                "203.0.113.5:51820".parse().unwrap(),
                "192.0.2.1:51820".parse().unwrap(),
            ])
            .unwrap();
        assert_eq!(port.verdict(&to([203, 0, 113, 5])), Redirected);
        assert_eq!(port.verdict(&to([192, 0, 2, 1])), Redirected);
        port.steering
            .set_endpoints(&["203.0.113.5:51820".parse().unwrap()])
            .unwrap();
        assert_eq!(port.verdict(&to([192, 0, 2, 1])), PassNotOurs);
        assert_eq!(port.verdict(&to([203, 0, 113, 5])), Redirected);
        port.steering.set_endpoints(&[]).unwrap();
        assert_eq!(port.verdict(&to([203, 0, 113, 5])), PassNotOurs);
        drop(port);

        let mut port = Port::new(EDGE);
        let frame = eth(IPV4, ip4(TCP, [10, 9, 0, 1], vec![]));
        assert_eq!(port.verdict(&frame), Redirected);
        port.steering
            .set_local_addresses(&["10.9.0.1".parse().unwrap()])
            .unwrap();
        assert_eq!(port.verdict(&frame), PassLocal);
        port.steering.set_local_addresses(&[]).unwrap();
        assert_eq!(port.verdict(&frame), Redirected);
        port.steering.set_mac(OTHER).unwrap();
        assert_eq!(port.verdict(&frame), PassOtherMac);
        assert_eq!(
            port.verdict(&eth_to(OTHER, IPV4, ip4(TCP, [10, 9, 0, 1], vec![]))),
            Redirected
        );
    });
}

#[test]
fn a_full_set_can_be_exchanged_but_not_exceeded() {
    in_namespace(&[], || {
        let mut port = Port::new(UNDERLAY);
        let max = twinseal_ebpf::layout::MAX_ENDPOINTS as u16;
        let endpoints =
            |ports: std::ops::Range<u16>| -> Vec<_> { ports.map(|p| (NODE4, p).into()).collect() };
        let to = |port| eth(IPV4, ip4(UDP, NODE4, udp(port)));
        port.steering.set_endpoints(&endpoints(0..max)).unwrap();
        port.steering
            .set_endpoints(&endpoints(max..2 * max))
            .unwrap();
        assert_eq!(port.verdict(&to(max - 1)), PassNotOurs);
        assert_eq!(port.verdict(&to(max)), Redirected);
        let error = port
            .steering
            .set_endpoints(&endpoints(0..max + 1))
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "4097 UDP endpoints: the steering program has room for 4096"
        );
        assert_eq!(
            port.verdict(&to(max)),
            Redirected,
            "what was set before stays"
        );
    });
}

/// A port with the frames' addresses set and a socket on queue 0.
struct Port {
    steering: Steering,
    socket: Xsk,
}

impl Port {
    fn new(role: Role) -> Self {
        let mut steering = Steering::attach(PORT, role, XdpMode::Native).unwrap();
        steering
            .set_endpoints(&frames::ENDPOINTS.map(|e| e.parse().unwrap()))
            .unwrap();
        steering
            .set_local_addresses(&frames::LOCAL.map(|a| a.parse().unwrap()))
            .unwrap();
        steering
            .set_broadcasts([SUBNET_BROADCAST].into_iter())
            .unwrap();
        steering.set_more_macs(&[VIRTUAL]).unwrap();
        // So many that no test comes to an end of them.
        steering.set_neighbours(u32::MAX, u32::MAX).unwrap();
        let socket = Xsk::bind(PORT, 0).unwrap();
        steering.register(0, &socket).unwrap();
        Self { steering, socket }
    }

    /// The verdict by the counter that rose, which must be one and by one, and fit to what was done with the frame.
    fn verdict(&self, frame: &[u8]) -> Verdict {
        self.outcome(frame).0
    }

    /// The same, and what was done.
    fn outcome(&self, frame: &[u8]) -> (Verdict, Action) {
        let before = self.steering.counters().unwrap();
        let action = self.steering.dry_run(frame).unwrap();
        let after = self.steering.counters().unwrap();
        let rises = after.iter().zip(before);
        let rises = rises.map(|(after, before)| (after.0, after.1 - before.1));
        let rose: Vec<_> = rises.filter(|(_, by)| *by != 0).collect();
        let [(name, 1)] = rose[..] else {
            panic!("counters that rose: {rose:?}");
        };
        let counted = |it: &&Verdict| match action {
            Action::Drop => it.dropped_name() == Some(name),
            _ => it.name() == name,
        };
        let Some(verdict) = Verdict::ALL.iter().find(counted) else {
            panic!("{name} rose at {action:?}");
        };
        assert_eq!(action == Action::Redirect, *verdict == Redirected);
        (*verdict, action)
    }
}
