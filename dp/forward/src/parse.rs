//! The first stage: Ethernet, and on the underlay also IP and UDP.

use std::ops::Range;

use zerocopy::FromBytes;

use super::reason::DropReason;
use super::{Batch, Packet, Stage, State, offloads};
use twinseal_fib::{Fib, Port, PortRole};
use twinseal_wire::{ethernet, ip, overlay, udp};

pub(super) fn parse(state: &mut State, tables: &Fib, batch: &mut Batch) {
    let port = batch.first().and_then(|packet| tables.port(packet.port));
    prefetch(port, batch);
    for packet in batch.iter_mut() {
        if let Err(reason) = parse_one(tables, packet) {
            packet.drop(reason);
        }
    }
    // Asked once a batch: other ports pay nothing for it.
    if let Some(port) = port.filter(|port| port.finishes) {
        offloads::finish(&mut state.offloads, port, batch);
    }
}

/// Asks for the cache lines that headers are in and go to, and for the last one, where tags are.
#[inline]
fn prefetch(port: Option<&Port>, batch: &Batch) {
    let beside = match port.map(|port| port.role) {
        Some(PortRole::Underlay) => 64,
        _ => -64,
    };
    for packet in batch {
        packet.frame.prefetch(0);
        packet.frame.prefetch(beside);
        packet.frame.prefetch(packet.frame.len() as isize);
    }
}

#[inline]
fn parse_one(tables: &Fib, packet: &mut Packet) -> Result<(), DropReason> {
    let port = tables.port(packet.port).ok_or(DropReason::UnknownPort)?;
    let (header, rest) = ethernet::Header::ref_from_prefix(packet.frame.data())
        .map_err(|_| DropReason::Truncated)?;
    if header.destination != port.mac && !port.more_macs.contains(&header.destination) {
        return Err(DropReason::NotForUs);
    }
    if !matches!(header.ethertype.get(), ethernet::IPV4 | ethernet::IPV6) {
        return match take_priority_tag(packet) {
            true => parse_one(tables, packet),
            false => Err(DropReason::NotIp),
        };
    }
    let inside = match port.role {
        PortRole::Edge(vrf) => {
            packet.meta.from.vrf = vrf;
            packet.stage = Stage::Route;
            0..rest.len()
        }
        PortRole::Underlay => {
            let (payload, traffic_class) = match rest.first() {
                // Nearly all headers have no options.
                Some(0x45) => outer_v4(rest, ip::V4_LEN)?,
                Some(first) if first >> 4 == 4 => outer_v4(rest, usize::from(first & 0x0f) * 4)?,
                Some(first) if first >> 4 == 6 => outer_v6(rest)?,
                Some(_) => return Err(DropReason::BadIpHeader),
                None => return Err(DropReason::Truncated),
            };
            packet.meta.from.link_class = traffic_class;
            packet.stage = Stage::LinkOpen;
            payload
        }
    };
    if !packet
        .frame
        .narrow(ethernet::LEN + inside.start, inside.len())
    {
        return Err(DropReason::Truncated);
    }
    Ok(())
}

/// Takes a tag of VLAN 0 out of an IP packet's frame: it says a priority (IEEE 802.1Q, 6.9.3), and no VLAN. To all of the
/// pipeline the frame is then as one without; so it must be to a router, or its kernel forwards it.
#[cold]
fn take_priority_tag(packet: &mut Packet) -> bool {
    let data = packet.frame.data_mut();
    let Some(&[high, low, a, b]) = data.get(ethernet::LEN..ethernet::LEN + ethernet::TAG_LEN)
    else {
        return false;
    };
    let ethertype = u16::from_be_bytes([data[12], data[13]]);
    let vlan = u16::from_be_bytes([high, low]) & 0x0fff;
    let inner = u16::from_be_bytes([a, b]);
    if ethertype != ethernet::VLAN || vlan != 0 || !matches!(inner, ethernet::IPV4 | ethernet::IPV6)
    {
        return false;
    }
    data.copy_within(0..12, ethernet::TAG_LEN);
    let len = packet.frame.len() - ethernet::TAG_LEN;
    packet.frame.narrow(ethernet::TAG_LEN, len)
}

/// Where the payload of an outer UDP packet over IPv4 is, and its traffic class. The payload is long enough for
/// everything but the inner packet.
#[inline(always)]
fn outer_v4(data: &[u8], header_len: usize) -> Result<(Range<usize>, u8), DropReason> {
    let (header, _) = ip::V4Header::ref_from_prefix(data).map_err(|_| DropReason::Truncated)?;
    let total = usize::from(header.total_length.get());
    if header_len < ip::V4_LEN || total < header_len {
        return Err(DropReason::BadIpHeader);
    }
    if total > data.len() {
        return Err(DropReason::Truncated);
    }
    if !ip::checksum_is_right(&data[..header_len]) {
        return Err(DropReason::BadChecksum);
    }
    if header.fragment.get() & ip::FRAGMENT_MASK != 0 {
        return Err(DropReason::OuterFragment);
    }
    if header.protocol != udp::PROTOCOL {
        return Err(DropReason::NotOverlay);
    }
    Ok((datagram(&data[..total], header_len)?, header.traffic_class))
}

/// As [`outer_v4`].
#[inline]
fn outer_v6(data: &[u8]) -> Result<(Range<usize>, u8), DropReason> {
    let (header, _) = ip::V6Header::ref_from_prefix(data).map_err(|_| DropReason::Truncated)?;
    let total = ip::V6_LEN + usize::from(header.payload_length.get());
    if total > data.len() {
        return Err(DropReason::Truncated);
    }
    if header.next_header != udp::PROTOCOL {
        return Err(DropReason::NotOverlay);
    }
    let payload = datagram(&data[..total], ip::V6_LEN)?;
    Ok((payload, header.traffic_class()))
}

/// Where the payload of the UDP datagram is whose header starts at `header`.
#[inline(always)]
fn datagram(packet: &[u8], header: usize) -> Result<Range<usize>, DropReason> {
    let (udp, _) =
        udp::Header::ref_from_prefix(&packet[header..]).map_err(|_| DropReason::Truncated)?;
    let end = header + usize::from(udp.length.get());
    let start = header + udp::LEN;
    if end < start + overlay::OVERHEAD || end > packet.len() {
        return Err(DropReason::Truncated);
    }
    Ok(start..end)
}
