//! Packets for the node itself, and packets of its own.
//!
//! What is not data leaves the pipeline as [`Disposition::Punt`](super::Disposition::Punt), of each kind so many and no
//! more; the worker hands it to the node. The other way, [`inject`] seals what the node wants sent: counters belong to the
//! worker's lanes, so only the worker can.

use super::echoes::Counted;
use super::reason::DropReason;
use super::{Batch, Packet, Stage, State, budget, count_drop, link, oam, waiting};
use twinseal_fib::{CircuitIndex, Fib, LinkIndex, PortIndex, hash};
use twinseal_wire::oam::Echo;
use twinseal_xsk::Frame;

/// What a punted packet is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum PuntKind {
    /// A reply to an echo request of this node's; the frame is the message alone.
    EchoReply,
}

impl PuntKind {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 1] = [Self::EchoReply];
}

/// How many packets of each kind may still be punted.
#[derive(Default)]
pub struct Punts([u16; PuntKind::ALL.len()]);

impl Punts {
    /// The most of a kind that may be saved.
    pub const MOST: u16 = 256;

    /// So many more of each kind; the worker does it by the clock.
    pub fn add(&mut self, packets: u16) {
        for left in &mut self.0 {
            *left = left.saturating_add(packets).min(Self::MOST);
        }
    }

    /// One of a kind, if there is one left.
    pub(super) fn take(&mut self, kind: PuntKind) -> bool {
        budget::take(&mut self.0[kind as usize])
    }
}

/// Where an injected packet goes. What is not there when the worker comes to it has none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Towards {
    /// A maintenance message to the other end of a link.
    Link(LinkIndex),
    /// A maintenance message to the other end of a circuit.
    Circuit(CircuitIndex),
    /// A frame, beginning with its Ethernet header, by a port.
    Port(PortIndex),
}

/// What a punted packet came out of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CameBy {
    /// The port.
    pub port: PortIndex,
    /// The link.
    pub link: LinkIndex,
    /// The circuit, if it came out of one.
    pub circuit: Option<CircuitIndex>,
}

impl Packet {
    /// What a packet that is punted came out of.
    pub fn came_by(&self) -> CameBy {
        let from = self.meta.from;
        CameBy {
            port: self.port,
            link: from.link,
            circuit: self.meta.out_of.then_some(from.circuit),
        }
    }
}

/// Makes packets of the node's own ready to be sent, as [`process`](super::process) does those of others. There must be
/// room for them in the batch, which is empty.
pub fn inject(
    state: &mut State,
    tables: &Fib,
    injected: impl IntoIterator<Item = (Frame, Towards)>,
    batch: &mut Batch,
) {
    for (frame, towards) in injected {
        let mut packet = Packet::new(frame, PortIndex(0));
        let echo = match towards {
            Towards::Port(_) => None,
            _ => Echo::of(packet.frame.data()),
        };
        if let Some(echo) = echo {
            packet.meta.to.flow = hash::words(0, &oam::flow(&echo));
        }
        let ready = match towards {
            Towards::Link(link) => oam::into_link(tables, &mut packet, link),
            Towards::Circuit(circuit) => oam::into_circuit(state, tables, &mut packet, circuit),
            Towards::Port(port) => match tables.port(port) {
                Some(_) => {
                    packet.send(port);
                    Ok(())
                }
                None => Err(DropReason::PortGone),
            },
        };
        match ready {
            Ok(()) if echo.is_some() => state.echoes.count(Counted::Asked),
            Ok(()) => {}
            Err(reason) => packet.drop(reason),
        }
        batch.push(packet);
    }
    if waiting(batch, Stage::LinkSeal) {
        link::seal(state, tables, batch);
    }
    for packet in batch.iter() {
        if let super::Disposition::Drop(reason) = packet.disposition {
            count_drop(state, tables, &packet.meta, reason);
        }
    }
}
