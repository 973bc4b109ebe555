//! One worker's thread: receive, process, send, and outside of that loop what keeps it running.

mod own;
mod waiters;

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use arrayvec::ArrayVec;
use crossbeam::channel::{Receiver, Sender};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::sched_yield;
use twinseal_xsk::{Frame, Umem};

use super::NeighbourRequest;
use super::exchange::Crossing;
use super::stats::{PortTotals, WorkerCounters};
use super::taps::capture::Direction;
use super::taps::{self, Taps};
use super::wait::{Idle, Step, Wait};
use super::waiting::Room;
use crate::ports::afxdp::Opened;
use crate::ports::{PortError, Queue};
use crate::unix_nanos;
use twinseal_fib::publish::Reader;
use twinseal_fib::traffic::add;
use twinseal_fib::{MAX_PORTS, PortIndex};
use twinseal_forward::offloads::Offloads;
use twinseal_forward::punt::Punts;
use twinseal_forward::reason::DropReason;
use twinseal_forward::trace::Tracer;
use twinseal_forward::{BATCH, Batch, Budgets, Disposition, Packet, State};
use waiters::hold;

/// Opens a queue with the worker's memory.
pub(super) type Open = Box<dyn FnOnce(&mut Umem) -> Result<Opened, PortError> + Send>;

/// What the control thread asks of a worker.
pub(super) enum Command {
    /// Open a queue and serve it.
    Open {
        index: PortIndex,
        open: Open,
        reply: Sender<Result<Opened, PortError>>,
    },
    /// Close a queue.
    Close { index: PortIndex, reply: Sender<()> },
    /// Offer packets to a tap.
    Tap(taps::Open),
    /// Read the counters of ports.
    Counters { reply: Sender<Vec<PortTotals>> },
    /// Close all queues and end.
    Stop,
}

/// What connects a worker with the control thread.
pub(super) struct WorkerChannels {
    /// Which worker it is.
    pub(super) number: usize,
    pub(super) commands: Receiver<Command>,
    /// Becomes readable when there is a command, or new tables.
    pub(super) event: Arc<OwnedFd>,
    pub(super) requests: Sender<NeighbourRequest>,
    /// Tells the control thread that there is a request.
    pub(super) requested: Arc<UnixDatagram>,
    pub(super) cells: Arc<WorkerCounters>,
    /// What is for the node itself, and of its own.
    pub(super) crossing: Arc<Crossing>,
    /// When the workers began, of all the same.
    pub(super) began: Instant,
}

/// Loops with packets between two looks at clock and commands.
const BUSY_LOOPS: u32 = 64;
/// The longest sleep.
const SLEEP: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};
/// What poll(2) says of a descriptor of which nothing will come any more.
const FAILED: PollFlags = PollFlags::ERR.union(PollFlags::HUP).union(PollFlags::NVAL);
/// Frames that a worker holds for neighbours that are being asked for, at most; and of its memory no more than one in so
/// many.
const HELD: usize = 512;
const HELD_OF: usize = 4;

pub(super) struct Worker {
    state: State,
    memory: Umem,
    tables: Reader,
    wires: WorkerChannels,
    wait: Wait,
    queues: Vec<(PortIndex, Box<dyn Queue>)>,
    /// Frames just received, before they are a batch.
    received: Vec<Frame>,
    batch: Batch,
    /// Frames to send, by port; the ports that have any are in `sending`.
    outputs: [Vec<Frame>; MAX_PORTS],
    sending: ArrayVec<PortIndex, MAX_PORTS>,
    /// Frames that wait for a neighbour; jumbo frames, of which there are few, by themselves.
    rooms: [Room<Frame>; 2],
    /// The tables that rooms and queues were looked at with.
    seen: u64,
    /// The lives of ports in these; 0 where there is none.
    lives: [u64; MAX_PORTS],
    icmp_refilled: Instant,
    taps: Taps,
    tracer: Box<Tracer>,
    stop: bool,
}

