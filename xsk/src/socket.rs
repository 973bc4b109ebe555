//! One queue of one device.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use crate::config::{
    Amount, Counters, Outcome, Positions, SocketConfig, Statistics, Wake, ZeroCopy,
};
use crate::error::XskError;
use crate::frame::Frame;
use crate::kernel::{self, Request, Rings};
use crate::ledger::{Descriptor, Ledger};
use crate::release::ReleaseProbe;
use crate::sys;
use crate::umem::{Layout, Umem};

/// An AF_XDP socket: one queue of one device, with its four rings, on the memory of one [`Umem`].
///
/// It receives only what an XDP program on the device redirects to it through an `XSKMAP`.
///
/// A worker's turn: [`complete`](Self::complete), [`fill`](Self::fill), [`receive`](Self::receive), work,
/// [`transmit`](Self::transmit), [`wake_tx`](Self::wake_tx), [`wake_rx`](Self::wake_rx). At the end:
/// [`close`](Self::close).
#[derive(Debug)]
pub struct Socket {
    rings: Rings,
    fd: OwnedFd,
    probe: ReleaseProbe,
    ledger: Ledger,
    outcome: Outcome,
    busy_poll: bool,
    name: String,
    ifindex: u32,
    queue: u32,
}

/// What [`Socket::close`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed {
    /// Chunks that went back to the pool.
    pub returned: usize,
    /// Chunks that did not, because the kernel would not let go of them in time or the [`Umem`] was the wrong one.
    /// They stay lost, and the memory stays mapped.
    pub kept: usize,
}

impl Socket {
    /// The shortest packet that is sent, in bytes: an Ethernet header. The kernel rejects empty ones without ever
    /// completing them.
    pub const MIN_PACKET: usize = 14;

    /// How long [`Socket::close`] waits for the kernel.
    const RELEASE_PATIENCE: Duration = Duration::from_secs(2);

    /// Opens queue `queue`, counted from 0, of the device `ifname` in this thread's network namespace, on the
    /// memory of `umem`.
    ///
    /// The rings are empty: call [`Socket::fill`] before the XDP program sends packets here.
    ///
    /// # Errors
    /// [`XskError`] has one for each reason that a caller can do something about.
    pub fn open(
        umem: &Umem,
        ifname: &str,
        queue: u32,
        config: &SocketConfig,
    ) -> Result<Self, XskError> {
        config.check()?;
        if umem.frame_size() > kernel::MAX_FRAME_SIZE {
            return Err(XskError::BadFrameSize {
                value: umem.frame_size() as u32,
            });
        }
        let ifindex = sys::ifindex(ifname).map_err(|source| {
            match XskError::kernel("if_nametoindex", source) {
                few @ XskError::TooManyFiles { .. } => few,
                _ => XskError::NoSuchDevice {
                    name: ifname.to_owned(),
                },
            }
        })?;
        let request = Request {
            name: ifname,
            ifindex,
            queue,
            config,
        };
        let (fd, rings, outcome, probe) = kernel::open(umem.layout(), &request)?;
        Ok(Self {
            rings,
            fd,
            probe,
            ledger: Ledger::new(umem.layout()),
            outcome,
            busy_poll: config.busy_poll.is_some(),
            name: ifname.to_owned(),
            ifindex,
            queue,
        })
    }

    /// Gives the kernel up to `n` free chunks to receive into, and returns how many. It is less if the pool is
    /// empty or the fill ring is full.
    pub fn fill(&mut self, umem: &mut Umem, n: usize) -> usize {
        if !self.ledger.is_of(umem) {
            return 0;
        }
        let mut given = 0;
        while given < n {
            let Some(chunk) = umem.take() else { break };
            let address = u64::from(chunk.number()) * umem.frame_size() as u64;
            if !self.rings.fill.push(address) {
                umem.put(chunk);
                break;
            }
            self.ledger.give(chunk);
            given += 1;
        }
        if given > 0 {
            self.rings.fill.submit();
        }
        given
    }

