//! Labels: the circuit header on a transit node, or at its end.

use std::mem::offset_of;

use zerocopy::FromBytes;

use super::lookups::Found;
use super::reason::DropReason;
use super::{Account, Batch, Packet, Stage, at};
use crate::tables::{Circuit, LabelAction, Swap, Tables, hash};
use crate::wire::ecn;
use crate::wire::overlay::CircuitHeader;

/// Follows the labels, of which `found` is what their links know.
#[inline(never)]
pub(super) fn follow(tables: &Tables, batch: &mut Batch, found: &Found) {
    tables.prefetch_swaps(found.distinct());
    let many = found.distinct().len() > 1;
    for (packet, leaf) in at(batch, Stage::Label).zip(found.iter()) {
        match act(tables.label_action(leaf), packet) {
            Ok(stage) => {
                packet.stage = stage;
                if many && stage == Stage::CircuitOpen {
                    prefetch_circuit(tables, packet);
                }
            }
            Err(reason) => packet.drop(reason),
        }
    }
}

/// Asks the processor for what opening reads of the circuit's entry.
#[inline]
fn prefetch_circuit(tables: &Tables, packet: &Packet) {
    if let Ok((header, _)) = CircuitHeader::ref_from_prefix(packet.frame.data()) {
        let epoch = usize::from(header.epoch_low());
        let key = offset_of!(Circuit, receive) + epoch * size_of::<usize>();
        tables.circuits.prefetch(packet.meta.circuit.0, 0);
        tables.circuits.prefetch(packet.meta.circuit.0, key);
    }
}

#[inline]
fn act(action: Option<LabelAction>, packet: &mut Packet) -> Result<Stage, DropReason> {
    let outer = packet.meta.traffic_class;
    let (header, _) = CircuitHeader::mut_from_prefix(packet.frame.data_mut())
        .map_err(|_| DropReason::Truncated)?;
    let action = action.ok_or(DropReason::UnknownLabel)?;
    header.traffic_class =
        ecn::leave(header.traffic_class, outer).ok_or(DropReason::EcnViolation)?;
    packet.meta.traffic_class = header.traffic_class;
    match action {
        LabelAction::Swap(Swap { link, label }) => {
            if header.hop_limit <= 1 {
                return Err(DropReason::HopLimit);
            }
            header.hop_limit -= 1;
            let from = u64::from(packet.meta.link.0) << 32 | u64::from(header.label.get());
            header.label = label.into();
            // A flow came on one lane of the link and has one lane of the circuit: by these it keeps its order.
            packet.meta.flow = hash::words(packet.meta.flow, &[from, u64::from(header.lane)]);
            packet.meta.link = link;
            Ok(Stage::LinkSeal)
        }
        LabelAction::Egress(circuit) => {
            (packet.meta.circuit, packet.meta.account) = (circuit, Account::Circuit);
            Ok(Stage::CircuitOpen)
        }
    }
}
