//! Transport checksums that a sender has left to its network device, and finishing them.
//!
//! Linux leaves the folded sum of the pseudo-header in the field of TCP and UDP, and zero in that of SCTP, where the device
//! says that it fills in the rest (`CHECKSUM_PARTIAL`). A veth, a tap or a macvlan says so and does nothing, as the other
//! end is the same kernel. Over a wire such a packet is damaged.
//!
//! [`finish`] does what the device would have done. It never changes a packet whose checksum is right: completed or not,
//! those agree in ones' complement, and it looks before it writes. What hosts put into a tunnel themselves is finished
//! inside it too: IP in IP, GRE, VXLAN and Geneve, up to [`TUNNELS`] of them. By local checksum offload the outer checksum
//! counts on that.

mod crc32c;
mod tunnel;

use zerocopy::FromBytes;

use super::{ip, udp};
use tunnel::{GRE, inner};

/// IP protocol numbers.
const TCP: u8 = 6;
const SCTP: u8 = 132;
/// IPv6 extension headers (RFC 8200, 4).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// IPv6 extension headers that are looked behind, as the steering program does.
pub const EXTENSION_HEADERS: usize = 4;
/// Tunnels that are looked into.
pub const TUNNELS: usize = 2;

/// What [`finish`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finish {
    /// Nothing: there was nothing to finish.
    Whole,
    /// A checksum was left to a device, and is right now.
    Finished,
    /// A checksum was, or may have been, left to a device, and cannot be finished here: it covers fragments, or is behind
    /// extension headers that nobody looks behind.
    Unfinishable,
}

/// What a packet's transport checksum is like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// There is none, or none that can be seen: a fragment, a protocol without one, UDP that goes without.
    None,
    /// Right.
    Right,
    /// Left to a device.
    Unfinished,
    /// Neither.
    Wrong,
}

/// What an IP packet carries.
struct Payload {
    protocol: u8,
    /// Where it begins and ends in the packet.
    start: usize,
    end: usize,
    /// The sum of what the pseudo-header has of the IP header: both addresses.
    addresses: u64,
    fragment: Fragment,
}

#[derive(Clone, Copy, PartialEq)]
enum Fragment {
    /// It is none.
    Whole,
    First,
    Later,
}

/// A checksum field.
enum Field {
    /// In ones' complement, over a pseudo-header and what lies from `start` to `end`.
    Sum {
        at: usize,
        start: usize,
        end: usize,
        /// What the field holds if the checksum is left to a device.
        pseudo: u16,
        protocol: u8,
    },
    /// CRC32c, over what lies from `start` to `end`.
    Crc { at: usize, start: usize, end: usize },
}

/// Finishes the transport checksum of an IP packet, and those within it, where they are left to a device.
#[inline]
pub fn finish(packet: &mut [u8]) -> Finish {
    finish_within(packet, TUNNELS)
}

fn finish_within(packet: &mut [u8], tunnels: usize) -> Finish {
    let payload = match Payload::of(packet) {
        Ok(payload) => payload,
        Err(Opaque::Extension) => return Finish::Unfinishable,
        Err(Opaque::Broken) => return Finish::Whole,
    };
    if payload.fragment != Fragment::Whole {
        return match unfinished_fragment(packet, &payload) {
            true => Finish::Unfinishable,
            false => Finish::Whole,
        };
    }
    // What is inside comes first: the sum of what is around it is over it.
    let data = &mut packet[payload.start..payload.end];
    let inside = inner(data, payload.protocol).and_then(|at| data.get_mut(at..));
    let inside = match (inside, tunnels.checked_sub(1)) {
        (Some(inside), Some(left)) => finish_within(inside, left),
        _ => Finish::Whole,
    };
    match Field::of(packet, &payload) {
        Some(field) if field.finish(packet) => Finish::Finished,
        _ => inside,
    }
}