    /// Hands up to `max` received packets to `sink`, and returns how many.
    ///
    /// A packet over several chunks is copied into a [jumbo frame](Umem::alloc_jumbo). If there is none free, or it is too
    /// large for one, it is dropped whole and counted.
    pub fn receive(&mut self, umem: &mut Umem, max: usize, mut sink: impl FnMut(Frame)) -> usize {
        if !self.ledger.is_of(umem) {
            return 0;
        }
        let (mut received, mut read) = (0, 0);
        // The bound on descriptors is for a kernel that fills the ring with what we drop as fast as we read it.
        while received < max && read < self.rings.rx.capacity() {
            let Some(descriptor) = self.rings.rx.pop() else {
                break;
            };
            read += 1;
            if let Some(frame) = self.ledger.accept(umem, descriptor) {
                sink(frame);
                received += 1;
            }
        }
        if read > 0 {
            self.rings.rx.release();
        }
        received
    }

    /// Moves frames from `frames` into the tx ring, in order, as many as it takes, and returns how many. The others
    /// stay. Call [`Socket::wake_tx`] afterwards.
    ///
    /// A frame of another memory, one shorter than [`Socket::MIN_PACKET`], or one that is larger than a chunk without
    /// [`SocketConfig::multi_buffer`] is passed over and counted.
    pub fn transmit(&mut self, frames: &mut Vec<Frame>) -> usize {
        let layout = self.ledger.layout();
        let (mut sent, mut refused, mut full) = (0, 0, false);
        let taken = frames.extract_if(.., |frame| {
            if full {
                return false;
            }
            let parts = Parts::of(frame, &layout);
            let too_large = parts.count > 1 && !self.outcome.multi_buffer;
            if frame.umem_id() != layout.id || frame.len() < Self::MIN_PACKET || too_large {
                refused += 1;
                return false;
            }
            full = !self.rings.tx.fits(parts.count);
            if !full {
                for descriptor in parts {
                    // There is room for it.
                    let _ = self.rings.tx.push(descriptor);
                }
            }
            !full
        });
        for frame in taken {
            if frame.is_jumbo() {
                let parts = Parts::of(&frame, &layout);
                let from = parts.first;
                self.ledger.give_run(frame.into_chunk(), from, parts.count);
            } else {
                self.ledger.give(frame.into_chunk());
            }
            sent += 1;
        }
        self.ledger.count_refused(refused);
        if sent > 0 {
            self.rings.tx.submit();
        }
        sent
    }

    /// Puts the chunks whose packet was sent back on the free list, and returns how many.
    pub fn complete(&mut self, umem: &mut Umem) -> usize {
        if !self.ledger.is_of(umem) {
            return 0;
        }
        let (mut completed, mut read) = (0, 0);
        while read < self.rings.completion.capacity() {
            let Some(address) = self.rings.completion.pop() else {
                break;
            };
            read += 1;
            if let Some(chunk) = self.ledger.take_back(address) {
                umem.put(chunk);
                completed += 1;
            }
        }
        if read > 0 {
            self.rings.completion.release();
        }
        completed
    }

    /// Makes the kernel send what is in the tx ring, if it needs to be told.
    ///
    /// In copy mode nothing is sent without this call, and the packets are sent within it.
    ///
    /// # Errors
    /// [`XskError::DeviceGone`], or [`XskError::Kernel`] for what no retry can mend.
    pub fn wake_tx(&mut self) -> Result<Wake, XskError> {
        if self.outcome.need_wakeup && !self.rings.tx.needs_wakeup() && !self.busy_poll {
            return Ok(Wake::NotNeeded);
        }
        let mut pending = self.rings.tx.pending();
        if pending == 0 && !self.busy_poll {
            return Ok(Wake::NotNeeded);
        }
        // A call of copy mode sends at least one packet or none at all, so this ends.
        let attempts = pending + 1;
        for _ in 0..attempts {
            let result = sys::kick_tx(self.fd.as_fd());
            let before = std::mem::replace(&mut pending, self.rings.tx.pending());
            let moved = pending != before;
            match result {
                Ok(()) if self.outcome.bind == ZeroCopy::ZeroCopy || moved || pending == 0 => {
                    return Ok(Wake::Done);
                }
                // Accepted, yet nothing was sent: the device has no tx queue of this number.
                Ok(()) => return Ok(Wake::Busy),
                Err(error) => match error.raw_os_error() {
                    // A full batch, with more to send.
                    Some(libc::EAGAIN) if moved => {}
                    // One packet was dropped by the device; the kernel counts it as sent and stops there.
                    Some(libc::EBUSY) if self.outcome.bind == ZeroCopy::Copy => {
                        let taken = (before - pending.min(before)) as usize;
                        self.count_dropped(before, taken);
                    }
                    Some(libc::EINTR) => {}
                    // No room in the completion ring or the device's queue, or no memory.
                    Some(libc::EAGAIN | libc::EBUSY | libc::ENOBUFS | libc::ENOMEM) => {
                        return Ok(Wake::Busy);
                    }
                    Some(libc::ENETDOWN) => return Ok(Wake::Down),
                    _ => return Err(self.fatal("sendto", error)),
                },
            }
        }
        Ok(Wake::Busy)
    }

