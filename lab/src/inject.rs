//! Sending raw Ethernet frames: replays, forgeries and broken packets.

use crate::Namespace;
use crate::error::{Doing, LabError};
use crate::packet::{PacketSocket, Use};

/// Sends whole Ethernet frames out of one interface, so that its veth peer receives them.
pub struct Injector {
    socket: PacketSocket,
    place: String,
}

impl Injector {
    /// Opens one on an interface of `ns`.
    ///
    /// # Errors
    /// When the interface is not there or the kernel refuses.
    pub fn open(ns: &Namespace, ifname: &str) -> Result<Self, LabError> {
        Ok(Injector {
            socket: PacketSocket::open(ns, ifname, Use::Send)?,
            place: format!("{ifname} in {}", ns.name()),
        })
    }

    /// Sends one frame, from its Ethernet header, without FCS; at least 14 bytes and at most the MTU and 18.
    ///
    /// # Errors
    /// When the kernel refuses it, as it does when the interface is down or the frame too long.
    pub fn send(&self, frame: &[u8]) -> Result<(), LabError> {
        self.send_all(&[frame])
    }

    /// Sends frames in order.
    ///
    /// # Errors
    /// As [`send`](Injector::send); frames before the refused one have been sent.
    pub fn send_all<F: AsRef<[u8]>>(&self, frames: &[F]) -> Result<(), LabError> {
        let mut rest = frames;
        while !rest.is_empty() {
            let sent =
                (self.socket.send(rest)).doing(|| format!("send a frame on {}", self.place))?;
            rest = &rest[sent..];
        }
        Ok(())
    }
}

impl std::fmt::Debug for Injector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Injector").field(&self.place).finish()
    }
}