impl Worker {
    pub(super) fn new(
        mut state: State,
        memory: Umem,
        tables: Reader,
        wires: WorkerChannels,
        idle: Idle,
    ) -> Self {
        state.errors.add(Budgets::MOST);
        state.punts.add(Punts::MOST);
        let now = Instant::now();
        let room = |frames: usize| Room::new((frames / HELD_OF).min(HELD), now);
        Self {
            rooms: [room(memory.available()), room(memory.jumbos_available())],
            seen: 0,
            lives: [0; MAX_PORTS],
            state,
            memory,
            tables,
            wires,
            wait: Wait::new(idle),
            queues: Vec::new(),
            received: Vec::with_capacity(BATCH),
            batch: Batch::new(),
            // A batch, or all who waited.
            outputs: std::array::from_fn(|_| Vec::with_capacity(BATCH.max(2 * HELD))),
            sending: ArrayVec::new(),
            icmp_refilled: now,
            taps: Taps::default(),
            tracer: Box::default(),
            stop: false,
        }
    }

    /// Runs until told to stop.
    pub(super) fn run(mut self) {
        let mut busy = 0;
        self.housekeep();
        while !self.stop {
            // All that packets pay for taps while there are none.
            let any = match self.taps.any() {
                false => self.forward::<false>(),
                true => self.forward::<true>(),
            };
            if any {
                self.wait.over();
                busy += 1;
                if busy < BUSY_LOOPS {
                    continue;
                }
            } else {
                match self.wait.empty() {
                    Step::Again => continue,
                    Step::Yield => {
                        sched_yield();
                        continue;
                    }
                    Step::Housekeeping => {}
                    Step::Sleep => self.sleep(),
                }
            }
            busy = 0;
            self.housekeep();
        }
        let Self { rooms, memory, .. } = &mut self;
        for room in rooms {
            room.review(|_| Some(()), |frame, _, ()| memory.free(frame));
        }
        for (_, queue) in self.queues.drain(..) {
            queue.abandon(&mut self.memory);
        }
    }

    /// The packet loop: one batch from each queue. Says whether there was a packet.
    fn forward<const TAPPED: bool>(&mut self) -> bool {
        let mut any = false;
        if self.tables.tables().generation != self.seen {
            self.look_around::<TAPPED>();
        }
        if self.wires.crossing.waiting() {
            any |= self.inject::<TAPPED>();
        }
        for place in 0..self.queues.len() {
            let (index, queue) = &mut self.queues[place];
            let index = *index;
            let count = queue.receive(&mut self.memory, &mut self.received, BATCH);
            if count > 0 {
                any = true;
                self.process::<TAPPED>(index);
                self.send::<TAPPED>();
            }
        }
        for (_, queue) in &mut self.queues {
            queue.tend(&mut self.memory);
        }
        any
    }

    /// Runs what was received on a port through the pipeline and sorts it by where it goes.
    fn process<const TAPPED: bool>(&mut self, index: PortIndex) {
        let cells = &self.wires.cells;
        let bytes = self.received.iter().map(Frame::len).sum();
        cells.ports[usize::from(index.0)].received(self.received.len(), bytes);
        add(&cells.batches, 1);
        add(&cells.packets, self.received.len() as u64);

        let frames = self.received.drain(..);
        self.batch
            .extend(frames.map(|frame| Packet::new(frame, index)));
        let generation = if TAPPED {
            self.process_tapped(index)
        } else {
            let tables = self.tables.tables();
            twinseal_forward::process(&mut self.state, tables, &mut self.batch);
            tables.generation
        };
        // Tables that came this very moment.
        if generation != self.seen && self.look_around::<TAPPED>() & 1 << index.0 != 0 {
            return self.disown();
        }
        let offloads = std::mem::take(&mut self.state.offloads);
        if offloads != Offloads::default() {
            self.wires.cells.ports[usize::from(index.0)].left_to_us(offloads);
        }
        self.sort();
    }

