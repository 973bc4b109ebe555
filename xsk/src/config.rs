//! What a socket is asked for, and what it reports.

use crate::error::{RingName, XskError};

/// How a socket shares packets with the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BindMode {
    /// Zero-copy if the driver can, else copy. [`Outcome`] says which it became.
    #[default]
    Auto,
    /// The device reads and writes the packet memory itself, or opening fails.
    ZeroCopy,
    /// The kernel copies each packet. Works on every device.
    Copy,
}

/// Preferred busy polling: the worker drives the device's NAPI context from its own system calls.
///
/// Works best with `napi_defer_hard_irqs` and `gro_flush_timeout` set on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BusyPoll {
    /// How long one call may poll, in microseconds (`SO_BUSY_POLL`).
    pub usecs: u32,
    /// How many packets one call may handle (`SO_BUSY_POLL_BUDGET`).
    pub budget: u16,
}

/// How to open a [`Socket`](crate::Socket). Ring sizes are in entries and must be powers of two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketConfig {
    /// Zero-copy, copy, or whichever works.
    pub bind: BindMode,
    /// Entries of the rx ring.
    pub rx_size: u32,
    /// Entries of the tx ring.
    pub tx_size: u32,
    /// Entries of the fill ring. Twice the rx ring keeps a zero-copy driver supplied.
    pub fill_size: u32,
    /// Entries of the completion ring. Not less than the tx ring, or sending stalls.
    pub completion_size: u32,
    /// Let the driver sleep and say when it wants a wake-up. Saves system calls and, when driver and worker share a
    /// core, is what makes it work at all.
    pub need_wakeup: bool,
    /// Poll the device from the worker's own calls.
    pub busy_poll: Option<BusyPoll>,
    /// Receive and send packets larger than one chunk, in [jumbo frames](crate::Umem::alloc_jumbo). Needs Linux 6.6. Without
    /// this the kernel drops them.
    pub multi_buffer: bool,
}

impl Default for SocketConfig {
    fn default() -> Self {
        Self {
            bind: BindMode::Auto,
            rx_size: 2048,
            tx_size: 2048,
            fill_size: 4096,
            completion_size: 2048,
            need_wakeup: true,
            busy_poll: None,
            multi_buffer: false,
        }
    }
}

impl SocketConfig {
    /// More entries than this are a mistake, and the kernel could not allocate the ring anyway.
    const MAX_RING: u32 = 1 << 20;

    pub(crate) fn check(&self) -> Result<(), XskError> {
        for (which, value) in [
            (RingName::Rx, self.rx_size),
            (RingName::Tx, self.tx_size),
            (RingName::Fill, self.fill_size),
            (RingName::Completion, self.completion_size),
        ] {
            if !value.is_power_of_two() || value > Self::MAX_RING {
                return Err(XskError::BadRingSize { which, value });
            }
        }
        Ok(())
    }
}

/// Whether packets are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZeroCopy {
    /// The device uses the packet memory directly.
    ZeroCopy,
    /// The kernel copies each packet.
    Copy,
}

/// What a socket became, as the kernel reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Zero-copy or copy (`XDP_OPTIONS`).
    pub bind: ZeroCopy,
    /// Whether the rings carry the need-wakeup flag.
    pub need_wakeup: bool,
    /// Whether the kernel may deliver a packet over several chunks.
    pub multi_buffer: bool,
}

/// What a wake-up call did. None of these is an error: the frames stay in the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// The kernel did not want a wake-up, so no system call was made.
    NotNeeded,
    /// The kernel was told. In copy mode, all that was in the tx ring is sent.
    Done,
    /// The kernel could not take everything now; reclaim completions and call again.
    Busy,
    /// The device is administratively down. Call again when it is up.
    Down,
}

/// The kernel's own counters of a socket (`XDP_STATISTICS`), in packets or descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Packets dropped for want of a fill chunk (copy mode) or for being too large.
    pub rx_dropped: u64,
    /// Fill descriptors that the kernel rejected.
    pub rx_invalid_descs: u64,
    /// Tx descriptors that the kernel rejected.
    pub tx_invalid_descs: u64,
    /// Packets dropped because the rx ring was full.
    pub rx_ring_full: u64,
    /// How often the kernel found the fill ring empty.
    pub rx_fill_ring_empty_descs: u64,
    /// How often the kernel found the tx ring empty.
    pub tx_ring_empty_descs: u64,
}

/// What this crate counted on a socket itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Packets over several chunks, dropped whole: there was no jumbo frame free, or they were too large for one.
    pub rx_multi_buffer: u64,
    /// Those of them that were too large.
    pub rx_oversized: u64,
    /// Descriptors with an offset or length outside their chunk; the chunk went back to the pool.
    pub rx_invalid: u64,
    /// Addresses from the kernel that this socket had not given to it; ignored.
    pub unknown_address: u64,
    /// Frames that [`Socket::transmit`](crate::Socket::transmit) would not send: of another memory, shorter than an
    /// Ethernet header, or too large for the socket. They stayed with the caller.
    pub tx_refused: u64,
    /// Packets that the device would not take, as it has no carrier or is going away (copy mode). The kernel completes them
    /// like those that were sent.
    pub tx_dropped: u64,
    /// Their bytes.
    pub tx_dropped_bytes: u64,
    /// Calls with a [`Umem`](crate::Umem) that is not the one the socket was opened with; nothing was done.
    pub wrong_umem: u64,
}

/// Packets, and their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amount {
    /// How many.
    pub packets: u64,
    /// Of all of them.
    pub bytes: u64,
}

impl Amount {
    /// With another packet of this length.
    #[must_use]
    pub fn and(self, bytes: usize) -> Self {
        Self {
            packets: self.packets + 1,
            bytes: self.bytes + bytes as u64,
        }
    }
}

/// Where one ring stands: free-running positions, in entries, modulo 2^32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RingPosition {
    /// Entries ever produced.
    pub producer: u32,
    /// Entries ever consumed.
    pub consumer: u32,
}

impl RingPosition {
    /// How many entries are in the ring.
    #[must_use]
    pub fn filled(self) -> u32 {
        self.producer.wrapping_sub(self.consumer)
    }
}

/// Where the four rings stand, as both sides published it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Positions {
    /// Received packets.
    pub rx: RingPosition,
    /// Packets to send.
    pub tx: RingPosition,
    /// Empty chunks for reception.
    pub fill: RingPosition,
    /// Chunks whose packet was sent.
    pub completion: RingPosition,
}
