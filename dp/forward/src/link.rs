//! The link seal: hop to hop, over the circuit header and everything in it.

use twinseal_crypto::{self as crypto, Replay, TAG_LEN};
use twinseal_xsk::Frame;
use zerocopy::FromBytes;

use super::jobs::{Opened, Opening, Sealed, Sealing};
use super::lookups::{Found, Lookups};
use super::reason::DropReason;
use super::{Account, Batch, Departure, Meta, Packet, Slot, Stage, State, at, circuit, refuse};
use twinseal_fib::traffic::{Tally, Traffic};
use twinseal_fib::trie::Number;
use twinseal_fib::{Fib, InboundSa, Link, LinkIndex};
use twinseal_wire::ethernet;
use twinseal_wire::overlay::{LinkHeader, SOURCE_PORT_BASE, SOURCE_PORTS, TYPE_DATA};

const HEADER: usize = size_of::<LinkHeader>();

/// Opens; afterwards the frame begins with the circuit header and ends with the circuit tag.
pub(super) fn open(state: &State, tables: &Fib, batch: &mut Batch) {
    let receivers = find_receivers(tables, batch);
    let opened = {
        let mut opening = Opening::new();
        gather(state, tables, batch, &receivers, &mut opening);
        opening.open()
    };
    accept(state, tables, batch, &opened);
}