    /// Sorts a batch by where its packets go.
    fn sort(&mut self) {
        let (mut asked, mut punted) = (false, false);
        for packet in self.batch.drain(..) {
            match packet.disposition {
                Disposition::Send(port) => {
                    queue_up(&mut self.outputs, &mut self.sending, port, packet.frame);
                }
                Disposition::Wait(waiting) => {
                    let (rooms, memory) = (&mut self.rooms, &mut self.memory);
                    let of = self.state.awaited(waiting);
                    asked |= hold(rooms, memory, &self.state, &self.wires, packet.frame, of);
                }
                Disposition::Punt(kind) => {
                    punted |= self.wires.punt(kind, &packet, &self.state);
                    self.memory.free(packet.frame);
                }
                Disposition::Drop(_) | Disposition::Pending => self.memory.free(packet.frame),
            }
        }
        if punted {
            self.wires.crossing.tell();
        }
        if asked {
            self.wires.tell_requests();
        }
    }

    /// As the pipeline alone, with copies and traces for whoever wants some.
    fn process_tapped(&mut self, index: PortIndex) -> u64 {
        let (worker, now) = (self.wires.number, unix_nanos());
        for capture in &self.taps.captures {
            let frames = self.batch.iter().map(|packet| &packet.frame);
            capture.offer(worker, index, Direction::In, now, frames);
        }
        let tables = self.tables.tables();
        if self.taps.traces.is_empty() {
            twinseal_forward::process(&mut self.state, tables, &mut self.batch);
            return tables.generation;
        }
        self.tracer.begin(&self.batch);
        let tracer = &mut *self.tracer;
        twinseal_forward::process_probed(&mut self.state, tables, &mut self.batch, tracer);
        for trace in self.tracer.end(&self.batch) {
            for tracing in &self.taps.traces {
                tracing.offer(worker, now, trace);
            }
        }
        tables.generation
    }

    fn send<const TAPPED: bool>(&mut self) {
        for port in self.sending.drain(..) {
            let output = &mut self.outputs[usize::from(port.0) % MAX_PORTS];
            let bytes: usize = output.iter().map(Frame::len).sum();
            let packets = output.len();
            let Some((_, queue)) = self.queues.iter_mut().find(|(index, _)| *index == port) else {
                let frames = output.drain(..);
                give_up(&self.state, &mut self.memory, frames, DropReason::PortGone);
                continue;
            };
            if TAPPED {
                for capture in &self.taps.captures {
                    let (worker, now) = (self.wires.number, unix_nanos());
                    capture.offer(worker, port, Direction::Out, now, output.iter());
                }
            }
            let unsent = queue.transmit(&mut self.memory, output);
            let cells = &self.wires.cells.ports[usize::from(port.0)];
            cells.sent(packets as u64 - unsent.packets, bytes as u64 - unsent.bytes);
            if unsent.packets > 0 {
                self.state
                    .drops
                    .count(DropReason::TransmitFull, unsent.packets);
            }
        }
    }

    /// Sleeps until a frame, a command or new tables come.
    fn sleep(&mut self) {
        // Held over the sleep they could not be freed.
        self.tables.tables();
        if !self.queues.iter_mut().all(|(_, queue)| queue.arm()) || !self.wires.commands.is_empty()
        {
            return;
        }
        let mut fds = Vec::with_capacity(self.queues.len() + 1);
        fds.push(PollFd::from_borrowed_fd(
            self.wires.event.as_fd(),
            PollFlags::IN,
        ));
        for (_, queue) in &self.queues {
            if let Some(fd) = queue.wait_fd() {
                fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
            }
        }
        add(&self.wires.cells.sleeps, 1);
        // Interrupted or not, the loop looks at everything again.
        let _ = poll(&mut fds, Some(&SLEEP));
        let queues = self.queues.iter().enumerate();
        let waiting = queues.filter(|(_, (_, queue))| queue.wait_fd().is_some());
        let failed: Vec<usize> = waiting
            .zip(&fds[1..])
            .filter(|(_, fd)| fd.revents().intersects(FAILED))
            .map(|((place, _), _)| place)
            .collect();
        for place in failed {
            self.queues[place].1.poll_failed();
        }
        let _ = rustix::io::read(&self.wires.event, &mut [0; 8]);
    }

