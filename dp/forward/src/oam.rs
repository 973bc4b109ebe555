//! Operations and maintenance: what other nodes ask about a link or circuit is answered here, and what they answer is
//! punted. All of it came out of the seals of that link or circuit; nothing else is answered.
//!
//! A data packet pays nothing: these packets are told from it where it would be dropped, by a label that no link has or a
//! payload that is not of its IP version.

use twinseal_crypto::{self as crypto, TAG_LEN};
use twinseal_xsk::Frame;
use zerocopy::{FromBytes, IntoBytes};

use super::echoes::Counted;
use super::punt::PuntKind;
use super::reason::DropReason;
use super::{Account, Disposition, Packet, Stage, State, circuit, link};
use twinseal_fib::traffic::Traffic;
use twinseal_fib::{CircuitIndex, Fib, LinkIndex, hash};
use twinseal_wire::ip::Dscp;
use twinseal_wire::oam::{ECHO_REPLY, ECHO_REQUEST, Echo, LINK_LABEL};
use twinseal_wire::overlay::{CircuitHeader, PayloadType};

const HEADER: usize = size_of::<CircuitHeader>();

/// What is answered inside the worker, and what goes to the node itself.
enum Message {
    Request(Echo),
    Reply,
}

/// A packet whose label its link does not know; it is the link's own, or dropped.
#[cold]
pub(super) fn of_link(state: &mut State, tables: &Fib, packet: &mut Packet) {
    if let Err(reason) = from_link(state, tables, packet) {
        packet.drop(reason);
    }
}

fn from_link(state: &mut State, tables: &Fib, packet: &mut Packet) -> Result<(), DropReason> {
    let index = packet.meta.from.link;
    let Ok((header, _)) = CircuitHeader::ref_from_prefix(packet.frame.data()) else {
        return Err(DropReason::Truncated);
    };
    // There is no circuit whose lane, counter or epoch they could be.
    let its_own = header.label.get() == LINK_LABEL
        && header.payload_epoch == PayloadType::Oam.with_epoch(0)
        && header.lane == 0
        && header.counter.get() == 0;
    if !its_own {
        return Err(DropReason::UnknownLabel);
    }
    strip(&mut packet.frame, 0)?;
    match read(&packet.frame)? {
        Message::Reply => punt(state, packet),
        Message::Request(echo) => {
            spend(state, &tables.link(index).traffic)?;
            answer(&mut packet.frame);
            packet.meta.to.flow = hash::words(u64::from(packet.meta.from.lane), &flow(&echo));
            into_link(tables, packet, index)?;
            state.echoes.count(Counted::Answered);
            Ok(())
        }
    }
}

/// Whether the header is of a circuit's own packet. Cold, so that data packets are not asked.
#[cold]
pub(super) fn is_oam(header: &CircuitHeader) -> bool {
    header.payload() == Some(PayloadType::Oam)
}

/// A packet out of a circuit that is not of the IP version that it claims; it is the circuit's own, or dropped.
#[cold]
pub(super) fn of_circuit(state: &mut State, tables: &Fib, packet: &mut Packet) {
    if let Err(reason) = from_circuit(state, tables, packet) {
        packet.drop(reason);
    }
}

fn from_circuit(state: &mut State, tables: &Fib, packet: &mut Packet) -> Result<(), DropReason> {
    let index = packet.meta.from.circuit;
    let header = CircuitHeader::ref_from_prefix(packet.frame.data());
    let lane = match header {
        Ok((header, _)) if header.payload() == Some(PayloadType::Oam) => header.lane,
        Ok(_) => return Err(DropReason::BadIpHeader),
        Err(_) => return Err(DropReason::Truncated),
    };
    strip(&mut packet.frame, TAG_LEN)?;
    match read(&packet.frame)? {
        Message::Reply => {
            packet.meta.out_of = true;
            punt(state, packet)
        }
        Message::Request(echo) => {
            spend(state, &tables.circuit(index).traffic)?;
            answer(&mut packet.frame);
            packet.meta.to.flow = hash::words(u64::from(lane), &flow(&echo));
            into_circuit(state, tables, packet, index)?;
            state.echoes.count(Counted::Answered);
            Ok(())
        }
    }
}

/// Takes the circuit header off, and so many bytes at the end.
fn strip(frame: &mut Frame, behind: usize) -> Result<(), DropReason> {
    let inside = frame.len().checked_sub(HEADER + behind);
    match inside.is_some_and(|inside| frame.narrow(HEADER, inside)) {
        true => Ok(()),
        false => Err(DropReason::Truncated),
    }
}

