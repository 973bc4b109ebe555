use super::tunnel::{IP_IN_IP, IPV6_IN_IP};
use super::*;
use proptest::prelude::*;

/// An IP packet around a payload; its addresses end in `low`.
fn packet(v6: bool, protocol: u8, payload: &[u8], low: u16) -> Vec<u8> {
    let mut packet = if v6 {
        let mut header = [0; ip::V6_LEN];
        header[0] = 0x60;
        header[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
        header[6..8].copy_from_slice(&[protocol, 64]);
        header[8..12].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
        header[24..28].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
        header[22..24].copy_from_slice(&low.to_be_bytes());
        header[39] = 2;
        header.to_vec()
    } else {
        let total = (ip::V4_LEN + payload.len()) as u16;
        let mut header = [0; ip::V4_LEN];
        header[0] = 0x45;
        header[2..4].copy_from_slice(&total.to_be_bytes());
        header[8..10].copy_from_slice(&[64, protocol]);
        header[12..16].copy_from_slice(&[10, 1, 0, 2]);
        header[14..16].copy_from_slice(&low.to_be_bytes());
        header[16..20].copy_from_slice(&[10, 2, 0, 2]);
        let sum = ip::checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header.to_vec()
    };
    packet.extend(payload);
    packet
}

/// A sum as RFC 1071 writes it.
fn rfc_1071(octets: &[u8]) -> u16 {
    let mut sum = 0u32;
    for word in octets.chunks(2) {
        sum += u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0));
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The folded sum of the pseudo-header (RFC 9293, 3.1; RFC 8200, 8.1), in the host's order.
fn pseudo(packet: &[u8], protocol: u8, length: usize) -> u16 {
    let addresses = match packet[0] >> 4 {
        4 => 12..20,
        _ => 8..40,
    };
    let mut octets = packet[addresses].to_vec();
    octets.extend((length as u32).to_be_bytes());
    octets.extend([0, 0, 0, protocol]);
    rfc_1071(&octets)
}

/// Where the checksum is, behind a header that begins at `start`.
fn field(protocol: u8, start: usize) -> usize {
    match protocol {
        TCP => start + 16,
        _ => start + 6,
    }
}

/// The payload of a TCP or UDP packet without a checksum.
fn segment(protocol: u8, text: &[u8]) -> Vec<u8> {
    let mut segment = vec![0; if protocol == TCP { 20 } else { 8 }];
    segment[..4].copy_from_slice(&[0x9c, 0x40, 0, 80]);
    segment.extend(text);
    match protocol {
        TCP => segment[12] = 0x50,
        _ => {
            let length = segment.len() as u16;
            segment[4..6].copy_from_slice(&length.to_be_bytes());
        }
    }
    segment
}

/// As a sender leaves it whose device finishes checksums, and as the device does; the transport header begins at `start`.
fn both(mut packet: Vec<u8>, protocol: u8, start: usize) -> (Vec<u8>, Vec<u8>) {
    let at = field(protocol, start);
    let length = packet.len() - start;
    let pseudo = pseudo(&packet, protocol, length);
    packet[at..at + 2].copy_from_slice(&pseudo.to_be_bytes());
    let unfinished = packet.clone();
    let checksum = match !rfc_1071(&packet[start..]) {
        0 if protocol == udp::PROTOCOL => 0xffff,
        checksum => checksum,
    };
    packet[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    (unfinished, packet)
}

/// What becomes of an unfinished packet and of a finished one.
#[track_caller]
fn check(unfinished: Vec<u8>, finished: &[u8]) {
    let mut again = finished.to_vec();
    assert_eq!(finish(&mut again), Finish::Whole);
    assert_eq!(again, finished, "a finished packet was changed");
    assert_eq!(state(finished), State::Right);
    let mut packet = unfinished;
    let already = packet == finished;
    assert_eq!(finish(&mut packet) == Finish::Whole, already);
    assert_eq!(packet, finished);
}

#[test]
fn every_checksum_is_finished_and_no_finished_one_is_touched() {
    let mut alike = 0;
    for protocol in [TCP, udp::PROTOCOL] {
        for v6 in [false, true] {
            let start = if v6 { ip::V6_LEN } else { ip::V4_LEN };
            // All values of the checksum, by a word of the text; then all of the pseudo-header's sum, by an address.
            for n in 0..=u16::MAX {
                for (text, low) in [(n, 2), (7, n)] {
                    let segment = segment(protocol, &text.to_be_bytes());
                    let packet = packet(v6, protocol, &segment, low);
                    let (unfinished, finished) = both(packet, protocol, start);
                    alike += u32::from(unfinished == finished);
                    check(unfinished, &finished);
                }
            }
        }
    }
    // Finished packets that look unfinished were among them.
    assert!(alike > 0);
}

#[test]
fn a_tcp_checksum_of_all_ones_is_as_good_as_zero() {
    // No sender should write it; who does keeps it, also where the pseudo-header's sum is all ones too.
    let mut met = 0;
    for low in 0..=u16::MAX {
        let mut packet = packet(false, TCP, &segment(TCP, &[0, 0]), low);
        let at = ip::V4_LEN + 16;
        let text = packet.len() - 2;
        let rest = rfc_1071(&packet[ip::V4_LEN..]);
        let pseudo = pseudo(&packet, TCP, packet.len() - ip::V4_LEN);
        // A text with which the sum is zero.
        let sum = u32::from(rest) + u32::from(pseudo);
        let folded = (sum & 0xffff) + (sum >> 16);
        packet[text..].copy_from_slice(&(!(folded as u16)).to_be_bytes());
        packet[at..at + 2].fill(0xff);
        met += u32::from(pseudo == 0xffff);
        let before = packet.clone();
        assert_eq!(state(&packet), State::Right);
        assert_eq!((finish(&mut packet), packet), (Finish::Whole, before));
    }
    assert_eq!(met, 1);
}

#[test]
fn odd_lengths_options_and_trailers() {
    for protocol in [TCP, udp::PROTOCOL] {
        for len in 0..70u8 {
            let text: Vec<_> = (0..len).collect();
            let segment = segment(protocol, &text);
            let (unfinished, finished) = both(packet(true, protocol, &segment, 9), protocol, 40);
            // What a device puts behind short packets is not theirs.
            let trailer = |mut packet: Vec<u8>| {
                packet.extend([0xaa; 5]);
                packet
            };
            check(trailer(unfinished), &trailer(finished));
        }
        let plain = packet(false, protocol, &segment(protocol, b"text"), 9);
        let mut options = plain[..ip::V4_LEN].to_vec();
        options[0] = 0x47;
        options[3] += 8;
        options.extend([1; 8]);
        options.extend(&plain[ip::V4_LEN..]);
        let (unfinished, finished) = both(options, protocol, 28);
        check(unfinished, &finished);
    }
}

#[test]
fn udp_without_a_checksum_stays_without() {
    for v6 in [false, true] {
        let plain = packet(v6, udp::PROTOCOL, &segment(udp::PROTOCOL, b"text"), 9);
        let mut packet = plain.clone();
        assert_eq!(state(&packet), State::None);
        assert_eq!(finish(&mut packet), Finish::Whole);
        assert_eq!(packet, plain);
    }
}

/// A packet of IPv6 with these extension headers before its UDP.
fn extended(chain: &[(u8, [u8; 8])]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (n, (_, octets)) in chain.iter().enumerate() {
        let next = chain.get(n + 1).map_or(udp::PROTOCOL, |(kind, _)| *kind);
        payload.push(next);
        payload.extend(&octets[1..]);
    }
    payload.extend(segment(udp::PROTOCOL, b"text"));
    packet(true, chain[0].0, &payload, 9)
}

#[test]
fn extension_headers_are_looked_behind_up_to_a_bound() {
    let kinds = [
        HOP_BY_HOP,
        DESTINATION_OPTIONS,
        ROUTING,
        DESTINATION_OPTIONS,
        DESTINATION_OPTIONS,
    ];
    let chain = kinds.map(|kind| (kind, [0; 8]));
    for n in 1..=EXTENSION_HEADERS {
        let start = ip::V6_LEN + 8 * n;
        let (unfinished, finished) = both(extended(&chain[..n]), udp::PROTOCOL, start);
        check(unfinished, &finished);
    }
    let mut far = extended(&chain);
    assert_eq!(finish(&mut far), Finish::Unfinishable);
    assert_eq!(far, extended(&chain));
    let mut waypoint = extended(&[(ROUTING, [0, 0, 4, 1, 0, 0, 0, 0])]);
    assert_eq!(finish(&mut waypoint), Finish::Unfinishable);
    // One fragment that is the whole packet (RFC 6946).
    let atomic = extended(&[(FRAGMENT, [0; 8])]);
    let (unfinished, finished) = both(atomic, udp::PROTOCOL, 48);
    check(unfinished, &finished);
}

#[test]
fn fragments_are_left_alone_and_told() {
    let (unfinished, _) = both(
        packet(false, udp::PROTOCOL, &segment(udp::PROTOCOL, &[7; 64]), 9),
        udp::PROTOCOL,
        ip::V4_LEN,
    );
    for (flags, finish_is) in [
        (0x2000u16, Finish::Unfinishable),
        (0x2001, Finish::Whole),
        (0x0001, Finish::Whole),
    ] {
        let mut fragment = unfinished.clone();
        fragment[6..8].copy_from_slice(&flags.to_be_bytes());
        let before = fragment.clone();
        assert_eq!(state(&fragment), State::None);
        assert_eq!((finish(&mut fragment), fragment), (finish_is, before));
    }
    for (low, finish_is) in [(1, Finish::Unfinishable), (9, Finish::Whole)] {
        let whole = extended(&[(FRAGMENT, [0; 8])]);
        let (mut fragment, _) = both(whole, udp::PROTOCOL, 48);
        fragment[43] = low;
        let before = fragment.clone();
        assert_eq!((finish(&mut fragment), fragment), (finish_is, before));
    }
}

#[test]
fn sctp_gets_its_crc() {
    let mut segment = vec![0x9c, 0x40, 0, 80, 1, 2, 3, 4, 0, 0, 0, 0];
    segment.extend(b"chunks");
    let crc = crc32c::checksum(&segment).to_le_bytes();
    for v6 in [false, true] {
        let unfinished = packet(v6, SCTP, &segment, 9);
        let mut finished = unfinished.clone();
        let at = finished.len() - segment.len() + 8;
        finished[at..at + 4].copy_from_slice(&crc);
        assert_eq!(state(&unfinished), State::Unfinished);
        check(unfinished, &finished);
        finished[at] ^= 1;
        assert_eq!(state(&finished), State::Wrong);
    }
}

/// Headers of every tunnel that is looked into, up to the IP packet inside.
fn tunnels() -> Vec<(u8, Vec<u8>)> {
    let ethernet: Vec<u8> = [[2; 12].as_slice(), &[8, 0]].concat();
    let udp = |port: u16, header: &[u8]| {
        let mut datagram = segment(udp::PROTOCOL, header);
        datagram[2..4].copy_from_slice(&port.to_be_bytes());
        datagram
    };
    let vxlan = [[8, 0, 0, 0, 0, 0, 1, 0].as_slice(), &ethernet].concat();
    let geneve = [
        [1, 0, 0x65, 0x58, 0, 0, 1, 0].as_slice(),
        &[9; 4],
        &ethernet,
    ]
    .concat();
    vec![
        (IP_IN_IP, Vec::new()),
        (GRE, vec![0, 0, 8, 0]),
        (GRE, vec![0x30, 0, 8, 0, 1, 1, 1, 1, 2, 2, 2, 2]),
        (GRE, [[0, 0, 0x65, 0x58].as_slice(), &ethernet].concat()),
        (udp::PROTOCOL, udp(4789, &vxlan)),
        (udp::PROTOCOL, udp(8472, &vxlan)),
        (udp::PROTOCOL, udp(6081, &geneve)),
        (udp::PROTOCOL, udp(6081, &[0, 0, 8, 0, 0, 0, 1, 0])),
    ]
}

#[test]
fn what_hosts_tunnel_is_finished_inside() {
    let inside = packet(false, TCP, &segment(TCP, b"inside"), 9);
    let (unfinished, finished) = both(inside, TCP, ip::V4_LEN);
    for (protocol, header) in tunnels() {
        for v6 in [false, true] {
            let around = |inside: &[u8]| {
                let mut payload = [header.as_slice(), inside].concat();
                if protocol == udp::PROTOCOL {
                    let length = payload.len() as u16;
                    payload[4..6].copy_from_slice(&length.to_be_bytes());
                }
                packet(v6, protocol, &payload, 9)
            };
            let mut outer = around(&unfinished);
            assert_eq!(
                finish(&mut outer),
                Finish::Finished,
                "{protocol} {header:?}"
            );
            assert_eq!(outer, around(&finished), "{protocol} {header:?}");
            assert_eq!(finish(&mut outer), Finish::Whole);
            // Two levels, and no more.
            let twice = |inside: &[u8]| packet(v6, IP_IN_IP, &around(inside), 9);
            let mut deep = twice(&unfinished);
            assert_eq!(finish(&mut deep), Finish::Finished);
            assert_eq!(deep, twice(&finished));
            let mut deeper = packet(v6, IPV6_IN_IP, &twice(&unfinished), 9);
            assert_eq!(finish(&mut deeper), Finish::Whole);
        }
    }
}

#[test]
fn an_outer_checksum_counts_on_what_is_inside() {
    // Local checksum offload: the outer checksum is that of the packet with the inner one finished.
    let inside = packet(false, TCP, &segment(TCP, b"inside"), 9);
    let (unfinished, finished) = both(inside, TCP, ip::V4_LEN);
    let vxlan = [[8, 0, 0, 0, 0, 0, 1, 0].as_slice(), &[2; 12], &[8, 0]].concat();
    let around = |inside: &[u8]| {
        let mut datagram = segment(udp::PROTOCOL, &[vxlan.as_slice(), inside].concat());
        datagram[2..4].copy_from_slice(&4789u16.to_be_bytes());
        packet(false, udp::PROTOCOL, &datagram, 9)
    };
    let (outer_unfinished, right) = both(around(&finished), udp::PROTOCOL, ip::V4_LEN);
    let mut packet = around(&unfinished);
    packet[26..28].copy_from_slice(&right[26..28]);
    assert_eq!(state(&packet), State::Wrong);
    assert_eq!(finish(&mut packet), Finish::Finished);
    assert_eq!(packet, right);
    // And one whose outer checksum is left to the device.
    check(outer_unfinished, &right);
}

#[test]
fn gre_with_a_checksum_of_its_own() {
    let inside = packet(false, TCP, &segment(TCP, b"inside"), 9);
    let (unfinished, finished) = both(inside, TCP, ip::V4_LEN);
    let around = |inside: &[u8]| [[0x80, 0, 8, 0, 0, 0, 0, 0].as_slice(), inside].concat();
    let whole = around(&finished);
    let sum = !rfc_1071(&whole);
    let mut right = packet(false, GRE, &whole, 9);
    right[24..26].copy_from_slice(&sum.to_be_bytes());
    check(packet(false, GRE, &whole, 9), &right);
    let mut counted_on = packet(false, GRE, &around(&unfinished), 9);
    counted_on[24..26].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(finish(&mut counted_on), Finish::Finished);
    assert_eq!(counted_on, right);
}

proptest! {
    #[test]
    fn whatever_comes_is_survived_and_what_is_right_stays(
        mut packet in proptest::collection::vec(any::<u8>(), 0..200),
        shape in 0..6usize,
    ) {
        if let Some(first) = packet.first_mut() {
            *first = [0x45, 0x46, 0x60, 0x45, 0x60, 0x45][shape];
        }
        if shape > 1 && packet.len() > 40 {
            let len = packet.len() as u16;
            packet[2..4].copy_from_slice(&len.to_be_bytes());
            if packet[0] == 0x60 {
                packet[4..6].copy_from_slice(&(len - 40).to_be_bytes());
            } else {
                packet[6..8].fill(0);
            }
            let protocols = [TCP, udp::PROTOCOL, SCTP, GRE, IP_IN_IP, HOP_BY_HOP, FRAGMENT];
            let at = if packet[0] == 0x60 { 6 } else { 9 };
            packet[at] = protocols[usize::from(packet[at]) % protocols.len()];
        }
        let before = (packet.clone(), state(&packet));
        let done = finish(&mut packet);
        match before.1 {
            State::Right | State::Wrong if done == Finish::Whole => prop_assert_eq!(&packet, &before.0),
            State::Unfinished => prop_assert_eq!(state(&packet), State::Right),
            _ => {}
        }
        // All is done.
        let after = packet.clone();
        prop_assert_ne!(finish(&mut packet), Finish::Finished);
        prop_assert_eq!(packet, after);
    }
}
