//! Frames that wait for a neighbour, and what must not outlive its port.

use std::time::{Duration, Instant};

use twinseal_xsk::{Frame, Umem};

use super::{BATCH, Worker, WorkerChannels, give_up, queue_up};
use crate::workers::NeighbourRequest;
use crate::workers::waiting::Room;
use twinseal_fib::{Fib, MAX_PORTS, PortIndex};
use twinseal_forward::reason::DropReason;
use twinseal_forward::{Awaited, Budgets, Disposition, State};
use twinseal_wire::ethernet::Mac;
use twinseal_wire::ip;

/// Batches that a queue may be emptied of at once.
const EMPTIED: usize = 256;
/// How many packets of a kind may be punted in the same time, and the unit of the budgets of maintenance answers.
const PUNTS: u16 = 8;
const ANSWERS_PERIOD: Duration = Duration::from_millis(100);
/// How often a VRF may send another ICMP error about a size, another of the others, and ten more echo replies.
const ICMP_PERIOD: Duration = Duration::from_millis(10);

impl Worker {
    /// There are new tables. Frames whose neighbour is known by now leave; those go whose port is gone or another VRF's,
    /// and with them what such ports have received. Says which those are, a bit each.
    #[cold]
    pub(super) fn look_around<const TAPPED: bool>(&mut self) -> u64 {
        let tables = self.tables.tables();
        self.seen = tables.generation;
        let mut moved = 0;
        for (index, life) in (0..).map(PortIndex).zip(&mut self.lives) {
            let now = tables.port(index).map_or(0, |port| port.since);
            let before = std::mem::replace(life, now);
            moved |= u64::from(before != 0 && before != now) << index.0;
        }
        for room in &mut self.rooms {
            room.review(
                |of| found(tables, of),
                |mut frame, of, mac| match mac {
                    Some(mac) => {
                        frame.data_mut()[..mac.0.len()].copy_from_slice(&mac.0);
                        let port = of.neighbour.port;
                        queue_up(&mut self.outputs, &mut self.sending, port, frame);
                    }
                    None => give_up(&self.state, &mut self.memory, [frame], DropReason::PortGone),
                },
            );
        }
        self.send::<TAPPED>();
        if moved != 0 {
            self.empty(moved);
        }
        moved
    }

    /// Drops what was received by ports, a bit each, when they were another VRF's.
    fn empty(&mut self, ports: u64) {
        for (index, queue) in &mut self.queues {
            let mut left = EMPTIED;
            while ports & 1 << index.0 != 0 && left > 0 {
                left -= 1;
                // What is being processed is in the batch.
                if queue.receive(&mut self.memory, &mut self.received, BATCH) == 0 {
                    break;
                }
                let bytes = self.received.iter().map(Frame::len).sum();
                let cells = &self.wires.cells.ports[usize::from(index.0)];
                cells.received(self.received.len(), bytes);
                let frames = self.received.drain(..);
                give_up(&self.state, &mut self.memory, frames, DropReason::PortGone);
            }
        }
    }

    /// Drops a batch whose port was another VRF's when it came.
    pub(super) fn disown(&mut self) {
        for packet in self.batch.drain(..) {
            match packet.disposition {
                // That one is counted.
                Disposition::Drop(_) => self.memory.free(packet.frame),
                _ => {
                    let reason = DropReason::PortGone;
                    give_up(&self.state, &mut self.memory, [packet.frame], reason);
                }
            }
        }
    }

    /// Drops what has waited too long.
    pub(super) fn tidy(&mut self, now: Instant) {
        let Self {
            state,
            memory,
            rooms,
            wires,
            ..
        } = self;
        let mut asked = false;
        for room in rooms {
            let ask = |of| {
                let sent = wires.ask(of);
                asked |= sent;
                sent
            };
            let reason = DropReason::NeighbourUnresolved;
            room.tidy(now, ask, |frame| give_up(state, memory, [frame], reason));
        }
        if asked {
            self.wires.tell_requests();
        }
    }

    /// Adds to the budgets of ICMP errors, echo replies, punts and answers what is due.
    pub(super) fn refill(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.wires.began);
        self.state.now = (since.as_nanos() / ANSWERS_PERIOD.as_nanos()) as u64;
        let periods = (now - self.icmp_refilled).as_nanos() / ICMP_PERIOD.as_nanos();
        if periods > 0 {
            let errors = periods.min(Budgets::MOST.into()) as u16;
            self.state.errors.add(errors);
            self.state.punts.add(errors * PUNTS);
            self.icmp_refilled = match errors {
                Budgets::MOST => now,
                errors => self.icmp_refilled + ICMP_PERIOD * errors.into(),
            };
        }
    }

    /// Drops what waits for a port that was closed: its index may be another's next.
    pub(super) fn forget(&mut self, index: PortIndex) {
        self.lives[usize::from(index.0) % MAX_PORTS] = 0;
        let Self {
            state,
            memory,
            rooms,
            ..
        } = self;
        for room in rooms {
            room.review(
                |of| (of.neighbour.port == index).then_some(()),
                |frame, _, ()| give_up(state, memory, [frame], DropReason::PortGone),
            );
        }
    }
}

/// Has a frame wait, and says whether its neighbour was asked for.
#[cold]
pub(super) fn hold(
    rooms: &mut [Room<Frame>; 2],
    memory: &mut Umem,
    state: &State,
    wires: &WorkerChannels,
    frame: Frame,
    of: Option<Awaited>,
) -> bool {
    let Some(of) = of else {
        give_up(state, memory, [frame], DropReason::NeighbourUnresolved);
        return false;
    };
    let mut asked = false;
    let ask = || {
        asked = wires.ask(of);
        asked
    };
    let room = &mut rooms[usize::from(frame.is_jumbo())];
    if let Some(frame) = room.hold(frame, of, Instant::now(), ask) {
        give_up(state, memory, [frame], DropReason::NeighbourUnresolved);
    }
    asked
}

/// What became of a neighbour: its hardware address, or nothing for a port that is not the one it was. `None` if it is
/// still to be waited for.
fn found(tables: &Fib, of: &Awaited) -> Option<Option<Mac>> {
    let port = tables.port(of.neighbour.port);
    if port.is_none_or(|port| port.since != of.since) {
        return Some(None);
    }
    let neighbour = tables.neighbours.get(&of.neighbour)?;
    Some(Some(neighbour.send_to()))
}

impl WorkerChannels {
    /// Asks for a neighbour, and says whether there was room for that.
    fn ask(&self, of: Awaited) -> bool {
        let request = NeighbourRequest {
            port: of.neighbour.port,
            since: of.since,
            address: ip::unmapped(of.neighbour.address),
        };
        self.requests.try_send(request).is_ok()
    }

    /// Wakes the control thread for what it was asked.
    pub(super) fn tell_requests(&self) {
        // If there is no room it is not awake yet.
        let _ = self.requested.send(&[0]);
    }
}

#[cfg(test)]
#[path = "waiters_tests.rs"]
mod tests;
