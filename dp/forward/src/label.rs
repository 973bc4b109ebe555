//! Labels: the circuit header on a transit node, or at its end.

use std::mem::offset_of;

use zerocopy::FromBytes;

use super::link::{self, Links};
use super::lookups::{Found, Lookups};
use super::reason::DropReason;
use super::{Account, Batch, Packet, Stage, State, at, circuit, oam};
use twinseal_fib::trie::Number;
use twinseal_fib::{Circuit, Fib, LabelAction, Swap, hash};
use twinseal_wire::ecn;
use twinseal_wire::overlay::CircuitHeader;

pub(super) fn follow(state: &mut State, tables: &Fib, batch: &mut Batch) {
    let found = look_up(tables, batch);
    tables.prefetch_swaps(found.distinct());
    let many = found.distinct().len() > 1;
    act_all(state, tables, batch, &found, many);
    if many {
        circuit::prefetch_receive(state, tables, batch);
    }
}

/// Looks for what the links know of the labels.
#[inline(never)]
fn look_up(tables: &Fib, batch: &mut Batch) -> Found {
    let mut lookups = Lookups::new();
    let mut links = Links::of(tables);
    for (slot, packet) in at(batch, Stage::Label) {
        // Without a whole header nothing is found, and `act` says why.
        if let Ok((header, _)) = CircuitHeader::ref_from_prefix(packet.frame.data()) {
            let labels = &links.get(packet.meta.from.link).labels;
            lookups.push(slot, labels, Number(header.label.get()));
        }
    }
    lookups.find(&tables.tries)
}

#[inline(never)]
fn act_all(state: &mut State, tables: &Fib, batch: &mut Batch, found: &Found, many: bool) {
    let mut links = Links::of(tables);
    for (slot, packet) in at(batch, Stage::Label) {
        let action = tables.label_action(found.of(slot));
        match act(action, &mut links, packet) {
            Ok(stage) => {
                packet.stage = stage;
                if many && stage == Stage::CircuitOpen {
                    prefetch_circuit(tables, packet);
                }
            }
            Err(DropReason::UnknownLabel) => oam::of_link(state, tables, packet),
            Err(reason) => packet.drop(reason),
        }
    }
}

/// Asks the processor for what opening reads of the circuit's entry.
#[inline]
fn prefetch_circuit(tables: &Fib, packet: &Packet) {
    if let Ok((header, _)) = CircuitHeader::ref_from_prefix(packet.frame.data()) {
        let epoch = usize::from(header.epoch_low());
        let key = offset_of!(Circuit, receive) + epoch * size_of::<usize>();
        tables.circuits.prefetch(packet.meta.from.circuit.0, 0);
        tables.circuits.prefetch(packet.meta.from.circuit.0, key);
    }
}

#[inline]
fn act(
    action: Option<LabelAction>,
    links: &mut Links<'_>,
    packet: &mut Packet,
) -> Result<Stage, DropReason> {
    let Packet { frame, meta, .. } = packet;
    let len = frame.len();
    let (header, _) =
        CircuitHeader::mut_from_prefix(frame.data_mut()).map_err(|_| DropReason::Truncated)?;
    let action = action.ok_or(DropReason::UnknownLabel)?;
    let class = ecn::leave(header.traffic_class, meta.from.link_class);
    header.traffic_class = class.ok_or(DropReason::EcnViolation)?;
    match action {
        LabelAction::Swap(Swap { link, label }) => {
            if header.hop_limit <= 1 {
                return Err(DropReason::HopLimit);
            }
            header.hop_limit -= 1;
            let from = u64::from(meta.from.link.0) << 32 | u64::from(header.label.get());
            header.label = label.into();
            // A flow came on one lane of the link and has one lane of the circuit: by these it keeps its order.
            let lane = u64::from(meta.from.lane);
            meta.to.flow = hash::words(lane, &[from, u64::from(header.lane)]);
            meta.to.class = header.traffic_class;
            (meta.to.link, meta.account) = (link, Account::ToLink);
            link::admit(links.get(link), len)?;
            Ok(Stage::LinkSeal)
        }
        LabelAction::Egress(circuit) => {
            (meta.from.circuit, meta.account) = (circuit, Account::FromCircuit);
            Ok(Stage::CircuitOpen)
        }
    }
}
