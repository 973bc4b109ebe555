//! Ethernet frames with UDP in them, and the Internet checksum (RFC 1071).

use std::net::IpAddr;

/// Bytes of an Ethernet header without tags.
pub const ETHERNET: usize = 14;
const UDP: usize = 8;

/// A UDP datagram in an IPv4 or IPv6 packet in an Ethernet frame. Both addresses must be of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpFrame {
    /// Ethernet destination.
    pub dst_mac: [u8; 6],
    /// Ethernet source.
    pub src_mac: [u8; 6],
    /// IP source.
    pub src: IpAddr,
    /// IP destination.
    pub dst: IpAddr,
    /// UDP source port.
    pub src_port: u16,
    /// UDP destination port.
    pub dst_port: u16,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Traffic class: DSCP and ECN.
    pub traffic_class: u8,
}

impl UdpFrame {
    /// Where the payload begins in the frame.
    pub fn payload_offset(&self) -> usize {
        ETHERNET + UDP + if self.is_v4() { 20 } else { 40 }
    }

    /// Writes a frame for a payload of `payload_len` bytes, of zeroes so far. [`UdpFrame::seal`] completes it.
    ///
    /// # Panics
    /// When the addresses are of two families or the payload is longer than UDP can carry.
    pub fn write(&self, payload_len: usize, frame: &mut Vec<u8>) {
        let udp_len =
            u16::try_from(UDP + payload_len).expect("a UDP payload is at most 65,527 bytes");
        frame.clear();
        frame.extend(self.dst_mac);
        frame.extend(self.src_mac);
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                frame.extend([0x08, 0x00, 0x45, self.traffic_class]);
                let total = udp_len
                    .checked_add(20)
                    .expect("an IPv4 packet is at most 65,535 bytes");
                frame.extend(total.to_be_bytes());
                // No identification, don't fragment, no checksum yet.
                frame.extend([0, 0, 0x40, 0, self.ttl, 17, 0, 0]);
                frame.extend(src.octets());
                frame.extend(dst.octets());
                let sum = checksum(0, &frame[ETHERNET..]);
                frame[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&sum.to_be_bytes());
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                frame.extend([0x86, 0xdd]);
                frame.extend((0x6000_0000 | u32::from(self.traffic_class) << 20).to_be_bytes());
                frame.extend(udp_len.to_be_bytes());
                frame.extend([17, self.ttl]);
                frame.extend(src.octets());
                frame.extend(dst.octets());
            }
            _ => panic!("{} and {} are of two families", self.src, self.dst),
        }
        frame.extend(self.src_port.to_be_bytes());
        frame.extend(self.dst_port.to_be_bytes());
        frame.extend(udp_len.to_be_bytes());
        frame.resize(self.payload_offset() + payload_len, 0);
    }

    /// Fills in the UDP checksum, after the payload has its bytes.
    pub fn seal(&self, frame: &mut [u8]) {
        let udp = self.payload_offset() - UDP;
        // The two addresses are the last of the IP header; with protocol and length they are the pseudo header.
        let addresses = udp - if self.is_v4() { 8 } else { 32 };
        frame[udp + 6..udp + 8].fill(0);
        let len = (frame.len() - udp) as u32;
        let sum = match checksum(17 + len, &frame[addresses..]) {
            // Zero on the wire would mean "no checksum" (RFC 768).
            0 => 0xffff,
            sum => sum,
        };
        frame[udp + 6..udp + 8].copy_from_slice(&sum.to_be_bytes());
    }

    fn is_v4(&self) -> bool {
        self.src.is_ipv4()
    }
}

/// The Internet checksum of `bytes`, beginning with a sum of 16-bit words in host order. 0 over data with a right one.
pub fn checksum(initial: u32, bytes: &[u8]) -> u16 {
    let (words, rest) = bytes.as_chunks::<2>();
    let mut sum = u64::from(initial);
    sum += words
        .iter()
        .map(|w| u64::from(u16::from_be_bytes(*w)))
        .sum::<u64>();
    sum += rest.first().map_or(0, |b| u64::from(*b) << 8);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_of_the_rfc_example() {
        // RFC 1071, 3: the sum is ddf2.
        assert_eq!(
            checksum(0, &[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]),
            !0xddf2
        );
        assert_eq!(checksum(0, &[0xab]), !0xab00);
    }

    #[test]
    fn a_known_ipv4_header() {
        // The often-quoted example header; its checksum is b861.
        let header = [
            0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8,
            0, 0xc7,
        ];
        assert_eq!(checksum(0, &header), 0);
    }

    #[test]
    fn sealed_frames_verify() {
        for (src, dst) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            let udp = UdpFrame {
                dst_mac: [2, 0, 0, 0, 0, 2],
                src_mac: [2, 0, 0, 0, 0, 1],
                src: src.parse().expect("address"),
                dst: dst.parse().expect("address"),
                src_port: 1000,
                dst_port: 2000,
                ttl: 64,
                traffic_class: 0xb8,
            };
            let mut frame = Vec::new();
            udp.write(33, &mut frame);
            let at = udp.payload_offset();
            frame[at..].fill(0x77);
            udp.seal(&mut frame);
            let addresses = if udp.is_v4() { at - 16 } else { at - 40 };
            assert_eq!(checksum(17 + 8 + 33, &frame[addresses..]), 0);
            assert_eq!(frame.len(), at + 33);
        }
    }
}
