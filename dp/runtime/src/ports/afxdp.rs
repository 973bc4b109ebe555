//! AF_XDP ports: a steering program on the device and a socket for each of its queues.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use twinseal_ebpf::{Role, XdpMode, XdpOutcome};
use twinseal_xsk::{
    Amount, BindMode, BusyPoll, Frame, Socket, SocketConfig, Umem, Wake, XskError, ZeroCopy,
};

use super::netdev::Netdev;
use super::{Fit, Outcome, PortError, Queue, Steering};
use twinseal_forward::{FRAME_HEADROOM, TAILROOM};
use twinseal_wire::ethernet;

/// What a busy-polling socket spends in one call.
const BUSY_POLL: BusyPoll = BusyPoll {
    usecs: 20,
    budget: 64,
};

/// The largest IP packet that a jumbo frame holds with all that goes around it.
const JUMBO_MTU: u16 = Umem::JUMBO_SIZE - (FRAME_HEADROOM + ethernet::LEN + TAILROOM) as u16;

/// What the kernel leaves free before each packet that it receives.
const KERNEL_HEADROOM: usize = 256;

/// How to open a queue.
#[derive(Clone)]
pub(crate) struct Opener {
    netdev: String,
    bind: BindMode,
    busy_poll: bool,
    /// Descriptors of each ring.
    ring: u32,
    /// Octets of an IP packet.
    mtu: u16,
    /// Whether packets of the MTU are larger than a chunk of the packet memory.
    jumbo: bool,
}

/// A worker's socket.
pub(crate) struct AfXdpQueue {
    socket: Socket,
    jumbo: bool,
    unsent: u64,
    wake_errors: u64,
    poll_errors: u64,
    dead: bool,
}

/// A queue, as its worker opened it, and what the control thread needs of it.
pub(crate) struct Opened {
    /// The worker takes it.
    pub(crate) queue: Option<Box<dyn Queue>>,
    /// A duplicate of the socket, to register with the steering program.
    pub(crate) socket: Option<OwnedFd>,
    pub(crate) bind: Option<&'static str>,
    pub(crate) need_wakeup: bool,
}

/// The largest IP packet that fits a chunk of `frame_size` bytes.
fn one_chunk(frame_size: u32) -> usize {
    frame_size as usize - KERNEL_HEADROOM - ethernet::LEN
}

/// Whether IP packets of up to `mtu` bytes need jumbo frames.
pub(crate) fn needs_jumbo(mtu: u16, frame_size: u32) -> bool {
    usize::from(mtu) > one_chunk(frame_size)
}

/// What packets are taken of a device of this MTU, of which those of up to `mtu` bytes are wanted (0: all that it can).
pub(crate) fn fit(
    netdev: &str,
    device_mtu: u16,
    mtu: u16,
    frame_size: u32,
    jumbo_frames: u32,
) -> Result<Fit, PortError> {
    let wanted = match mtu {
        0 => device_mtu,
        mtu => device_mtu.min(mtu),
    };
    let jumbo = needs_jumbo(wanted, frame_size);
    if jumbo && jumbo_frames == 0 {
        return Err(PortError::NoJumboFrames {
            netdev: netdev.to_owned(),
            mtu: wanted,
            one_chunk: one_chunk(frame_size),
        });
    }
    Ok(Fit {
        mtu: wanted.min(JUMBO_MTU),
        jumbo,
    })
}

impl Opener {
    /// For a device of which IP packets of up to `mtu` octets are wanted (0: all that it can). `frame_size` and
    /// `jumbo_frames` are the packet memory's.
    pub(crate) fn new(
        device: (&str, BindMode, bool),
        mtu: u16,
        ring: u32,
        frame_size: u32,
        jumbo_frames: u32,
    ) -> Result<Self, PortError> {
        let (netdev, bind, busy_poll) = device;
        let device_mtu = Netdev::query(netdev)?.mtu;
        let Fit { mtu, jumbo } = fit(netdev, device_mtu, mtu, frame_size, jumbo_frames)?;
        Ok(Self {
            netdev: netdev.to_owned(),
            bind,
            busy_poll,
            ring,
            mtu,
            jumbo,
        })
    }