/// Reads the link headers and looks for the keys that they name.
#[inline(never)]
fn find_receivers(tables: &Fib, batch: &mut Batch) -> Found {
    let mut lookups = Lookups::new();
    for (slot, packet) in at(batch, Stage::LinkOpen) {
        match LinkHeader::ref_from_prefix(packet.frame.data()) {
            Ok((header, _))
                if header.kind == TYPE_DATA && header.flags == 0 && header.reserved == 0 =>
            {
                let receiver = Number(header.receiver.get());
                lookups.push(slot, &tables.receiver_root, receiver);
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
    tables: &'a Fib,
    batch: &'a mut Batch,
    receivers: &Found,
    opening: &mut Opening<'a>,
) {
    for (slot, packet) in at(batch, Stage::LinkOpen) {
        let Packet { frame, meta, .. } = packet;
        let receiver = tables.receiver(receivers.of(slot));
        if receiver.is_none() {
            note_unknown(state, frame);
        }
        if let Err(reason) = decapsulate(slot, receiver, meta, frame, opening) {
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
fn decapsulate<'a, 't: 'a>(
    slot: Slot,
    receiver: Option<&'t InboundSa>,
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
    meta.account = Account::FromLink;
    (meta.from.link, meta.from.lane) = (receiver.link, lane);
    let aad = zerocopy::transmute!([first, counter]);
    let counter = u64::from_be(counter);
    opening.push(slot, &receiver.sa, lane, counter, aad, sealed);
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

/// Takes headers and tags off packets that nobody sent before.
#[inline(never)]
fn accept(state: &State, tables: &Fib, batch: &mut Batch, opened: &Opened) {
    let mut links = Links::of(tables);
    let mut tally = Tally::new(state.worker, Traffic::received);
    for (slot, packet) in at(batch, Stage::LinkOpen) {
        if !opened.fresh(slot) {
            let replay = opened.replay(slot);
            packet.drop(replay.map_or(DropReason::LinkAuthentication, stale));
            continue;
        }
        let link = links.get(packet.meta.from.link);
        tally.add(&link.traffic, packet.frame.len());
        let inside = packet.frame.len().saturating_sub(HEADER + TAG_LEN);
        match packet.frame.narrow(HEADER, inside) {
            true => packet.stage = Stage::Label,
            false => packet.drop(DropReason::Truncated),
        }
    }
}

/// The links of packets in turn: that of the packet before, which most have in common, is at hand.
pub(super) struct Links<'t> {
    tables: &'t Fib,
    last: Option<(LinkIndex, &'t Link)>,
}

impl<'t> Links<'t> {
    #[inline]
    pub(super) fn of(tables: &'t Fib) -> Self {
        Self { tables, last: None }
    }

    #[inline(always)]
    pub(super) fn get(&mut self, index: LinkIndex) -> &'t Link {
        match self.last {
            Some((last, link)) if last == index => link,
            _ => {
                let link = self.tables.link(index);
                self.last = Some((index, link));
                link
            }
        }
    }
}

/// Whether a link can take what begins with a circuit header, of so many bytes. It is asked as soon as the link is known,
/// before any counter is taken, and nowhere else.
#[inline(always)]
pub(super) fn admit(link: &Link, len: usize) -> Result<(), DropReason> {
    if link.outer.len() - ethernet::LEN + HEADER + len + TAG_LEN > usize::from(link.mtu) {
        return Err(DropReason::PacketTooBig);
    }
    if !link.outer.resolved {
        return Err(DropReason::LinkUnresolved);
    }
    match link.transmit {
        Some(_) => Ok(()),
        None => Err(DropReason::NoTransmitKey),
    }
}

/// Seals what begins with a circuit header, for the circuit too if it enters one here, and puts the outer headers on.
pub(super) fn seal(state: &State, tables: &Fib, batch: &mut Batch) {
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
    tables: &'a Fib,
    batch: &'a mut Batch,
    sealing: &mut Sealing<'a>,
) {
    let mut links = Links::of(tables);
    for (slot, packet) in at(batch, Stage::LinkSeal) {
        let Packet { frame, meta, .. } = packet;
        let inner = match meta.to.circuit {
            Some(circuit) => circuit::seal(tables.circuit(circuit), frame).map(Some),
            None => Ok(None),
        };
        let link = links.get(meta.to.link);
        let encapsulated = inner.and_then(|inner| {
            encapsulate(state, link, &meta.to, frame, |packet| {
                sealing.push(slot, inner, packet);
            })
        });
        if let Err(reason) = encapsulated {
            refuse(&mut packet.disposition, &mut packet.stage, reason);
        }
    }
}

/// Sends packets by their links.
#[inline(never)]
fn leave(state: &State, tables: &Fib, batch: &mut Batch, sealed: &Sealed) {
    let mut circuits = Tally::new(state.worker, Traffic::sent);
    let mut sent = Tally::new(state.worker, Traffic::sent);
    let mut links = Links::of(tables);
    for (slot, packet) in at(batch, Stage::LinkSeal) {
        if !sealed.ok(slot) {
            packet.drop(DropReason::NoTransmitKey);
            continue;
        }
        let to = packet.meta.to;
        let link = links.get(to.link);
        let payload = packet.frame.len() - link.outer.len();
        sent.add(&link.traffic, payload);
        if let Some(circuit) = to.circuit {
            circuit::count_sent(tables.circuit(circuit), &mut circuits, payload);
        }
        packet.send(link.port);
    }
}

/// Puts on the tag's room, the link header and the outer headers; passes on what is to be sealed.
#[inline(always)]
fn encapsulate<'a>(
    state: &State,
    link: &'a Link,
    to: &Departure,
    frame: &'a mut Frame,
    push: impl FnOnce(crypto::Packet<'a>),
) -> Result<(), DropReason> {
    // All that can fail comes before a counter is taken. The key is there: `admit` saw it.
    let transmit = link.transmit.as_ref().ok_or(DropReason::NoTransmitKey)?;
    let outer = link.outer.len();
    let payload = HEADER + frame.len() + TAG_LEN;
    if !frame.append(TAG_LEN) || !frame.prepend(outer + HEADER) {
        return Err(DropReason::NoHeadroom);
    }
    let (outer, rest) = frame.data_mut().split_at_mut(outer);
    let (room, sealed) = rest
        .split_first_chunk_mut::<HEADER>()
        .ok_or(DropReason::NoHeadroom)?;
    let lane = state.lane(to.flow);
    let source_port = SOURCE_PORT_BASE
        + (u32::from(link.source_port_salt) + u32::from(lane)) as u16 % SOURCE_PORTS;
    link.outer.write(outer, payload, source_port, to.class);
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
