//! Ports: where packets enter and leave.
//!
//! A port yields one [`Queue`] for each worker; worker w owns queue w and nobody else touches it. All queues of a worker
//! share that worker's packet memory, so a frame that arrives on one port leaves on another without a copy.

pub mod afxdp;
mod error;
mod features;
pub mod memory;
mod netdev;
mod steering;
pub mod tap;

use std::os::fd::BorrowedFd;

use twinseal_ebpf::{SteerError, XdpMode, XdpOutcome};
use twinseal_xsk::{Amount, BindMode, Frame, Umem};

pub use error::PortError;
pub use netdev::{believes, forwarding};
pub use steering::{Steering, check_endpoint};
use twinseal_wire::ethernet::Mac;

/// The hardware address of the network device of this name, if there is one.
pub fn mac_of(netdev: &str) -> Option<Mac> {
    Some(netdev::Netdev::query(netdev).ok()?.mac)
}

/// The kernel's index of the network device of this name, if there is one.
pub fn ifindex_of(netdev: &str) -> Option<u32> {
    Some(netdev::Netdev::query(netdev).ok()?.ifindex)
}

/// Refuses a device that is not there, that nobody can send to, or that cannot do what is asked for, as far as can be
/// known without opening it.
///
/// # Errors
/// Why it would not open.
pub(crate) fn check_device(netdev: &str, bind: BindMode, xdp: XdpMode) -> Result<(), PortError> {
    let device = netdev::Netdev::query(netdev)?;
    if !device.ethernet {
        return Err(PortError::NoHardwareAddress {
            netdev: netdev.to_owned(),
        });
    }
    let Some(features) = features::of(device.ifindex) else {
        return Ok(());
    };
    if bind == BindMode::ZeroCopy && !features.zero_copy() {
        return Err(PortError::Socket(twinseal_xsk::XskError::DriverCannot {
            name: netdev.to_owned(),
            what: "zero-copy",
        }));
    }
    if xdp == XdpMode::Native && !features.native() {
        return Err(PortError::Steering(SteerError::NativeUnsupported {
            name: netdev.to_owned(),
            source: std::io::ErrorKind::Unsupported.into(),
        }));
    }
    Ok(())
}

/// What packets of a port may be, and what for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fit {
    /// Bytes of an IP packet.
    pub mtu: u16,
    /// Whether they are larger than a chunk of the packet memory.
    pub jumbo: bool,
}

/// One worker's share of a port.
pub trait Queue: Send {
    /// Appends up to `max` received frames to `frames` and returns how many.
    fn receive(&mut self, memory: &mut Umem, frames: &mut Vec<Frame>, max: usize) -> usize;

    /// Sends frames and drains `frames`. Those that the device had no room for are freed, and returned as numbers.
    fn transmit(&mut self, memory: &mut Umem, frames: &mut Vec<Frame>) -> Amount;

    /// What [`transmit`](Self::transmit) took since the queue was opened and the device has not sent: not yet, or it
    /// dropped it.
    fn not_sent(&self) -> Amount {
        Amount::default()
    }

    /// Takes back sent frames, gives the kernel empty ones and wakes it where it asks for that. Called once a loop.
    fn tend(&mut self, _memory: &mut Umem) {}

    /// Called before the worker sleeps. False if there is something to receive already.
    fn arm(&mut self) -> bool {
        true
    }

    /// What becomes readable when a frame arrives, to sleep on.
    fn wait_fd(&self) -> Option<BorrowedFd<'_>>;

    /// Counters of this queue that are kept outside the packet path, by name.
    fn kernel_counters(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    /// Whether its device is gone for good: it then takes and sends nothing any more, has nothing to wait for, and is only
    /// to be closed.
    fn is_dead(&self) -> bool {
        false
    }

    /// Told that poll(2) found [`wait_fd`](Self::wait_fd) in error, hung up or invalid.
    fn poll_failed(&mut self) {}

    /// Gives all memory back and closes; waits until the kernel is done with it. Returns how many frames the device had not
    /// taken yet, and never will.
    fn close(self: Box<Self>, memory: &mut Umem) -> u64;

    /// Closes at the end of its worker, whose memory nobody needs any more: waits for nothing.
    fn abandon(self: Box<Self>, memory: &mut Umem) {
        self.close(memory);
    }
}

/// What a port is to be made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Device {
    /// An existing network device, taken over AF_XDP.
    AfXdp {
        /// Its name.
        netdev: String,
        /// How its sockets bind.
        bind: BindMode,
        /// How the steering program attaches.
        xdp: XdpMode,
        /// Whether its sockets busy-poll.
        busy_poll: bool,
        /// Whether the kernel gets only what it needs itself.
        owned: bool,
    },
    /// A TAP device, made for the port and removed with it.
    Tap {
        /// Its name.
        netdev: String,
    },
    /// One end of a frame pipe inside the process.
    Memory {
        /// Both ends name the same wire.
        wire: String,
        /// This end's hardware address.
        mac: Mac,
    },
}

/// A port to open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortSpec {
    /// Whether it faces hosts (else other nodes): decides what is steered to us.
    pub edge: bool,
    /// Octets of an IP packet; 0: the device's own.
    pub mtu: u16,
    /// What it is made of.
    pub device: Device,
}

impl PortSpec {
    /// Its network device, if it has one.
    pub fn netdev(&self) -> Option<&str> {
        match &self.device {
            Device::AfXdp { netdev, .. } | Device::Tap { netdev } => Some(netdev),
            Device::Memory { .. } => None,
        }
    }
}

/// What a port really got.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// Its hardware address.
    pub mac: Mac,
    /// Octets of an IP packet.
    pub mtu: u16,
    /// Octets of the largest IP packet that the device takes.
    pub device_mtu: u16,
    /// Whether those who send to it may leave checksums to a device: it has no wire, or merges what comes by one.
    pub offloads: bool,
    /// How the steering program is attached; `None` for ports without one.
    pub xdp: Option<XdpOutcome>,
    /// By queue, how the socket is bound: "zero-copy" or "copy"; empty for ports without sockets.
    pub bind: Vec<&'static str>,
    /// Whether the kernel asks to be woken.
    pub need_wakeup: bool,
    /// The hardware address of its only peer, on a TAP port (the host that has the device); else `None`.
    pub peer: Option<Mac>,
    /// The kernel's index of its network device; `None` for memory ports.
    pub ifindex: Option<u32>,
}
