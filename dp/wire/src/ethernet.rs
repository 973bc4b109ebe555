//! Ethernet II.

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;
/// Octets of the header.
pub const LEN: usize = 14;
/// The ethertype of an 802.1Q tag.
pub const VLAN: u16 = 0x8100;
/// Length of such a tag, the ethertype of what follows included.
pub const TAG_LEN: usize = 4;

/// A hardware address.
#[derive(
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Default,
)]
#[repr(transparent)]
pub struct Mac(pub [u8; 6]);

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl std::fmt::Debug for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Mac {
    type Err = ParseMacError;

    fn from_str(s: &str) -> Result<Self, ParseMacError> {
        let mut mac = [0; 6];
        let mut parts = s.split(':');
        for octet in &mut mac {
            let part = parts.next().ok_or(ParseMacError)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(ParseMacError);
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| ParseMacError)?;
        }
        match parts.next() {
            None => Ok(Self(mac)),
            Some(_) => Err(ParseMacError),
        }
    }
}

/// The text is not six octets in hexadecimal with colons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a MAC address: write six octets like 02:00:00:00:00:01")]
pub struct ParseMacError;

/// The header of a frame without VLAN tag.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
pub struct Header {
    /// To.
    pub destination: Mac,
    /// From.
    pub source: Mac,
    /// EtherType.
    pub ethertype: U16,
}
const _: () = assert!(size_of::<Header>() == LEN);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_text() {
        let mac: Mac = "02:00:5e:10:aB:ff".parse().unwrap();
        assert_eq!(mac.0, [2, 0, 0x5e, 0x10, 0xab, 0xff]);
        assert_eq!(mac.to_string(), "02:00:5e:10:ab:ff");
        for bad in [
            "",
            "02",
            "02:00:5e:10:ab",
            "02:00:5e:10:ab:ff:00",
            "2:0:5e:10:ab:ff",
            "zz:00:5e:10:ab:ff",
            "+2:00:5e:10:ab:ff",
        ] {
            assert_eq!(bad.parse::<Mac>(), Err(ParseMacError), "{bad}");
        }
    }
}