/// What the transport checksum of an IP packet is like. It sums the whole packet up: for people who look.
pub fn state(packet: &[u8]) -> State {
    let Ok(payload) = Payload::of(packet) else {
        return State::None;
    };
    match Field::of(packet, &payload) {
        Some(field) if payload.fragment == Fragment::Whole => field.state(packet),
        _ => State::None,
    }
}

/// Why a packet's payload is not looked at.
enum Opaque {
    /// It is behind extension headers.
    Extension,
    /// Its headers contradict each other.
    Broken,
}

impl Payload {
    fn of(packet: &[u8]) -> Result<Self, Opaque> {
        match packet.first().map(|first| first >> 4) {
            Some(4) => Self::of_v4(packet).ok_or(Opaque::Broken),
            Some(6) => Self::of_v6(packet),
            _ => Err(Opaque::Broken),
        }
    }

    fn of_v4(packet: &[u8]) -> Option<Self> {
        let (header, _) = ip::V4Header::ref_from_prefix(packet).ok()?;
        let (start, end) = (header.header_len(), usize::from(header.total_length.get()));
        let sound = start >= ip::V4_LEN && start <= end && end <= packet.len();
        sound.then(|| Self {
            protocol: header.protocol,
            start,
            end,
            addresses: ip::sum(&packet[12..20]),
            fragment: match header.fragment.get() & ip::FRAGMENT_MASK {
                0 => Fragment::Whole,
                0x2000 => Fragment::First,
                _ => Fragment::Later,
            },
        })
    }

    fn of_v6(packet: &[u8]) -> Result<Self, Opaque> {
        let (header, _) = ip::V6Header::ref_from_prefix(packet).map_err(|_| Opaque::Broken)?;
        let end = ip::V6_LEN + usize::from(header.payload_length.get());
        let body = packet.get(..end).ok_or(Opaque::Broken)?;
        let mut payload = Self {
            protocol: header.next_header,
            start: ip::V6_LEN,
            end,
            addresses: ip::sum(&packet[8..40]),
            fragment: Fragment::Whole,
        };
        let mut left = EXTENSION_HEADERS;
        while let HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | FRAGMENT = payload.protocol {
            left = left.checked_sub(1).ok_or(Opaque::Extension)?;
            let extension = body.get(payload.start..).and_then(<[u8]>::first_chunk);
            let [next, length, high, low] = *extension.ok_or(Opaque::Broken)?;
            match payload.protocol {
                FRAGMENT => {
                    payload.fragment = match (u16::from_be_bytes([high, low]) & !7, low & 1) {
                        (0, 0) => Fragment::Whole,
                        (0, _) => Fragment::First,
                        _ => Fragment::Later,
                    };
                    payload.start += 8;
                }
                // The last of the addresses in it is in the sum, and not the header's (RFC 8200, 8.1).
                ROUTING if low != 0 => return Err(Opaque::Extension),
                _ => payload.start += (usize::from(length) + 1) * 8,
            }
            payload.protocol = next;
            if payload.fragment == Fragment::Later {
                break;
            }
        }
        match payload.start <= end {
            true => Ok(payload),
            false => Err(Opaque::Broken),
        }
    }

    /// The folded sum of the pseudo-header.
    fn pseudo(&self, length: usize) -> u16 {
        // Words of the network's byte order, as everything that is summed up.
        let words =
            u64::from(u16::from(self.protocol).to_be()) + u64::from((length as u32).to_be());
        ip::fold(self.addresses + words)
    }
}

/// Whether the first of several fragments begins a datagram whose checksum was left to a device.
fn unfinished_fragment(packet: &[u8], payload: &Payload) -> bool {
    let data = &packet[payload.start..payload.end];
    // Of UDP alone the first fragment says how long the whole is.
    if payload.fragment != Fragment::First || payload.protocol != udp::PROTOCOL {
        return false;
    }
    udp::Header::ref_from_prefix(data).is_ok_and(|(header, _)| {
        let pseudo = payload.pseudo(header.length.get().into());
        header.checksum.get().to_be() == pseudo
    })
}

