//! What a port shall be made of, without the dataplane that makes it.

use twinseal_wire::ethernet::Mac;

/// How a socket shares packets with the driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum BindMode {
    /// Zero-copy if the driver can, else copy.
    #[default]
    Auto,
    /// The device reads and writes the packet memory itself, or opening fails.
    ZeroCopy,
    /// The kernel copies each packet. Works on every device.
    Copy,
}

/// How the steering program shall run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum XdpMode {
    /// Native where the driver can, else generic.
    #[default]
    Auto,
    /// In the driver, before the kernel makes a packet of the frame; an error where the driver cannot.
    Native,
    /// In the kernel's stack, on any device; slower.
    Generic,
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
    /// Bytes of an IP packet; 0: the device's own.
    pub mtu: u16,
    /// What it is made of.
    pub device: Device,
}

impl PortSpec {
    /// Its network device, if it has one.
    #[must_use]
    pub fn netdev(&self) -> Option<&str> {
        match &self.device {
            Device::AfXdp { netdev, .. } | Device::Tap { netdev } => Some(netdev),
            Device::Memory { .. } => None,
        }
    }
}
