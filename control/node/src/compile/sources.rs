//! What tables are made from.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::HostAddresses;
use crate::down::Down;
use crate::health::Status;
use crate::keys::Live;
use twinseal_fib::PortIndex;
use twinseal_model::state::{LinkName, PortName, State};
use twinseal_runtime::ports::Outcome;
use twinseal_wire::ethernet::Mac;

/// An open port, as far as tables are concerned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OpenPort {
    /// Its place.
    pub index: PortIndex,
    /// Its hardware address.
    pub mac: Mac,
    /// Those of macvlans on its device, as virtual routers have them.
    pub more_macs: Vec<Mac>,
    /// Octets of an IP packet.
    pub mtu: u16,
    /// Octets of the largest that its device takes.
    pub device_mtu: u16,
    /// Whether hosts may leave checksums to its device.
    pub offloads: bool,
    /// The hardware address of its only peer, if it can have but one.
    pub peer: Option<Mac>,
    /// The kernel's index of its device; none while it has none.
    pub ifindex: Option<u32>,
    /// Whether it ever had one: until then its MTU is a guess, and it has no hardware address.
    pub seen: bool,
    /// Whether its device can be used: [`Status::Down`] while it is closed, for the device is gone.
    pub device: Status,
}

impl OpenPort {
    /// A port of this place, as it was opened.
    pub fn new(index: PortIndex, outcome: &Outcome) -> Self {
        Self {
            index,
            mac: outcome.mac,
            more_macs: Vec::new(),
            mtu: outcome.mtu,
            device_mtu: outcome.device_mtu,
            offloads: outcome.offloads,
            peer: outcome.peer,
            ifindex: outcome.ifindex,
            seen: true,
            device: Status::Up,
        }
    }
}

/// Hardware addresses that the kernel resolved, by its index of the device.
pub(crate) type KernelNeighbours = HashMap<(u32, IpAddr), Mac>;

/// Everything that tables are made from.
pub struct Sources<'a> {
    /// The desired state.
    pub state: &'a State,
    /// SAs and counters of that state.
    pub live: &'a Live,
    /// Its ports, all of them open.
    pub ports: &'a BTreeMap<PortName, OpenPort>,
    /// What the kernel knows.
    pub neighbours: &'a KernelNeighbours,
    /// This host's addresses.
    pub addresses: &'a HostAddresses,
    /// Members of groups that are down.
    pub down: &'a Arc<Down>,
}

impl Sources<'_> {
    /// The hardware address that a link's frames go to: the static neighbour's, else the port's only peer's or the kernel's.
    pub fn next_hop(&self, link: &LinkName) -> Option<Mac> {
        let link = self.state.links.get(link)?;
        let address = link.neighbour();
        let fixed = self.state.neighbours.get(&(link.port.clone(), address));
        fixed.copied().or_else(|| {
            let port = self.ports.get(&link.port)?;
            let known = self.neighbours.get(&(port.ifindex?, address));
            port.peer.or(known.copied())
        })
    }
}
