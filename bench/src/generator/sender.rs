//! The sending end: an AF_XDP socket a queue.

use std::io;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use twinseal_lab::LabError;
use twinseal_lab::frame::UdpFrame;
use twinseal_lab::traffic::{BATCH, Load, Outlet, Payload, Running, Sent, send};
use twinseal_xsk::{BindMode, Frame, Outcome, Socket, SocketConfig, Umem, UmemConfig, Wake};

use super::frame::Template;
use super::{GeneratorError, pin};

/// Descriptors of each ring.
const RING: u32 = 2048;
/// Bytes of a chunk: frames of up to 3840 bytes.
const CHUNK: u32 = 4096;
/// How long the last packets may wait in the ring.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_micros(50);

/// What a [`Sender`] sends through, and what its frames are.
#[derive(Debug, Clone)]
pub struct SenderConfig {
    /// The device.
    pub netdev: String,
    /// How many of its queues. Flow n leaves by queue n modulo their number.
    pub queues: u32,
    /// The first of them.
    pub first_queue: u32,
    /// Zero-copy or copy.
    pub bind: BindMode,
    /// Addresses of all frames; its source port is not used.
    pub frame: UdpFrame,
    /// Source ports: flow n has the n-th of them, from the start again when they run out.
    pub src_ports: RangeInclusive<u16>,
    /// The processor to send on.
    pub cpu: Option<usize>,
}

/// Sends test packets by AF_XDP. It needs no XDP program, and what else the device sends and receives stays as it is.
#[derive(Debug)]
pub struct Sender {
    config: SenderConfig,
    umem: Umem,
    sockets: Vec<Socket>,
    /// Bytes of payloads, in turn; empty: as the load says.
    mix: Vec<usize>,
    /// One a size, in their order; packets have them in turn.
    templates: Vec<Template>,
    /// The template of the next packet.
    turn: usize,
    /// Of each chunk, the template whose constant part is in it already.
    laid_out: Vec<Option<u8>>,
    staged: Box<[(u16, u8, Payload); BATCH]>,
    frames: Vec<Frame>,
}

impl Sender {
    /// Opens the sockets, in the calling thread's network namespace.
    ///
    /// # Errors
    /// When AF_XDP is not there or the queues are taken; when source and destination are of two families.
    pub fn open(config: &SenderConfig) -> Result<Self, GeneratorError> {
        let UdpFrame { src, dst, .. } = config.frame;
        if src.is_ipv4() != dst.is_ipv4() {
            return Err(GeneratorError::Families { src, dst });
        }
        if config.queues == 0 || config.src_ports.is_empty() {
            return Err(GeneratorError::Nothing);
        }
        let umem = Umem::new(&UmemConfig {
            frame_count: config.queues * RING,
            frame_size: CHUNK,
            ..UmemConfig::default()
        })?;
        let socket = SocketConfig {
            bind: config.bind,
            // Nothing is received, but the kernel wants a fill ring.
            rx_size: 64,
            fill_size: 64,
            tx_size: RING,
            completion_size: RING,
            ..SocketConfig::default()
        };
        let queues = config.first_queue..config.first_queue + config.queues;
        let sockets = queues
            .map(|queue| Socket::open(&umem, &config.netdev, queue, &socket))
            .collect::<Result<_, _>>()?;
        let nothing = Payload {
            marker: [0; 8],
            flow: 0,
            seq: 0,
            sent_ns: 0,
        };
        Ok(Self {
            config: config.clone(),
            laid_out: vec![None; umem.frame_count()],
            umem,
            sockets,
            mix: Vec::new(),
            templates: Vec::new(),
            turn: 0,
            staged: Box::new([(0, 0, nothing); BATCH]),
            frames: Vec::with_capacity(BATCH),
        })
    }

    /// How the sockets are bound.
    pub fn mode(&self) -> Outcome {
        self.sockets[0].mode()
    }

    /// Has the packets of the next loads have payloads of so many bytes, in turn (up to 256 sizes); if there are none, as
    /// the load says.
    pub fn set_mix(&mut self, payload_sizes: &[usize]) {
        self.mix = payload_sizes.iter().copied().take(256).collect();
    }

