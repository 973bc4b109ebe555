//! UDP, RFC 768.

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// IP protocol number.
pub const PROTOCOL: u8 = 17;
/// Octets of the header.
pub const LEN: usize = 8;

/// The header.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
pub struct Header {
    /// From.
    pub source: U16,
    /// To.
    pub destination: U16,
    /// Octets of header and payload.
    pub length: U16,
    /// Zero: the seals protect the payload better (RFC 6935 allows it for tunnels over IPv6 too).
    pub checksum: U16,
}
const _: () = assert!(size_of::<Header>() == LEN);
