//! ICMP errors to the senders of inner packets: RFC 792, RFC 1191, RFC 4443.
//!
//! Only packets that were authenticated, or that a host of the VRF sent, get here: nothing from the underlay that fails
//! a seal is ever answered.

use zerocopy::{FromBytes, IntoBytes};

use super::reason::{DropReason, Refused};
use super::{Packet, State};
use crate::tables::Tables;
use crate::wire::ip;

/// ICMP header and its second word.
const LEN: usize = 8;
/// Octets of an ICMPv4 error at most (RFC 1812, 4.3.2.3).
const MAX_V4: usize = 576;
/// Octets of an ICMPv6 error at most: the least MTU (RFC 4443, 2.4).
const MAX_V6: usize = 1280;
const PROTOCOL_V4: u8 = 1;
const PROTOCOL_V6: u8 = 58;
const TTL: u8 = 64;

/// Makes the packet into the error that its sender is to get, and says whether it did.
pub(super) fn answer(
    state: &mut State,
    tables: &Tables,
    packet: &mut Packet,
    refused: Refused,
) -> bool {
    if state.icmp_budget == 0 {
        return false;
    }
    let vrf = &tables.vrfs[packet.meta.vrf.0];
    let answered = match packet.frame.data().first().map(|octet| octet >> 4) {
        Some(4) => vrf
            .v4
            .is_some_and(|us| answer_v4(packet, us.octets(), refused).is_some()),
        Some(6) => vrf
            .v6
            .is_some_and(|us| answer_v6(packet, us.octets(), refused).is_some()),
        _ => false,
    };
    if answered {
        state.icmp_budget -= 1;
        packet.meta.tunnelled = false;
    }
    answered
}

/// `None` where there is nothing to answer; the packet is then as it was.
fn answer_v4(packet: &mut Packet, us: [u8; 4], refused: Refused) -> Option<()> {
    let (kind, code, mtu) = match refused.reason {
        DropReason::TtlExpired => (11, 0, 0),
        DropReason::NoRoute => (3, 0, 0),
        DropReason::PacketTooBig => (3, 4, refused.mtu),
        _ => return None,
    };
    let (header, _) = ip::V4Header::read_from_prefix(packet.frame.data()).ok()?;
    let first_fragment = header.fragment.get() & 0x1fff == 0;
    let payload = packet.frame.data().get(header.header_len()..)?;
    // An error is not answered by an error; ICMP messages that ask (echo and its like) are.
    let asks = header.protocol != PROTOCOL_V4 || matches!(payload.first(), Some(8 | 0 | 13 | 14));
    if !first_fragment || !asks {
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
        DropReason::NoRoute => (1, 0, 0),
        DropReason::PacketTooBig => (2, 0, u32::from(refused.mtu)),
        _ => return None,
    };
    let (header, payload) = ip::V6Header::read_from_prefix(packet.frame.data()).ok()?;
    // Errors have types below 128.
    if header.next_header == PROTOCOL_V6 && payload.first().is_none_or(|kind| *kind < 128) {
        return None;
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

/// Type, code, a zero checksum and the word after it.
fn write_icmp(icmp: &mut [u8], kind: u8, code: u8, word: u32) {
    icmp[..4].copy_from_slice(&[kind, code, 0, 0]);
    icmp[4..LEN].copy_from_slice(&word.to_be_bytes());
}
