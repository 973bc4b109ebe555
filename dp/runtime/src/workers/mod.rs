//! Workers: pinned threads that run packets to completion, and the control thread's handle of them.

pub mod exchange;
mod sched;
pub mod stats;
pub mod taps;
mod wait;
mod waiting;
mod worker;

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{self, Receiver, Sender};
use rustix::event::{EventfdFlags, eventfd};
use twinseal_crypto::LaneOwner;
use twinseal_xsk::{HugePages, Pages, Umem, UmemConfig};

use self::exchange::{Crossing, Exchange};
use crate::ports::afxdp::{self, Opened, Opener};
use crate::ports::{
    Device, Fit, Outcome, PortError, PortSpec, Steering, check_device, memory, tap,
};
pub use sched::DEFAULT_SLICE;
use stats::{PortTotals, Snapshot, WorkerCounters, WorkerTotals};
use taps::capture::Capture;
use taps::trace::Tracing;
use taps::{AnyTap, Open};
use twinseal_fib::publish::Publisher;
use twinseal_fib::{Fib, MAX_PORTS, PortIndex};
use twinseal_forward::echoes::{Counted, Echoes};
use twinseal_forward::reason::{DropReason, Drops};
use twinseal_forward::told::{self, Told};
use twinseal_forward::{FRAME_HEADROOM, State};
pub use wait::Idle;
use worker::{Command, Worker};

/// How to run workers.
#[derive(Clone, Debug)]
pub struct PoolConfig {
    /// The CPU of each worker, or `None` to leave it to the scheduler; the number of entries is the number of workers.
    pub cpus: Vec<Option<usize>>,
    /// Frames of packet memory a worker.
    pub frames: u32,
    /// Octets of a frame: 2048 or 4096.
    pub frame_size: u32,
    /// Frames for packets larger than `frame_size`, a worker.
    pub jumbo_frames: u32,
    /// Huge pages.
    pub huge_pages: HugePages,
    /// Descriptors of each ring; a power of two.
    pub ring: u32,
    /// What a worker does when there are no packets.
    pub idle: Idle,
    /// How long a worker computes at most before another program on its core has a turn.
    pub slice: Duration,
    /// Lanes of a worker: into how many ordered slices its flows fall, for the spread over the underlay's paths. Times
    /// the number of workers, at most 256.
    pub lanes: u8,
}

/// A neighbour that packets wait for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct NeighbourRequest {
    /// The edge port.
    pub port: PortIndex,
    /// The port's life: [`Port::since`](twinseal_fib::Port::since). The index may be another's when this is read.
    pub since: u64,
    /// Its address.
    pub address: IpAddr,
}

/// How many neighbour requests may wait for the control thread; more are asked again by later packets.
const REQUESTS: usize = 1024;

/// The running workers.
pub struct Pool {
    config: PoolConfig,
    handles: Vec<Handle>,
    publisher: Publisher,
    requests: Receiver<NeighbourRequest>,
    /// Both ends of what tells of requests.
    requested: (Arc<UnixDatagram>, Option<UnixDatagram>),
    /// When the workers began, and what tells of packets for the node itself.
    began: Instant,
    punted: Arc<OwnedFd>,
    exchange: Option<Exchange>,
    /// All that workers may still have.
    taps: Vec<Arc<dyn AnyTap>>,
    pages: Pages,
}

/// The control thread's side of one worker.
struct Handle {
    commands: Sender<Command>,
    event: Arc<OwnedFd>,
    cells: Arc<WorkerCounters>,
    drops: Arc<Drops>,
    told: Arc<told::Errors>,
    echoes: Arc<Echoes>,
    crossing: Arc<Crossing>,
    thread: Option<JoinHandle<()>>,
}

impl Pool {
    /// Starts them, one for each owner of lanes, with empty tables.
    pub fn start(config: PoolConfig, lanes: Vec<LaneOwner>) -> Result<Self, PortError> {
        let publisher = Publisher::new(Fib::default());
        let (ask, requests) = channel::bounded(REQUESTS);
        let system = PortError::system("socketpair");
        let (tell, told) = UnixDatagram::pair().map_err(&system)?;
        for end in [&tell, &told] {
            end.set_nonblocking(true).map_err(&system)?;
        }
        let mut pool = Self {
            pages: Pages::Ordinary,
            handles: Vec::with_capacity(config.cpus.len()),
            publisher,
            requests,
            requested: (Arc::new(tell), Some(told)),
            began: Instant::now(),
            punted: Arc::new(new_event()?),
            exchange: None,
            taps: Vec::new(),
            config,
        };
        for (number, lanes) in lanes.into_iter().enumerate() {
            let memory = Umem::new(&UmemConfig {
                frame_count: pool.config.frames,
                frame_size: pool.config.frame_size,
                headroom: FRAME_HEADROOM as u32,
                jumbo_frames: pool.config.jumbo_frames,
                huge: pool.config.huge_pages,
            })?;
            pool.pages = memory.pages();
            let handle =
                pool.start_worker(State::new(number, lanes), number, memory, ask.clone())?;
            pool.handles.push(handle);
        }
        let ends = pool.handles.iter();
        let ends = ends.map(|it| (Arc::clone(&it.crossing), Arc::clone(&it.event)));
        let (began, punted) = (pool.began, Arc::clone(&pool.punted));
        pool.exchange = Some(Exchange::new(began, punted, ends.collect()));
        Ok(pool)
    }

