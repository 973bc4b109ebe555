//! The link seal: hop to hop, over the circuit header and everything in it.

use twinseal_crypto::{self as crypto, Replay, TAG_LEN};
use twinseal_xsk::Frame;
use zerocopy::FromBytes;

use super::jobs::{Opened, Opening, Sealed, Sealing};
use super::lookups::{Found, Lookups};
use super::reason::DropReason;
use super::{Account, Batch, Meta, Packet, Stage, State, at, circuit, refuse};
use crate::tables::traffic::{Tally, Traffic};
use crate::tables::trie::Number;
use crate::tables::{Link, Receiver, Tables};
use crate::wire::ethernet;
use crate::wire::overlay::{
    CircuitHeader, LinkHeader, OVERHEAD, SOURCE_PORT_BASE, SOURCE_PORTS, TYPE_DATA,
};

const HEADER: usize = size_of::<LinkHeader>();

/// Opens; afterwards the frame begins with the circuit header and ends with the circuit tag. Returns what the links know
/// of the labels there.
pub(super) fn open(state: &State, tables: &Tables, batch: &mut Batch) -> Found {
    let receivers = find_receivers(tables, batch);
    let opened = {
        let mut opening = Opening::new();
        gather(state, tables, batch, &receivers, &mut opening);
        opening.open()
    };
    accept(state, tables, batch, &opened)
}

/// Reads the link headers and looks for the keys that they name.
#[inline(never)]
fn find_receivers(tables: &Tables, batch: &mut Batch) -> Found {
    let mut lookups = Lookups::new();
    for packet in at(batch, Stage::LinkOpen) {
        match LinkHeader::ref_from_prefix(packet.frame.data()) {
            Ok((header, _))
                if header.kind == TYPE_DATA && header.flags == 0 && header.reserved == 0 =>
            {
                lookups.push(&tables.receiver_root, Number(header.receiver.get()));
            }
            Ok(_) => packet.drop(DropReason::BadLinkHeader),
            Err(_) => packet.drop(DropReason::Truncated),
        }
    }
    lookups.find(&tables.tries)
}

#[inline(never)]
fn gather<'a>(
    state: &State,
    tables: &'a Tables,
    batch: &'a mut Batch,
    receivers: &Found,
    opening: &mut Opening<'a>,
) {
    for (packet, leaf) in at(batch, Stage::LinkOpen).zip(receivers.iter()) {
        let Packet { frame, meta, .. } = packet;
        let receiver = tables.receiver(leaf);
        if receiver.is_none() {
            note_unknown(state, frame);
        }
        if let Err(reason) = unwrap(receiver, meta, frame, opening) {
            refuse(&mut packet.disposition, &mut packet.stage, reason);
        }
    }
}

/// Packets under a key of this very end tell that both ends were made the same.
#[cold]
fn note_unknown(state: &State, frame: &Frame) {
    if let Ok((header, _)) = LinkHeader::ref_from_prefix(frame.data()) {
        state.drops.note_unknown_receiver(header.receiver.get());
    }
}

/// Adds what is to be opened.
// Small results: what is returned through memory in parts and copied as a whole stalls the processor.
#[inline]
fn unwrap<'a, 't: 'a>(
    receiver: Option<&'t Receiver>,
    meta: &mut Meta,
    frame: &'a mut Frame,
    opening: &mut Opening<'a>,
) -> Result<(), DropReason> {
    let (header, sealed) = frame
        .data_mut()
        .split_first_chunk_mut::<HEADER>()
        .ok_or(DropReason::Truncated)?;
    // In words: octet by octet, it would be twice the work.
    let [first, counter]: [u64; 2] = zerocopy::transmute!(*header);
    let lane = first.to_ne_bytes()[1];
    let receiver = receiver.ok_or(DropReason::UnknownReceiver)?;
    meta.account = Account::Link;
    meta.link = receiver.link;
    meta.flow = lane.into();
    let aad = zerocopy::transmute!([first, counter]);
    opening.push(&receiver.sa, lane, u64::from_be(counter), aad, sealed);
    Ok(())
}

/// Why a packet that is not fresh is dropped.
#[inline]
fn stale(said: Replay) -> DropReason {
    match said {
        Replay::TooOld => DropReason::LinkTooOld,
        _ => DropReason::LinkReplayed,
    }
}

