//! The load: frames sealed for the transit node, sent as fast as they can be, and counted at the other side.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use twinseal_crypto::{self as crypto, LaneOwner, Lanes, Provider, SealSa, Suite};
use twinseal_ebpf::{Role, Steering, XdpMode};
use twinseal_forward::fixture::{EAST, EDGE, Path, Seal, WEST, host_frame_v4, mac};
use twinseal_wire::overlay::LinkHeader;
use twinseal_wire::{ethernet, ip, udp};
use twinseal_xsk::{BindMode, Frame, Socket, SocketConfig, Umem, UmemConfig};

use super::Error;
use super::workload::{END, Workload};

/// The core that it runs on.
const CPU: usize = 0;
/// Frames that are made and sent at a time.
const BATCH: usize = 64;
/// Frames of each of the two ends' rings.
const RING: u32 = 4096;
/// Lanes that the frames come by.
const LANES: u16 = 4;
/// Octets in front of a link header.
const OUTER: usize = ethernet::LEN + ip::V4_LEN + udp::LEN;
const HEADER: usize = size_of::<LinkHeader>();
/// How long nothing must come before all has come.
const QUIET: Duration = Duration::from_millis(20);

/// Both ends of the course.
pub(super) struct Load {
    // First: no frame is steered at a socket that is gone.
    _program: Steering,
    memory: Umem,
    source: Socket,
    sink: Socket,
    frames: Vec<Frame>,
    sealer: Sealer,
}

/// One run's run.
#[derive(Default)]
pub(super) struct Run {
    pub(super) sent: u64,
    pub(super) received: u64,
    /// Processor time of the node's thread.
    pub(super) cpu: Duration,
    pub(super) time: Duration,
}

/// Makes frames that the transit node takes: each link seal is real, with the next counter of a lane. What is in the
/// circuit's seal is whatever the memory holds: a transit node cannot look into it.
struct Sealer {
    sa: SealSa,
    owner: LaneOwner,
    lane: u8,
    /// Outer headers, link header, circuit header, and as many octets as follow.
    template: Vec<u8>,
}

impl Load {
    pub(super) fn new(
        course: &Workload,
        provider: &dyn Provider,
        suite: Suite,
        mode: XdpMode,
        octets: usize,
    ) -> Result<Self, Error> {
        let mut memory = Umem::new(&UmemConfig {
            frame_count: 4 * RING,
            ..UmemConfig::default()
        })?;
        let config = SocketConfig {
            bind: BindMode::Copy,
            rx_size: RING,
            tx_size: RING,
            fill_size: RING,
            completion_size: RING,
            ..SocketConfig::default()
        };
        let source = {
            let _inside = course.load().enter()?;
            Socket::open(&memory, END, 0, &config)?
        };
        let (sink, program) = {
            let _inside = course.sink().enter()?;
            let mut socket = Socket::open(&memory, END, 0, &config)?;
            socket.fill(&mut memory, RING as usize);
            let mut program = Steering::attach(END, Role::Bridge { mac: [0x06; 6] }, mode)?;
            program.register(0, socket.as_fd())?;
            (socket, program)
        };
        Ok(Self {
            _program: program,
            memory,
            source,
            sink,
            frames: Vec::with_capacity(BATCH),
            sealer: Sealer::new(provider, suite, octets)?,
        })
    }

    /// Octets of a frame.
    pub(super) fn frame(&self) -> usize {
        self.sealer.template.len()
    }

    /// Sends for `warm_up` and then for `time`, which alone counts; `drops` tells what a node that forwards nothing did
    /// instead.
    pub(super) fn run(
        &mut self,
        node: &'static str,
        warm_up: Duration,
        time: Duration,
        drops: impl Fn() -> String,
    ) -> Result<Run, Error> {
        // In a thread that is not pinned afterwards.
        let run = std::thread::scope(|scope| {
            let run = scope.spawn(|| {
                pin(CPU)?;
                let before = self.send(warm_up)?;
                if before.received == 0 {
                    return Ok(before);
                }
                let run = self.send(time)?;
                // Nobody takes late frames for the next node's.
                let mut last = Instant::now();
                while last.elapsed() < QUIET {
                    if self.receive() > 0 {
                        last = Instant::now();
                    }
                }
                Ok::<_, Error>(run)
            });
            run.join().map_err(|_| Error::Panicked)?
        })?;
        match run {
            Run {
                received: 0, sent, ..
            } => Err(Error::Silent {
                node,
                sent,
                drops: drops(),
            }),
            run => Ok(run),
        }
    }

