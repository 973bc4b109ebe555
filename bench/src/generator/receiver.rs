//! The receiving end: an AF_XDP socket a queue, and a thread that keeps the tally.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use twinseal_ebpf::{Role, Steering, XdpMode, XdpOutcome};
use twinseal_lab::traffic::{Latency, Marker, Sent, Summary, Tally, now_ns, wait_for};
use twinseal_xsk::{BindMode, Frame, Outcome, Socket, SocketConfig, Umem, UmemConfig};

use super::frame::{Seen, look};
use super::{GeneratorError, pin};

/// Descriptors of each ring.
const RING: u32 = 4096;
/// Bytes of a chunk.
const CHUNK: u32 = 4096;
/// Packets a turn.
const BATCH: usize = 64;
/// How often the thread looks whether it should stop, and what its sockets dropped.
const LOOK_NS: u64 = 10_000_000;
/// Turns that stop() still takes from a queue that never runs dry.
const LAST_TURNS: usize = 10_000;

/// What a [`Receiver`] receives, and how.
#[derive(Debug, Clone)]
pub struct ReceiverConfig {
    /// The device.
    pub netdev: String,
    /// How many of its queues, from 0 on: as many as it has, or what comes in by the others is not seen.
    pub queues: u32,
    /// Native or generic XDP.
    pub xdp: XdpMode,
    /// Zero-copy or copy.
    pub bind: BindMode,
    /// Destinations of the test packets; whatever else the device receives passes to the kernel.
    pub endpoints: Vec<SocketAddr>,
    /// How long to look for packets again and again, yielding in between, before sleeping until some come. Zero is the
    /// kindest to others on the same processor; [`Duration::MAX`] wakes the fastest.
    pub spin: Duration,
    /// The processor to receive on.
    pub cpu: Option<usize>,
}

/// Receives test packets by AF_XDP until it is stopped.
pub struct Receiver {
    live: Arc<Live>,
    thread: Option<JoinHandle<Result<(), GeneratorError>>>,
    // The thread ends first.
    steering: Steering,
    mode: Outcome,
    marker: Marker,
}

/// What came, and when.
#[derive(Debug)]
pub struct Received {
    /// Who got what.
    pub tally: Tally,
    /// When the first test packet came ([`now_ns`]); 0 when none did.
    pub first_ns: u64,
    /// When the last came.
    pub last_ns: u64,
}

struct Live {
    stop: AtomicBool,
    received: AtomicU64,
    arrived: AtomicU64,
    account: Mutex<Received>,
}

impl Receiver {
    /// Opens the sockets and attaches the steering program, in the calling thread's network namespace. When it returns
    /// it receives.
    ///
    /// # Errors
    /// When AF_XDP is not there, the queues are taken, or another XDP program is attached.
    pub fn start(config: &ReceiverConfig, marker: Marker) -> Result<Self, GeneratorError> {
        if config.queues == 0 {
            return Err(GeneratorError::Nothing);
        }
        let mut umem = Umem::new(&UmemConfig {
            frame_count: config.queues * RING * 2,
            frame_size: CHUNK,
            ..UmemConfig::default()
        })?;
        let socket = SocketConfig {
            bind: config.bind,
            rx_size: RING,
            fill_size: RING,
            // Nothing is sent.
            tx_size: 64,
            completion_size: 64,
            ..SocketConfig::default()
        };
        let mut steering = Steering::attach(&config.netdev, Role::Underlay, config.xdp)?;
        steering.set_endpoints(&config.endpoints)?;
        let mut sockets = Vec::new();
        for queue in 0..config.queues {
            let mut socket = Socket::open(&umem, &config.netdev, queue, &socket)?;
            socket.fill(&mut umem, RING as usize);
            steering.register(queue, socket.fd())?;
            sockets.push(socket);
        }
        let mode = sockets[0].mode();
        let live = Arc::new(Live {
            stop: AtomicBool::new(false),
            received: AtomicU64::new(0),
            arrived: AtomicU64::new(0),
            account: Mutex::new(Received::none(marker)),
        });
        let inlet = Inlet {
            umem,
            sockets,
            marker,
            spin: config.spin,
            frames: Vec::with_capacity(BATCH),
        };
        let thread = std::thread::Builder::new().name("receiver".into()).spawn({
            let (live, cpu) = (live.clone(), config.cpu);
            move || {
                pin(cpu)?;
                inlet.run(&live)
            }
        });
        Ok(Self {
            live,
            thread: Some(thread.map_err(GeneratorError::Thread)?),
            steering,
            mode,
            marker,
        })
    }

    /// How the sockets are bound.
    pub fn mode(&self) -> Outcome {
        self.mode
    }

    /// How the steering program runs.
    pub fn xdp(&self) -> XdpOutcome {
        self.steering.outcome()
    }

    /// Different packets received since the last [`take`](Self::take).
    pub fn received(&self) -> u64 {
        self.live.received.load(Ordering::Relaxed)
    }

    /// Frames of any kind that arrived since the start.
    pub fn arrived(&self) -> u64 {
        self.live.arrived.load(Ordering::Relaxed)
    }

    /// Waits until `count` different packets are here, or nothing has arrived for `quiet`. Returns how many are.
    pub fn wait_for(&self, count: u64, quiet: Duration) -> u64 {
        wait_for(count, quiet, || self.received(), || self.arrived())
    }

    /// Different packets received since the last [`take`](Self::take) that are not of this sending.
    pub(super) fn late(&self, sent: &Sent) -> u64 {
        self.live.account().late(sent).received
    }