/// Takes headers and tags off packets that nobody sent before, and looks for their labels.
#[inline(never)]
fn accept(state: &State, tables: &Tables, batch: &mut Batch, opened: &Opened) -> Found {
    let mut labels = Lookups::new();
    let mut tally = Tally::new(state.worker, Traffic::received);
    for (nth, packet) in at(batch, Stage::LinkOpen).enumerate() {
        if !opened.fresh(nth) {
            let replay = opened.replay(nth);
            packet.drop(replay.map_or(DropReason::LinkAuthentication, stale));
            continue;
        }
        let link = tables.link(packet.meta.link);
        tally.add(&link.traffic, packet.frame.len());
        let inside = packet.frame.len().saturating_sub(HEADER + TAG_LEN);
        if !packet.frame.narrow(HEADER, inside) {
            packet.drop(DropReason::Truncated);
            continue;
        }
        match CircuitHeader::ref_from_prefix(packet.frame.data()) {
            Ok((header, _)) => {
                labels.push(&link.labels, Number(header.label.get()));
                packet.stage = Stage::Label;
            }
            Err(_) => packet.drop(DropReason::Truncated),
        }
    }
    labels.find(&tables.tries)
}

/// Seals what begins with a circuit header, for the circuit too if it enters one here, and puts the outer headers on.
pub(super) fn seal(state: &State, tables: &Tables, batch: &mut Batch) {
    let sealed = {
        let mut sealing = Sealing::new();
        gather_to_seal(state, tables, batch, &mut sealing);
        sealing.seal()
    };
    leave(state, tables, batch, &sealed);
}

#[inline(never)]
fn gather_to_seal<'a>(
    state: &State,
    tables: &'a Tables,
    batch: &'a mut Batch,
    sealing: &mut Sealing<'a>,
) {
    for packet in at(batch, Stage::LinkSeal) {
        let Packet { frame, meta, .. } = packet;
        let wrapped = match meta.enters {
            true => circuit::seal(tables.circuit(meta.circuit), frame).map(Some),
            false => Ok(None),
        };
        let link = tables.link(meta.link);
        let wrapped = wrapped.and_then(|inner| {
            wrap(state, link, *meta, frame, |packet| {
                sealing.push(inner, packet);
            })
        });
        if let Err(reason) = wrapped {
            refuse(&mut packet.disposition, &mut packet.stage, reason);
        }
    }
}

/// Sends packets by their links.
#[inline(never)]
fn leave(state: &State, tables: &Tables, batch: &mut Batch, sealed: &Sealed) {
    let mut circuits = Tally::new(state.worker, Traffic::sent);
    let mut links = Tally::new(state.worker, Traffic::sent);
    for (nth, packet) in at(batch, Stage::LinkSeal).enumerate() {
        if !sealed.ok(nth) {
            packet.drop(DropReason::NoTransmitKey);
            continue;
        }
        let link = tables.link(packet.meta.link);
        let payload = packet.frame.len() - link.outer.len();
        links.add(&link.traffic, payload);
        if packet.meta.enters {
            let circuit = tables.circuit(packet.meta.circuit);
            circuits.add(&circuit.traffic, payload.saturating_sub(OVERHEAD));
        }
        packet.send(link.port);
    }
}

/// Puts on the tag's room, the link header and the outer headers; passes on what is to be sealed.
#[inline(always)]
fn wrap<'a>(
    state: &State,
    link: &'a Link,
    meta: Meta,
    frame: &'a mut Frame,
    push: impl FnOnce(crypto::Packet<'a>),
) -> Result<(), DropReason> {
    // All that can fail comes before a counter is taken.
    if !link.outer.resolved {
        return Err(DropReason::LinkUnresolved);
    }
    let transmit = link.transmit.as_ref().ok_or(DropReason::NoTransmitKey)?;
    let outer = link.outer.len();
    let payload = HEADER + frame.len() + TAG_LEN;
    if outer - ethernet::LEN + payload > usize::from(link.mtu) {
        return Err(DropReason::PacketTooBig);
    }
    if !frame.append(TAG_LEN) || !frame.prepend(outer + HEADER) {
        return Err(DropReason::NoHeadroom);
    }
    let (outer, rest) = frame.data_mut().split_at_mut(outer);
    let (room, sealed) = rest
        .split_first_chunk_mut::<HEADER>()
        .ok_or(DropReason::NoHeadroom)?;
    let lane = state.lane(meta.flow);
    let source_port = SOURCE_PORT_BASE
        + (u32::from(link.source_port_salt) + u32::from(lane)) as u16 % SOURCE_PORTS;
    link.outer
        .write(outer, payload, source_port, meta.traffic_class);
    let counter = transmit
        .sa
        .reserve(&state.lanes, lane, 1)
        .ok_or(DropReason::CounterExhausted)?;
    let header = LinkHeader {
        kind: TYPE_DATA,
        lane,
        flags: 0,
        reserved: 0,
        receiver: transmit.receiver.into(),
        counter: counter.into(),
    };
    *room = header.aad();
    push(transmit.sa.packet(lane, counter, header.aad(), sealed));
    Ok(())
}