    fn start_worker(
        &self,
        state: State,
        number: usize,
        memory: Umem,
        requests: Sender<NeighbourRequest>,
    ) -> Result<Handle, PortError> {
        let event = Arc::new(new_event()?);
        let (commands, inbox) = channel::unbounded();
        let cells = Arc::new(WorkerCounters::default());
        let drops = Arc::clone(&state.drops);
        let told = Arc::clone(&state.told);
        let echoes = Arc::clone(&state.echoes);
        let crossing = Crossing::new(number, Arc::clone(&self.punted));
        let worker = Worker::new(
            state,
            memory,
            self.publisher.reader(),
            worker::WorkerChannels {
                number,
                commands: inbox,
                event: Arc::clone(&event),
                requests,
                requested: Arc::clone(&self.requested.0),
                cells: Arc::clone(&cells),
                crossing: Arc::clone(&crossing),
                began: self.began,
            },
            self.config.idle,
        );
        let (cpu, slice) = (self.config.cpus[number], self.config.slice);
        let thread = std::thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(move || {
                sched::prepare(cpu, slice);
                worker.run();
            })
            .map_err(PortError::system("starting a worker's thread"))?;
        Ok(Handle {
            commands,
            event,
            cells,
            drops,
            told,
            echoes,
            crossing,
            thread: Some(thread),
        })
    }

    /// How many there are.
    pub fn workers(&self) -> usize {
        self.handles.len()
    }