    /// Frames that a queue may hold: all of the fill ring, and as many in flight.
    fn frames(&self) -> usize {
        2 * self.ring as usize
    }

    /// Opens a queue; on its worker's thread, as the memory is the worker's.
    pub(crate) fn open(&self, memory: &mut Umem, queue: u32) -> Result<Opened, PortError> {
        if memory.available() < self.frames() {
            return Err(PortError::Memory {
                needed: self.frames(),
                free: memory.available(),
            });
        }
        let config = SocketConfig {
            bind: self.bind,
            rx_size: self.ring,
            tx_size: self.ring,
            fill_size: self.ring,
            completion_size: self.ring,
            need_wakeup: true,
            busy_poll: self.busy_poll.then_some(BUSY_POLL),
            multi_buffer: self.jumbo,
        };
        let mut socket = Socket::open(memory, &self.netdev, queue, &config)?;
        // Before it has frames, which would be lost with it.
        let duplicate = socket
            .fd()
            .try_clone_to_owned()
            .map_err(PortError::system("dup(AF_XDP socket)"))?;
        socket.fill(memory, self.ring as usize);
        let mode = socket.mode();
        Ok(Opened {
            queue: Some(Box::new(AfXdpQueue {
                socket,
                jumbo: self.jumbo,
                unsent: 0,
                wake_errors: 0,
                poll_errors: 0,
                dead: false,
            })),
            socket: Some(duplicate),
            bind: Some(match mode.bind {
                ZeroCopy::ZeroCopy => "zero-copy",
                ZeroCopy::Copy => "copy",
            }),
            need_wakeup: mode.need_wakeup,
        })
    }
}

impl Opened {
    /// A queue that is no socket.
    pub(crate) fn plain(queue: Box<dyn Queue>) -> Self {
        Self {
            queue: Some(queue),
            socket: None,
            bind: None,
            need_wakeup: false,
        }
    }
}

/// Attaches the steering program (`edge`: and is it owned?) and points it at the sockets of the device's queues, all of them open, in their order.
pub(crate) fn steer(
    opener: &Opener,
    edge: Option<bool>,
    xdp: XdpMode,
    local: &[IpAddr],
    opened: &[Opened],
) -> Result<(Steering, Outcome), PortError> {
    let netdev = &opener.netdev;
    let facts = Netdev::query(netdev)?;
    let role = match edge {
        Some(owned) => Role::Edge {
            mac: facts.mac.0,
            owned,
        },
        None => Role::Underlay,
    };
    let mut program = twinseal_ebpf::Steering::attach(netdev, role, xdp)?;
    if program.vlan_tags_hidden().unwrap_or(false) {
        tracing::debug!(
            netdev,
            "the device strips VLAN tags before XDP sees them: `ethtool -K {netdev} rxvlan off` if tagged frames arrive"
        );
    }
    if let Some(why) = program.native_refusal() {
        tracing::warn!(netdev, %why, "native XDP refused: generic instead");
    }
    // Sockets come last: until the program knows the host's addresses it would take the host's own packets.
    program.set_local_addresses(local)?;
    for (queue, opened) in (0..).zip(opened) {
        if let Some(socket) = &opened.socket {
            program.register(queue, socket.as_fd())?;
        }
    }
    let outcome = Outcome {
        mac: facts.mac,
        mtu: opener.mtu,
        device_mtu: facts.mtu,
        // Before generic XDP the kernel merges what comes by a wire, and leaves the checksum of that unfinished.
        offloads: !facts.wired || program.outcome() == XdpOutcome::Generic,
        xdp: Some(program.outcome()),
        bind: opened.iter().filter_map(|opened| opened.bind).collect(),
        need_wakeup: opened.iter().any(|opened| opened.need_wakeup),
        peer: None,
        ifindex: Some(facts.ifindex),
    };
    Ok((Steering::new(program), outcome))
}

