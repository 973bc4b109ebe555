//! The pipeline on paper: every role, the bytes on the wire, and every reason to drop.

use proptest::prelude::*;
use twinseal_crypto::{DEFAULT_PROVIDER, Suite, provider};
use twinseal_fib::trie::Number;
use twinseal_fib::{InboundSa, LinkIndex, NextHop, NextHopIndex, PortIndex, Target, VrfIndex};
use twinseal_forward::Budgets;
use twinseal_forward::Disposition::{self, Drop, Send};
use twinseal_forward::fixture::*;
use twinseal_forward::reason::DropReason;
use twinseal_forward::told::Told;
use twinseal_wire::ethernet::Mac;
use twinseal_wire::ip::{self, Dscp, checksum};

fn path() -> Path {
    path_of(Suite::Aes256Gcm)
}

fn path_of(suite: Suite) -> Path {
    Path::new(provider(DEFAULT_PROVIDER).unwrap(), suite).unwrap()
}

/// One frame into a node; what comes out, and where.
fn step(node: &mut Node, port: PortIndex, frame: &[u8]) -> (Disposition, Vec<u8>) {
    node.run(port, &[frame.to_vec()]).remove(0)
}

/// A frame that is expected to be sent.
fn sent(node: &mut Node, port: PortIndex, frame: &[u8], out: PortIndex) -> Vec<u8> {
    let (disposition, frame) = step(node, port, frame);
    assert_eq!(disposition, Send(out));
    frame
}

/// A frame that is expected to be dropped, and the counter to say so.
fn dropped(node: &mut Node, port: PortIndex, frame: &[u8], reason: DropReason) {
    let before = node.state.drops.get(reason);
    assert_eq!(step(node, port, frame).0, Drop(reason));
    assert_eq!(
        node.state.drops.get(reason),
        before + 1,
        "{}",
        reason.name()
    );
}

fn first_hop(path: &mut Path, frame: &[u8]) -> Vec<u8> {
    sent(&mut path.a, EDGE, frame, WEST)
}

fn second_hop(path: &mut Path, frame: &[u8]) -> Vec<u8> {
    let frame = first_hop(path, frame);
    sent(&mut path.transit, WEST, &frame, EAST)
}

/// Offsets in a frame between nodes over IPv4.
const OUTER: usize = 14 + 20 + 8;
const LINK_COUNTER: usize = OUTER + 8;

#[test]
fn packets_cross_the_path_in_every_suite_and_family() {
    for suite in [Suite::Aes256Gcm, Suite::Aes128Gcm, Suite::ChaCha20Poly1305] {
        let mut path = path_of(suite);
        for size in [0, 64, 512, 1408] {
            for frame in [host_frame_v4(size, 7), host_frame_v6(size, 7)] {
                let outer = second_hop(&mut path, &frame);
                let last = sent(&mut path.b, WEST, &outer, EDGE);
                assert_eq!(last.len(), frame.len());
                assert_eq!(last[..6], host_mac(3).0);
                assert_eq!(last[6..12], mac(3, EDGE).0);
                // Two routers took a hop each; the rest is as it was sent.
                let mut want = frame[14..].to_vec();
                if want[0] >> 4 == 4 {
                    want[8] -= 2;
                    want[10..12].fill(0);
                    let sum = checksum(&want[..20]);
                    want[10..12].copy_from_slice(&sum.to_be_bytes());
                } else {
                    want[7] -= 2;
                }
                assert_eq!(last[14..], want);
            }
        }
    }
}

#[test]
fn what_is_on_the_wire_shows_nothing_of_the_packet() {
    let mut path = path();
    let frame = host_frame_v4(512, 7);
    let outer = first_hop(&mut path, &frame);
    assert_eq!(outer.len(), frame.len() + 92);
    let swapped = sent(&mut path.transit, WEST, &outer, EAST);
    for on_wire in [&outer, &swapped] {
        assert!(
            !on_wire
                .windows(8)
                .any(|window| frame[14..].windows(8).any(|w| w == window))
        );
        assert!(
            !on_wire
                .windows(8)
                .any(|window| window == CIRCUIT_ID.to_be_bytes())
        );
    }
    // No hop's ciphertext can be told to be another's.
    assert!(
        !swapped[OUTER + 16..]
            .windows(8)
            .any(|w| outer[OUTER + 16..].windows(8).any(|v| v == w))
    );
}