impl Field {
    #[inline]
    fn of(packet: &[u8], payload: &Payload) -> Option<Self> {
        let (start, end) = (payload.start, payload.end);
        let data = &packet[start..end];
        let protocol = payload.protocol;
        match protocol {
            TCP if data.len() >= 20 => Some(Self::Sum {
                at: start + 16,
                start,
                end,
                pseudo: payload.pseudo(data.len()),
                protocol,
            }),
            udp::PROTOCOL => {
                let (header, _) = udp::Header::ref_from_prefix(data).ok()?;
                let length = usize::from(header.length.get());
                let sound = (udp::LEN..=data.len()).contains(&length);
                // Zero: the sender goes without.
                (sound && header.checksum.get() != 0).then(|| Self::Sum {
                    at: start + 6,
                    start,
                    end: start + length,
                    pseudo: payload.pseudo(length),
                    protocol,
                })
            }
            // It has no pseudo-header: what would be its sum is zero.
            GRE if data.len() >= 8 && data[0] & 0xc0 == 0x80 && data[1] & 7 == 0 => {
                Some(Self::Sum {
                    at: start + 4,
                    start,
                    end,
                    pseudo: 0,
                    protocol,
                })
            }
            SCTP if data.len() >= 12 => Some(Self::Crc {
                at: start + 8,
                start,
                end,
            }),
            _ => None,
        }
    }

    /// Completes the checksum if it was left to a device, and says whether it was.
    #[inline]
    fn finish(&self, packet: &mut [u8]) -> bool {
        match *self {
            Self::Sum { at, pseudo, .. } if value(packet, at) != pseudo => false,
            Self::Crc { at, .. } if packet[at..at + 4] != [0; 4] => false,
            _ => self.complete(packet),
        }
    }

    #[inline(never)]
    fn complete(&self, packet: &mut [u8]) -> bool {
        match *self {
            Self::Sum {
                at,
                start,
                end,
                pseudo,
                protocol,
            } => {
                // The pseudo-header's sum is in the field.
                let sum = ip::sum(&packet[start..end]);
                if is_right(sum, pseudo) {
                    return false;
                }
                let checksum = match !ip::fold(sum) {
                    // Zero would mean that there is none.
                    0 if protocol == udp::PROTOCOL => 0xffff,
                    checksum => checksum,
                };
                packet[at..at + 2].copy_from_slice(&checksum.to_ne_bytes());
                true
            }
            Self::Crc { at, start, end } => {
                let crc = crc32c::checksum(&packet[start..end]);
                packet[at..at + 4].copy_from_slice(&crc.to_le_bytes());
                crc != 0
            }
        }
    }

    fn state(&self, packet: &[u8]) -> State {
        let (right, unfinished) = match *self {
            Self::Sum {
                at,
                start,
                end,
                pseudo,
                ..
            } => {
                let sum = ip::sum(&packet[start..end]);
                (is_right(sum, pseudo), value(packet, at) == pseudo)
            }
            Self::Crc { at, start, end } => {
                let mut data = packet[start..end].to_vec();
                data[at - start..at - start + 4].fill(0);
                let crc = crc32c::checksum(&data).to_le_bytes();
                (packet[at..at + 4] == crc, packet[at..at + 4] == [0; 4])
            }
        };
        match (right, unfinished) {
            (true, _) => State::Right,
            (false, true) => State::Unfinished,
            (false, false) => State::Wrong,
        }
    }
}

/// Whether a sum over all, the checksum with it, is right.
fn is_right(sum: u64, pseudo: u16) -> bool {
    ip::fold(sum + u64::from(pseudo)) == 0xffff
}

/// A checksum field, in this machine's byte order.
fn value(packet: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([packet[at], packet[at + 1]])
}

#[cfg(test)]
mod tests;
