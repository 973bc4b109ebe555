//! What this node sends of its own: ICMP errors to the senders of inner packets, and echo replies: RFC 792, RFC 1191,
//! RFC 4443.
//!
//! Only packets that were authenticated, or that a host of the VRF sent, get here: nothing from the underlay that fails
//! a seal is ever answered.

use std::net::{IpAddr, Ipv4Addr};

use zerocopy::{FromBytes, IntoBytes};

use super::reason::{DropReason, Refused};
use super::told::Told;
use super::{Arrival, Packet, State, flow};
use twinseal_fib::{Fib, Target, Vrf, own};
use twinseal_wire::ip;

/// ICMP header and its second word.
const LEN: usize = 8;
/// Octets of an ICMPv4 error at most (RFC 1812, 4.3.2.3).
const MAX_V4: usize = 576;
/// Octets of an ICMPv6 error at most: the least MTU (RFC 4443, 2.4).
const MAX_V6: usize = 1280;
const PROTOCOL_V4: u8 = 1;
const PROTOCOL_V6: u8 = 58;
/// The ICMPv6 message that is no error by its number, and one by RFC 4443, 2.4 (e.2).
const REDIRECT: u8 = 137;
/// Extension headers (RFC 7045).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;
const HIP: u8 = 139;
const SHIM6: u8 = 140;
const TTL: u8 = 64;
/// What comes from no address that anybody has (RFC 7600, section 4.8).
const DUMMY_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);

/// Makes the packet into the error that its sender is to get, or says why not: `None` if none is due.
pub(super) fn answer(
    state: &mut State,
    tables: &Fib,
    packet: &mut Packet,
    refused: Refused,
) -> Result<(), Option<Told>> {
    if !is_told(refused.reason) {
        return Err(None);
    }
    let place = tables.vrfs[packet.meta.from.vrf.0].errors;
    let place = place.ok_or(Told::NoSource)?;
    let left = state.errors.left(place, refused.reason);
    let left = left.ok_or(Told::RateLimited)?;
    let answered = match source(tables, packet, refused.reason) {
        Some(IpAddr::V4(us)) => Some(answer_v4(packet, us.octets(), refused)),
        Some(IpAddr::V6(us)) => Some(answer_v6(packet, us.octets(), refused)),
        None => None,
    };
    answered.ok_or(Told::NoSource)?.ok_or(Told::NotAnswerable)?;
    *left -= 1;
    packet.meta.from = Arrival::within(packet.meta.from.vrf);
    Ok(())
}

/// Whether senders hear of packets that are dropped for this reason.
fn is_told(reason: DropReason) -> bool {
    matches!(
        reason,
        DropReason::TtlExpired
            | DropReason::NoRoute
            | DropReason::GroupDown
            | DropReason::OwnAddress
            | DropReason::PacketTooBig
    )
}

/// What an error comes from: an address of ours at the port that it leaves by, of the subnet that it goes to if there is
/// one; else the VRF's.
fn source(tables: &Fib, packet: &Packet, reason: DropReason) -> Option<IpAddr> {
    let vrf = &tables.vrfs[packet.meta.from.vrf.0];
    let data = packet.frame.data();
    let (from, to) = addresses(data)?;
    let ours = match from {
        IpAddr::V4(_) => vrf.v4.map(IpAddr::V4),
        IpAddr::V6(_) => vrf.v6.map(IpAddr::V6),
    };
    let target = match target(tables, vrf, from) {
        Some(Target::Group(group)) => tables.groups[group.0].member(flow::of(data)),
        other => other,
    };
    let Some(Target::NextHop(via)) = target else {
        return ours;
    };
    let via = &tables.vias[via.0];
    let port = tables.port(via.port)?;
    let next_hop = via.address.map_or(from, ip::unmapped);
    match own::best(&port.sources, next_hop) {
        Some(own) => Some(own),
        None if port.peer.is_some() => to_host(to, reason, ours),
        None => ours,
    }
}

/// Whether a packet is for an address of ours.
pub(super) fn is_for_us(tables: &Fib, packet: &Packet) -> bool {
    let vrf = &tables.vrfs[packet.meta.from.vrf.0];
    addresses(packet.frame.data())
        .is_some_and(|(_, to)| target(tables, vrf, to) == Some(Target::Own))
}

/// From where and to where a packet is.
fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    Some(match packet.first()? >> 4 {
        4 => {
            let (header, _) = ip::V4Header::ref_from_prefix(packet).ok()?;
            (header.source.into(), header.destination.into())
        }
        _ => {
            let (header, _) = ip::V6Header::ref_from_prefix(packet).ok()?;
            (header.source.into(), header.destination.into())
        }
    })
}

