//! Ports: where packets enter and leave.
//!
//! A port is opened once ([`open`]) and yields one [`Queue`] for each worker; worker w owns queue w and nobody else
//! touches it. All queues of a worker share that worker's packet memory, so a frame that arrives on one port leaves on
//! another without a copy.

pub mod afxdp;
pub mod memory;
pub mod tap;

use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;

use twinseal_ebpf::{SteerError, XdpMode, XdpOutcome};
use twinseal_xsk::{BindMode, Frame, Umem, XskError};

use crate::wire::ethernet::Mac;

/// One worker's share of a port.
pub trait Queue: Send {
    /// Appends up to `max` received frames to `frames` and returns how many.
    fn receive(&mut self, memory: &mut Umem, frames: &mut Vec<Frame>, max: usize) -> usize;

    /// Sends frames and drains `frames`. Those that the device had no room for are freed; their number is returned.
    fn transmit(&mut self, memory: &mut Umem, frames: &mut Vec<Frame>) -> usize;

    /// Takes back sent frames, gives the kernel empty ones and wakes it where it asks for that. Called once a loop.
    fn tend(&mut self, memory: &mut Umem);

    /// What becomes readable when a frame arrives, to sleep on.
    fn wait_fd(&self) -> Option<RawFd>;

    /// Counters that the kernel keeps of this queue, by name.
    fn kernel_counters(&self) -> Vec<(&'static str, u64)>;

    /// Gives all memory back and closes.
    fn close(self: Box<Self>, memory: &mut Umem);
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

/// What a port really got.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// Its hardware address.
    pub mac: Mac,
    /// Octets of an IP packet.
    pub mtu: u16,
    /// How the steering program is attached; `None` for ports without one.
    pub xdp: Option<XdpOutcome>,
    /// By queue, how the socket is bound: "zero-copy" or "copy"; empty for ports without sockets.
    pub bind: Vec<&'static str>,
    /// Whether the kernel asks to be woken.
    pub need_wakeup: bool,
    /// The kernel's index of its network device; `None` for memory ports.
    pub ifindex: Option<u32>,
}

/// The control thread's handle of an open port: what steers packets into it. The queues belong to the workers.
pub struct Steering {
    program: Option<twinseal_ebpf::Steering>,
    /// Holds our UDP endpoints in the kernel, so that nobody else takes them and nothing that slips past the program
    /// is answered.
    reserved: Vec<(SocketAddr, std::net::UdpSocket)>,
}

/// Why a port did not open. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The packet memory or a socket.
    #[error(transparent)]
    Socket(#[from] XskError),
    /// The steering program.
    #[error(transparent)]
    Steering(#[from] SteerError),
    /// A wire has two ends, and both are taken.
    #[error("memory wire {wire:?} has both its ends in use: name another wire")]
    WireTaken {
        /// Its name.
        wire: String,
    },
    /// The device has queues that no worker would serve.
    #[error(
        "{netdev} receives on {queues} queues but the node has {workers} workers: set workers to {queues} in the node's configuration, or `ethtool -L {netdev} rx {workers}` (combined where it has no rx)"
    )]
    UnservedQueues {
        /// The device.
        netdev: String,
        /// Its receive queues.
        queues: u32,
        /// The node's workers.
        workers: u32,
    },
    /// A TAP device could not be made.
    #[error("TAP device {netdev}: {call}: {source}; it needs CAP_NET_ADMIN, /dev/net/tun and a name of at most 15 octets that no device has")]
    Tap {
        /// Its name.
        netdev: String,
        /// The call that failed.
        call: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// An address of a link is not this host's, or is in use.
    #[error("cannot hold UDP {endpoint}: {source}; give an address of this host and a port that no other program uses")]
    Endpoint {
        /// The address and port.
        endpoint: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The device could not be read.
    #[error("{netdev}: {call}: {source}")]
    Device {
        /// The device.
        netdev: String,
        /// The call that failed.
        call: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// All port indices are in use.
    #[error("a node has at most {} ports: delete one first", crate::tables::MAX_PORTS)]
    TooMany,
    /// A worker's packet memory has no frames left for another port.
    #[error("packet memory is too small for another port: raise memory.frames in the node's configuration (each port of a worker needs {needed}, {free} are free)")]
    Memory {
        /// Frames that a port needs.
        needed: usize,
        /// Frames that are free.
        free: usize,
    },
    /// The worker is gone.
    #[error("the workers have stopped")]
    Stopped,
}

impl Steering {
    /// What must not be steered to us but left to the host: all its own addresses.
    pub fn set_local_addresses(&mut self, addresses: &[IpAddr]) -> Result<(), PortError> {
        if let Some(program) = &mut self.program {
            program.set_local_addresses(addresses)?;
        }
        Ok(())
    }

    /// The UDP endpoints on which links receive at this underlay port. Replaces the earlier ones.
    pub fn set_endpoints(&mut self, endpoints: &[SocketAddr]) -> Result<(), PortError> {
        let _ = (endpoints, &self.reserved);
        todo!()
    }

    /// Packets by verdict of the steering program.
    pub fn counters(&self) -> Result<Vec<(&'static str, u64)>, PortError> {
        todo!()
    }
}