fn read(frame: &Frame) -> Result<Message, DropReason> {
    match Echo::of(frame.data()) {
        Some(echo) if echo.kind == ECHO_REQUEST => Ok(Message::Request(echo)),
        Some(_) => Ok(Message::Reply),
        None => Err(DropReason::OamUnknown),
    }
}

/// Packets of equal flow stay in one lane: each echo may take another, so that all lanes are tried.
pub(super) fn flow(echo: &Echo) -> [u64; 2] {
    [echo.session.get().into(), echo.sequence.get()]
}

/// Whoever has the key could ask without end otherwise.
fn spend(state: &State, traffic: &Traffic) -> Result<(), DropReason> {
    match traffic.answers(state.now) {
        true => Ok(()),
        false => Err(DropReason::OamBudget),
    }
}

/// Makes a request the reply to it: as long, and with all else as it was asked.
fn answer(frame: &mut Frame) {
    // That it is there, `read` saw to.
    if let Some(kind) = frame.data_mut().first_mut() {
        *kind = ECHO_REPLY;
    }
}

/// Leaves the message to the node, if it looks at any more for the moment.
fn punt(state: &mut State, packet: &mut Packet) -> Result<(), DropReason> {
    if !state.punts.take(PuntKind::EchoReply) {
        return Err(DropReason::PuntBudget);
    }
    state.echoes.count(Counted::Replied);
    packet.disposition = Disposition::Punt(PuntKind::EchoReply);
    packet.stage = Stage::Done;
    Ok(())
}

/// Has a message leave by a link as the link's own.
pub(super) fn into_link(
    tables: &Fib,
    packet: &mut Packet,
    index: LinkIndex,
) -> Result<(), DropReason> {
    let link = tables.links.get(index.0).ok_or(DropReason::PortGone)?;
    (packet.meta.to.link, packet.meta.account) = (index, Account::ToLink);
    (packet.meta.to.circuit, packet.meta.to.class) = (None, 0);
    link::admit(link, HEADER + packet.frame.len())?;
    let header = CircuitHeader {
        label: LINK_LABEL.into(),
        // It goes no further, whatever a node takes it for.
        hop_limit: 1,
        traffic_class: 0,
        lane: 0,
        payload_epoch: PayloadType::Oam.with_epoch(0),
        counter: 0.into(),
    };
    put_on(&mut packet.frame, header)?;
    packet.stage = Stage::LinkSeal;
    Ok(())
}

/// Seals a message into a circuit. From then on it is as a packet in transit, so that it does not count as what the circuit
/// carried.
pub(super) fn into_circuit(
    state: &State,
    tables: &Fib,
    packet: &mut Packet,
    index: CircuitIndex,
) -> Result<(), DropReason> {
    let circuit = tables.circuits.get(index.0).ok_or(DropReason::PortGone)?;
    packet.meta.to.circuit = Some(index);
    packet.meta.account = Account::ToCircuit;
    packet.meta.to.link = circuit.link;
    circuit::admit(tables, circuit, packet.frame.len()).map_err(|refused| refused.reason)?;
    let sa = circuit.transmit.as_ref().ok_or(DropReason::NoTransmitKey)?;
    if !packet.frame.append(TAG_LEN) {
        return Err(DropReason::NoHeadroom);
    }
    let lane = state.lane(packet.meta.to.flow);
    let class = match circuit.dscp {
        Dscp::Fixed(value) => value << 2,
        Dscp::Copy => 0,
    };
    let counter = sa.reserve(&state.lanes, lane, 1);
    let header = CircuitHeader {
        label: circuit.label.into(),
        hop_limit: circuit.hop_limit,
        traffic_class: class,
        lane,
        payload_epoch: PayloadType::Oam.with_epoch(sa.epoch()),
        counter: counter.ok_or(DropReason::CounterExhausted)?.into(),
    };
    put_on(&mut packet.frame, header)?;
    let sealed = packet.frame.data_mut().get_mut(HEADER..);
    let sealed = sealed.ok_or(DropReason::NoHeadroom)?;
    let (counter, aad) = (header.counter.get(), header.aad(circuit.id));
    let mut one = [sa.packet(lane, counter, aad, sealed)];
    crypto::seal(&mut one);
    if !one[0].ok {
        return Err(DropReason::NoTransmitKey);
    }
    (packet.meta.to.circuit, packet.meta.to.class) = (None, class);
    packet.meta.account = Account::ToLink;
    packet.stage = Stage::LinkSeal;
    Ok(())
}

fn put_on(frame: &mut Frame, header: CircuitHeader) -> Result<(), DropReason> {
    if !frame.prepend(HEADER) {
        return Err(DropReason::NoHeadroom);
    }
    frame.data_mut()[..HEADER].copy_from_slice(header.as_bytes());
    Ok(())
}

#[cfg(test)]
#[path = "oam_tests.rs"]
mod tests;
