//! An IP packet's headers in brief: what people and filters go by.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use zerocopy::FromBytes;

use super::{ethernet, ip};

/// Who sends what to whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowKey {
    /// From.
    pub source: IpAddr,
    /// To.
    pub destination: IpAddr,
    /// The protocol number; of IPv6 the first next header.
    pub protocol: u8,
    /// Source and destination port of TCP, UDP, DCCP, SCTP and UDP-Lite; of a fragment that has none, 0.
    pub ports: Option<(u16, u16)>,
    /// Octets of the packet, as its header says.
    pub length: u32,
    /// Time to live, or hop limit.
    pub ttl: u8,
}

impl FlowKey {
    /// Reads an IP packet, as far as it is there; `None` if its headers are not.
    pub fn of_packet(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => {
                let (header, _) = ip::V4Header::ref_from_prefix(packet).ok()?;
                let first = header.fragment.get() & (ip::FRAGMENT_MASK >> 1) == 0;
                let payload = packet.get(header.header_len()..).filter(|_| first);
                Some(Self {
                    source: Ipv4Addr::from(header.source).into(),
                    destination: Ipv4Addr::from(header.destination).into(),
                    protocol: header.protocol,
                    ports: payload.and_then(|payload| ports(header.protocol, payload)),
                    length: header.total_length.get().into(),
                    ttl: header.ttl,
                })
            }
            6 => {
                let (header, payload) = ip::V6Header::ref_from_prefix(packet).ok()?;
                Some(Self {
                    source: Ipv6Addr::from(header.source).into(),
                    destination: Ipv6Addr::from(header.destination).into(),
                    protocol: header.next_header,
                    ports: ports(header.next_header, payload),
                    length: ip::V6_LEN as u32 + u32::from(header.payload_length.get()),
                    ttl: header.hop_limit,
                })
            }
            _ => None,
        }
    }

    /// The same of an Ethernet frame that carries one.
    pub fn of_frame(frame: &[u8]) -> Option<Self> {
        let (header, packet) = ethernet::Header::ref_from_prefix(frame).ok()?;
        match header.ethertype.get() {
            ethernet::IPV4 | ethernet::IPV6 => Self::of_packet(packet),
            _ => None,
        }
    }
}

fn ports(protocol: u8, payload: &[u8]) -> Option<(u16, u16)> {
    let [a, b, c, d] = *payload.first_chunk()?;
    matches!(protocol, 6 | 17 | 33 | 132 | 136)
        .then(|| (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{host_frame_v4, host_frame_v6};

    #[test]
    fn reads_both_families_and_makes_nothing_up() {
        for frame in [host_frame_v4(100, 7), host_frame_v6(100, 7)] {
            let brief = FlowKey::of_frame(&frame).expect("a packet");
            assert_eq!(brief.length as usize, frame.len() - ethernet::LEN);
            assert_eq!((brief.protocol, brief.ports.is_some()), (17, true));
            assert_eq!(FlowKey::of_packet(&frame[ethernet::LEN..]), Some(brief));
            // Cut off anywhere, it says less and never something else.
            for len in 0..frame.len() {
                if let Some(less) = FlowKey::of_frame(&frame[..len]) {
                    assert_eq!((less.source, less.length), (brief.source, brief.length));
                    assert!(less.ports.is_none_or(|ports| Some(ports) == brief.ports));
                }
            }
        }
        let mut fragment = host_frame_v4(100, 7);
        fragment[ethernet::LEN + 6..ethernet::LEN + 8].copy_from_slice(&[0, 9]);
        let brief = FlowKey::of_frame(&fragment).expect("a packet");
        assert_eq!(brief.ports, None);
        let mut arp = host_frame_v4(100, 7);
        arp[12..14].copy_from_slice(&[8, 6]);
        assert_eq!(FlowKey::of_frame(&arp), None);
    }
}
