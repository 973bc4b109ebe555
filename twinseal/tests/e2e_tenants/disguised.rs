//! Frames that the kernel would read otherwise than they look: it takes tags of VLAN 0 off, however many there are, and what
//! is sent to all it takes for any address of the machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use twinseal_lab::IpNet;
use twinseal_lab::capture::{Capture, CaptureLimits};
use twinseal_lab::frame::checksum;
use twinseal_lab::inject::Injector;
use twinseal_testbed::plan::Host;

use crate::common::edge_of;
use crate::floods::{Claim, gateway_mac, icmpv6_checksum};
use crate::network::{PORT, TENANTS, Tenant, Tenants};
use crate::wait_until;

const ALL: [u8; 6] = [0xff; 6];
/// IPv4's and IPv6's groups of all hosts, and the one of LLDP.
const GROUPS: [[u8; 6]; 4] = [
    ALL,
    [1, 0, 0x5e, 0, 0, 1],
    [0x33, 0x33, 0, 0, 0, 1],
    [1, 0x80, 0xc2, 0, 0, 0x0e],
];
/// Tags of VLAN 0 that Linux takes off.
const TAGS: [&[u8]; 4] = [
    &[0x88, 0xa8, 0, 0],
    &[0x81, 0, 0, 0, 0x81, 0, 0, 0],
    &[0x88, 0xa8, 0, 0, 0x81, 0, 0, 0],
    &[0x81, 0, 0xe0, 0, 0x88, 0xa8, 0, 0],
];

#[test]
fn no_disguise_gets_a_tenants_frame_to_what_is_not_its_own() {
    let Some(mut tenants) = Tenants::start() else {
        return;
    };
    // The operator's.
    let foreign = [
        IpAddr::from([172, 31, 0, 1]),
        Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1).into(),
    ];
    let edge = tenants.path.network.router(edge_of(Host::A));
    for (address, len) in foreign.into_iter().zip([32, 128]) {
        let net = IpNet::new(address, len).expect("a prefix length");
        edge.add_address("lo", net).expect("an address");
    }
    let gateway = gateway_mac(&tenants, Host::A);
    let mut to_all = Vec::new();
    for group in GROUPS {
        to_all.extend(foreign.map(|to| echo(&tenants, group, to)));
    }
    let mut tagged = Vec::new();
    for (tags, nth) in TAGS.into_iter().zip(0..) {
        let asks = Claim::ArpRequest.frame(&tenants, Host::A, nth);
        let echoes = foreign.map(|to| echo(&tenants, gateway, to));
        let frames = echoes.into_iter().chain([asks]);
        tagged.extend(frames.map(|it| [&it[..12], tags, &it[12..]].concat()));
    }
    // The kernel has the same route to both tenants' hosts, so it may answer the other.
    let captures = TENANTS.map(|tenant| {
        let host = tenants.host(tenant, Host::A);
        let limits = CaptureLimits::default();
        let capture = Capture::start(host, "eth0", limits, Some(Box::new(is_reply)));
        capture.expect("a capture")
    });
    let host = tenants.host(Tenant::Red, Host::A);
    let injector = Injector::open(host, "eth0").expect("a packet socket");
    injector.send_all(&to_all).expect("the device is up");
    injector.send_all(&tagged).expect("the device is up");
    // The port's own addresses answer, though it is to all; the others would have before.
    let own = [false, true].map(|v6| echo(&tenants, ALL, Host::A.gateway(v6)));
    injector.send_all(&own).expect("the device is up");
    wait_until(|| captures.iter().map(Capture::seen).sum::<u64>() >= 2);
    let heard = captures.map(|it| it.stop().expect("a capture").packets);
    let mut from: Vec<_> = heard.concat().iter().map(|it| source(it)).collect();
    from.sort();
    assert_eq!(from, [false, true].map(|v6| Host::A.gateway(v6)));
    for (nth, tags) in TAGS.iter().enumerate() {
        let claimed = Ipv4Addr::new(10, 99, 0, nth as u8);
        let known = edge.neighbour("edge1", claimed.into()).expect("the table");
        assert_eq!(known, None, "{tags:02x?}");
    }
    let stats = tenants.path.controller.stats(edge_of(Host::A));
    let stats = stats.expect("counters");
    let port = stats.ports.iter().find(|it| it.port == PORT);
    let steering = &port.expect("the port").steering;
    for (name, sent) in [
        ("drop_unicast_in_multicast", to_all.len()),
        ("drop_vlan", tagged.len()),
    ] {
        let counter = steering.iter().find(|it| it.name == name);
        assert_eq!(counter.expect(name).value, sent as u64, "{name}");
    }
    tenants.path.finish();
}

/// An echo request of red's host at A.
fn echo(tenants: &Tenants, mac: [u8; 6], to: IpAddr) -> Vec<u8> {
    let host = tenants.host(Tenant::Red, Host::A);
    let from = host.mac("eth0").expect("the host's address");
    let (ether_type, packet) = match (Host::A.address(to.is_ipv6()), to) {
        (IpAddr::V4(source), IpAddr::V4(to)) => {
            let mut echo = [8, 0, 0, 0, 0, 1, 0, 1];
            let sum = checksum(0, &echo);
            echo[2..4].copy_from_slice(&sum.to_be_bytes());
            let mut ip = [
                &[0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0][..],
                &source.octets(),
                &to.octets(),
            ]
            .concat();
            let sum = checksum(0, &ip);
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
            ([8, 0], [&ip[..], &echo].concat())
        }
        (IpAddr::V6(source), IpAddr::V6(to)) => {
            let (source, to) = (source.octets(), to.octets());
            let mut echo = [128, 0, 0, 0, 0, 1, 0, 1];
            let sum = icmpv6_checksum(&source, &to, &echo);
            echo[2..4].copy_from_slice(&sum.to_be_bytes());
            let head = [0x60, 0, 0, 0, 0, 8, 58, 64];
            ([0x86, 0xdd], [&head[..], &source, &to, &echo].concat())
        }
        _ => unreachable!("a host has both families"),
    };
    [&mac[..], &from, &ether_type, &packet].concat()
}

/// Whether it is an echo reply.
fn is_reply(frame: &[u8]) -> bool {
    match frame.get(12..14) {
        Some([8, 0]) => frame.get(23) == Some(&1) && frame.get(34) == Some(&0),
        Some([0x86, 0xdd]) => frame.get(20) == Some(&58) && frame.get(54) == Some(&129),
        _ => false,
    }
}

fn source(reply: &[u8]) -> IpAddr {
    match reply[12..14] {
        [8, 0] => <[u8; 4]>::try_from(&reply[26..30])
            .expect("four bytes")
            .into(),
        _ => <[u8; 16]>::try_from(&reply[22..38])
            .expect("sixteen bytes")
            .into(),
    }
}
