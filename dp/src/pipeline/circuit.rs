//! The circuit seal: edge to edge, over the inner packet.

use twinseal_crypto::{Replay, TAG_LEN};
use twinseal_xsk::Frame;
use zerocopy::FromBytes;

use super::jobs::{Opened, Opening, Sealing};
use super::reason::DropReason;
use super::{Batch, Meta, Packet, Stage, State, at, refuse};
use crate::tables::traffic::{Tally, Traffic};
use crate::tables::{Circuit, Dscp, Tables};
use crate::wire::ecn;
use crate::wire::overlay::{CircuitHeader, PayloadType};

const HEADER: usize = size_of::<CircuitHeader>();

/// Opens; afterwards the frame is the inner packet.
pub(super) fn open(state: &State, tables: &Tables, batch: &mut Batch) {
    let opened = {
        let mut opening = Opening::new();
        gather(tables, batch, &mut opening);
        opening.open()
    };
    accept_all(state, tables, batch, &opened);
}

#[inline(never)]
fn gather<'a>(tables: &'a Tables, batch: &'a mut Batch, opening: &mut Opening<'a>) {
    for packet in at(batch, Stage::CircuitOpen) {
        let circuit = tables.circuit(packet.meta.circuit);
        if let Err(reason) = unwrap(circuit, &mut packet.frame, opening) {
            refuse(&mut packet.disposition, &mut packet.stage, reason);
        }
    }
}

#[inline(never)]
fn accept_all(state: &State, tables: &Tables, batch: &mut Batch, opened: &Opened) {
    let mut tally = Tally::new(state.worker, Traffic::received);
    for (nth, packet) in at(batch, Stage::CircuitOpen).enumerate() {
        if opened.fresh(nth) {
            accept(tables.circuit(packet.meta.circuit), &mut tally, packet);
        } else {
            let replay = opened.replay(nth);
            packet.drop(replay.map_or(DropReason::CircuitAuthentication, stale));
        }
    }
}

/// Reads the circuit header, finds its key and asks the replay window; adds what is to be opened. That it is long
/// enough for a header and a tag, stage `parse` saw to.
#[inline]
fn unwrap<'a>(
    circuit: &'a Circuit,
    frame: &'a mut Frame,
    opening: &mut Opening<'a>,
) -> Result<(), DropReason> {
    let (header, sealed) = frame
        .data_mut()
        .split_first_chunk_mut::<HEADER>()
        .ok_or(DropReason::Truncated)?;
    let header: CircuitHeader = zerocopy::transmute!(*header);
    if !matches!(
        header.payload(),
        Some(PayloadType::Ipv4 | PayloadType::Ipv6)
    ) {
        return Err(DropReason::UnsupportedPayload);
    }
    let sa = circuit.receive[usize::from(header.epoch_low())]
        .as_ref()
        .ok_or(DropReason::UnknownEpoch)?;
    let (lane, counter) = (header.lane, header.counter.get());
    opening.push(sa, lane, counter, header.aad(circuit.id), sealed);
    Ok(())
}

/// Why a packet that is not fresh is dropped.
#[inline]
fn stale(said: Replay) -> DropReason {
    match said {
        Replay::TooOld => DropReason::CircuitTooOld,
        _ => DropReason::CircuitReplayed,
    }
}

/// Takes header and tag off a packet that nobody sent before.
#[inline]
fn accept<'t>(circuit: &'t Circuit, tally: &mut Tally<'t>, packet: &mut Packet) {
    let data = packet.frame.data();
    let Ok((header, inner)) = CircuitHeader::ref_from_prefix(data) else {
        return packet.drop(DropReason::Truncated);
    };
    let claimed = match header.payload() {
        Some(PayloadType::Ipv4) => 4,
        _ => 6,
    };
    // Of an empty packet this is the tag's.
    let version = inner.first().map_or(0, |octet| octet >> 4);
    let inside = inner.len().saturating_sub(TAG_LEN);
    if version != claimed || inside == 0 || !packet.frame.narrow(HEADER, inside) {
        return packet.drop(DropReason::BadIpHeader);
    }
    tally.add(&circuit.traffic, inside);
    packet.meta.vrf = circuit.vrf;
    packet.meta.tunnelled = true;
    packet.stage = Stage::Route;
}

/// Seals the inner packet; afterwards the frame begins with the circuit header and ends with the circuit tag.
pub(super) fn seal(state: &State, tables: &Tables, batch: &mut Batch) {
    let sealed = {
        let mut sealing = Sealing::new();
        for packet in at(batch, Stage::CircuitSeal) {
            let circuit = tables.circuit(packet.meta.circuit);
            let Packet { frame, meta, .. } = packet;
            if let Err(reason) = wrap(state, circuit, meta, frame, &mut sealing) {
                refuse(&mut packet.disposition, &mut packet.stage, reason);
            }
        }
        sealing.seal()
    };
    let mut tally = Tally::new(state.worker, Traffic::sent);
    for (nth, packet) in at(batch, Stage::CircuitSeal).enumerate() {
        if !sealed.ok(nth) {
            packet.drop(DropReason::NoTransmitKey);
            continue;
        }
        let circuit = tables.circuit(packet.meta.circuit);
        tally.add(&circuit.traffic, packet.frame.len() - HEADER - TAG_LEN);
        packet.meta.link = circuit.link;
        packet.stage = Stage::LinkSeal;
    }
}

/// Puts on the tag's room and the circuit header; adds what is to be sealed.
#[inline]
fn wrap<'a>(
    state: &State,
    circuit: &'a Circuit,
    meta: &mut Meta,
    frame: &'a mut Frame,
    sealing: &mut Sealing<'a>,
) -> Result<(), DropReason> {
    // All that can fail comes before a counter is taken.
    let sa = circuit.transmit.as_ref().ok_or(DropReason::NoTransmitKey)?;
    let payload = match frame.data().first().map(|octet| octet >> 4) {
        Some(4) => PayloadType::Ipv4,
        _ => PayloadType::Ipv6,
    };
    if !frame.append(TAG_LEN) || !frame.prepend(HEADER) {
        return Err(DropReason::NoHeadroom);
    }
    let (room, sealed) = frame
        .data_mut()
        .split_first_chunk_mut::<HEADER>()
        .ok_or(DropReason::NoHeadroom)?;
    let lane = state.lane(meta.flow);
    let counter = sa
        .reserve(&state.lanes, lane, 1)
        .ok_or(DropReason::CounterExhausted)?;
    let dscp = match circuit.dscp {
        Dscp::Copy => meta.traffic_class & ecn::DSCP_MASK,
        Dscp::Fixed(value) => value << 2,
    };
    meta.traffic_class = dscp | meta.traffic_class & ecn::ECN_MASK;
    let header = CircuitHeader {
        label: circuit.label.into(),
        hop_limit: circuit.hop_limit,
        traffic_class: meta.traffic_class,
        lane,
        payload_epoch: payload.with_epoch(sa.epoch()),
        counter: counter.into(),
    };
    *room = zerocopy::transmute!(header);
    sealing.push(sa.packet(lane, counter, header.aad(circuit.id), sealed));
    Ok(())
}
