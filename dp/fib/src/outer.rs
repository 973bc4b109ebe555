//! The headers of a link in front of its link header: Ethernet, IP and UDP.

use std::net::IpAddr;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use twinseal_wire::ethernet::{self, Mac};
use twinseal_wire::{ip, udp};

/// TTL or hop limit of outer packets.
const TTL: u8 = 64;

/// A link's outer headers, made ready once; what differs a packet is filled in as they are written.
#[derive(Clone, Copy)]
pub struct OuterHeaders {
    headers: Headers,
    /// Whether the neighbour's hardware address is known; packets to it are dropped otherwise.
    pub resolved: bool,
}

#[derive(Clone, Copy)]
enum Headers {
    V4(V4Headers),
    V6(V6Headers),
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct V4Headers {
    ethernet: ethernet::Header,
    /// Its checksum is right for length and traffic class zero.
    ip: ip::V4Header,
    udp: udp::Header,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct V6Headers {
    ethernet: ethernet::Header,
    ip: ip::V6Header,
    udp: udp::Header,
}

impl OuterHeaders {
    /// Headers from `local` to `remote`, both of one family, to UDP port `remote_port`. `next_hop` is the neighbour's
    /// hardware address, `None` while it is not known.
    ///
    /// Returns `None` if the families differ.
    pub fn new(
        source: Mac,
        next_hop: Option<Mac>,
        local: IpAddr,
        remote: IpAddr,
        remote_port: u16,
    ) -> Option<Self> {
        let ethernet = |ethertype: u16| ethernet::Header {
            destination: next_hop.unwrap_or_default(),
            source,
            ethertype: ethertype.into(),
        };
        let udp = udp::Header {
            source: 0.into(),
            destination: remote_port.into(),
            length: 0.into(),
            checksum: 0.into(),
        };
        let headers = match (local, remote) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut ip = ip::V4Header {
                    version_ihl: 0x45,
                    traffic_class: 0,
                    total_length: 0.into(),
                    identification: 0.into(),
                    fragment: ip::DONT_FRAGMENT.into(),
                    ttl: TTL,
                    protocol: udp::PROTOCOL,
                    checksum: 0.into(),
                    source: source.octets(),
                    destination: destination.octets(),
                };
                ip.checksum = ip::checksum(ip.as_bytes()).into();
                Headers::V4(V4Headers {
                    ethernet: ethernet(ethernet::IPV4),
                    ip,
                    udp,
                })
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => Headers::V6(V6Headers {
                ethernet: ethernet(ethernet::IPV6),
                ip: ip::V6Header {
                    version_class_flow: (6 << 28).into(),
                    payload_length: 0.into(),
                    next_header: udp::PROTOCOL,
                    hop_limit: TTL,
                    source: source.octets(),
                    destination: destination.octets(),
                },
                udp,
            }),
            _ => return None,
        };
        Some(Self {
            headers,
            resolved: next_hop.is_some(),
        })
    }

    /// Octets of the headers: 42 over IPv4, 62 over IPv6.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "headers are never empty")]
    pub fn len(&self) -> usize {
        match self.headers {
            Headers::V4(_) => size_of::<V4Headers>(),
            Headers::V6(_) => size_of::<V6Headers>(),
        }
    }

    /// The headers as they are before lengths, traffic class, source port and what these change in the checksum.
    pub fn octets(&self) -> &[u8] {
        match &self.headers {
            Headers::V4(headers) => headers.as_bytes(),
            Headers::V6(headers) => headers.as_bytes(),
        }
    }

    /// Writes the headers of a UDP payload of `payload` octets to `room`, which has exactly [`OuterHeaders::len`].
    #[inline]
    pub fn write(&self, room: &mut [u8], payload: usize, source_port: u16, traffic_class: u8) {
        let udp_len = (payload + udp::LEN) as u16;
        match &self.headers {
            Headers::V4(headers) => {
                let Ok(room) = V4Headers::mut_from_bytes(room) else {
                    return;
                };
                // Copied whole and then filled in: put together field by field it is twice the work.
                *room = *headers;
                let total = udp_len + ip::V4_LEN as u16;
                room.ip.total_length = total.into();
                room.ip.traffic_class = traffic_class;
                // Length and traffic class were zero: what they add is one sum (RFC 1624, equation 3).
                let sum = u32::from(!headers.ip.checksum.get())
                    + u32::from(total)
                    + u32::from(traffic_class);
                let sum = (sum & 0xffff) + (sum >> 16);
                let sum = (sum & 0xffff) + (sum >> 16);
                room.ip.checksum = (!(sum as u16)).into();
                room.udp.source = source_port.into();
                room.udp.length = udp_len.into();
            }
            Headers::V6(headers) => {
                let mut headers = *headers;
                headers.ip.payload_length = udp_len.into();
                // The source port is the flow's entropy; the flow label says it again for those who look only there.
                headers.ip.version_class_flow =
                    (6 << 28 | u32::from(traffic_class) << 20 | u32::from(source_port)).into();
                headers.udp.source = source_port.into();
                headers.udp.length = udp_len.into();
                if let Ok(room) = V6Headers::mut_from_bytes(room) {
                    *room = headers;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn outer(local: &str, remote: &str) -> Option<OuterHeaders> {
        let [local, remote] = [local, remote].map(|text| text.parse().unwrap());
        OuterHeaders::new(
            Mac([2, 0, 0, 0, 0, 1]),
            Some(Mac([2, 0, 0, 0, 0, 2])),
            local,
            remote,
            21591,
        )
    }

    #[test]
    fn families_must_agree() {
        assert!(outer("192.0.2.1", "2001:db8::1").is_none());
        assert_eq!(outer("192.0.2.1", "192.0.2.2").unwrap().len(), 42);
        assert_eq!(outer("2001:db8::1", "2001:db8::2").unwrap().len(), 62);
    }

    proptest! {
        #[test]
        fn headers_agree_with_what_they_precede(payload in 0..9000usize, source_port: u16, traffic_class: u8) {
            let v4 = outer("192.0.2.1", "203.0.113.255").unwrap();
            let mut room = [0; 42];
            v4.write(&mut room, payload, source_port, traffic_class);
            prop_assert_eq!(ip::checksum(&room[14..34]), 0);
            let headers = V4Headers::read_from_bytes(&room).unwrap();
            prop_assert_eq!(usize::from(headers.ip.total_length.get()), payload + 28);
            prop_assert_eq!(usize::from(headers.udp.length.get()), payload + 8);
            prop_assert_eq!((headers.ip.traffic_class, headers.udp.source.get()), (traffic_class, source_port));
            prop_assert_eq!(&room[..12], &v4.octets()[..12]);

            let v6 = outer("2001:db8::1", "2001:db8::2").unwrap();
            let mut room = [0; 62];
            v6.write(&mut room, payload, source_port, traffic_class);
            let headers = V6Headers::read_from_bytes(&room).unwrap();
            prop_assert_eq!(usize::from(headers.ip.payload_length.get()), payload + 8);
            prop_assert_eq!((headers.ip.traffic_class(), headers.udp.source.get()), (traffic_class, source_port));
            prop_assert_eq!(headers.ip.version_class_flow.get() & 0xfffff, u32::from(source_port));
        }
    }
}
