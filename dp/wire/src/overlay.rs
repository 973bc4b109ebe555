//! Twinseal's own two headers and what is derived from them: nonce inputs and additional authenticated data.

use twinseal_crypto::{AAD_LEN, TAG_LEN};
use zerocopy::byteorder::network_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The default UDP port, "TW".
pub const DEFAULT_PORT: u16 = 21591;
/// The first source port of lanes; lane n of a link sends from `SOURCE_PORT_BASE + (salt + n) % SOURCE_PORTS`.
pub const SOURCE_PORT_BASE: u16 = 49152;
/// How many source ports lanes share.
pub const SOURCE_PORTS: u16 = 16384;
/// Both headers and both tags.
pub const OVERHEAD: usize =
    size_of::<LinkHeader>() + size_of::<CircuitHeader>() + TAG_LEN + TAG_LEN;

/// First octet of a data packet: version 1 in the high nibble, type 1 in the low one.
pub const TYPE_DATA: u8 = 0x11;

/// Starts the UDP payload; the whole of it is the additional data of the link seal.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
pub struct LinkHeader {
    /// Version and type: [`TYPE_DATA`].
    pub kind: u8,
    /// The sender's lane, part of the nonce.
    pub lane: u8,
    /// Zero; a receiver drops anything else.
    pub flags: u8,
    /// Zero; a receiver drops anything else.
    pub reserved: u8,
    /// Names the receiver's key.
    pub receiver: U32,
    /// The lane's counter, part of the nonce.
    pub counter: U64,
}
const _: () = assert!(size_of::<LinkHeader>() == AAD_LEN);

impl LinkHeader {
    /// The header as it is sealed.
    pub fn aad(&self) -> [u8; AAD_LEN] {
        zerocopy::transmute!(*self)
    }
}

/// Starts the plaintext of the link seal.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
pub struct CircuitHeader {
    /// The circuit's name on this hop.
    pub label: U32,
    /// Hops left; a node that would forward at 1 drops.
    pub hop_limit: u8,
    /// DSCP in the high six bits, ECN in the low two.
    pub traffic_class: u8,
    /// The sealing edge's lane, part of the circuit nonce.
    pub lane: u8,
    /// [`PayloadType`] in the high nibble, the low four bits of the epoch in the low one.
    pub payload_epoch: u8,
    /// The lane's counter, part of the circuit nonce.
    pub counter: U64,
}
const _: () = assert!(size_of::<CircuitHeader>() == 16);

impl CircuitHeader {
    /// The additional data of the circuit seal: the circuit's end-to-end id, which is not on the wire, and the fields
    /// that no hop may change. Label, hop limit and ECN are left out.
    pub fn aad(&self, circuit_id: u64) -> [u8; AAD_LEN] {
        // The last three octets of the header's first word, less ECN; octet by octet it would be twice the work.
        let [first, _]: [U64; 2] = zerocopy::transmute!(*self);
        let kept = u64::from_be_bytes([0, 0, 0, 0, 0, super::ecn::DSCP_MASK, 0xff, 0xff]);
        let rest = (first.get() & kept) << 40;
        zerocopy::transmute!([U64::new(circuit_id), U64::new(rest)])
    }

    /// The low four bits of the epoch that sealed.
    pub fn epoch_low(&self) -> u8 {
        self.payload_epoch & 0x0f
    }

    /// What is inside, if it is a type that we know.
    pub fn payload(&self) -> Option<PayloadType> {
        PayloadType::from_nibble(self.payload_epoch >> 4)
    }
}

/// What a circuit carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum PayloadType {
    /// An IPv4 packet.
    Ipv4 = 1,
    /// An IPv6 packet.
    Ipv6 = 2,
    /// An Ethernet frame without its check sequence. Reserved: this version drops it.
    Ethernet = 3,
    /// Operations and maintenance of the circuit or link itself: [`oam`](super::oam).
    Oam = 4,
}

impl PayloadType {
    /// The type of this number.
    pub fn from_nibble(n: u8) -> Option<Self> {
        match n {
            1 => Some(Self::Ipv4),
            2 => Some(Self::Ipv6),
            3 => Some(Self::Ethernet),
            4 => Some(Self::Oam),
            _ => None,
        }
    }

    /// Type and epoch in one octet.
    pub fn with_epoch(self, epoch: u32) -> u8 {
        (self as u8) << 4 | (epoch & 0x0f) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_have_the_documented_bytes() {
        let link = LinkHeader {
            kind: TYPE_DATA,
            lane: 2,
            flags: 0,
            reserved: 0,
            receiver: 0x0102_0304.into(),
            counter: 0x1122_3344_5566_7788.into(),
        };
        assert_eq!(
            link.aad(),
            [
                0x11, 2, 0, 0, 1, 2, 3, 4, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88
            ]
        );
        let circuit = CircuitHeader {
            label: 0xa0b0_c0d0.into(),
            hop_limit: 64,
            traffic_class: 0b1011_1001,
            lane: 5,
            payload_epoch: PayloadType::Ipv6.with_epoch(0x13),
            counter: 9.into(),
        };
        assert_eq!(
            circuit.as_bytes(),
            [
                0xa0, 0xb0, 0xc0, 0xd0, 64, 0xb9, 5, 0x23, 0, 0, 0, 0, 0, 0, 0, 9
            ]
        );
        assert_eq!(
            circuit.aad(0x0a0b),
            [0, 0, 0, 0, 0, 0, 0x0a, 0x0b, 0xb8, 5, 0x23, 0, 0, 0, 0, 0]
        );
    }

    #[test]
    fn what_a_hop_may_change_is_outside_the_circuit_seal() {
        let header = CircuitHeader {
            label: 1.into(),
            hop_limit: 9,
            traffic_class: 0,
            lane: 0,
            payload_epoch: 0x10,
            counter: 0.into(),
        };
        let hop = CircuitHeader {
            label: 2.into(),
            hop_limit: 8,
            traffic_class: 3,
            ..header
        };
        assert_eq!(header.aad(7), hop.aad(7));
        assert_ne!(header.aad(7), header.aad(8));
        let dscp = CircuitHeader {
            traffic_class: 4,
            ..header
        };
        assert_ne!(header.aad(7), dscp.aad(7));
    }
}