    /// What is done outside the packet loop: commands, neighbours, budgets.
    fn housekeep(&mut self) {
        while let Ok(command) = self.wires.commands.try_recv() {
            self.handle_command(command);
        }
        if self.taps.any() {
            self.taps.clear();
        }
        let now = Instant::now();
        self.tidy(now);
        self.refill(now);
        self.tell_dead();
        let free = self.memory.available() as u32;
        self.wires.cells.frames_free.store(free, Relaxed);
    }

    /// Tells the control thread which ports have lost a queue.
    fn tell_dead(&self) {
        let dead = self.queues.iter().filter(|(_, queue)| queue.is_dead());
        let ports = dead.fold(0, |ports, (index, _)| ports | 1u64 << index.0);
        self.wires.cells.dead.store(ports, Relaxed);
    }

    /// The counters of its ports. Whatever left its lists is in a queue's account by now, so that what a device drops or
    /// has not taken yet is not counted as sent, not even for a moment.
    fn count(&self) -> Vec<PortTotals> {
        let mut all: Vec<PortTotals> = Vec::new();
        for (index, queue) in &self.queues {
            // Packets of a port are counted together, whichever of its queues they come by.
            let mut totals = match all.iter().position(|totals| totals.port == *index) {
                Some(place) => all.swap_remove(place),
                None => self.wires.cells.ports[usize::from(index.0)].totals(*index),
            };
            totals.add_sockets(&queue.kernel_counters());
            totals.take_off(queue.not_sent());
            all.push(totals);
        }
        all
    }

    fn handle_command(&mut self, command: Command) {
        match command {
            Command::Open { index, open, reply } => {
                let opened = open(&mut self.memory).map(|mut opened| {
                    if let Some(queue) = opened.queue.take() {
                        self.wires.cells.ports[usize::from(index.0)].reset();
                        self.queues.push((index, queue));
                    }
                    opened
                });
                let _ = reply.send(opened);
            }
            Command::Close { index, reply } => {
                while let Some(place) = self.queues.iter().position(|(known, _)| *known == index) {
                    let (_, queue) = self.queues.swap_remove(place);
                    let unsent = queue.close(&mut self.memory);
                    self.state.drops.count(DropReason::PortGone, unsent);
                }
                // Before the answer, or the next port of this index would be taken for dead.
                self.tell_dead();
                self.forget(index);
                let _ = reply.send(());
            }
            Command::Counters { reply } => {
                let _ = reply.send(self.count());
            }
            Command::Tap(tap) => self.taps.open(tap),
            Command::Stop => self.stop = true,
        }
    }
}

/// Frees frames that the pipeline would have sent, and counts why they are not.
fn give_up(
    state: &State,
    memory: &mut Umem,
    frames: impl IntoIterator<Item = Frame>,
    reason: DropReason,
) {
    for frame in frames {
        state.drops.count(reason, 1);
        memory.free(frame);
    }
}

/// Puts a frame among those to be sent by a port.
fn queue_up(
    outputs: &mut [Vec<Frame>; MAX_PORTS],
    sending: &mut ArrayVec<PortIndex, MAX_PORTS>,
    port: PortIndex,
    frame: Frame,
) {
    let output = &mut outputs[usize::from(port.0) % MAX_PORTS];
    if output.is_empty() {
        sending.push(port);
    }
    output.push(frame);
}