    /// Makes the driver look at the fill ring, if it needs to be told. With busy polling this call is what polls
    /// the device.
    ///
    /// # Errors
    /// [`XskError::DeviceGone`], or [`XskError::Kernel`] for what no retry can mend.
    pub fn wake_rx(&mut self) -> Result<Wake, XskError> {
        let asked = self.outcome.need_wakeup && self.rings.fill.needs_wakeup();
        if !asked && !self.busy_poll {
            return Ok(Wake::NotNeeded);
        }
        let Err(error) = sys::kick_rx(self.fd.as_fd()) else {
            return Ok(Wake::Done);
        };
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EBUSY | libc::ENOBUFS | libc::ENOMEM | libc::EINTR) => {
                Ok(Wake::Busy)
            }
            Some(libc::ENETDOWN) => Ok(Wake::Down),
            _ => Err(self.fatal("recvfrom", error)),
        }
    }

    /// Closes the socket and gives every chunk that it holds back to the pool, once the kernel is done with them;
    /// waits up to two seconds for that. Packets that were received and not read, or queued and not sent, are lost.
    pub fn close(self, umem: &mut Umem) -> Closed {
        self.end(umem, Self::RELEASE_PATIENCE)
    }

    /// As [`close`](Self::close), for the end of a process: waits for nothing. What the kernel has not let go of by then
    /// stays mapped, and is the kernel's to free.
    pub fn abandon(self, umem: &mut Umem) -> Closed {
        self.end(umem, Duration::ZERO)
    }

    fn end(self, umem: &mut Umem, patience: Duration) -> Closed {
        let Self {
            rings,
            fd,
            probe,
            mut ledger,
            ..
        } = self;
        // The mappings keep the socket open as well as the descriptor does.
        drop(rings);
        drop(fd);
        let held = ledger.held();
        if !ledger.is_of(umem) || (held > 0 && !probe.wait(patience)) {
            return Closed {
                returned: 0,
                kept: held,
            };
        }
        ledger.into_chunks().for_each(|chunk| umem.put(chunk));
        Closed {
            returned: held,
            kept: 0,
        }
    }

    /// What the socket became.
    #[must_use]
    pub fn mode(&self) -> Outcome {
        self.outcome
    }

    /// The descriptor, for an `XSKMAP` or for polling. A duplicate of it keeps the socket open and makes
    /// [`Socket::close`] keep its chunks.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The device's name when the socket was opened.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The device's index.
    #[must_use]
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// The queue, counted from 0.
    #[must_use]
    pub fn queue(&self) -> u32 {
        self.queue
    }

    /// How many descriptors are in the tx ring and not yet taken by the kernel: of a packet over several chunks, each counts.
    #[must_use]
    pub fn tx_pending(&self) -> usize {
        self.rings.tx.pending() as usize
    }

    /// What [`transmit`](Self::transmit) took and the kernel has not sent: it is in the tx ring yet, or was dropped by the
    /// device. Not for each packet: it looks at all of the former.
    #[must_use]
    pub fn not_sent(&self) -> Amount {
        let dropped = self.counters();
        let waiting = self.waiting();
        Amount {
            packets: dropped.tx_dropped + waiting.packets,
            bytes: dropped.tx_dropped_bytes + waiting.bytes,
        }
    }

    /// What is in the tx ring and not yet taken by the kernel. As slow.
    #[must_use]
    pub fn waiting(&self) -> Amount {
        let waiting = self.rings.tx.last(self.rings.tx.pending());
        waiting.fold(Amount::default(), |sum, descriptor| Amount {
            packets: sum.packets + u64::from(ends(&descriptor)),
            bytes: sum.bytes + u64::from(descriptor.len),
        })
    }

    /// How many empty chunks are in the fill ring and not yet taken by the kernel.
    #[must_use]
    pub fn fill_pending(&self) -> usize {
        self.rings.fill.pending() as usize
    }

    /// How many chunks the socket holds, in its rings or within the kernel.
    #[must_use]
    pub fn held(&self) -> usize {
        self.ledger.held()
    }

    /// What this crate counted.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.ledger.counters()
    }

    /// What the kernel counted. A system call.
    ///
    /// # Errors
    /// [`XskError::Kernel`].
    pub fn statistics(&self) -> Result<Statistics, XskError> {
        let got: libc::xdp_statistics = sys::xdp_option(self.fd.as_fd(), libc::XDP_STATISTICS)
            .map_err(|source| XskError::kernel("getsockopt(XDP_STATISTICS)", source))?;
        Ok(Statistics {
            rx_dropped: got.rx_dropped,
            rx_invalid_descs: got.rx_invalid_descs,
            tx_invalid_descs: got.tx_invalid_descs,
            rx_ring_full: got.rx_ring_full,
            rx_fill_ring_empty_descs: got.rx_fill_ring_empty_descs,
            tx_ring_empty_descs: got.tx_ring_empty_descs,
        })
    }

    /// Where the rings stand.
    #[must_use]
    pub fn positions(&self) -> Positions {
        Positions {
            rx: self.rings.rx.position(),
            tx: self.rings.tx.position(),
            fill: self.rings.fill.position(),
            completion: self.rings.completion.position(),
        }
    }

    /// Counts a packet that the device dropped: the last of those that the kernel has just taken, so many of the last
    /// `pending` descriptors.
    #[cold]
    fn count_dropped(&mut self, pending: u32, taken: usize) {
        let (mut bytes, mut over) = (0, true);
        for descriptor in self.rings.tx.last(pending).take(taken) {
            let before = if over { 0 } else { bytes };
            bytes = before + u64::from(descriptor.len);
            over = ends(&descriptor);
        }
        self.ledger.count_dropped(bytes);
    }

    #[cold]
    fn fatal(&self, call: &'static str, source: std::io::Error) -> XskError {
        match source.raw_os_error() {
            Some(libc::ENXIO | libc::ENODEV) => XskError::DeviceGone {
                name: self.name.clone(),
            },
            _ => XskError::kernel(call, source),
        }
    }
}