    fn send(&mut self, time: Duration) -> Result<Run, Error> {
        let cpu = cpu_time(NODE_THREAD)?;
        let start = Instant::now();
        let mut run = Run::default();
        while start.elapsed() < time {
            while self.frames.len() < BATCH
                && let Some(frame) = self.memory.alloc()
            {
                self.frames.push(frame);
            }
            self.sealer.fill(&mut self.frames);
            run.sent += self.source.transmit(&mut self.frames) as u64;
            self.source.wake_tx()?;
            self.source.complete(&mut self.memory);
            run.received += self.receive();
        }
        run.time = start.elapsed();
        run.cpu = cpu_time(NODE_THREAD)?.saturating_sub(cpu);
        Ok(run)
    }

    /// Takes what has come, and returns how many frames are the load's. (The kernel's own may be among them.)
    fn receive(&mut self) -> u64 {
        let mut frames = ArrayVec::<Frame, { 4 * BATCH }>::new();
        self.sink
            .receive(&mut self.memory, 4 * BATCH, |frame| frames.push(frame));
        let mut received = 0;
        for frame in frames {
            let good = frame.len() == self.sealer.template.len()
                && frame.data()[..6] == mac(3, WEST).0
                && frame.data()[6..12] == mac(2, EAST).0;
            received += u64::from(good);
            self.memory.free(frame);
        }
        self.sink.fill(&mut self.memory, usize::MAX);
        received
    }
}

impl Sealer {
    fn new(provider: &dyn Provider, suite: Suite, octets: usize) -> Result<Self, Error> {
        let mut path = Path::new(provider, suite)?;
        let mut sent = path.a.run(EDGE, &[host_frame_v4(octets, 1)]);
        let (_, mut template) = sent.remove(0);
        // What the edge sealed for the link is opened, to be sealed anew with each counter.
        let (_, sealed) = template.split_at_mut(OUTER);
        let (header, text) = sealed.split_at_mut(HEADER);
        let header: LinkHeader = zerocopy::FromBytes::read_from_bytes(header)
            .expect("the edge of the fixture sends what it always did");
        let open = Seal::FirstLink.open_sa(provider, suite)?;
        let mut packets = [open.packet(header.lane, header.counter.get(), header.aad(), text)];
        crypto::open(&mut packets);
        assert!(packets[0].ok, "the edge's own seal");
        let (lanes, mut owners) = Lanes::split(1, LANES)?;
        Ok(Self {
            sa: Seal::FirstLink.seal_sa(provider, suite, lanes)?,
            owner: owners.remove(0),
            lane: 0,
            template,
        })
    }

    /// Makes the frames the next ones of a lane.
    fn fill(&mut self, frames: &mut [Frame]) {
        self.lane = (self.lane + 1) % LANES as u8;
        let lane = self.lane;
        let first = self
            .sa
            .reserve(&self.owner, lane, frames.len() as u32)
            .unwrap_or_default();
        let mut packets = ArrayVec::<_, BATCH>::new();
        for (counter, frame) in (first..).zip(frames) {
            frame.reset();
            if !frame.append(self.template.len()) {
                continue;
            }
            let head = OUTER + 2 * HEADER;
            frame.data_mut()[..head].copy_from_slice(&self.template[..head]);
            let (header, text) = frame.data_mut()[OUTER..].split_at_mut(HEADER);
            let Ok(header) = <LinkHeader as zerocopy::FromBytes>::mut_from_bytes(header) else {
                continue;
            };
            header.lane = lane;
            header.counter = counter.into();
            packets.push(self.sa.packet(lane, counter, header.aad(), text));
        }
        crypto::seal(&mut packets);
    }
}

/// The name of a node's thread, as a worker pool has it.
pub(super) const NODE_THREAD: &str = "worker-0";

/// The processor time that a thread of this process has used.
fn cpu_time(name: &str) -> Result<Duration, Error> {
    let failed = |source| Error::System {
        doing: "reading a thread's processor time in /proc/self/task",
        source,
    };
    for task in std::fs::read_dir("/proc/self/task").map_err(failed)? {
        let task = task.map_err(failed)?.path();
        if std::fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name) {
            let text = std::fs::read_to_string(task.join("schedstat")).map_err(failed)?;
            let ns = text.split(' ').next().and_then(|ns| ns.parse().ok());
            return Ok(Duration::from_nanos(ns.unwrap_or(0)));
        }
    }
    Err(failed(std::io::ErrorKind::NotFound.into()))
}

/// Pins the calling thread to a CPU.
pub(super) fn pin(cpu: usize) -> Result<(), Error> {
    crate::cpu::pin(cpu).map_err(|source| Error::System {
        doing: "pinning a thread to a CPU",
        source,
    })
}