    /// The account so far; it begins anew.
    pub fn take(&self) -> Received {
        let mut account = self.live.account();
        self.live.received.store(0, Ordering::Relaxed);
        std::mem::replace(&mut account, Received::none(self.marker))
    }

    /// Takes what is queued, ends, and returns the account since the last [`take`](Self::take).
    ///
    /// # Errors
    /// When the device failed meanwhile.
    pub fn stop(mut self) -> Result<Received, GeneratorError> {
        self.end()?;
        Ok(self.take())
    }

    fn end(&mut self) -> Result<(), GeneratorError> {
        self.live.stop.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // Whoever wants to know calls stop().
        let _ = self.end();
    }
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Receiver").field(&self.steering).finish()
    }
}

impl Received {
    fn none(marker: Marker) -> Self {
        Self {
            tally: Tally::new(marker),
            first_ns: 0,
            last_ns: 0,
        }
    }

    /// Packets a second between the first that came and the last; 0 when fewer than two did.
    pub fn pps(&self) -> f64 {
        match self.last_ns - self.first_ns {
            0 => 0.0,
            ns => self.tally.received().saturating_sub(1) as f64 * 1e9 / ns as f64,
        }
    }

    /// What came of other sendings than this.
    pub(super) fn late(&self, sent: &Sent) -> Summary {
        let is_of = |flow: u32| (flow.wrapping_sub(sent.first_flow) as usize) < sent.per_flow.len();
        let mut late = Summary::default();
        for (_, tally) in self.tally.flows().filter(|(flow, _)| !is_of(*flow)) {
            late.flows += 1;
            late.received += tally.received;
            late.duplicates += tally.duplicates;
            late.reordered += tally.reordered;
            late.bytes += tally.bytes;
        }
        late
    }

    /// All of it, beside no sending.
    pub(super) fn of_nothing(&self) -> Summary {
        Summary {
            latency: Latency::default(),
            ..self.tally.summary(&Sent::default())
        }
    }

    fn record(&mut self, marker: &Marker, now_ns: u64, frame: &[u8]) {
        match look(frame, marker) {
            // An empty payload is foreign to any tally.
            Seen::Foreign => {
                self.tally.record(now_ns, &[]);
            }
            Seen::Damaged => self.tally.add_damaged(1),
            Seen::Payload(payload) => {
                if self.tally.record(now_ns, payload) {
                    self.last_ns = now_ns;
                    if self.first_ns == 0 {
                        self.first_ns = now_ns;
                    }
                }
            }
        }
    }
}

impl Live {
    fn account(&self) -> MutexGuard<'_, Received> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the thread owns.
struct Inlet {
    umem: Umem,
    sockets: Vec<Socket>,
    marker: Marker,
    spin: Duration,
    frames: Vec<Frame>,
}

impl Inlet {
    fn run(mut self, live: &Live) -> Result<(), GeneratorError> {
        let spin_ns = u64::try_from(self.spin.as_nanos()).unwrap_or(u64::MAX);
        let (mut last_turns, mut last_ns) = (LAST_TURNS, now_ns());
        let (mut drops, mut drops_due) = (0, 0);
        loop {
            // Read before the queues: what was queued when stop() was called is still taken.
            let stopping = live.stop.load(Ordering::Relaxed);
            let count = self.turn(live)?;
            let now = now_ns();
            last_turns -= usize::from(stopping);
            let ends = stopping && (count == 0 || last_turns == 0);
            if ends || now >= drops_due {
                let all = self.drops()?;
                live.account().tally.add_socket_drops(all - drops);
                (drops, drops_due) = (all, now + LOOK_NS);
            }
            if ends {
                break;
            } else if count > 0 {
                last_ns = now;
            } else if now - last_ns < spin_ns {
                std::thread::yield_now();
            } else {
                self.sleep()?;
            }
        }
        for socket in self.sockets.drain(..) {
            socket.close(&mut self.umem);
        }
        Ok(())
    }

    /// Takes a batch of each queue; returns how many packets.
    fn turn(&mut self, live: &Live) -> Result<usize, GeneratorError> {
        let mut total = 0;
        for socket in &mut self.sockets {
            let count = socket.receive(&mut self.umem, BATCH, |frame| self.frames.push(frame));
            if count == 0 {
                continue;
            }
            total += count;
            let now = now_ns();
            let mut account = live.account();
            for frame in self.frames.drain(..) {
                account.record(&self.marker, now, frame.data());
                self.umem.free(frame);
            }
            live.received
                .store(account.tally.received(), Ordering::Relaxed);
            drop(account);
            live.arrived.fetch_add(count as u64, Ordering::Relaxed);
            socket.fill(&mut self.umem, usize::MAX);
            socket.wake_rx()?;
        }
        Ok(total)
    }

    /// Packets that reached a socket and found no room there.
    fn drops(&self) -> Result<u64, GeneratorError> {
        let mut sum = 0;
        for socket in &self.sockets {
            let kernel = socket.statistics()?;
            sum += kernel.rx_dropped + kernel.rx_ring_full + socket.counters().rx_multi_buffer;
        }
        Ok(sum)
    }

    fn sleep(&self) -> Result<(), GeneratorError> {
        let fds = self
            .sockets
            .iter()
            .map(|socket| PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN));
        let mut fds: Vec<_> = fds.collect();
        let look = Timespec {
            tv_sec: 0,
            tv_nsec: LOOK_NS as i64,
        };
        match rustix::event::poll(&mut fds, Some(&look)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(GeneratorError::Thread(error.into())),
        }
    }
}