/// Fixed keys, counters and packet: any change of these bytes is a change of the protocol.
#[test]
fn golden_bytes() {
    let mut path = path();
    let outer = first_hop(&mut path, &host_frame_v4(64, 7));
    let golden = include_str!("golden/first_hop.hex");
    assert_eq!(hex(&outer), golden.trim(), "first hop");
    let swapped = sent(&mut path.transit, WEST, &outer, EAST);
    let golden = include_str!("golden/second_hop.hex");
    assert_eq!(hex(&swapped), golden.trim(), "second hop");
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

#[test]
fn outer_headers_are_whole() {
    let mut path = path();
    let mut frame = host_frame_v4(100, 7);
    set_class(&mut frame, 46 << 2 | 2);
    let outer = first_hop(&mut path, &frame);
    assert_eq!(outer[..6], mac(2, WEST).0);
    assert_eq!(checksum(&outer[14..34]), 0);
    assert_eq!(outer[15], 46 << 2 | 2, "DSCP and ECN are copied");
    assert_eq!(u16::from_be_bytes([outer[16], outer[17]]), 192);
    assert_eq!(u16::from_be_bytes([outer[38], outer[39]]), 172);
    assert!(u16::from_be_bytes([outer[34], outer[35]]) >= 49152);
    assert_eq!(u16::from_be_bytes([outer[36], outer[37]]), 21591);
    path.a.tables.circuits[0].dscp = Dscp::Fixed(10);
    assert_eq!(first_hop(&mut path, &frame)[15], 10 << 2 | 2, "DSCP is set");
}

fn set_class(frame: &mut [u8], class: u8) {
    frame[15] = class;
    fix_checksum(frame);
}

fn fix_checksum(frame: &mut [u8]) {
    frame[24..26].fill(0);
    let sum = checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

#[test]
fn congestion_marked_on_the_way_reaches_the_host() {
    let mut path = path();
    let mut frame = host_frame_v4(100, 7);
    set_class(&mut frame, 2);
    let mut outer = first_hop(&mut path, &frame);
    set_class(&mut outer, 3);
    let outer = sent(&mut path.transit, WEST, &outer, EAST);
    assert_eq!(outer[15] & 3, 3, "the mark goes on to the next hop");
    let last = sent(&mut path.b, WEST, &outer, EDGE);
    assert_eq!(last[15] & 3, 3);
    assert_eq!(checksum(&last[14..34]), 0);

    let mut outer = first_hop(&mut path, &host_frame_v4(100, 7));
    set_class(&mut outer, 3);
    dropped(&mut path.transit, WEST, &outer, DropReason::EcnViolation);
}

fn receiver_at_transit(node: &Node) -> InboundSa {
    let tables = &node.tables;
    let key = Number(RECEIVER_AT_TRANSIT);
    let leaf = tables.tries.lookup(&tables.receiver_root, key);
    tables.receiver(leaf).expect("the fixture's key").clone()
}

#[test]
fn replayed_packets_are_dropped_at_both_layers() {
    let mut path = path();
    let first = first_hop(&mut path, &host_frame_v4(64, 7));
    let second = sent(&mut path.transit, WEST, &first, EAST);
    dropped(&mut path.transit, WEST, &first, DropReason::LinkReplayed);
    sent(&mut path.b, WEST, &second, EDGE);
    dropped(&mut path.b, WEST, &second, DropReason::LinkReplayed);
    // A transit node that seals an old circuit packet anew gets past the link, not past the circuit.
    let provider = provider("ring").unwrap();
    let fresh = Path::new(provider, Suite::Aes256Gcm).unwrap();
    let receiver = receiver_at_transit(&fresh.transit);
    path.transit
        .write(|draft| draft.set_receiver(RECEIVER_AT_TRANSIT, receiver));
    let again = sent(&mut path.transit, WEST, &first, EAST);
    dropped(&mut path.b, WEST, &again, DropReason::CircuitReplayed);
    // Each is on the account of what it came by.
    let link = |node: &Node, reason| node.tables.links[0].traffic.drops(reason as usize);
    let circuit = |node: &Node, reason| node.tables.circuits[0].traffic.drops(reason as usize);
    assert_eq!(link(&path.b, DropReason::LinkReplayed), 1);
    assert_eq!(circuit(&path.b, DropReason::CircuitReplayed), 1);
    assert_eq!(circuit(&path.b, DropReason::LinkReplayed), 0);
    assert_eq!(link(&path.b, DropReason::CircuitReplayed), 0);
}

#[test]
fn packets_older_than_the_window_are_dropped() {
    let mut path = path();
    let old = first_hop(&mut path, &host_frame_v4(64, 7));
    for _ in 0..3000 {
        let next = first_hop(&mut path, &host_frame_v4(64, 7));
        sent(&mut path.transit, WEST, &next, EAST);
    }
    dropped(&mut path.transit, WEST, &old, DropReason::LinkTooOld);
}

#[test]
fn one_batch_with_a_packet_twice_passes_it_once() {
    let mut path = path();
    let outer = first_hop(&mut path, &host_frame_v4(64, 7));
    let results = path
        .transit
        .run(WEST, &[outer.clone(), outer.clone(), outer]);
    let dispositions: Vec<_> = results
        .iter()
        .map(|(disposition, _)| *disposition)
        .collect();
    let replayed = Drop(DropReason::LinkReplayed);
    assert_eq!(dispositions, [Send(EAST), replayed, replayed]);
}

#[test]
fn any_flipped_bit_is_noticed_and_moves_no_window() {
    let mut path = path();
    let outer = first_hop(&mut path, &host_frame_v4(64, 7));
    for bit in (OUTER + 1) * 8..outer.len() * 8 {
        let mut flipped = outer.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let reason = match bit / 8 - OUTER {
            2 | 3 => DropReason::BadLinkHeader,
            4..8 => DropReason::UnknownReceiver,
            _ => DropReason::LinkAuthentication,
        };
        dropped(&mut path.transit, WEST, &flipped, reason);
    }
    sent(&mut path.transit, WEST, &outer, EAST);
}

#[test]
fn wrong_keys_labels_and_epochs() {
    let provider = provider(DEFAULT_PROVIDER).unwrap();
    let suite = Suite::Aes256Gcm;
    let mut path = path();
    let first = first_hop(&mut path, &host_frame_v4(64, 7));

    // The right index, another secret.
    let mut other = self::path();
    let sa = std::sync::Arc::new(Seal::Circuit.open_sa(provider, suite).unwrap());
    let receiver = InboundSa {
        sa,
        ..receiver_at_transit(&other.transit)
    };
    other
        .transit
        .write(|draft| draft.set_receiver(RECEIVER_AT_TRANSIT, receiver));
    dropped(
        &mut other.transit,
        WEST,
        &first,
        DropReason::LinkAuthentication,
    );
    other
        .transit
        .write(|draft| draft.remove_receiver(RECEIVER_AT_TRANSIT));
    dropped(
        &mut other.transit,
        WEST,
        &first,
        DropReason::UnknownReceiver,
    );

    let mut other = self::path();
    other
        .transit
        .write(|draft| draft.remove_label(LinkIndex(0), LABEL_AT_TRANSIT));
    dropped(&mut other.transit, WEST, &first, DropReason::UnknownLabel);

    let second = sent(&mut path.transit, WEST, &first, EAST);
    let mut other = self::path();
    let wrong = std::sync::Arc::new(Seal::FirstLink.open_sa(provider, suite).unwrap());
    other.b.tables.circuits[0].receive[EPOCH as usize] = Some(wrong);
    dropped(
        &mut other.b,
        WEST,
        &second,
        DropReason::CircuitAuthentication,
    );

    let mut other = self::path();
    other.b.tables.circuits[0].receive[EPOCH as usize] = None;
    dropped(&mut other.b, WEST, &second, DropReason::UnknownEpoch);

    // Spliced into another circuit by a transit node: the id is sealed in.
    let mut other = self::path();
    other.b.tables.circuits[0].id += 1;
    dropped(
        &mut other.b,
        WEST,
        &second,
        DropReason::CircuitAuthentication,
    );
}

#[test]
fn hop_limits_run_out() {
    let mut path = path();
    path.a.tables.circuits[0].hop_limit = 1;
    let outer = first_hop(&mut path, &host_frame_v4(64, 7));
    dropped(&mut path.transit, WEST, &outer, DropReason::HopLimit);
}

#[test]
fn every_way_to_be_no_packet_of_ours() {
    let mut path = path();
    let whole = first_hop(&mut path, &host_frame_v4(64, 7));
    let mut cases: Vec<(Vec<u8>, DropReason)> = Vec::new();
    for len in 0..whole.len() {
        cases.push((whole[..len].to_vec(), DropReason::Truncated));
    }
    let mut edit = |reason, at: usize, octets: &[u8], fix: bool| {
        let mut frame = whole.clone();
        frame[at..at + octets.len()].copy_from_slice(octets);
        if fix {
            fix_checksum(&mut frame);
        }
        cases.push((frame, reason));
    };
    edit(DropReason::NotForUs, 0, &[2, 9], false);
    edit(DropReason::NotIp, 12, &[8, 6], false);
    edit(DropReason::BadIpHeader, 14, &[0x44], true);
    edit(DropReason::BadIpHeader, 14, &[0x55], true);
    edit(DropReason::BadIpHeader, 16, &[0, 19], true);
    edit(DropReason::BadChecksum, 24, &[1, 2], false);
    edit(DropReason::OuterFragment, 20, &[0x20, 0], true);
    edit(DropReason::OuterFragment, 20, &[0, 9], true);
    edit(DropReason::NotOverlay, 23, &[6], true);
    edit(DropReason::Truncated, 38, &[0, 71], false);
    edit(DropReason::Truncated, 38, &[0xff, 0xff], false);
    edit(DropReason::BadLinkHeader, OUTER, &[0x12], false);
    edit(
        DropReason::LinkAuthentication,
        LINK_COUNTER,
        &[0xff; 8],
        false,
    );
    for (frame, reason) in &cases {
        dropped(&mut path.transit, WEST, frame, *reason);
    }
    sent(&mut path.transit, WEST, &whole, EAST);
    dropped(
        &mut path.transit,
        PortIndex(9),
        &whole,
        DropReason::UnknownPort,
    );
}

#[test]
fn what_hosts_send_and_is_not_forwarded() {
    let mut path = path();
    path.a.tables.vrfs[0].v4 = None;
    let whole = host_frame_v4(64, 7);
    let mut edit = |reason, at: usize, octets: &[u8], fix: bool| {
        let mut frame = whole.clone();
        frame[at..at + octets.len()].copy_from_slice(octets);
        if fix {
            fix_checksum(&mut frame);
        }
        dropped(&mut path.a, EDGE, &frame, reason);
    };
    edit(DropReason::NotForUs, 0, &[0xff; 6], false);
    edit(DropReason::NotIp, 12, &[8, 6], false);
    edit(DropReason::BadIpHeader, 14, &[0x25], false);
    edit(DropReason::BadChecksum, 22, &[63], false);
    edit(DropReason::Truncated, 16, &[1, 0], true);
    edit(DropReason::BadSource, 26, &[127], true);
    edit(DropReason::BadSource, 26, &[224], true);
    edit(DropReason::BadDestination, 30, &[239], true);
    edit(DropReason::BadDestination, 30, &[255; 4], true);
    edit(DropReason::BadDestination, 30, &[169, 254], true);
    edit(DropReason::NoRoute, 30, &[11], true);
    edit(DropReason::TtlExpired, 22, &[1], true);
    edit(DropReason::TtlExpired, 22, &[0], true);
    path.a.write(|draft| {
        draft.set_route(VrfIndex(0), [10, 2, 0, 0], 16, Target::Blackhole);
    });
    dropped(&mut path.a, EDGE, &whole, DropReason::Blackhole);
}

/// Else the kernel has them, and it may forward.
#[test]
fn virtual_routers_and_priority_tags_are_ours() {
    let mut path = path();
    let plain = host_frame_v4(64, 7);
    let expected = first_hop(&mut path, &plain).len();
    let tag = |control: [u8; 2]| {
        let (macs, rest) = plain.split_at(12);
        [macs, &[0x81, 0], &control, rest].concat()
    };
    for priority in [[0, 0], [0xe0, 0], [0x10, 0]] {
        let out = sent(&mut path.a, EDGE, &tag(priority), WEST);
        assert_eq!(out.len(), expected, "{priority:?}");
    }
    dropped(&mut path.a, EDGE, &tag([0, 1]), DropReason::NotIp);
    dropped(&mut path.a, EDGE, &tag([0, 0])[..17], DropReason::NotIp);
    let mut twice = tag([0, 0]);
    twice[16..18].copy_from_slice(&[0x81, 0]);
    dropped(&mut path.a, EDGE, &twice, DropReason::NotIp);

    let virtual_mac = [0, 0, 0x5e, 0, 1, 7];
    let mut to_virtual = plain.clone();
    to_virtual[..6].copy_from_slice(&virtual_mac);
    dropped(&mut path.a, EDGE, &to_virtual, DropReason::NotForUs);
    let edge = path.a.tables.ports[usize::from(EDGE.0)].as_mut();
    edge.expect("the edge port").more_macs = vec![Mac(virtual_mac)];
    assert_eq!(sent(&mut path.a, EDGE, &to_virtual, WEST).len(), expected);
    // The underlay has priorities too.
    let out = first_hop(&mut path, &plain);
    let tagged = [&out[..12], &[0x81, 0, 0xa0, 0], &out[12..]].concat();
    sent(&mut path.transit, WEST, &tagged, EAST);
}

#[test]
fn jumbograms_are_no_packets_of_ours() {
    let mut path = path();
    let with = |next: u8, option: &[u8]| {
        let mut frame = host_frame_v6(100, 7);
        frame[18..21].copy_from_slice(&[0, 0, next]);
        frame[54..54 + option.len()].copy_from_slice(option);
        frame
    };
    // RFC 2675: a hop-by-hop option with the length. Without the option it makes no more sense.
    let jumbo = with(0, &[17, 0, 0xc2, 4, 0, 1, 0, 0]);
    for frame in [jumbo, with(17, &[]), with(0, &[])] {
        dropped(&mut path.a, EDGE, &frame, DropReason::BadIpHeader);
    }
    // A header with nothing behind it is one.
    first_hop(&mut path, &with(59, &[]));
}

#[test]
fn overlay_packets_have_no_extension_headers() {
    let mut path = path();
    let outer = first_hop(&mut path, &host_frame_v4(64, 7));
    let mut extended = outer[..12].to_vec();
    extended.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    extended.extend((outer.len() as u16 - 34 + 8).to_be_bytes());
    extended.extend([60, 64]);
    extended.extend(host_v6(1).octets());
    extended.extend(host_v6(2).octets());
    extended.extend([17, 0, 1, 4, 0, 0, 0, 0]);
    extended.extend(&outer[34..]);
    dropped(&mut path.transit, WEST, &extended, DropReason::NotOverlay);
    // Without it, it is ours.
    extended.drain(54..62);
    extended[18..21].copy_from_slice(&[0, 0, 17]);
    let length = (extended.len() as u16 - 54).to_be_bytes();
    extended[18..20].copy_from_slice(&length);
    sent(&mut path.transit, WEST, &extended, EAST);
}

#[test]
fn what_is_missing_on_the_way_out_has_a_name() {
    let frame = host_frame_v4(64, 7);
    let mut path = path();
    path.a.tables.circuits[0].transmit = None;
    dropped(&mut path.a, EDGE, &frame, DropReason::NoTransmitKey);

    let mut path = self::path();
    path.a.tables.links[0].transmit = None;
    dropped(&mut path.a, EDGE, &frame, DropReason::NoTransmitKey);

    let mut path = self::path();
    path.a.tables.links[0].outer.resolved = false;
    dropped(&mut path.a, EDGE, &frame, DropReason::LinkUnresolved);

    let mut path = self::path();
    let second = second_hop(&mut path, &frame);
    path.b.tables.neighbours = Default::default();
    let (disposition, held) = step(&mut path.b, WEST, &second);
    let Disposition::Wait(waiting) = disposition else {
        panic!("{disposition:?}");
    };
    let awaited = path.b.state.awaited(waiting).unwrap().neighbour;
    assert_eq!(
        (awaited.port, ip::unmapped(awaited.address)),
        (EDGE, "10.2.0.2".parse().unwrap())
    );
    assert_eq!((held[..6].to_vec(), held.len()), (vec![0; 6], frame.len()));
}

#[test]
fn neighbours_that_packets_go_to_are_marked() {
    let mut path = path();
    let used = |node: &Node| {
        let mut used = Vec::new();
        node.tables
            .take_used(|key| used.push((key.port, ip::unmapped(key.address))));
        used
    };
    let deliver = |path: &mut Path, flow| {
        let second = second_hop(path, &host_frame_v4(100, flow));
        sent(&mut path.b, WEST, &second, EDGE);
    };
    assert_eq!(used(&path.b), []);
    deliver(&mut path, 7);
    assert_eq!(used(&path.b), [(EDGE, "10.2.0.2".parse().unwrap())]);
    assert_eq!(used(&path.b), []);
    // A gateway.
    let gateway = "10.2.9.9".parse().unwrap();
    let via = NextHop {
        port: EDGE,
        address: Some(ip::mapped(gateway)),
        neighbour: Some(host_mac(9).into()),
    };
    path.b.tables.vias.set(0, via);
    deliver(&mut path, 8);
    assert_eq!(used(&path.b), [(EDGE, gateway)]);
}

#[test]
fn senders_hear_of_packets_that_are_too_big_or_ran_out_of_hops() {
    for (frame, v6) in [
        (host_frame_v4(1409, 7), false),
        (host_frame_v6(1409, 7), true),
    ] {
        let mut path = path();
        path.a.state.errors = Budgets::of(1);
        // The way back to the host.
        let via = NextHop {
            port: EDGE,
            address: None,
            neighbour: None,
        };
        path.a.tables.vias.set(0, via);
        path.a.write(|draft| {
            let host = Target::NextHop(NextHopIndex(0));
            draft.set_route(VrfIndex(0), [10, 1, 0, 0], 16, host);
            draft.set_route(VrfIndex(0), host_v6(1).octets(), 48, host);
        });
        let answer = sent(&mut path.a, EDGE, &frame, EDGE);
        assert_eq!(path.a.state.drops.get(DropReason::PacketTooBig), 1);
        assert_eq!(answer[..6], host_mac(1).0);
        if v6 {
            assert_eq!((answer[20], answer[54], answer[55]), (58, 2, 0));
            assert_eq!(answer[58..62], 1408u32.to_be_bytes());
            assert_eq!(answer.len() - 14, 1280);
            let mut sum = answer[22..54].to_vec();
            sum.extend((answer.len() as u32 - 54).to_be_bytes());
            sum.extend([0, 0, 0, 58]);
            sum.extend(&answer[54..]);
            assert_eq!(checksum(&sum), 0);
            assert_eq!(answer[62..69], frame[14..21], "the packet is quoted");
        } else {
            assert_eq!((answer[23], answer[34], answer[35]), (1, 3, 4));
            assert_eq!(answer[40..42], 1408u16.to_be_bytes());
            assert_eq!(checksum(&answer[14..34]), 0);
            assert_eq!(checksum(&answer[34..]), 0);
            assert!(answer.len() - 14 <= 576);
        }
        // The budget is spent.
        dropped(&mut path.a, EDGE, &frame, DropReason::PacketTooBig);
        let told = |path: &Path| Told::ALL.map(|told| path.a.state.told.get(told));
        assert_eq!(told(&path), [1, 1, 0, 0, 0]);
        // Answered or not, the circuit's.
        let circuit = &path.a.tables.circuits[0].traffic;
        assert_eq!(circuit.drops(DropReason::PacketTooBig as usize), 2);

        // Every other reason why its sender is not told.
        path.a.state.errors = Budgets::of(2);
        let mut error = frame.clone();
        error[if v6 { 20 } else { 23 }] = if v6 { 58 } else { 1 };
        error[if v6 { 54 } else { 34 }] = 3;
        if !v6 {
            fix_checksum(&mut error);
        }
        dropped(&mut path.a, EDGE, &error, DropReason::PacketTooBig);
        assert_eq!(told(&path), [1, 1, 0, 1, 0]);
        path.a.write(|draft| {
            draft.set_route(VrfIndex(0), [10, 1, 0, 0], 16, Target::Blackhole);
            draft.set_route(VrfIndex(0), host_v6(1).octets(), 48, Target::Blackhole);
        });
        dropped(&mut path.a, EDGE, &frame, DropReason::PacketTooBig);
        assert_eq!(told(&path), [1, 1, 0, 1, 1]);
        let vrf = &mut path.a.tables.vrfs[0];
        (vrf.v4, vrf.v6) = (None, None);
        dropped(&mut path.a, EDGE, &frame, DropReason::PacketTooBig);
        assert_eq!(told(&path), [1, 1, 1, 1, 1]);
        // None is due for what ICMP has no word for.
        let mut bad = frame.clone();
        bad[if v6 { 22 } else { 26 }] = if v6 { 0xff } else { 127 };
        if !v6 {
            fix_checksum(&mut bad);
        }
        dropped(&mut path.a, EDGE, &bad, DropReason::BadSource);
        assert_eq!(told(&path), [1, 1, 1, 1, 1]);
    }
}

#[test]
fn flows_keep_to_one_lane_and_spread_over_all() {
    let mut path = path();
    let mut ports = std::collections::BTreeSet::new();
    for flow in 0..64 {
        let outer = first_hop(&mut path, &host_frame_v4(64, flow));
        let again = first_hop(&mut path, &host_frame_v4(64, flow));
        assert_eq!(outer[34..36], again[34..36]);
        ports.insert([outer[34], outer[35]]);
    }
    assert_eq!(ports.len(), 4);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Nothing panics, everything is decided, nothing invented gets through, and no frame is lost.
    #[test]
    fn rubbish_is_dropped(
        rubbish in proptest::collection::vec(any::<u8>(), 0..200),
        header in 0usize..60,
        port in 0u8..3,
    ) {
        let mut path = path();
        let mut frame = match port {
            0 => host_frame_v4(100, 1),
            _ => first_hop(&mut path, &host_frame_v4(100, 1)),
        };
        frame.truncate(header);
        frame.extend(rubbish);
        for node in [&mut path.a, &mut path.transit, &mut path.b] {
            let free = node.memory.available();
            let (disposition, _) = step(node, PortIndex(port), &frame);
            if port == 0 {
                prop_assert!(disposition != Disposition::Pending);
            } else {
                prop_assert!(matches!(disposition, Drop(_)));
            }
            prop_assert_eq!(node.memory.available(), free);
        }
    }
}
