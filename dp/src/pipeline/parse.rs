//! The first stage: Ethernet, and on the underlay everything up to the link header.

use twinseal_crypto::Replay;
use twinseal_xsk::Frame;
use zerocopy::FromBytes;

use super::reason::DropReason;
use super::{Batch, Packet, Stage};
use crate::tables::hash::Memo;
use crate::tables::{PortRole, Receiver, Tables};
use crate::wire::overlay::{self, LinkHeader, TYPE_DATA};
use crate::wire::{ethernet, ip, udp};

pub(super) fn parse(tables: &Tables, batch: &mut Batch) {
    for packet in batch.iter() {
        packet.frame.prefetch();
    }
    let mut receivers = Memo::new(&tables.receivers);
    for packet in batch.iter_mut() {
        if let Err(reason) = parse_one(tables, &mut receivers, packet) {
            packet.drop(reason);
        }
    }
}

#[inline]
fn parse_one(
    tables: &Tables,
    receivers: &mut Memo<'_, u32, Receiver>,
    packet: &mut Packet,
) -> Result<(), DropReason> {
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
            find_key(receivers, packet)?;
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
            if ip::checksum(&data[..ip_len]) != 0 {
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

/// Reads the link header, finds its key and asks the replay window.
#[inline]
fn find_key(
    receivers: &mut Memo<'_, u32, Receiver>,
    packet: &mut Packet,
) -> Result<(), DropReason> {
    let (header, _) =
        LinkHeader::ref_from_prefix(packet.frame.data()).map_err(|_| DropReason::Truncated)?;
    if header.kind != TYPE_DATA || header.flags != 0 || header.reserved != 0 {
        return Err(DropReason::BadLinkHeader);
    }
    let receiver = receivers
        .get(header.receiver.get())
        .ok_or(DropReason::UnknownReceiver)?;
    match receiver.sa.check(header.lane, header.counter.get()) {
        Replay::Fresh => {}
        Replay::Replayed => return Err(DropReason::LinkReplayed),
        Replay::TooOld => return Err(DropReason::LinkTooOld),
    }
    packet.meta.link = receiver.link;
    Ok(())
}