impl Queue for AfXdpQueue {
    fn receive(&mut self, memory: &mut Umem, frames: &mut Vec<Frame>, max: usize) -> usize {
        let jumbo = self.jumbo;
        self.socket.receive(memory, max, |mut frame| {
            // A packet that just fits its chunk where jumbo frames may leave: the tags must fit as well.
            if jumbo && frame.tailroom() < TAILROOM {
                frame.settle();
            }
            frames.push(frame);
        })
    }

    fn transmit(&mut self, memory: &mut Umem, frames: &mut Vec<Frame>) -> Amount {
        if !self.dead {
            self.socket.transmit(frames);
        }
        if !frames.is_empty() {
            // The ring is full: have the kernel send now, and try once more.
            self.wake();
            self.socket.complete(memory);
            self.socket.transmit(frames);
        }
        let mut unsent = Amount::default();
        for frame in frames.drain(..) {
            unsent = unsent.and(frame.len());
            memory.free(frame);
        }
        self.unsent += unsent.packets;
        unsent
    }

    fn not_sent(&self) -> Amount {
        self.socket.not_sent()
    }

    fn tend(&mut self, memory: &mut Umem) {
        if self.dead {
            return;
        }
        if self.socket.tx_pending() > 0 {
            self.wake();
        }
        self.socket.complete(memory);
        self.socket.fill(memory, usize::MAX);
        let woken = self.socket.wake_rx();
        self.look(&woken);
    }

    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        (!self.dead).then(|| self.socket.fd())
    }

    fn is_dead(&self) -> bool {
        self.dead
    }

    fn poll_failed(&mut self) {
        // The kernel has taken the socket off its device, and puts it on none again.
        self.poll_errors += 1;
        self.dead = true;
    }

    fn kernel_counters(&self) -> Vec<(&'static str, u64)> {
        let ours = self.socket.counters();
        let mut counters = vec![
            ("multi_buffer_dropped", ours.rx_multi_buffer),
            ("tx_ring_full", self.unsent),
            ("tx_dropped", ours.tx_dropped),
            ("wake_errors", self.wake_errors),
            ("poll_errors", self.poll_errors),
        ];
        if let Ok(kernel) = self.socket.statistics() {
            // Where there are no jumbo frames the kernel drops what is too large for a chunk, and counts it among what it
            // drops for want of one; that alone it counts once more.
            let oversized = match self.jumbo {
                true => ours.rx_oversized,
                false => kernel
                    .rx_dropped
                    .saturating_sub(kernel.rx_fill_ring_empty_descs),
            };
            counters.extend([
                ("oversized", oversized),
                ("rx_dropped", kernel.rx_dropped),
                ("rx_invalid_descs", kernel.rx_invalid_descs),
                ("tx_invalid_descs", kernel.tx_invalid_descs),
                ("rx_ring_full", kernel.rx_ring_full),
                ("rx_fill_ring_empty_descs", kernel.rx_fill_ring_empty_descs),
                ("tx_ring_empty_descs", kernel.tx_ring_empty_descs),
            ]);
        }
        counters
    }

    fn abandon(self: Box<Self>, memory: &mut Umem) {
        self.socket.abandon(memory);
    }

    fn close(self: Box<Self>, memory: &mut Umem) -> u64 {
        let unsent = self.socket.waiting().packets;
        let closed = self.socket.close(memory);
        if closed.kept > 0 {
            tracing::warn!(
                frames = closed.kept,
                "the kernel did not return all frames of a closed socket"
            );
        }
        unsent
    }
}

impl AfXdpQueue {
    fn wake(&mut self) {
        if self.dead {
            return;
        }
        let woken = self.socket.wake_tx();
        self.look(&woken);
    }

    /// A device that is down may come up again; after any other error the socket is of no use.
    fn look(&mut self, woken: &Result<Wake, XskError>) {
        match woken {
            Ok(Wake::Down) => self.wake_errors += 1,
            Ok(_) => {}
            Err(_) => {
                self.wake_errors += 1;
                self.dead = true;
            }
        }
    }
}
