//! IPv4 (RFC 791) and IPv6 (RFC 8200) headers, as far as a router reads and writes them.

use std::net::{IpAddr, Ipv6Addr};

use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Octets of an IPv4 header without options.
pub const V4_LEN: usize = 20;
/// Octets of the fixed IPv6 header.
pub const V6_LEN: usize = 40;
/// Nothing follows the header (RFC 8200, 4.7), in [`V6Header::next_header`].
pub const NO_NEXT_HEADER: u8 = 59;
/// Don't fragment, in [`V4Header::fragment`].
pub const DONT_FRAGMENT: u16 = 0x4000;
/// More fragments and the offset, in [`V4Header::fragment`].
pub const FRAGMENT_MASK: u16 = 0x3fff;

/// An IPv4 header without options.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
pub struct V4Header {
    /// 4 in the high nibble, header length in 32-bit words in the low one.
    pub version_ihl: u8,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Octets of the whole packet.
    pub total_length: U16,
    /// Identification of fragments.
    pub identification: U16,
    /// Flags and fragment offset.
    pub fragment: U16,
    /// Time to live.
    pub ttl: u8,
    /// Protocol of the payload.
    pub protocol: u8,
    /// RFC 1071 sum over the header.
    pub checksum: U16,
    /// From.
    pub source: [u8; 4],
    /// To.
    pub destination: [u8; 4],
}
const _: () = assert!(size_of::<V4Header>() == V4_LEN);

impl V4Header {
    /// Octets of the header with its options.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.version_ihl & 0x0f) * 4
    }

    /// Replaces one 16-bit word of the header in the checksum (RFC 1624, equation 3).
    #[inline]
    pub fn adjust_checksum(&mut self, old: u16, new: u16) {
        self.checksum = adjusted(self.checksum.get(), old, new).into();
    }

    /// Sets the traffic class and keeps the checksum true.
    #[inline]
    pub fn set_traffic_class(&mut self, traffic_class: u8) {
        let word = |tc| u16::from_be_bytes([self.version_ihl, tc]);
        let (old, new) = (word(self.traffic_class), word(traffic_class));
        self.traffic_class = traffic_class;
        self.adjust_checksum(old, new);
    }

    /// Takes one hop off the time to live, which is 1 or more, and keeps the checksum true.
    #[inline]
    pub fn decrement_ttl(&mut self) {
        self.ttl = self.ttl.wrapping_sub(1);
        // RFC 1624, equation 3, for a word that shrinks by 0x0100: the checksum grows by as much, with end-around
        // carry, and 0xffff is written as zero.
        let sum = u32::from(self.checksum.get()) + 0x0100;
        self.checksum = ((sum + u32::from(sum >= 0xffff)) as u16).into();
    }
}

/// The fixed IPv6 header.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
pub struct V6Header {
    /// Version (4 bits), traffic class (8), flow label (20).
    pub version_class_flow: U32,
    /// Octets after this header.
    pub payload_length: U16,
    /// Protocol of the next header.
    pub next_header: u8,
    /// Hops left.
    pub hop_limit: u8,
    /// From.
    pub source: [u8; 16],
    /// To.
    pub destination: [u8; 16],
}
const _: () = assert!(size_of::<V6Header>() == V6_LEN);

impl V6Header {
    /// DSCP and ECN.
    #[inline]
    pub fn traffic_class(&self) -> u8 {
        (self.version_class_flow.get() >> 20) as u8
    }

    /// Sets DSCP and ECN.
    #[inline]
    pub fn set_traffic_class(&mut self, traffic_class: u8) {
        let rest = self.version_class_flow.get() & !(0xff << 20);
        self.version_class_flow = (rest | u32::from(traffic_class) << 20).into();
    }
}

/// The Internet checksum (RFC 1071) of octets; over a header whose own checksum is right it is zero.
#[inline]
pub fn checksum(octets: &[u8]) -> u16 {
    !u16::from_be(fold(sum(octets)))
}

