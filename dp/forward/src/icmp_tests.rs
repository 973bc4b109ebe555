//! What the node answers, to whom, and from where; and what packets to and from its own addresses meet.

use std::net::Ipv6Addr;

use twinseal_crypto::{DEFAULT_PROVIDER, Suite, provider};

use crate::Budgets;
use crate::Disposition::{self, Drop, Send};
use crate::fixture::{EDGE, Node, Path, WEST, host_frame_v4, host_frame_v6, host_mac, host_v6};
use crate::reason::DropReason;
use twinseal_fib::group::{Group, Member};
use twinseal_fib::own::{Barred, Source};
use twinseal_fib::{CircuitIndex, GroupIndex, NextHop, NextHopIndex, Target, VrfIndex};
use twinseal_wire::ip::{self, checksum};

const OWN_V4: [u8; 4] = [10, 9, 0, 1];
const OWN_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 1);

/// A path whose A has a way back to its host and addresses of its own.
fn path() -> Path {
    let mut path = Path::new(provider(DEFAULT_PROVIDER).unwrap(), Suite::Aes256Gcm).unwrap();
    for node in [&mut path.a, &mut path.b] {
        node.state.errors = Budgets::of(100);
        let via = NextHop {
            port: EDGE,
            address: None,
            neighbour: None,
        };
        node.tables.vias.set(0, via);
        node.tables.vrfs[0].barred = Barred::new([OWN_V4.into(), OWN_V6.into()]);
        node.write(|draft| {
            let host = Target::NextHop(NextHopIndex(0));
            draft.set_route(VrfIndex(0), [10, 1, 0, 0], 16, host);
            draft.set_route(VrfIndex(0), host_v6(1).octets(), 48, host);
            draft.set_route(VrfIndex(0), OWN_V4, 32, Target::Own);
            draft.set_route(VrfIndex(0), OWN_V6.octets(), 128, Target::Own);
            draft.set_route(VrfIndex(0), [10, 9, 0, 255], 32, Target::SubnetEnd);
        });
    }
    path
}

/// A packet of the host behind A, to whom, of which protocol and with what in it.
fn packet(to: std::net::IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match to {
        std::net::IpAddr::V4(to) => {
            let mut frame = host_frame_v4(20 + payload.len().max(8), 7);
            frame[23] = protocol;
            frame[30..34].copy_from_slice(&to.octets());
            frame[34..34 + payload.len()].copy_from_slice(payload);
            right(frame)
        }
        std::net::IpAddr::V6(to) => {
            let mut frame = host_frame_v6(40 + payload.len().max(8), 7);
            frame[20] = protocol;
            frame[38..54].copy_from_slice(&to.octets());
            frame[54..54 + payload.len()].copy_from_slice(payload);
            frame
        }
    }
}

