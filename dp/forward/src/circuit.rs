//! The circuit seal: edge to edge, over the inner packet.

use twinseal_crypto::{Replay, Seal, TAG_LEN};
use twinseal_xsk::Frame;
use zerocopy::FromBytes;

use super::jobs::{Opened, Opening};
use super::reason::{DropReason, Refused};
use super::{Batch, Departure, Packet, Slot, Stage, State, at, link, oam, refuse};
use twinseal_fib::traffic::{Tally, Traffic};
use twinseal_fib::{Circuit, Fib};
use twinseal_wire::ecn;
use twinseal_wire::ip::Dscp;
use twinseal_wire::overlay::{CircuitHeader, OVERHEAD, PayloadType};

const HEADER: usize = size_of::<CircuitHeader>();

/// Opens; afterwards the frame is the inner packet.
pub(super) fn open(state: &mut State, tables: &Fib, batch: &mut Batch) {
    let opened = {
        let mut opening = Opening::new();
        gather(tables, batch, &mut opening);
        opening.open()
    };
    accept_all(state, tables, batch, &opened);
}

#[inline(never)]
fn gather<'a>(tables: &'a Fib, batch: &'a mut Batch, opening: &mut Opening<'a>) {
    for (slot, packet) in at(batch, Stage::CircuitOpen) {
        let circuit = tables.circuit(packet.meta.from.circuit);
        if let Err(reason) = decapsulate(slot, circuit, &mut packet.frame, opening) {
            refuse(&mut packet.disposition, &mut packet.stage, reason);
        }
    }
}

#[inline(never)]
fn accept_all(state: &mut State, tables: &Fib, batch: &mut Batch, opened: &Opened) {
    let mut tally = Tally::new(state.worker, Traffic::received);
    for (slot, packet) in at(batch, Stage::CircuitOpen) {
        if opened.fresh(slot) {
            let circuit = tables.circuit(packet.meta.from.circuit);
            if !accept(circuit, &mut tally, packet) {
                oam::of_circuit(state, tables, packet);
            }
        } else {
            let replay = opened.replay(slot);
            packet.drop(replay.map_or(DropReason::CircuitAuthentication, stale));
        }
    }
}

/// Reads the circuit header and finds its key; adds what is to be opened. That it is long
/// enough for a header and a tag, stage `parse` saw to.
#[inline]
fn decapsulate<'a>(
    slot: Slot,
    circuit: &'a Circuit,
    frame: &'a mut Frame,
    opening: &mut Opening<'a>,
) -> Result<(), DropReason> {
    let (header, sealed) = frame
        .data_mut()
        .split_first_chunk_mut::<HEADER>()
        .ok_or(DropReason::Truncated)?;
    let header: CircuitHeader = zerocopy::transmute!(*header);
    let is_ip = matches!(
        header.payload(),
        Some(PayloadType::Ipv4 | PayloadType::Ipv6)
    );
    if !is_ip && !oam::is_oam(&header) {
        return Err(DropReason::UnsupportedPayload);
    }
    let sa = circuit.receive[usize::from(header.epoch_low())]
        .as_ref()
        .ok_or(DropReason::UnknownEpoch)?;
    let (lane, counter) = (header.lane, header.counter.get());
    opening.push(slot, sa, lane, counter, header.aad(circuit.id), sealed);
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

/// Takes header and tag off a packet that nobody sent before. False if it is no IP packet of the version that the header says.
#[inline]
fn accept<'t>(circuit: &'t Circuit, tally: &mut Tally<'t>, packet: &mut Packet) -> bool {
    let data = packet.frame.data();
    let Ok((header, inner)) = CircuitHeader::ref_from_prefix(data) else {
        return false;
    };
    let class = header.traffic_class;
    // 4 or 6; of other payload types more than any version.
    let claimed = 8u8.wrapping_sub((header.payload_epoch >> 4 ^ 3) << 1);
    // Of an empty packet this is the tag's.
    let version = inner.first().map_or(0, |octet| octet >> 4);
    let inside = inner.len().saturating_sub(TAG_LEN);
    if version != claimed || inside == 0 || !packet.frame.narrow(HEADER, inside) {
        return false;
    }
    tally.add(&circuit.traffic, inside);
    packet.meta.from.vrf = circuit.vrf;
    packet.meta.from.circuit_class = Some(class);
    packet.stage = Stage::Route;
    true
}

/// Asks the processor for keys and replay windows, which a batch of one label needs not: first for where they are, then for
/// them.
#[inline(never)]
pub(super) fn prefetch_receive(state: &State, tables: &Fib, batch: &mut Batch) {
    for near in [true, false] {
        let mut last = None;
        for (_, packet) in at(batch, Stage::CircuitOpen) {
            let circuit = packet.meta.from.circuit;
            // What the packet before has asked for needs no asking.
            if last.replace(circuit) == Some(circuit) {
                continue;
            }
            let Ok((header, _)) = CircuitHeader::ref_from_prefix(packet.frame.data()) else {
                continue;
            };
            let circuit = tables.circuit(circuit);
            let sa = circuit.receive[usize::from(header.epoch_low())].as_ref();
            let (lane, counter) = (header.lane, header.counter.get());
            if near {
                sa.inspect(|sa| sa.prefetch_self(lane));
            } else {
                sa.inspect(|sa| sa.prefetch(lane, counter, packet.frame.len()));
                circuit.traffic.prefetch(state.worker);
            }
        }
    }
}

