//! Packets for the node itself, and of its own.

use super::{Worker, WorkerChannels};
use twinseal_forward::punt::{self, PuntKind};
use twinseal_forward::reason::DropReason;
use twinseal_forward::{Packet, State};

impl Worker {
    /// Sends packets of the node's own. Says whether there was any.
    #[cold]
    pub(super) fn inject<const TAPPED: bool>(&mut self) -> bool {
        let now = self.wires.began.elapsed();
        let injected = self.wires.crossing.take(now, &mut self.memory);
        let any = !injected.is_empty();
        let tables = self.tables.tables();
        punt::inject(&mut self.state, tables, injected, &mut self.batch);
        self.sort();
        self.send::<TAPPED>();
        any
    }
}

impl WorkerChannels {
    /// Leaves a packet to the node, and says whether there was room for it.
    #[cold]
    pub(super) fn punt(&self, kind: PuntKind, packet: &Packet, state: &State) -> bool {
        let (at, came) = (self.began.elapsed(), packet.came_by());
        let room = self.crossing.punt(kind, at, came, packet.frame.data());
        if !room {
            state.drops.count(DropReason::PuntFull, 1);
        }
        room
    }
}
