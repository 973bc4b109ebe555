//! Labels: the circuit header on a transit node, or at its end.

use zerocopy::FromBytes;

use super::reason::DropReason;
use super::{Account, Batch, Packet, Stage, at};
use crate::tables::hash::{self, Memo};
use crate::tables::{LabelAction, Tables, label_key};
use crate::wire::ecn;
use crate::wire::overlay::CircuitHeader;

pub(super) fn look_up(tables: &Tables, batch: &mut Batch) {
    let mut labels = Memo::new(&tables.labels);
    for packet in at(batch, Stage::Label) {
        match look_up_one(&mut labels, packet) {
            Ok(stage) => packet.stage = stage,
            Err(reason) => packet.drop(reason),
        }
    }
}

#[inline]
fn look_up_one(
    labels: &mut Memo<'_, u64, LabelAction>,
    packet: &mut Packet,
) -> Result<Stage, DropReason> {
    let outer = packet.meta.traffic_class;
    let (header, _) = CircuitHeader::mut_from_prefix(packet.frame.data_mut())
        .map_err(|_| DropReason::Truncated)?;
    let key = label_key(packet.meta.link, header.label.get());
    let action = *labels.get(key).ok_or(DropReason::UnknownLabel)?;
    header.traffic_class =
        ecn::leave(header.traffic_class, outer).ok_or(DropReason::EcnViolation)?;
    packet.meta.traffic_class = header.traffic_class;
    match action {
        LabelAction::Swap { link, label } => {
            if header.hop_limit <= 1 {
                return Err(DropReason::HopLimit);
            }
            header.hop_limit -= 1;
            header.label = label.into();
            // A flow came on one lane of the link and has one lane of the circuit: by these it keeps its order.
            packet.meta.flow = hash::words(packet.meta.flow, &[key, u64::from(header.lane)]);
            packet.meta.link = link;
            Ok(Stage::LinkSeal)
        }
        LabelAction::Egress(circuit) => {
            (packet.meta.circuit, packet.meta.account) = (circuit, Account::Circuit);
            Ok(Stage::CircuitOpen)
        }
    }
}
