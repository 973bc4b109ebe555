//! Which flow an inner packet belongs to.

use zerocopy::FromBytes;

use twinseal_fib::hash;
use twinseal_wire::{ip, udp};

/// A hash of addresses, protocol and ports of an IP packet whose header was checked. Packets of a flow have the same.
#[inline]
pub(super) fn of(packet: &[u8]) -> u64 {
    match packet.first().map(|octet| octet >> 4) {
        Some(4) => of_v4(packet),
        _ => of_v6(packet),
    }
    .unwrap_or_default()
}

#[inline]
fn of_v4(packet: &[u8]) -> Option<u64> {
    let (header, _) = ip::V4Header::ref_from_prefix(packet).ok()?;
    // Of a fragmented packet, all fragments must go one way, and only the first has ports.
    let ports = if header.fragment.get() & ip::FRAGMENT_MASK == 0 {
        ports(header.protocol, packet.get(header.header_len()..)?)
    } else {
        0
    };
    let pair = zerocopy::transmute!([header.source, header.destination]);
    Some(hash::words(
        u64::from(header.protocol),
        &[pair, u64::from(ports)],
    ))
}

#[inline]
fn of_v6(packet: &[u8]) -> Option<u64> {
    let (header, payload) = ip::V6Header::ref_from_prefix(packet).ok()?;
    // Behind extension headers, fragments among them, ports are not looked for: all of a flow is treated alike.
    let ports = ports(header.next_header, payload);
    let [a, b, c, d]: [u64; 4] = zerocopy::transmute!([header.source, header.destination]);
    Some(hash::words(
        u64::from(header.next_header),
        &[a, b, c, d, u64::from(ports)],
    ))
}

/// Source and destination port of TCP (6), UDP (17), DCCP (33), SCTP (132) and UDP-Lite (136).
#[inline]
fn ports(protocol: u8, payload: &[u8]) -> u32 {
    match (protocol, payload.first_chunk()) {
        (6 | udp::PROTOCOL | 33 | 132 | 136, Some(ports)) => u32::from_be_bytes(*ports),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{host_frame_v4, host_frame_v6};
    use twinseal_wire::ethernet;

    #[test]
    fn flows_differ_by_ports_and_fragments_do_not() {
        for frame in [host_frame_v4, host_frame_v6] {
            let packet = |flow| frame(100, flow)[ethernet::LEN..].to_vec();
            assert_eq!(of(&packet(1)), of(&packet(1)));
            assert_ne!(of(&packet(1)), of(&packet(2)));
        }
        let fragment = |flow, offset: [u8; 2]| {
            let mut packet = host_frame_v4(100, flow)[ethernet::LEN..].to_vec();
            packet[6..8].copy_from_slice(&offset);
            of(&packet)
        };
        assert_eq!(fragment(1, [0x20, 0]), fragment(2, [0, 9]));
    }

    #[test]
    fn what_is_no_packet_has_a_flow_too() {
        for packet in [&[][..], &[0x45], &[0x60], &[0x4f; 20]] {
            of(packet);
        }
    }
}
