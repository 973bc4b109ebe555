//! The first stage: Ethernet, and on the underlay also IP and UDP.

use twinseal_xsk::Frame;
use zerocopy::FromBytes;

use super::reason::DropReason;
use super::{Batch, Packet, Stage};
use crate::tables::{PortRole, Tables};
use crate::wire::{ethernet, ip, overlay, udp};

pub(super) fn parse(tables: &Tables, batch: &mut Batch) {
    prefetch(tables, batch);
    for packet in batch.iter_mut() {
        if let Err(reason) = parse_one(tables, packet) {
            packet.drop(reason);
        }
    }
}

/// Asks for the cache lines that headers are in and go to, and for the last one, where tags are.
#[inline]
fn prefetch(tables: &Tables, batch: &Batch) {
    // As a rule all packets of a batch come from one port; if not, this costs a little and breaks nothing.
    let port = batch.first().and_then(|packet| tables.port(packet.port));
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
fn parse_one(tables: &Tables, packet: &mut Packet) -> Result<(), DropReason> {
    let port = tables.port(packet.port).ok_or(DropReason::UnknownPort)?;
    let (header, _) = ethernet::Header::read_from_prefix(packet.frame.data())
        .map_err(|_| DropReason::Truncated)?;
    if header.destination != port.mac {
        return Err(DropReason::NotForUs);
    }
    let ethertype = header.ethertype.get();
    if !matches!(ethertype, ethernet::IPV4 | ethernet::IPV6) {
        return Err(DropReason::NotIp);
    }
    if !packet.frame.trim_front(ethernet::LEN) {
        return Err(DropReason::Truncated);
    }
    match port.role {
        PortRole::Edge(vrf) => {
            packet.meta.vrf = vrf;
            packet.meta.tunnelled = false;
            packet.stage = Stage::Route;
        }
        PortRole::Underlay => {
            packet.meta.traffic_class = strip_outer(&mut packet.frame)?;
            packet.stage = Stage::LinkOpen;
        }
    }
    Ok(())
}

/// Takes off the outer IP and UDP headers and whatever follows the UDP payload; returns the outer traffic class.
///
/// The frame then begins with a link header and is long enough for everything but the inner packet.
#[inline]
fn strip_outer(frame: &mut Frame) -> Result<u8, DropReason> {
    let data = frame.data();
    let (ip_len, total, traffic_class) = match data.first().map(|octet| octet >> 4) {
        Some(4) => {
            let (header, _) =
                ip::V4Header::ref_from_prefix(data).map_err(|_| DropReason::Truncated)?;
            let ip_len = header.header_len();
            let total = usize::from(header.total_length.get());
            if ip_len < ip::V4_LEN || total < ip_len {
                return Err(DropReason::BadIpHeader);
            }
            if total > data.len() {
                return Err(DropReason::Truncated);
            }
            if !ip::checksum_is_right(&data[..ip_len]) {
                return Err(DropReason::BadChecksum);
            }
            if header.fragment.get() & ip::FRAGMENT_MASK != 0 {
                return Err(DropReason::OuterFragment);
            }
            if header.protocol != udp::PROTOCOL {
                return Err(DropReason::NotOverlay);
            }
            (ip_len, total, header.traffic_class)
        }
        Some(6) => {
            let (header, _) =
                ip::V6Header::ref_from_prefix(data).map_err(|_| DropReason::Truncated)?;
            let total = ip::V6_LEN + usize::from(header.payload_length.get());
            if total > data.len() {
                return Err(DropReason::Truncated);
            }
            if header.next_header != udp::PROTOCOL {
                return Err(DropReason::NotOverlay);
            }
            (ip::V6_LEN, total, header.traffic_class())
        }
        Some(_) => return Err(DropReason::BadIpHeader),
        None => return Err(DropReason::Truncated),
    };
    let (header, _) =
        udp::Header::read_from_prefix(&data[ip_len..total]).map_err(|_| DropReason::Truncated)?;
    let udp_len = usize::from(header.length.get());
    if udp_len < udp::LEN + overlay::OVERHEAD || ip_len + udp_len > total {
        return Err(DropReason::Truncated);
    }
    if !frame.trim_front(ip_len + udp::LEN) {
        return Err(DropReason::Truncated);
    }
    frame.truncate(udp_len - udp::LEN);
    Ok(traffic_class)
}
