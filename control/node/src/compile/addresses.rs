//! The host's own addresses, as the kernel tells them.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// An address that the host has on a device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HostAddress {
    /// The kernel's index of the device.
    pub ifindex: u32,
    /// The address.
    pub address: IpAddr,
    /// Bits of the prefix that is on the device's link with it.
    pub len: u8,
}

/// What the host may do with an address (RFC 4862).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// All.
    Preferred,
    /// Receive, but begin nothing from it.
    Deprecated,
    /// Nothing yet: whether another host has it is being found out.
    Tentative,
    /// Nothing: another host has it.
    Duplicate,
}

/// All of the host's addresses.
pub(crate) type HostAddresses = BTreeMap<HostAddress, Standing>;
