//! Tunnels that hosts make themselves: where another IP packet begins in the payload of one.

use super::super::{ethernet, udp};

/// IP protocol numbers.
pub(super) const IP_IN_IP: u8 = 4;
pub(super) const IPV6_IN_IP: u8 = 41;
pub(super) const GRE: u8 = 47;

/// UDP ports of VXLAN (RFC 7348, and what Linux took before) and Geneve (RFC 8926).
const VXLAN: [u16; 2] = [4789, 8472];
const GENEVE: u16 = 6081;

/// Transparent Ethernet bridging: the EtherType of an Ethernet frame in a tunnel.
const ETHERNET: u16 = 0x6558;

/// Where in the payload of an IP packet another IP packet begins, if it is a tunnel's.
pub(super) fn inner(payload: &[u8], protocol: u8) -> Option<usize> {
    let word = |at: usize| {
        let octets = payload.get(at..)?.first_chunk()?;
        Some(u16::from_be_bytes(*octets))
    };
    match protocol {
        IP_IN_IP | IPV6_IN_IP => Some(0),
        GRE => {
            let flags = word(0)?;
            // Checksum, key and sequence number have four bytes each (RFC 2784, RFC 2890); version 1 is PPTP's.
            let fields = (flags >> 15) + (flags >> 13 & 1) + (flags >> 12 & 1);
            let at = 4 + 4 * usize::from(fields);
            // Nor are the source routes of RFC 1701 looked behind.
            match (flags & 0x4007, word(2)?) {
                (0, ethernet::IPV4 | ethernet::IPV6) => Some(at),
                (0, ETHERNET) => in_ethernet(word, at),
                _ => None,
            }
        }
        udp::PROTOCOL => {
            let at = udp::LEN + 8;
            match word(2)? {
                // The flag says that there is a network identifier.
                port if VXLAN.contains(&port) && word(udp::LEN)? & 0x0800 != 0 => {
                    in_ethernet(word, at)
                }
                GENEVE => {
                    let options = usize::from(word(udp::LEN)? >> 8 & 0x3f) * 4;
                    match word(udp::LEN + 2)? {
                        ethernet::IPV4 | ethernet::IPV6 => Some(at + options),
                        ETHERNET => in_ethernet(word, at + options),
                        _ => None,
                    }
                }
                _ => None,
            }
        }
        _ => None,
    }
}

/// Where the IP packet begins that an untagged Ethernet frame at `at` carries.
fn in_ethernet(word: impl Fn(usize) -> Option<u16>, at: usize) -> Option<usize> {
    let ip = matches!(word(at + 12)?, ethernet::IPV4 | ethernet::IPV6);
    ip.then_some(at + ethernet::LEN)
}