/// A [`sum`] in 16 bits, in ones' complement; zero only if it was.
#[inline]
pub(super) fn fold(sum: u64) -> u16 {
    // Carries: 64 to 33 bits, to 17 (twice, as the first may carry again), to 16.
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// A checksum after one 16-bit word under it was replaced (RFC 1624, equation 3).
#[inline]
pub fn adjusted(checksum: u16, old: u16, new: u16) -> u16 {
    let sum = u32::from(!checksum) + u32::from(!old) + u32::from(new);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

/// Whether the checksum of an IPv4 header is right: [`checksum`] of it is zero.
#[inline]
pub fn checksum_is_right(header: &[u8]) -> bool {
    // Nearly all headers have no options. The sum is never zero, as it has the version in it, and it is a multiple of
    // 0xffff just if its words add up to 0xffff in ones' complement.
    let sum = match <&[u8; V4_LEN]>::try_from(header) {
        Ok(header) => sum_of_20(header),
        Err(_) => sum(header),
    };
    sum % 0xffff == 0
}

/// A sum of another size with the same remainder by 0xffff as [`sum`], and like it zero only for zeroes.
#[inline]
fn sum_of_20(header: &[u8; V4_LEN]) -> u64 {
    let [a, b, c, d, e]: [[u8; 4]; 5] = zerocopy::transmute!(*header);
    let word = |high: [u8; 4], low| u64::from_ne_bytes(zerocopy::transmute!([high, low]));
    // With end-around carry, as 2^64 - 1 is a multiple of 0xffff.
    let (sum, carry) = word(a, b).overflowing_add(word(c, d));
    let (sum, again) = sum.overflowing_add(u64::from(u32::from_ne_bytes(e)) + u64::from(carry));
    sum + u64::from(again)
}

/// The sum of words in this machine's byte order, modulo 0xffff, and zero only for zeroes. In either order the checksum is
/// the same (RFC 1071, 2B).
#[inline]
pub(super) fn sum(octets: &[u8]) -> u64 {
    let (blocks, rest) = octets.as_chunks::<64>();
    let (words, rest) = rest.as_chunks::<4>();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    let words = words.iter().chain(std::iter::once(&last));
    let sum: u64 = words.map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    sum + blocks.iter().fold(0, |sum, block| {
        let [a, b, c, d, e, f, g, h]: [[u8; 8]; 8] = zerocopy::transmute!(*block);
        // One chain of carries, as 2^64 - 1 is a multiple of 0xffff; there is room for it.
        let mut carry = false;
        let mut total = 0u64;
        for word in [a, b, c, d, e, f, g, h] {
            (total, carry) = total.carrying_add(u64::from_ne_bytes(word), carry);
        }
        sum + (total & 0xffff_ffff) + (total >> 32) + u64::from(carry)
    })
}

/// Whether a router forwards packets to and from this address: not multicast, loopback, unspecified, broadcast, reserved,
/// link-local (RFC 1812, 5.3.7; RFC 3927, 7).
#[inline]
pub fn v4_is_routed(address: [u8; 4]) -> bool {
    (1..224).contains(&address[0]) && address[0] != 127 && address[..2] != [169, 254]
}

/// As [`v4_is_routed`], for IPv6; nor are IPv4 addresses in the form of IPv6 (RFC 4291, 2.5; RFC 6890).
#[inline]
pub fn v6_is_routed(address: [u8; 16]) -> bool {
    let [high, low] = mapped_v6(address);
    // Nearly all addresses are from 0:0:0:1:: on and before fe00::, as one comparison tells.
    high.wrapping_sub(1) < (0xfe00 << 48) - 1 || v6_is_routed_too(high, low)
}

#[cold]
fn v6_is_routed_too(high: u64, low: u64) -> bool {
    let (multicast, link_local) = (high >> 56 == 0xff, high >> 54 == 0xfe80 >> 6);
    let special = high == 0 && (low <= 1 || low >> 32 == 0xffff);
    !(multicast || link_local || special)
}

/// An address as 128 bits in two words, the first octets in the high bits of the first; IPv4 mapped into IPv6 (RFC 4291,
/// 2.5.5.2), so that tables need one key type. Words stay in registers, where octets would go through memory.
pub type Mapped = [u64; 2];

/// An address as tables keep it.
#[inline]
pub fn mapped(address: IpAddr) -> Mapped {
    match address {
        IpAddr::V4(v4) => mapped_v4(v4.octets()),
        IpAddr::V6(v6) => mapped_v6(v6.octets()),
    }
}

/// As [`mapped`], for an IPv4 address.
#[inline]
pub fn mapped_v4(address: [u8; 4]) -> Mapped {
    [0, 0xffff << 32 | u64::from(u32::from_be_bytes(address))]
}

/// As [`mapped`], for an IPv6 address.
#[inline]
pub fn mapped_v6(address: [u8; 16]) -> Mapped {
    let value = u128::from_be_bytes(address);
    [(value >> 64) as u64, value as u64]
}

/// The address of [`mapped`] words.
pub fn unmapped([high, low]: Mapped) -> IpAddr {
    Ipv6Addr::from(u128::from(high) << 64 | u128::from(low)).to_canonical()
}

/// Where the DSCP of a circuit's outer headers comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dscp {
    /// From the inner packet.
    Copy,
    /// A fixed one, 0..=63.
    Fixed(u8),
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    #[test]
    fn checksum_of_a_known_header() {
        // The example of RFC 1071's Wikipedia companion: a UDP packet's header, checksum b861.
        let header = [
            0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8,
            0, 0xc7,
        ];
        assert_eq!(checksum(&header), 0);
        let mut zeroed = header;
        zeroed[10..12].fill(0);
        assert_eq!(checksum(&zeroed), 0xb861);
    }

    #[test]
    fn a_hop_less_keeps_every_checksum_true() {
        for word in 0..=u16::MAX {
            let mut bytes = [0; 20];
            bytes[0] = 0x45;
            bytes[8] = 64;
            bytes[4..6].copy_from_slice(&word.to_be_bytes());
            let sum = checksum(&bytes).to_be_bytes();
            bytes[10..12].copy_from_slice(&sum);
            V4Header::mut_from_bytes(&mut bytes)
                .unwrap()
                .decrement_ttl();
            assert_eq!((bytes[8], checksum(&bytes)), (63, 0), "{word:#06x}");
        }
    }

    #[test]
    fn mapped_addresses_come_back() {
        for text in [
            "192.0.2.1",
            "255.255.255.255",
            "2001:db8::1",
            "fe80::1:2:3:4",
        ] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(unmapped(mapped(address)), address);
        }
        let v4: Ipv4Addr = "192.0.2.1".parse().unwrap();
        assert_eq!(mapped(v4.into()), mapped(v4.to_ipv6_mapped().into()));
    }

    #[test]
    fn addresses_that_are_not_forwarded() {
        for (address, routable) in [
            ("10.1.2.3", true),
            ("127.0.0.1", false),
            ("0.0.0.0", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("169.254.1.1", false),
            ("169.253.1.1", true),
            ("2001:db8::1", true),
            ("::", false),
            ("::1", false),
            ("fe80::1", false),
            ("febf::1", false),
            ("fec0::1", true),
            ("ff02::1", false),
            ("240.0.0.1", false),
            ("255.0.0.1", false),
            ("::ffff:10.1.2.3", false),
            ("::fffe:10.1.2.3", true),
            ("::10.1.2.3", true),
            ("::1:0:0:1", true),
            ("0:0:0:1::", true),
            ("fdff::1", true),
            ("fe00::1", true),
            ("fe7f::1", true),
            ("ff00::", false),
        ] {
            let got = match address.parse().unwrap() {
                IpAddr::V4(v4) => v4_is_routed(v4.octets()),
                IpAddr::V6(v6) => v6_is_routed(v6.octets()),
            };
            assert_eq!(got, routable, "{address}");
        }
    }

    proptest! {
        #[test]
        fn checksum_as_rfc_1071_writes_it(octets in proptest::collection::vec(any::<u8>(), 0..700)) {
            let mut sum = 0u32;
            for word in octets.chunks(2) {
                sum += u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0));
            }
            while sum >> 16 != 0 {
                sum = (sum & 0xffff) + (sum >> 16);
            }
            prop_assert_eq!(checksum(&octets), !(sum as u16));
        }

        #[test]
        fn a_right_checksum_is_known(mut header in proptest::collection::vec(any::<u8>(), 20..60), options in 0..11usize, spoilt: bool, bit in 0..160usize) {
            header.resize(20 + options * 4, 0);
            header[0] = 0x45 + options as u8;
            header[10..12].fill(0);
            let sum = checksum(&header).to_be_bytes();
            header[10..12].copy_from_slice(&sum);
            if spoilt {
                header[bit / 8] ^= 1 << (bit % 8);
            }
            prop_assert_eq!(checksum_is_right(&header), !spoilt);
            prop_assert_eq!(checksum(&header) == 0, !spoilt);
        }

        #[test]
        fn edits_keep_the_checksum_true(mut bytes in any::<[u8; 20]>(), tc: u8) {
            bytes[8] |= 1;
            bytes[10..12].fill(0);
            let sum = checksum(&bytes);
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
            let header = V4Header::mut_from_bytes(&mut bytes).unwrap();
            header.set_traffic_class(tc);
            header.decrement_ttl();
            prop_assert_eq!(header.traffic_class, tc);
            prop_assert_eq!(checksum(&bytes), 0);
        }

        #[test]
        fn v6_traffic_class(class_flow: u32, tc: u8) {
            let mut bytes = [0; 40];
            bytes[..4].copy_from_slice(&class_flow.to_be_bytes());
            let header = V6Header::mut_from_bytes(&mut bytes).unwrap();
            header.set_traffic_class(tc);
            prop_assert_eq!(header.traffic_class(), tc);
            prop_assert_eq!(header.version_class_flow.get() & 0xf00f_ffff, class_flow & 0xf00f_ffff);
        }
    }
}