/// Where a VRF's routes lead.
fn target(tables: &Fib, vrf: &Vrf, to: IpAddr) -> Option<Target> {
    Target::of(match to {
        IpAddr::V4(to) => tables.tries.lookup(&vrf.routes_v4, to.octets()),
        IpAddr::V6(to) => tables.tries.lookup(&vrf.routes_v6, to.octets()),
    })
}

/// What an error to the host itself comes from, by a TAP. All of ours are the host's, which throws away what comes from an
/// IPv4 address of its own.
fn to_host(to: IpAddr, reason: DropReason, ours: Option<IpAddr>) -> Option<IpAddr> {
    match (reason, to) {
        // As tunnels of the kernel do it: it is let in whatever `rp_filter` says, since the host's route back is this TAP.
        (DropReason::PacketTooBig, to) => Some(to),
        // Who looks for routers must not take one for what he looks for.
        (_, IpAddr::V4(_)) => Some(DUMMY_V4.into()),
        (_, IpAddr::V6(_)) => ours,
    }
}

/// Makes a request for an echo the reply to it, and says whether it was one: whole, with no options.
pub(super) fn echo(packet: &mut Packet) -> bool {
    let data = packet.frame.data_mut();
    let done = match data.first().map(|octet| octet >> 4) {
        Some(4) => echo_v4(data).is_some(),
        _ => echo_v6(data).is_some(),
    };
    if done {
        packet.meta.from = Arrival::within(packet.meta.from.vrf);
    }
    done
}

/// Whether the reply that a packet was made into may be sent now.
pub(super) fn may_reply(state: &mut State, tables: &Fib, packet: &Packet) -> bool {
    let place = tables.vrfs[packet.meta.from.vrf.0].errors;
    place.is_some_and(|place| state.errors.echo(place))
}

fn echo_v4(packet: &mut [u8]) -> Option<()> {
    let (header, icmp) = ip::V4Header::mut_from_prefix(packet).ok()?;
    let icmp = icmp.first_chunk_mut()?;
    let whole = header.version_ihl == 0x45 && header.fragment.get() & ip::FRAGMENT_MASK == 0;
    if !whole || header.protocol != PROTOCOL_V4 {
        return None;
    }
    reply(icmp, [8, 0], [0, 0])?;
    std::mem::swap(&mut header.source, &mut header.destination);
    header.ttl = TTL;
    header.checksum = 0.into();
    header.checksum = ip::checksum(header.as_bytes()).into();
    Some(())
}

fn echo_v6(packet: &mut [u8]) -> Option<()> {
    let (header, icmp) = ip::V6Header::mut_from_prefix(packet).ok()?;
    let icmp = icmp.first_chunk_mut()?;
    if header.next_header != PROTOCOL_V6 {
        return None;
    }
    reply(icmp, [128, 0], [129, 0])?;
    std::mem::swap(&mut header.source, &mut header.destination);
    header.hop_limit = TTL;
    Some(())
}

/// Turns one type and code into another, and keeps the checksum true; under it the addresses may change places.
fn reply(icmp: &mut [u8; LEN], from: [u8; 2], to: [u8; 2]) -> Option<()> {
    let [a, b, c, d, ..] = icmp;
    if [*a, *b] != from {
        return None;
    }
    let [old, new] = [from, to].map(u16::from_be_bytes);
    let sum = ip::adjusted(u16::from_be_bytes([*c, *d]), old, new);
    [*a, *b] = to;
    [*c, *d] = sum.to_be_bytes();
    Some(())
}