/// With the IPv4 header's checksum as it must be.
fn right(mut frame: Vec<u8>) -> Vec<u8> {
    frame[24..26].fill(0);
    let sum = checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

fn v6_sum(frame: &[u8]) -> u16 {
    let mut sum = frame[22..54].to_vec();
    sum.extend((frame.len() as u32 - 54).to_be_bytes());
    sum.extend([0, 0, 0, 58]);
    sum.extend(&frame[54..]);
    checksum(&sum)
}

fn run(node: &mut Node, frame: &[u8]) -> (Disposition, Vec<u8>) {
    node.run(EDGE, &[frame.to_vec()]).remove(0)
}

#[track_caller]
fn sent(node: &mut Node, frame: &[u8]) -> Vec<u8> {
    let (disposition, frame) = run(node, frame);
    assert_eq!(disposition, Send(EDGE));
    frame
}

fn drops(node: &Node) -> u64 {
    let all = DropReason::ALL.iter();
    all.map(|reason| node.state.drops.get(*reason)).sum()
}

/// An echo request with its checksum, which in IPv6 covers the addresses.
fn echo_request(v6: bool, hops: u8) -> Vec<u8> {
    let mut icmp = vec![if v6 { 128 } else { 8 }, 0, 0, 0, 1, 2, 3, 4, 0xee, 0xff];
    if v6 {
        let mut frame = packet(OWN_V6.into(), 58, &icmp);
        let sum = v6_sum(&frame);
        frame[56..58].copy_from_slice(&sum.to_be_bytes());
        frame[21] = hops;
        return frame;
    }
    let sum = checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = packet(OWN_V4.into(), 1, &icmp);
    frame[22] = hops;
    right(frame)
}

#[test]
fn own_addresses_answer_echo_requests_also_at_the_last_hop() {
    for v6 in [false, true] {
        for hops in [64, 1] {
            let mut path = path();
            let request = echo_request(v6, hops);
            let reply = sent(&mut path.a, &request);
            assert_eq!(reply[..6], host_mac(1).0);
            assert_eq!(reply.len(), request.len());
            if v6 {
                assert_eq!(reply[22..38], OWN_V6.octets());
                assert_eq!(reply[38..54], host_v6(1).octets());
                assert_eq!((reply[21], reply[54], v6_sum(&reply)), (64, 129, 0));
                assert_eq!(reply[58..], request[58..]);
            } else {
                assert_eq!(reply[26..34], [10, 9, 0, 1, 10, 1, 0, 2]);
                assert_eq!((reply[22], checksum(&reply[14..34])), (64, 0));
                assert_eq!((reply[34], checksum(&reply[34..])), (0, 0));
                assert_eq!(reply[38..], request[38..]);
            }
            assert_eq!(drops(&path.a), 0);
        }
    }
}

/// Whoever asks without end has as many answers as others would notice, and takes none of the errors.
#[test]
fn echo_replies_have_a_budget_of_their_own() {
    let mut path = path();
    path.a.tables.vrfs[0].v4 = Some([10, 1, 0, 1].into());
    path.a.state.errors = Budgets::of(1);
    for nth in 0..25 {
        let request = echo_request(nth % 2 == 0, 64);
        let (disposition, frame) = run(&mut path.a, &request);
        match nth < 10 {
            true => assert_eq!(disposition, Send(EDGE), "{nth}"),
            false => assert_eq!(
                disposition,
                Drop(DropReason::EchoLimited),
                "{nth}: {frame:x?}"
            ),
        }
    }
    assert_eq!(path.a.state.drops.get(DropReason::EchoLimited), 15);
    assert_eq!(drops(&path.a), 15);
    sent(&mut path.a, &packet(OWN_V4.into(), 17, &[0; 8]));
    path.a.state.errors.add(1);
    sent(&mut path.a, &echo_request(false, 64));
}

#[test]
fn an_echo_request_out_of_a_circuit_is_answered_by_the_far_edge() {
    let mut path = path();
    path.b.write(|draft| {
        draft.set_route(VrfIndex(0), [10, 2, 0, 1], 32, Target::Own);
    });
    let mut request = echo_request(false, 64);
    request[30..34].copy_from_slice(&[10, 2, 0, 1]);
    let request = right(request);
    let (_, first) = run(&mut path.a, &request);
    let second = path.transit.run(WEST, &[first]).remove(0).1;
    let (disposition, reply) = path.b.run(WEST, &[second]).remove(0);
    assert_eq!(disposition, Send(EDGE));
    assert_eq!(reply[26..34], [10, 2, 0, 1, 10, 1, 0, 2]);
    assert_eq!((reply[34], checksum(&reply[34..])), (0, 0));
    assert_eq!(drops(&path.b), 0);
}

#[test]
fn nothing_but_echo_requests_is_taken_at_an_own_address() {
    let mut path = path();
    path.a.tables.vrfs[0].v4 = Some([10, 1, 0, 1].into());
    // UDP: nobody is at the port.
    for (to, kind) in [(OWN_V4.into(), [3, 3]), (OWN_V6.into(), [1, 4])] {
        let answer = sent(&mut path.a, &packet(to, 17, &[0; 8]));
        let at = if to.is_ipv4() { 34 } else { 54 };
        assert_eq!(answer[at..at + 2], kind);
    }
    assert_eq!(path.a.state.drops.get(DropReason::OwnAddress), 2);
    let mut fragment = echo_request(false, 64);
    fragment[20] = 0x20;
    for silent in [
        // Another question, an answer, an error.
        packet(OWN_V4.into(), 1, &[13, 0, 0, 0, 0, 0, 0, 0]),
        packet(OWN_V4.into(), 1, &[0; 8]),
        packet(OWN_V4.into(), 1, &[3, 1, 0, 0, 0, 0, 0, 0]),
        packet(OWN_V6.into(), 58, &[129, 0, 0, 0, 0, 0, 0, 0]),
        right(fragment),
    ] {
        assert_eq!(run(&mut path.a, &silent).0, Drop(DropReason::OwnAddress));
    }
}

#[test]
fn nobody_sends_from_an_own_address_but_the_host_itself() {
    let mut path = path();
    let mut v4 = host_frame_v4(64, 7);
    v4[26..30].copy_from_slice(&OWN_V4);
    let v4 = right(v4);
    let mut v6 = host_frame_v6(64, 7);
    v6[22..38].copy_from_slice(&OWN_V6.octets());
    for frame in [&v4, &v6] {
        assert_eq!(run(&mut path.a, frame).0, Drop(DropReason::BadSource));
    }
    // By a TAP the host sends, which has the address.
    if let Some(port) = &mut path.a.tables.ports[0] {
        port.peer = Some(host_mac(1));
    }
    for frame in [&v4, &v6] {
        assert_eq!(run(&mut path.a, frame).0, Send(WEST));
    }
}

#[test]
fn sources_of_no_host_and_ends_of_subnets_go_nowhere() {
    let mut path = path();
    for source in ["fe80::7", "::ffff:10.1.0.2", "ff02::1", "::1", "::"] {
        let mut frame = host_frame_v6(64, 7);
        let source: Ipv6Addr = source.parse().unwrap();
        frame[22..38].copy_from_slice(&source.octets());
        assert_eq!(
            run(&mut path.a, &frame).0,
            Drop(DropReason::BadSource),
            "{source}"
        );
    }
    let mut frame = host_frame_v4(64, 7);
    frame[26..30].copy_from_slice(&[169, 254, 7, 7]);
    assert_eq!(
        run(&mut path.a, &right(frame)).0,
        Drop(DropReason::BadSource)
    );
    let mapped: Ipv6Addr = "::ffff:10.2.0.2".parse().unwrap();
    let nowhere = Drop(DropReason::BadDestination);
    assert_eq!(run(&mut path.a, &packet(mapped.into(), 17, &[])).0, nowhere);
    let end = [10, 9, 0, 255].into();
    assert_eq!(run(&mut path.a, &packet(end, 17, &[])).0, nowhere);
}

/// An error about a packet whose hops ran out, or that is too big.
fn error(node: &mut Node, v6: bool, too_big: bool) -> Vec<u8> {
    let size = if too_big { 1409 } else { 100 };
    let mut frame = if v6 {
        host_frame_v6(size, 7)
    } else {
        host_frame_v4(size, 7)
    };
    if !too_big {
        frame[if v6 { 21 } else { 22 }] = 1;
    }
    sent(node, &if v6 { frame } else { right(frame) })
}

#[test]
fn errors_come_from_the_subnet_that_they_go_to() {
    let mut path = path();
    let source = |text: &str, len| Source {
        address: text.parse().unwrap(),
        len,
    };
    if let Some(port) = &mut path.a.tables.ports[0] {
        port.sources = [
            source("10.9.0.1", 24),
            source("10.1.0.7", 24),
            source("2001:db8:9::1", 64),
            source("2001:db8:1::7", 64),
        ]
        .into();
    }
    assert_eq!(error(&mut path.a, false, false)[26..30], [10, 1, 0, 7]);
    let from: Ipv6Addr = "2001:db8:1::7".parse().unwrap();
    assert_eq!(error(&mut path.a, true, false)[22..38], from.octets());
    // Where the port has none the VRF's does.
    if let Some(port) = &mut path.a.tables.ports[0] {
        port.sources = Default::default();
    }
    path.a.tables.vrfs[0].v4 = Some([10, 1, 0, 1].into());
    assert_eq!(error(&mut path.a, false, false)[26..30], [10, 1, 0, 1]);
}

/// A kernel takes no IPv4 packet that comes from an address of its own.
#[test]
fn errors_to_the_host_itself_come_from_no_address_of_its_own() {
    let mut path = path();
    let ours = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
    path.a.tables.vrfs[0].v6 = Some(ours);
    if let Some(port) = &mut path.a.tables.ports[0] {
        port.peer = Some(host_mac(1));
    }
    assert_eq!(error(&mut path.a, false, true)[26..30], [10, 2, 0, 2]);
    assert_eq!(error(&mut path.a, true, true)[22..38], host_v6(2).octets());
    assert_eq!(error(&mut path.a, false, false)[26..30], [192, 0, 0, 8]);
    assert_eq!(error(&mut path.a, true, false)[22..38], ours.octets());
}

#[test]
fn no_error_is_about_an_error_however_deep_it_is() {
    let mut path = path();
    let far = host_v6(2).into();
    let options = |next| [next, 0, 1, 4, 0, 0, 0, 0];
    let error = [1, 0, 0, 0, 0, 0, 0, 0];
    let behind =
        |headers: &[&[u8]], message: [u8; 8]| [headers.concat(), message.to_vec()].concat();
    let ttl_1 = |next, payload: &[u8]| {
        let mut frame = packet(far, next, payload);
        frame[21] = 1;
        frame
    };
    let request = [128, 0, 0, 0, 0, 0, 0, 0];
    for (what, frame, answered) in [
        ("an error", ttl_1(58, &error), false),
        ("a redirect", ttl_1(58, &[137, 0, 0, 0, 0, 0, 0, 0]), false),
        ("a request", ttl_1(58, &request), true),
        (
            "behind options",
            ttl_1(60, &behind(&[&options(58)], error)),
            false,
        ),
        (
            "behind hop-by-hop",
            ttl_1(0, &behind(&[&options(58)], error)),
            false,
        ),
        (
            "behind routing",
            ttl_1(43, &behind(&[&options(58)], error)),
            false,
        ),
        (
            "behind an atomic fragment",
            ttl_1(44, &behind(&[&[58, 0, 0, 0, 0, 0, 0, 7]], error)),
            false,
        ),
        (
            "behind authentication",
            ttl_1(51, &behind(&[&[58, 1, 0, 0], &[0; 8]], error)),
            false,
        ),
        (
            "behind all of them",
            ttl_1(
                0,
                &behind(&[&options(60), &options(43), &options(58)], error),
            ),
            false,
        ),
        (
            "a later fragment",
            ttl_1(44, &behind(&[&[58, 0, 0, 8, 0, 0, 0, 7]], request)),
            false,
        ),
        (
            "cut in its options",
            ttl_1(60, &[58, 9, 0, 0, 0, 0, 0, 0]),
            false,
        ),
        (
            "a request behind options",
            ttl_1(60, &behind(&[&options(58)], request)),
            true,
        ),
        (
            "UDP behind options",
            ttl_1(60, &behind(&[&options(17)], [0; 8])),
            true,
        ),
        ("no next header", ttl_1(59, &[]), true),
    ] {
        let (disposition, _) = run(&mut path.a, &frame);
        let expired = Drop(DropReason::TtlExpired);
        let want = if answered { Send(EDGE) } else { expired };
        assert_eq!(disposition, want, "{what}");
    }
}

#[test]
fn a_group_without_a_member_that_is_up_has_a_reason_of_its_own() {
    let mut path = path();
    let member = |up| Member {
        target: Target::Circuit(CircuitIndex(0)),
        weight: 1,
        up,
    };
    path.a.write(|draft| {
        draft.tables.groups.set(0, Group::new(&[member(true)]));
        let group = Target::Group(GroupIndex(0));
        draft.set_route(VrfIndex(0), [10, 2, 0, 0], 16, group);
    });
    let frame = host_frame_v4(64, 7);
    assert_eq!(run(&mut path.a, &frame).0, Send(WEST));
    path.a.tables.groups.set(0, Group::new(&[member(false)]));
    path.a.tables.vrfs[0].v4 = Some([10, 1, 0, 1].into());
    let answer = sent(&mut path.a, &frame);
    assert_eq!(answer[34..36], [3, 0], "network unreachable");
    assert_eq!(path.a.state.drops.get(DropReason::GroupDown), 1);
    path.a.state.errors = Budgets::of(0);
    assert_eq!(run(&mut path.a, &frame).0, Drop(DropReason::GroupDown));
}

#[test]
fn checksums_follow_the_change_of_a_type() {
    let mut icmp = [8, 0, 0, 0, 1, 2, 3, 4];
    for word in 0..=u16::MAX {
        icmp[6..].copy_from_slice(&word.to_be_bytes());
        icmp[..4].copy_from_slice(&[8, 0, 0, 0]);
        let sum = checksum(&icmp);
        icmp[0] = 0;
        icmp[2..4].copy_from_slice(&ip::adjusted(sum, 0x0800, 0).to_be_bytes());
        assert_eq!(checksum(&icmp), 0);
    }
}