/// The descriptors of a frame: one, or of a jumbo frame one for each chunk that its packet lies in.
#[derive(Clone, Copy)]
struct Parts {
    address: u64,
    len: u32,
    chunk: u32,
    /// Of the frame's chunks, the first that the packet lies in.
    first: u32,
    /// How many are left.
    count: u32,
}

impl Parts {
    #[inline]
    fn of(frame: &Frame, layout: &Layout) -> Self {
        let (chunk, start) = (u32::from(layout.size), frame.headroom() as u32);
        let len = frame.len() as u32;
        // The size is a power of two: shifts instead of divisions.
        let shift = chunk.trailing_zeros();
        let (first, last) = (start >> shift, (start + len.max(1) - 1) >> shift);
        Self {
            address: frame.address(layout),
            len,
            chunk,
            first,
            count: last - first + 1,
        }
    }
}

impl Iterator for Parts {
    type Item = Descriptor;

    #[inline]
    fn next(&mut self) -> Option<Descriptor> {
        self.count = self.count.checked_sub(1)?;
        let room = self.chunk - (self.address as u32 & (self.chunk - 1));
        let len = self.len.min(room);
        let descriptor = Descriptor {
            addr: self.address,
            len,
            options: if self.count > 0 {
                libc::XDP_PKT_CONTD
            } else {
                0
            },
        };
        self.address += u64::from(len);
        self.len -= len;
        Some(descriptor)
    }
}

/// Whether it is the last of its packet.
fn ends(descriptor: &Descriptor) -> bool {
    descriptor.options & libc::XDP_PKT_CONTD == 0
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