    /// "huge pages" or "ordinary pages".
    pub fn memory(&self) -> &'static str {
        match self.pages {
            Pages::Huge => "huge pages",
            Pages::Ordinary => "ordinary pages",
        }
    }

    /// Opens a device and hands its queues to the workers. Its packets go nowhere until tables know the port. `local`
    /// are the node's own addresses there; packets to them stay the host's from the first on.
    ///
    /// On an error everything is as it was.
    pub fn add_port(
        &self,
        index: PortIndex,
        spec: &PortSpec,
        local: &[IpAddr],
    ) -> Result<(Steering, Outcome), PortError> {
        let opened = self.open_port(index, spec, local);
        if opened.is_err() {
            self.remove_port(index);
        }
        let (steering, mut outcome) = opened?;
        if spec.mtu != 0 {
            outcome.mtu = spec.mtu.min(outcome.mtu);
        }
        Ok((steering, outcome))
    }

    /// Why a port would not open, as far as can be known without opening it. `ours`: its device is open as a port now.
    ///
    /// # Errors
    /// As [`add_port`](Self::add_port) would tell it.
    pub fn check_port(&self, spec: &PortSpec, ours: bool) -> Result<(), PortError> {
        match &spec.device {
            Device::AfXdp {
                netdev,
                bind,
                xdp,
                busy_poll,
                ..
            } => {
                check_device(netdev, *bind, *xdp)?;
                let (config, device) = (&self.config, (netdev.as_str(), *bind, *busy_poll));
                let (ring, size) = (config.ring, config.frame_size);
                Opener::new(device, spec.mtu, ring, size, config.jumbo_frames)?;
                self.queues(netdev)?;
                if !ours {
                    twinseal_ebpf::Steering::look(netdev)?;
                }
                Ok(())
            }
            Device::Tap { netdev } if !ours => tap::check(netdev),
            Device::Tap { .. } | Device::Memory { .. } => Ok(()),
        }
    }

    fn open_port(
        &self,
        index: PortIndex,
        spec: &PortSpec,
        local: &[IpAddr],
    ) -> Result<(Steering, Outcome), PortError> {
        if usize::from(index.0) >= MAX_PORTS {
            return Err(PortError::TooMany);
        }
        match &spec.device {
            Device::AfXdp {
                netdev,
                bind,
                xdp,
                busy_poll,
                owned,
            } => {
                let config = &self.config;
                let device = (netdev.as_str(), *bind, *busy_poll);
                let (ring, size) = (config.ring, config.frame_size);
                check_device(netdev, *bind, *xdp)?;
                let opener = Opener::new(device, spec.mtu, ring, size, config.jumbo_frames)?;
                let mut opened = Vec::new();
                let workers = self.handles.iter().cycle();
                for (queue, handle) in (0..self.queues(netdev)?).zip(workers) {
                    let opener = opener.clone();
                    opened.push(handle.open(index, move |memory| opener.open(memory, queue))?);
                }
                let role = spec.edge.then_some(*owned);
                afxdp::steer(&opener, role, *xdp, local, &opened)
            }
            Device::Tap { netdev } => {
                let (workers, size) = (self.handles.len(), self.config.frame_size);
                let (queues, outcome) = tap::open(netdev, spec.mtu, workers, size)?;
                for (queue, handle) in queues.into_iter().zip(&self.handles) {
                    handle.open(index, move |_| Ok(Opened::plain(Box::new(queue))))?;
                }
                Ok((Steering::default(), outcome))
            }
            Device::Memory { wire, mac } => {
                let end = memory::End::open(wire, self.handles.len())?;
                for (number, handle) in self.handles.iter().enumerate() {
                    let queue = Box::new(end.queue(number));
                    handle.open(index, move |_| Ok(Opened::plain(queue)))?;
                }
                let outcome = Outcome {
                    mac: *mac,
                    mtu: memory::MTU,
                    device_mtu: memory::MTU,
                    offloads: false,
                    xdp: None,
                    bind: Vec::new(),
                    need_wakeup: false,
                    peer: None,
                    ifindex: None,
                };
                Ok((Steering::default(), outcome))
            }
        }
    }

    /// How many queues of a device to open: all. Worker w serves queue w, and those that are left over in turn.
    ///
    /// There must be one for each worker: a socket sends by the queue that it is bound to, on its worker's memory, so a
    /// worker without a queue could not send what it received elsewhere. It would have to hand packets to another core.
    fn queues(&self, netdev: &str) -> Result<u32, PortError> {
        let workers = self.handles.len() as u32;
        match twinseal_xsk::queue_count(netdev) {
            Some(queues) if queues < workers => Err(PortError::TooFewQueues {
                netdev: netdev.to_owned(),
                queues,
                workers,
            }),
            // A driver that does not say has at least one.
            queues => Ok(queues.unwrap_or(workers)),
        }
    }

    /// What packets an AF_XDP port takes whose device has this MTU, and of which those of up to `mtu` bytes are wanted (0:
    /// all that it can).
    pub fn fit(&self, netdev: &str, device_mtu: u32, mtu: u16) -> Result<Fit, PortError> {
        // A larger one cannot be used up anyway.
        let device_mtu = u16::try_from(device_mtu).unwrap_or(u16::MAX);
        let config = &self.config;
        afxdp::fit(
            netdev,
            device_mtu,
            mtu,
            config.frame_size,
            config.jumbo_frames,
        )
    }

    /// Whether IP packets of up to `mtu` bytes need jumbo frames.
    pub fn needs_jumbo(&self, mtu: u16) -> bool {
        afxdp::needs_jumbo(mtu, self.config.frame_size)
    }

    /// Takes a port away and waits until its queues are closed. Its [`Steering`] must be dropped already, or packets
    /// would be steered at nothing.
    pub fn remove_port(&self, index: PortIndex) {
        let closed: Vec<_> = self
            .handles
            .iter()
            .map(|handle| {
                let (reply, answer) = channel::bounded(1);
                handle.command(Command::Close { index, reply });
                answer
            })
            .collect();
        for answer in closed {
            // An error means that the worker is gone, and its queues with it.
            let _ = answer.recv();
        }
    }

    /// Makes these the tables of every batch that begins from now on.
    pub fn publish(&mut self, tables: Fib) {
        self.publisher.publish(tables);
        // A worker that sleeps would hold the old tables until its next packet.
        for handle in &self.handles {
            handle.wake();
        }
    }

    /// Has all workers offer packets at a port to a capture.
    pub fn capture(&mut self, capture: Capture) {
        self.taps.push(capture.tap.clone());
        self.tap(&Open::Capture(capture));
    }

    /// Has all workers trace packets.
    pub fn trace(&mut self, tracing: Tracing) {
        self.taps.push(tracing.tap.clone());
        self.tap(&Open::Trace(tracing));
    }

    fn tap(&self, open: &Open) {
        for handle in &self.handles {
            handle.command(Command::Tap(open.clone()));
        }
    }

    /// Taps that have not ended, or that somebody holds on to.
    pub fn taps(&self) -> usize {
        self.taps.len()
    }

    /// Frees old tables and taps that no worker holds any more; call now and then.
    pub fn reclaim(&mut self) {
        // A count of one is this vector's own.
        self.taps
            .retain(|tap| !tap.ended() || Arc::strong_count(tap) > 1);
        self.publisher.reclaim();
    }

    /// Neighbours that packets wait for; a worker asks for each about once a second, and for some of each port only.
    pub fn neighbour_requests(&self) -> &Receiver<NeighbourRequest> {
        &self.requests
    }

    /// The ports of which a worker found that a queue's device is gone for good, a bit each by their indices.
    pub fn dead_ports(&self) -> u64 {
        let dead = |ports, handle: &Handle| ports | handle.cells.dead.load(Relaxed);
        self.handles.iter().fold(0, dead)
    }

    /// Something comes by this socket, which does not block, when there are [requests](Self::neighbour_requests). It can be
    /// taken once.
    pub fn requested(&mut self) -> Option<UnixDatagram> {
        self.requested.1.take()
    }

    /// What is punted to the node, and what it injects. It can be taken once.
    pub fn exchange(&mut self) -> Option<Exchange> {
        self.exchange.take()
    }

    /// All counters.
    pub fn stats(&self) -> Snapshot {
        let answers: Vec<Receiver<Vec<PortTotals>>> = self
            .handles
            .iter()
            .map(|handle| {
                let (reply, answer) = channel::bounded(1);
                handle.command(Command::Counters { reply });
                answer
            })
            .collect();
        let mut ports: Vec<PortTotals> = Vec::new();
        for counted in answers.iter().flat_map(|it| it.recv().unwrap_or_default()) {
            match ports.iter_mut().find(|totals| totals.port == counted.port) {
                Some(totals) => totals.add(&counted),
                None => ports.push(counted),
            }
        }
        ports.sort_by_key(|totals| totals.port);
        Snapshot {
            drops: self.drops(),
            icmp_errors: self.icmp_errors(),
            echoes: self.echoes(),
            ports,
            workers: self
                .handles
                .iter()
                .map(|h| h.totals(&self.config))
                .collect(),
        }
    }

    /// Packets dropped so far by each reason, by its name. Waits for no worker.
    pub fn drops(&self) -> Vec<(&'static str, u64)> {
        let of = |&reason: &DropReason| {
            let count = self.handles.iter().map(|h| h.drops.get(reason)).sum();
            (reason.name(), count)
        };
        DropReason::ALL.iter().map(of).collect()
    }

    /// Echo requests and replies so far.
    fn echoes(&self) -> Vec<(&'static str, u64)> {
        let of = |what: Counted| {
            let count = self.handles.iter().map(|h| h.echoes.get(what)).sum();
            (what.name(), count)
        };
        Counted::ALL.map(of).to_vec()
    }

    /// ICMP errors so far by what became of them.
    fn icmp_errors(&self) -> Vec<(&'static str, u64)> {
        let of = |told: Told| {
            let count = self.handles.iter().map(|h| h.told.get(told)).sum();
            (told.name(), count)
        };
        Told::ALL.map(of).to_vec()
    }

    /// Of each worker the last receiver index since the last call that no key has; 0: there was none.
    pub fn unknown_receivers(&self) -> Vec<u32> {
        let handles = self.handles.iter();
        handles.map(|h| h.drops.take_unknown_receiver()).collect()
    }

    /// Stops the workers and waits for them. They close their ports without waiting until the kernel is done with these.
    pub fn stop(self) {
        drop(self);
    }
}

