//! The link seal: hop to hop, over the circuit header and everything in it.

use twinseal_crypto::{self as crypto, Replay, TAG_LEN};
use zerocopy::{FromBytes, IntoBytes};

use super::reason::DropReason;
use super::run::Run;
use super::{Batch, Packet, Stage, State, at};
use crate::tables::hash::Memo;
use crate::tables::{Link, Receiver, Tables};
use crate::wire::overlay::{LinkHeader, SOURCE_PORT_BASE, SOURCE_PORTS, TYPE_DATA};
use crate::wire::{ethernet, ip, udp};

const HEADER: usize = size_of::<LinkHeader>();

/// Opens; afterwards the frame begins with the circuit header and ends with the circuit tag.
pub(super) fn open(state: &State, tables: &Tables, batch: &mut Batch) {
    let mut run = Run::new();
    let mut receivers = Memo::new(&tables.receivers);
    for (place, packet) in at(batch, Stage::LinkOpen) {
        let (header, sealed) = packet.frame.data_mut().split_at_mut(HEADER);
        // Stage `parse` saw to it that the header is there and its key known.
        let Ok(header) = LinkHeader::read_from_bytes(header) else {
            continue;
        };
        let Some(receiver) = receivers.get(header.receiver.get()) else {
            continue;
        };
        let nonce = receiver.sa.nonce(header.lane, header.counter.get());
        run.push(
            &receiver.sa,
            place,
            crypto::Packet::new(nonce, header.aad(), sealed),
        );
    }
    let verified = run.finish();
    for (place, packet) in at(batch, Stage::LinkOpen) {
        if verified >> place & 1 == 0 {
            packet.drop(DropReason::LinkAuthentication);
            continue;
        }
        match accept(state, tables, &mut receivers, packet) {
            Ok(()) => packet.stage = Stage::Label,
            Err(reason) => packet.drop(reason),
        }
    }
}

/// Commits a verified packet to its replay window and takes header and tag off.
#[inline]
fn accept(
    state: &State,
    tables: &Tables,
    receivers: &mut Memo<'_, u32, Receiver>,
    packet: &mut Packet,
) -> Result<(), DropReason> {
    let len = packet.frame.len();
    let (header, _) =
        LinkHeader::read_from_prefix(packet.frame.data()).map_err(|_| DropReason::Truncated)?;
    let receiver = receivers
        .get(header.receiver.get())
        .ok_or(DropReason::UnknownReceiver)?;
    match receiver.sa.commit(header.lane, header.counter.get()) {
        Replay::Fresh => {}
        Replay::Replayed => return Err(DropReason::LinkReplayed),
        Replay::TooOld => return Err(DropReason::LinkTooOld),
    }
    tables
        .link(receiver.link)
        .traffic
        .received(state.worker, len);
    packet.meta.flow = u64::from(header.lane);
    if !packet.frame.trim_front(HEADER) {
        return Err(DropReason::Truncated);
    }
    packet.frame.truncate(len - HEADER - TAG_LEN);
    Ok(())
}

/// Seals what begins with a circuit header and puts the outer headers on.
pub(super) fn seal(state: &State, tables: &Tables, batch: &mut Batch) {
    let mut run = Run::new();
    for (place, packet) in at(batch, Stage::LinkSeal) {
        let link = tables.link(packet.meta.link);
        let (nonce, header) = match prepare(state, link, packet) {
            Ok(prepared) => prepared,
            Err(reason) => {
                packet.drop(reason);
                continue;
            }
        };
        if let Some(transmit) = &link.transmit {
            let (_, sealed) = packet.frame.data_mut().split_at_mut(HEADER);
            run.push(
                &transmit.sa,
                place,
                crypto::Packet::new(nonce, header.aad(), sealed),
            );
        }
    }
    let sealed = run.finish();
    for (place, packet) in at(batch, Stage::LinkSeal) {
        if sealed >> place & 1 == 0 {
            packet.drop(DropReason::NoTransmitKey);
            continue;
        }
        let link = tables.link(packet.meta.link);
        let len = packet.frame.len();
        match write_outer(link, packet) {
            Ok(()) => {
                link.traffic.sent(state.worker, len);
                packet.send(link.port);
            }
            Err(reason) => packet.drop(reason),
        }
    }
}

/// Puts on the link header and the tag's room.
#[inline]
fn prepare(
    state: &State,
    link: &Link,
    packet: &mut Packet,
) -> Result<(crypto::Nonce, LinkHeader), DropReason> {
    // All that can fail comes before a counter is taken.
    if !link.outer.resolved {
        return Err(DropReason::LinkUnresolved);
    }
    let transmit = link.transmit.as_ref().ok_or(DropReason::NoTransmitKey)?;
    let outer = link.outer.octets().len();
    let frame = &mut packet.frame;
    let ip_packet = frame.len() + HEADER + TAG_LEN + outer - ethernet::LEN;
    if ip_packet > usize::from(link.mtu) {
        return Err(DropReason::PacketTooBig);
    }
    if frame.headroom() < HEADER + outer || !frame.append(TAG_LEN) || !frame.prepend(HEADER) {
        return Err(DropReason::NoHeadroom);
    }
    let lane = state.lane(packet.meta.flow);
    let counter = transmit
        .sa
        .reserve(lane, 1)
        .ok_or(DropReason::CounterExhausted)?;
    let header = LinkHeader {
        kind: TYPE_DATA,
        lane,
        flags: 0,
        reserved: 0,
        receiver: transmit.receiver.into(),
        counter: counter.into(),
    };
    frame.data_mut()[..HEADER].copy_from_slice(header.as_bytes());
    Ok((transmit.sa.nonce(lane, counter), header))
}

/// Copies the link's outer headers and fills in what differs a packet.
#[inline]
fn write_outer(link: &Link, packet: &mut Packet) -> Result<(), DropReason> {
    let lane = packet.frame.data()[1];
    let source_port = SOURCE_PORT_BASE
        + (u32::from(link.source_port_salt) + u32::from(lane)) as u16 % SOURCE_PORTS;
    let outer = link.outer.octets();
    let udp_len = packet.frame.len() + udp::LEN;
    if !packet.frame.prepend(outer.len()) {
        return Err(DropReason::NoHeadroom);
    }
    let headers = &mut packet.frame.data_mut()[..outer.len()];
    headers.copy_from_slice(outer);
    let (ip, udp) = headers[ethernet::LEN..].split_at_mut(outer.len() - ethernet::LEN - udp::LEN);
    if let Ok(header) = udp::Header::mut_from_bytes(udp) {
        header.source = source_port.into();
        header.length = (udp_len as u16).into();
    }
    if link.outer.is_v6() {
        if let Ok(header) = ip::V6Header::mut_from_bytes(ip) {
            header.payload_length = (udp_len as u16).into();
            // The source port is the flow's entropy; the flow label says it again for those who look only there.
            header.version_class_flow = (6 << 28 | u32::from(source_port)).into();
            header.set_traffic_class(packet.meta.traffic_class);
        }
    } else if let Ok(header) = ip::V4Header::mut_from_bytes(ip) {
        let total = (udp_len + ip::V4_LEN) as u16;
        header.total_length = total.into();
        header.adjust_checksum(0, total);
        header.set_traffic_class(packet.meta.traffic_class);
    }
    Ok(())
}