/// `None` where there is nothing to answer; the packet is then as it was.
fn answer_v4(packet: &mut Packet, us: [u8; 4], refused: Refused) -> Option<()> {
    let (kind, code, mtu) = match refused.reason {
        DropReason::TtlExpired => (11, 0, 0),
        DropReason::NoRoute | DropReason::GroupDown => (3, 0, 0),
        DropReason::OwnAddress => (3, 3, 0),
        DropReason::PacketTooBig => (3, 4, refused.mtu),
        _ => return None,
    };
    let (header, _) = ip::V4Header::read_from_prefix(packet.frame.data()).ok()?;
    let first_fragment = header.fragment.get() & 0x1fff == 0;
    let payload = packet.frame.data().get(header.header_len()..)?;
    // An error is not answered by an error; ICMP messages that ask (echo and its like) are.
    let answerable = match header.protocol {
        // There is no port that could be unreachable.
        PROTOCOL_V4 if refused.reason == DropReason::OwnAddress => false,
        PROTOCOL_V4 => matches!(payload.first(), Some(8 | 0 | 13 | 14)),
        _ => true,
    };
    if !first_fragment || !answerable {
        return None;
    }
    let quoted = packet.frame.len().min(MAX_V4 - ip::V4_LEN - LEN);
    if !packet.frame.prepend(ip::V4_LEN + LEN) {
        return None;
    }
    packet.frame.truncate(ip::V4_LEN + LEN + quoted);
    let total = packet.frame.len();
    let (ip, icmp) = packet.frame.data_mut().split_at_mut(ip::V4_LEN);
    let mut reply = ip::V4Header {
        version_ihl: 0x45,
        // Internetwork control (RFC 1812, 4.3.2.5).
        traffic_class: 0xc0,
        total_length: (total as u16).into(),
        identification: 0.into(),
        fragment: ip::DONT_FRAGMENT.into(),
        ttl: TTL,
        protocol: PROTOCOL_V4,
        checksum: 0.into(),
        source: us,
        destination: header.source,
    };
    reply.checksum = ip::checksum(reply.as_bytes()).into();
    ip.copy_from_slice(reply.as_bytes());
    write_icmp(icmp, kind, code, u32::from(mtu));
    let sum = ip::checksum(icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    Some(())
}

/// As [`answer_v4`].
fn answer_v6(packet: &mut Packet, us: [u8; 16], refused: Refused) -> Option<()> {
    let (kind, code, mtu) = match refused.reason {
        DropReason::TtlExpired => (3, 0, 0),
        DropReason::NoRoute | DropReason::GroupDown => (1, 0, 0),
        DropReason::OwnAddress => (1, 4, 0),
        DropReason::PacketTooBig => (2, 0, u32::from(refused.mtu)),
        _ => return None,
    };
    let (header, payload) = ip::V6Header::read_from_prefix(packet.frame.data()).ok()?;
    match message_v6(header.next_header, payload) {
        Message::Error => return None,
        // There is no port that could be unreachable.
        Message::Asks if refused.reason == DropReason::OwnAddress => return None,
        Message::Asks | Message::None => {}
    }
    let quoted = packet.frame.len().min(MAX_V6 - ip::V6_LEN - LEN);
    if !packet.frame.prepend(ip::V6_LEN + LEN) {
        return None;
    }
    packet.frame.truncate(ip::V6_LEN + LEN + quoted);
    let (ip, icmp) = packet.frame.data_mut().split_at_mut(ip::V6_LEN);
    let reply = ip::V6Header {
        version_class_flow: (6 << 28).into(),
        payload_length: (icmp.len() as u16).into(),
        next_header: PROTOCOL_V6,
        hop_limit: TTL,
        source: us,
        destination: header.source,
    };
    ip.copy_from_slice(reply.as_bytes());
    write_icmp(icmp, kind, code, mtu);
    // The checksum covers a pseudo-header too: addresses, length and protocol (RFC 8200, 8.1).
    let mut pseudo = [0; 40];
    pseudo[..16].copy_from_slice(&us);
    pseudo[16..32].copy_from_slice(&header.source);
    pseudo[32..36].copy_from_slice(&(icmp.len() as u32).to_be_bytes());
    pseudo[39] = PROTOCOL_V6;
    let sum = u32::from(!ip::checksum(&pseudo)) + u32::from(!ip::checksum(icmp));
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    Some(())
}

/// What is asked of a packet that may be a control message itself.
enum Message {
    /// It is none.
    None,
    /// It is one that asks or answers, and may have an error as its answer.
    Asks,
    /// It is an error or a redirect, which have none (RFC 4443, 2.4 e); or it can't be told.
    Error,
}

/// Walks over extension headers (RFC 8200, section 4).
fn message_v6(mut next: u8, mut rest: &[u8]) -> Message {
    loop {
        let len = match (next, rest) {
            // Errors have types below 128.
            (PROTOCOL_V6, [0..128 | REDIRECT, ..] | []) => return Message::Error,
            (PROTOCOL_V6, _) => return Message::Asks,
            // Of a fragment that is not the first nothing more is known.
            (FRAGMENT, [_, _, 0, 0..8, ..]) => 8,
            (AUTHENTICATION, [_, len, ..]) => (usize::from(*len) + 2) * 4,
            (HOP_BY_HOP | ROUTING | OPTIONS | MOBILITY | HIP | SHIM6, [_, len, ..]) => {
                (usize::from(*len) + 1) * 8
            }
            (
                FRAGMENT | AUTHENTICATION | HOP_BY_HOP | ROUTING | OPTIONS | MOBILITY | HIP | SHIM6,
                _,
            ) => return Message::Error,
            _ => return Message::None,
        };
        let Some(behind) = rest.get(len..) else {
            return Message::Error;
        };
        (next, rest) = (rest[0], behind);
    }
}

/// Type, code, a zero checksum and the word after it.
fn write_icmp(icmp: &mut [u8], kind: u8, code: u8, word: u32) {
    icmp[..4].copy_from_slice(&[kind, code, 0, 0]);
    icmp[4..LEN].copy_from_slice(&word.to_be_bytes());
}

#[cfg(test)]
#[path = "icmp_tests.rs"]
mod tests;
