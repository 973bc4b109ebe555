//! What can go wrong, and what to do about it.

use std::net::IpAddr;

use twinseal_ebpf::SteerError;
use twinseal_lab::LabError;
use twinseal_xsk::XskError;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum GeneratorError {
    /// The two addresses do not go together.
    #[error("{src} and {dst} are of two families: give two IPv4 or two IPv6 addresses")]
    Families {
        /// Source.
        src: IpAddr,
        /// Destination.
        dst: IpAddr,
    },
    /// No queue, or no port to send from.
    #[error("a generator needs at least one queue and one source port")]
    Nothing,
    /// The packets do not fit.
    #[error("a frame of {frame} bytes does not fit: the longest is {max}")]
    Size {
        /// As asked for.
        frame: usize,
        /// What fits.
        max: usize,
    },
    /// The packets are too short to carry a number and a time.
    #[error("a packet of {octets} octets is too short: a test packet has {min} at least")]
    Short {
        /// As asked for.
        octets: usize,
        /// What is needed.
        min: usize,
    },
    /// The processor is not there, or this process may not use it.
    #[error("cannot run on processor {cpu}: {source}; see `nproc` and `taskset -p $$`")]
    Cpu {
        /// Its number.
        cpu: usize,
        /// Why.
        source: std::io::Error,
    },
    /// A thread could not be started or could not wait.
    #[error("the receiver's thread: {0}")]
    Thread(#[source] std::io::Error),
    /// AF_XDP.
    #[error(transparent)]
    Xsk(#[from] XskError),
    /// The steering program.
    #[error(transparent)]
    Steer(#[from] SteerError),
    /// Sending, or a namespace.
    #[error(transparent)]
    Lab(#[from] LabError),
}
