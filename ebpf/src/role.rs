//! What a caller asks for and is told.

use std::fmt;

use aya::Pod;

use crate::layout::{Config, interval_ns, role};

/// How the program shall run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpMode {
    /// Native where the driver can, else generic; [`Steering::outcome`](crate::Steering::outcome) tells which.
    #[default]
    Auto,
    /// In the driver, before the kernel makes a packet of the frame; an error where the driver cannot.
    Native,
    /// In the kernel's stack, on any device; slower.
    Generic,
}

/// How the program does run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpOutcome {
    /// In the driver.
    Native,
    /// In the kernel's stack.
    Generic,
}

impl fmt::Display for XdpOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

/// Neighbours that the hosts of an edge port can have the kernel learn in five seconds, until
/// [`set_neighbours`](crate::Steering::set_neighbours): half of what the kernel keeps where nobody set `gc_thresh3`.
const NEIGHBOURS: u32 = 512;

/// What a port is, and so which frames are ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Faces hosts and routes for them: what is sent to its MAC address but not to an address of this machine.
    Edge {
        /// The port's own MAC address.
        mac: [u8; 6],
        /// Whether the kernel gets only what it needs itself; all else that is not ours is dropped. That is: ARP requests for
        /// the port's own addresses, replies, and announcements; packets to these addresses; those to link-local groups
        /// (224.0.0.0/24, ff01::/16, ff02::/16), neighbour discovery among them, and to 255.255.255.255, which no router
        /// forwards; and link control (as [`Verdict::PassLinkControl`](crate::Verdict::PassLinkControl)). Router
        /// advertisements and redirects are dropped.
        owned: bool,
    },
    /// Faces hosts and bridges for them: all frames that a bridge would forward, which includes broadcasts. The
    /// machine itself cannot use the port's IP addresses, as it hears no ARP there.
    Bridge {
        /// The port's own MAC address.
        mac: [u8; 6],
    },
    /// Faces other nodes: UDP to our endpoints.
    Underlay,
}

/// What the program says about a frame: see [`Steering::dry_run`](crate::Steering::dry_run).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// `XDP_DROP`: nobody gets it (owned ports, and edge ports whose hosts make too many neighbours or ask without end).
    Drop,
    /// `XDP_PASS`: the kernel gets it.
    Pass,
    /// `XDP_REDIRECT`: the AF_XDP socket gets it.
    Redirect,
}

impl Role {
    /// As the program reads it.
    pub(crate) fn config(self) -> Config {
        let (role, owned, mac) = match self {
            Self::Edge { mac, owned } => (role::EDGE, owned, mac),
            Self::Bridge { mac } => (role::BRIDGE, false, mac),
            Self::Underlay => (role::UNDERLAY, false, [0; 6]),
        };
        Config {
            role,
            owned: owned.into(),
            mac,
            interval_ns: match self {
                Self::Edge { .. } => [interval_ns(NEIGHBOURS); 2],
                Self::Bridge { .. } | Self::Underlay => [0; 2],
            },
        }
    }
}

// SAFETY: bytes without padding, any value valid.
unsafe impl Pod for Config {}
