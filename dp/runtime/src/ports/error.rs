//! Why a port cannot be had.

use std::io;
use std::net::SocketAddr;

use twinseal_ebpf::{SteerError, lacking, missing_capabilities, too_many_files};
use twinseal_xsk::XskError;

use twinseal_fib::MAX_PORTS;

/// Why a port did not open. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The packet memory or a socket.
    #[error(transparent)]
    Socket(XskError),
    /// The process may not have an AF_XDP socket.
    #[error("{call}: not permitted: {}", lacking(.missing))]
    NotPermitted {
        /// The call that was refused.
        call: &'static str,
        /// The capabilities that the process does not have.
        missing: Vec<&'static str>,
    },
    /// The steering program.
    #[error(transparent)]
    Steering(#[from] SteerError),
    /// A wire has two ends, and both are taken.
    #[error("memory wire {wire:?} has both its ends in use: name another wire")]
    WireTaken {
        /// Its name.
        wire: String,
    },
    /// A worker could not send on the device.
    #[error(
        "{netdev} has {queues} queues and the node {workers} workers, of which each sends by one of its own: run `ethtool -L {netdev} combined {workers}` (`rx {workers} tx {workers}` where it has no combined ones), or set workers.count = {queues} in the node's configuration"
    )]
    TooFewQueues {
        /// The device.
        netdev: String,
        /// Its queues.
        queues: u32,
        /// The node's workers.
        workers: u32,
    },
    /// Packets of the device's MTU do not fit a chunk, and there is nothing else to put them in.
    #[error(
        "{netdev}: IP packets of {mtu} octets need jumbo frames, and there are none: set memory.jumbo_frames in the node's configuration, or the port's mtu to {one_chunk} or less"
    )]
    NoJumboFrames {
        /// The device.
        netdev: String,
        /// The MTU.
        mtu: u16,
        /// The largest packet that fits a chunk.
        one_chunk: usize,
    },
    /// An address of a link is not this host's, or is in use.
    #[error(
        "cannot hold UDP {endpoint}: {source}; give an address of this host and a port that no other program uses"
    )]
    Endpoint {
        /// The address and port.
        endpoint: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// There is no device of this name.
    #[error(
        "there is no network device {netdev}: make the device, or name another as in `ip link`"
    )]
    NoDevice {
        /// The name that was asked for.
        netdev: String,
    },
    /// No host and no other node can send to the device.
    #[error(
        "{netdev} has no hardware address, as loopback and tunnel devices, so no host and no other node can send to it: name the device that they are behind"
    )]
    NoHardwareAddress {
        /// The device.
        netdev: String,
    },
    /// A device could not be made, read or changed.
    #[error("{netdev}: {call}: {source}; {fix}")]
    Device {
        /// The device.
        netdev: String,
        /// The call that failed.
        call: &'static str,
        /// Why.
        source: io::Error,
        /// What to do.
        fix: &'static str,
    },
    /// All port indices are in use.
    #[error("a node has at most {MAX_PORTS} ports: delete one first")]
    TooMany,
    /// A worker's packet memory has no frames left for another port.
    #[error(
        "packet memory is too small for another port, which needs {needed} frames a worker where {free} are free: raise memory.frames in the node's configuration"
    )]
    Memory {
        /// Frames that a port needs.
        needed: usize,
        /// Frames that are free.
        free: usize,
    },
    /// The process, or the system, has too many open files.
    #[error("{call}: {why}")]
    TooManyFiles {
        /// The call that failed.
        call: &'static str,
        /// Whose files they are, and what to do.
        why: String,
    },
    /// A thread or descriptor could not be had from the system.
    #[error("{call}: {source}")]
    System {
        /// The call that failed.
        call: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The workers are gone.
    #[error("the workers have stopped: restart the node")]
    Stopped,
}

impl PortError {
    /// Of a call that takes a descriptor, whose other errors mean this.
    pub(crate) fn of(
        call: &'static str,
        source: io::Error,
        other: impl FnOnce(io::Error) -> Self,
    ) -> Self {
        match too_many_files(&source) {
            Some(why) => Self::TooManyFiles { call, why },
            None => other(source),
        }
    }

    /// Of one whose errors are the system's.
    pub(crate) fn system(call: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::of(call, source, |source| Self::System { call, source })
    }
}

impl From<XskError> for PortError {
    /// `xsk` knows what was refused; which capability is missing is looked up, as for the steering program.
    fn from(error: XskError) -> Self {
        match error {
            XskError::NoPermission { call } => Self::NotPermitted {
                call,
                missing: missing_capabilities(),
            },
            XskError::TooManyFiles { call, source } => Self::system(call)(source),
            error => Self::Socket(error),
        }
    }
}