/// As [`prefetch_receive`], for what packets are sealed with, which a batch of one destination needs not.
#[inline(never)]
pub(super) fn prefetch_transmit(state: &State, tables: &Fib, batch: &mut Batch) {
    let mut last = None;
    for (_, packet) in at(batch, Stage::CircuitEnter) {
        let to = packet.meta.to;
        let Some(circuit) = to.circuit else {
            continue;
        };
        if last.replace(circuit) == Some(circuit) {
            continue;
        }
        let circuit = tables.circuit(circuit);
        if let Some(sa) = &circuit.transmit {
            sa.prefetch(state.lane(to.flow), packet.frame.len());
        }
        circuit.traffic.prefetch(state.worker);
    }
}

/// Makes room for the tag and puts the circuit header on; [`link::seal`](super::link::seal) seals.
#[inline(never)]
pub(super) fn enter(state: &State, tables: &Fib, batch: &mut Batch) {
    for (_, packet) in at(batch, Stage::CircuitEnter) {
        let Packet { frame, meta, .. } = packet;
        let circuit = meta.to.circuit.map(|circuit| tables.circuit(circuit));
        let encapsulated = circuit
            .ok_or(DropReason::NoRoute)
            .and_then(|circuit| encapsulate(state, circuit, &mut meta.to, frame));
        match encapsulated {
            Ok(()) => packet.stage = Stage::LinkSeal,
            Err(reason) => packet.drop(reason),
        }
    }
}

/// Whether a circuit can take an inner packet of so many bytes, and its link what comes of it. It is asked as soon as the
/// circuit is known, before any counter is taken, and nowhere else.
#[inline(always)]
pub(super) fn admit(tables: &Fib, circuit: &Circuit, len: usize) -> Result<(), Refused> {
    let link = tables.link(circuit.link);
    link::admit(link, HEADER + len + TAG_LEN).map_err(|reason| Refused {
        reason,
        mtu: link.inner_mtu(),
    })?;
    match circuit.transmit {
        Some(_) => Ok(()),
        None => Err(DropReason::NoTransmitKey.into()),
    }
}

/// Counts what a circuit sent, by what its link was given.
#[inline(always)]
pub(super) fn count_sent<'t>(circuit: &'t Circuit, tally: &mut Tally<'t>, payload: usize) {
    tally.add(&circuit.traffic, payload.saturating_sub(OVERHEAD));
}

/// The seal of a frame that begins with the header of this circuit.
#[inline(always)]
pub(super) fn seal<'a>(circuit: &'a Circuit, frame: &Frame) -> Result<Seal<'a>, DropReason> {
    let sa = circuit.transmit.as_ref().ok_or(DropReason::NoTransmitKey)?;
    let (header, _) =
        CircuitHeader::ref_from_prefix(frame.data()).map_err(|_| DropReason::Truncated)?;
    Ok(sa.seal(header.lane, header.counter.get(), header.aad(circuit.id)))
}

#[inline(always)]
fn encapsulate(
    state: &State,
    circuit: &Circuit,
    to: &mut Departure,
    frame: &mut Frame,
) -> Result<(), DropReason> {
    // All that can fail comes before a counter is taken. The key is there: `admit` saw it.
    let sa = circuit.transmit.as_ref().ok_or(DropReason::NoTransmitKey)?;
    let payload = match frame.data().first().map(|octet| octet >> 4) {
        Some(4) => PayloadType::Ipv4,
        _ => PayloadType::Ipv6,
    };
    if !frame.append(TAG_LEN) || !frame.prepend(HEADER) {
        return Err(DropReason::NoHeadroom);
    }
    let room = frame
        .data_mut()
        .first_chunk_mut::<HEADER>()
        .ok_or(DropReason::NoHeadroom)?;
    let lane = state.lane(to.flow);
    let counter = sa
        .reserve(&state.lanes, lane, 1)
        .ok_or(DropReason::CounterExhausted)?;
    if let Dscp::Fixed(value) = circuit.dscp {
        to.class = value << 2 | to.class & ecn::ECN_MASK;
    }
    let header = CircuitHeader {
        label: circuit.label.into(),
        hop_limit: circuit.hop_limit,
        traffic_class: to.class,
        lane,
        payload_epoch: payload.with_epoch(sa.epoch()),
        counter: counter.into(),
    };
    *room = zerocopy::transmute!(header);
    Ok(())
}
