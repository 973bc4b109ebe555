//! The link seal: hop to hop, over the circuit header and everything in it.

use twinseal_crypto::{Replay, TAG_LEN};
use twinseal_xsk::Frame;
use zerocopy::FromBytes;

use super::jobs::{Opening, Sealing};
use super::lookups::{Found, Lookups};
use super::reason::DropReason;
use super::{Account, Batch, Meta, Packet, Stage, State, at, refuse};
use crate::tables::traffic::{Tally, Traffic};
use crate::tables::trie::Number;
use crate::tables::{Link, Receiver, Tables};
use crate::wire::ethernet;
use crate::wire::overlay::{LinkHeader, SOURCE_PORT_BASE, SOURCE_PORTS, TYPE_DATA};

const HEADER: usize = size_of::<LinkHeader>();

/// Opens; afterwards the frame begins with the circuit header and ends with the circuit tag.
pub(super) fn open(state: &State, tables: &Tables, batch: &mut Batch) {
    let receivers = find_receivers(tables, batch);
    let opened = {
        let mut opening = Opening::new();
        for (packet, leaf) in at(batch, Stage::LinkOpen).zip(receivers.iter()) {
            let Packet { frame, meta, .. } = packet;
            let receiver = tables.receiver(leaf);
            if let Err(reason) = unwrap(receiver, meta, frame, &mut opening) {
                refuse(&mut packet.disposition, &mut packet.stage, reason);
            }
        }
        opening.open()
    };
    let mut tally = Tally::new(state.worker, Traffic::received);
    for (nth, packet) in at(batch, Stage::LinkOpen).enumerate() {
        if opened.fresh(nth) {
            let link = tables.link(packet.meta.link);
            tally.add(&link.traffic, packet.frame.len());
            accept(packet);
        } else {
            let replay = opened.replay(nth);
            packet.drop(replay.map_or(DropReason::LinkAuthentication, stale));
        }
    }
}

/// Reads the link headers and looks for the keys that they name.
#[inline]
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

/// Asks the replay window of the packet's key; adds what is to be opened.
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
    let header: LinkHeader = zerocopy::transmute!(*header);
    let receiver = receiver.ok_or(DropReason::UnknownReceiver)?;
    meta.account = Account::Link;
    meta.link = receiver.link;
    meta.flow = header.lane.into();
    let (lane, counter) = (header.lane, header.counter.get());
    opening
        .push(&receiver.sa, lane, counter, header.aad(), sealed)
        .map_err(stale)
}

/// Why a packet that is not fresh is dropped.
#[inline]
fn stale(said: Replay) -> DropReason {
    match said {
        Replay::TooOld => DropReason::LinkTooOld,
        _ => DropReason::LinkReplayed,
    }
}

/// Takes header and tag off a packet that nobody sent before.
#[inline]
fn accept(packet: &mut Packet) {
    let inside = packet.frame.len().saturating_sub(HEADER + TAG_LEN);
    if packet.frame.narrow(HEADER, inside) {
        packet.stage = Stage::Label;
    } else {
        packet.drop(DropReason::Truncated);
    }
}

/// Seals what begins with a circuit header and puts the outer headers on.
pub(super) fn seal(state: &State, tables: &Tables, batch: &mut Batch) {
    let sealed = {
        let mut sealing = Sealing::new();
        for packet in at(batch, Stage::LinkSeal) {
            let link = tables.link(packet.meta.link);
            if let Err(reason) = wrap(state, link, packet.meta, &mut packet.frame, &mut sealing) {
                refuse(&mut packet.disposition, &mut packet.stage, reason);
            }
        }
        sealing.seal()
    };
    let mut tally = Tally::new(state.worker, Traffic::sent);
    for (nth, packet) in at(batch, Stage::LinkSeal).enumerate() {
        if !sealed.ok(nth) {
            packet.drop(DropReason::NoTransmitKey);
            continue;
        }
        let link = tables.link(packet.meta.link);
        tally.add(&link.traffic, packet.frame.len() - link.outer.len());
        packet.send(link.port);
    }
}

/// Puts on the tag's room, the link header and the outer headers; adds what is to be sealed.
#[inline]
fn wrap<'a>(
    state: &State,
    link: &'a Link,
    meta: Meta,
    frame: &'a mut Frame,
    sealing: &mut Sealing<'a>,
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
    sealing.push(transmit.sa.packet(lane, counter, header.aad(), sealed));
    Ok(())
}
