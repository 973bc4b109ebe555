//! The circuit seal: edge to edge, over the inner packet.

use twinseal_crypto::{self as crypto, OpenSa, Replay, TAG_LEN};
use zerocopy::{FromBytes, IntoBytes};

use super::reason::DropReason;
use super::run::Run;
use super::{Batch, Packet, Stage, State, at};
use crate::tables::{Circuit, Dscp, Tables};
use crate::wire::ecn;
use crate::wire::overlay::{CircuitHeader, PayloadType};

const HEADER: usize = size_of::<CircuitHeader>();

/// Opens; afterwards the frame is the inner packet.
pub(super) fn open(state: &State, tables: &Tables, batch: &mut Batch) {
    let mut run = Run::new();
    for (place, packet) in at(batch, Stage::CircuitOpen) {
        let circuit = tables.circuit(packet.meta.circuit);
        // What the link seal covered is long enough: stage `parse` saw to it.
        let Ok((header, _)) = CircuitHeader::read_from_prefix(packet.frame.data()) else {
            continue;
        };
        match receiver(circuit, &header) {
            Ok(sa) => {
                let nonce = sa.nonce(header.lane, header.counter.get());
                let (_, sealed) = packet.frame.data_mut().split_at_mut(HEADER);
                run.push(
                    sa,
                    place,
                    crypto::Packet::new(nonce, header.aad(circuit.id), sealed),
                );
            }
            Err(reason) => packet.drop(reason),
        }
    }
    let verified = run.finish();
    for (place, packet) in at(batch, Stage::CircuitOpen) {
        if verified >> place & 1 == 0 {
            packet.drop(DropReason::CircuitAuthentication);
            continue;
        }
        match accept(state, tables, packet) {
            Ok(()) => packet.stage = Stage::Route,
            Err(reason) => packet.drop(reason),
        }
    }
}

/// The key that a packet claims to be sealed with, if its counter may be fresh.
#[inline]
fn receiver<'a>(
    circuit: &'a Circuit,
    header: &CircuitHeader,
) -> Result<&'a std::sync::Arc<OpenSa>, DropReason> {
    if !matches!(
        header.payload(),
        Some(PayloadType::Ipv4 | PayloadType::Ipv6)
    ) {
        return Err(DropReason::UnsupportedPayload);
    }
    let sa = circuit.receive[usize::from(header.epoch_low())]
        .as_ref()
        .ok_or(DropReason::UnknownEpoch)?;
    match sa.check(header.lane, header.counter.get()) {
        Replay::Fresh => Ok(sa),
        Replay::Replayed => Err(DropReason::CircuitReplayed),
        Replay::TooOld => Err(DropReason::CircuitTooOld),
    }
}

/// Commits a verified packet to its replay window and takes header and tag off.
#[inline]
fn accept(state: &State, tables: &Tables, packet: &mut Packet) -> Result<(), DropReason> {
    let circuit = tables.circuit(packet.meta.circuit);
    let (header, _) =
        CircuitHeader::read_from_prefix(packet.frame.data()).map_err(|_| DropReason::Truncated)?;
    let sa = circuit.receive[usize::from(header.epoch_low())]
        .as_ref()
        .ok_or(DropReason::UnknownEpoch)?;
    match sa.commit(header.lane, header.counter.get()) {
        Replay::Fresh => {}
        Replay::Replayed => return Err(DropReason::CircuitReplayed),
        Replay::TooOld => return Err(DropReason::CircuitTooOld),
    }
    let inner = packet.frame.len() - HEADER - TAG_LEN;
    if !packet.frame.trim_front(HEADER) {
        return Err(DropReason::Truncated);
    }
    packet.frame.truncate(inner);
    let version = packet.frame.data().first().map(|octet| octet >> 4);
    let claimed = match header.payload() {
        Some(PayloadType::Ipv4) => Some(4),
        _ => Some(6),
    };
    if version != claimed {
        return Err(DropReason::BadIpHeader);
    }
    circuit.traffic.received(state.worker, inner);
    packet.meta.vrf = circuit.vrf;
    packet.meta.tunnelled = true;
    Ok(())
}

/// Seals the inner packet; afterwards the frame begins with the circuit header and ends with the circuit tag.
pub(super) fn seal(state: &State, tables: &Tables, batch: &mut Batch) {
    let mut run = Run::new();
    for (place, packet) in at(batch, Stage::CircuitSeal) {
        let circuit = tables.circuit(packet.meta.circuit);
        let (nonce, header) = match prepare(state, circuit, packet) {
            Ok(prepared) => prepared,
            Err(reason) => {
                packet.drop(reason);
                continue;
            }
        };
        if let Some(sa) = &circuit.transmit {
            let (_, sealed) = packet.frame.data_mut().split_at_mut(HEADER);
            run.push(
                sa,
                place,
                crypto::Packet::new(nonce, header.aad(circuit.id), sealed),
            );
        }
    }
    let sealed = run.finish();
    for (place, packet) in at(batch, Stage::CircuitSeal) {
        if sealed >> place & 1 == 0 {
            packet.drop(DropReason::NoTransmitKey);
            continue;
        }
        let circuit = tables.circuit(packet.meta.circuit);
        let inner = packet.frame.len() - HEADER - TAG_LEN;
        circuit.traffic.sent(state.worker, inner);
        packet.meta.link = circuit.link;
        packet.stage = Stage::LinkSeal;
    }
}

/// Puts on the circuit header and the tag's room.
#[inline]
fn prepare(
    state: &State,
    circuit: &Circuit,
    packet: &mut Packet,
) -> Result<(crypto::Nonce, CircuitHeader), DropReason> {
    // All that can fail comes before a counter is taken.
    let sa = circuit.transmit.as_ref().ok_or(DropReason::NoTransmitKey)?;
    let frame = &mut packet.frame;
    let payload = match frame.data().first().map(|octet| octet >> 4) {
        Some(4) => PayloadType::Ipv4,
        _ => PayloadType::Ipv6,
    };
    if !frame.append(TAG_LEN) || !frame.prepend(HEADER) {
        return Err(DropReason::NoHeadroom);
    }
    let lane = state.lane(packet.meta.flow);
    let counter = sa.reserve(lane, 1).ok_or(DropReason::CounterExhausted)?;
    let dscp = match circuit.dscp {
        Dscp::Copy => packet.meta.traffic_class & ecn::DSCP_MASK,
        Dscp::Fixed(value) => value << 2,
    };
    packet.meta.traffic_class = dscp | packet.meta.traffic_class & ecn::ECN_MASK;
    let header = CircuitHeader {
        label: circuit.label.into(),
        hop_limit: circuit.hop_limit,
        traffic_class: packet.meta.traffic_class,
        lane,
        payload_epoch: payload.with_epoch(sa.epoch()),
        counter: counter.into(),
    };
    frame.data_mut()[..HEADER].copy_from_slice(header.as_bytes());
    Ok((sa.nonce(lane, counter), header))
}