fn new_event() -> Result<OwnedFd, PortError> {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        .map_err(|source| PortError::system("eventfd")(source.into()))
}

impl Drop for Pool {
    fn drop(&mut self) {
        for handle in &self.handles {
            handle.command(Command::Stop);
        }
        for handle in &mut self.handles {
            if let Some(thread) = handle.thread.take()
                && thread.join().is_err()
            {
                tracing::error!("a worker panicked");
            }
        }
    }
}

impl Handle {
    fn command(&self, command: Command) {
        // A worker that is gone drops the command, and with it the sender of its answer.
        let _ = self.commands.send(command);
        self.wake();
    }

    fn wake(&self) {
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
    }

    /// Has the worker open a queue with its own memory.
    fn open(
        &self,
        index: PortIndex,
        open: impl FnOnce(&mut Umem) -> Result<Opened, PortError> + Send + 'static,
    ) -> Result<Opened, PortError> {
        let (reply, answer) = channel::bounded(1);
        self.command(Command::Open {
            index,
            open: Box::new(open),
            reply,
        });
        answer.recv().unwrap_or(Err(PortError::Stopped))
    }

    fn totals(&self, config: &PoolConfig) -> WorkerTotals {
        WorkerTotals {
            batches: self.cells.batches.load(Relaxed),
            packets: self.cells.packets.load(Relaxed),
            sleeps: self.cells.sleeps.load(Relaxed),
            frames_free: self.cells.frames_free.load(Relaxed),
            frames: config.frames,
        }
    }
}