    /// Sends a load and returns when all of it has left.
    ///
    /// # Errors
    /// [`GeneratorError::Size`] for packets that do not fit; a system error when the kernel took nothing for ten seconds.
    pub fn send(&mut self, load: &Load) -> Result<Sent, GeneratorError> {
        self.check(load)?;
        let cpu = self.config.cpu;
        // On a thread of its own: pinning must not outlast it.
        let sent = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                pin(cpu)?;
                Ok(send(self, load)?)
            });
            thread.join()
        });
        sent.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Sends a load in the background; wherever the scheduler likes, whatever `cpu` says.
    ///
    /// # Errors
    /// [`GeneratorError::Size`] for packets that do not fit.
    pub fn start(self, load: Load) -> Result<Running, GeneratorError> {
        self.check(&load)?;
        Ok(Running::start(self, load))
    }

    /// Closes the sockets and waits until the kernel has let go of them.
    pub fn close(mut self) {
        for socket in self.sockets.drain(..) {
            socket.close(&mut self.umem);
        }
    }

    fn check(&self, load: &Load) -> Result<(), GeneratorError> {
        let largest = self.mix.iter().copied().max().unwrap_or(load.payload_size);
        let (frame, max) = (
            self.config.frame.payload_offset() + largest,
            Self::max_frame(),
        );
        if frame > max {
            return Err(GeneratorError::Size { frame, max });
        }
        Ok(())
    }

    /// The longest frame that fits a chunk.
    fn max_frame() -> usize {
        (CHUNK - UmemConfig::default().headroom) as usize
    }
}

impl Outlet for Sender {
    fn channels(&self) -> usize {
        self.sockets.len()
    }

    fn prepare(&mut self, load: &Load) -> Result<(), LabError> {
        let one = [load.payload_size];
        let sizes = if self.mix.is_empty() {
            &one[..]
        } else {
            &self.mix
        };
        let template = |size: &usize| Template::new(&self.config.frame, load.marker, *size);
        self.templates = sizes.iter().map(template).collect::<Result<_, _>>()?;
        self.turn = 0;
        self.laid_out.fill(None);
        Ok(())
    }

    fn stage(&mut self, message: usize, flow: usize, payload: &Payload) -> Result<(), LabError> {
        let ports = &self.config.src_ports;
        let count = usize::from(ports.end() - ports.start()) + 1;
        self.staged[message] = (
            ports.start() + (flow % count) as u16,
            self.turn as u8,
            *payload,
        );
        self.turn = (self.turn + 1) % self.templates.len();
        Ok(())
    }

    fn transmit(&mut self, channel: usize, messages: Range<usize>) -> io::Result<usize> {
        let Self {
            umem,
            sockets,
            templates,
            laid_out,
            staged,
            frames,
            ..
        } = self;
        let socket = &mut sockets[channel];
        socket.complete(umem);
        for (port, number, payload) in &staged[messages] {
            let Some(mut frame) = umem.alloc() else { break };
            let template = &templates[usize::from(*number)];
            let fits = frame.append(template.len());
            debug_assert!(fits, "sizes were checked before");
            let laid_out = &mut laid_out[frame.number() as usize];
            if laid_out.replace(*number) != Some(*number) {
                template.lay_out(frame.data_mut());
            }
            template.finish(frame.data_mut(), *port, payload);
            frames.push(frame);
        }
        let sent = socket.transmit(frames);
        frames.drain(..).for_each(|frame| umem.free(frame));
        let woken = socket.wake_tx().map_err(io::Error::other)?;
        match (sent, woken) {
            (0, Wake::Down) => Err(io::ErrorKind::NetworkDown.into()),
            // All chunks are on their way, or the ring is full.
            (0, _) => Err(io::ErrorKind::WouldBlock.into()),
            (sent, _) => Ok(sent),
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        let begin = std::time::Instant::now();
        for socket in &mut self.sockets {
            while socket.tx_pending() > 0 {
                if begin.elapsed() > PATIENCE {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                socket.wake_tx().map_err(io::Error::other)?;
                socket.complete(&mut self.umem);
                std::thread::sleep(PAUSE);
            }
        }
        Ok(())
    }

    fn name(&self) -> String {
        format!("{} through {}", self.config.frame.dst, self.config.netdev)
    }
}
