//! Network devices, as the kernel tells of them.

use std::collections::HashMap;

use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};

use twinseal_wire::ethernet::Mac;

/// One of them.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Netdev {
    /// Its name.
    pub name: String,
    /// Its hardware address; zero if it has none.
    pub mac: Mac,
    /// Bytes of an IP packet.
    pub mtu: u32,
    /// Whether somebody has set it up.
    pub up: bool,
    /// Whether it is up and has carrier.
    pub carrier: bool,
    /// The device that it stands on, if it is a macvlan.
    pub below: Option<u32>,
    /// The device that it is a member of, such as a bridge or a bond.
    pub master: Option<u32>,
    /// Whether it is a VRF, which takes no frames of its members'.
    pub vrf: bool,
}

/// Where a device went that is no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Departure {
    /// Nowhere.
    Deleted,
    /// To another network namespace.
    Moved,
}

/// All of them, by the kernel's index.
#[derive(Clone, Default, Debug)]
pub struct Devices {
    there: HashMap<u32, Netdev>,
    /// Those that went since [`departed`](Self::departed) was called last, also where one of that index is there again: to
    /// a socket it is another device.
    departed: HashMap<u32, Departure>,
}

impl Devices {
    /// The one of this index.
    pub fn get(&self, ifindex: u32) -> Option<&Netdev> {
        self.there.get(&ifindex)
    }

    /// The one of this name, and its index.
    pub fn named(&self, name: &str) -> Option<(u32, &Netdev)> {
        let mut there = self.there.iter();
        let (ifindex, device) = there.find(|(_, device)| device.name == name)?;
        Some((*ifindex, device))
    }

    /// Whether nothing was heard of any device: then nothing is known, as every namespace has a loopback device.
    pub fn is_unknown(&self) -> bool {
        self.there.is_empty()
    }

    /// What is wrong with a device as a port's whose frames another takes, as a bridge its members'.
    pub fn taken(&self, ifindex: u32) -> Option<String> {
        let device = self.there.get(&ifindex)?;
        let master = self.there.get(&device.master?).filter(|it| !it.vrf)?;
        let (member, master) = (&device.name, &master.name);
        Some(format!(
            "{member} is a member of {master}, which takes its frames: name {master}, or take {member} out (`ip link set {member} nomaster`)"
        ))
    }

    /// The macvlans that stand on a device, by index.
    pub fn above(&self, ifindex: u32) -> impl Iterator<Item = (u32, &Netdev)> {
        let there = self.there.iter();
        there
            .filter(move |(_, device)| device.below == Some(ifindex))
            .map(|(index, device)| (*index, device))
    }

    /// The hardware addresses of macvlans on a device, sorted: to hosts they are the device's too, as virtual routers have
    /// them (RFC 9568, 7.3; keepalived's `use_vmac`).
    pub fn more_macs(&self, ifindex: u32) -> Vec<Mac> {
        let mut macs: Vec<_> = self.above(ifindex).map(|(_, device)| device.mac).collect();
        macs.sort_unstable();
        macs.dedup();
        macs
    }

    /// Which went since the last call, and where.
    pub fn departed(&mut self) -> HashMap<u32, Departure> {
        std::mem::take(&mut self.departed)
    }

    /// Takes a message in; says whether anything is different now.
    pub(super) fn hear(&mut self, message: &LinkMessage, exists: bool) -> bool {
        let index = message.header.index;
        if exists {
            let device = device(message);
            let old = self.there.insert(index, device.clone());
            return old != Some(device);
        }
        // A port of a bridge is one no more; its device stays.
        if message.header.interface_family == AddressFamily::Bridge {
            let device = self.there.get_mut(&index);
            return device.is_some_and(|it| it.master.take().is_some());
        }
        let moved = |attribute: &LinkAttribute| matches!(attribute, LinkAttribute::NewNetnsId(_));
        let departure = match message.attributes.iter().any(moved) {
            true => Departure::Moved,
            false => Departure::Deleted,
        };
        let known = self.there.remove(&index).is_some();
        if known {
            self.departed.insert(index, departure);
        }
        known
    }
}

fn device(message: &LinkMessage) -> Netdev {
    let mut device = Netdev::default();
    let (mut carrier, mut link, mut macvlan, mut foreign) = (None, None, false, false);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => device.name.clone_from(name),
            LinkAttribute::Carrier(it) => carrier = Some(*it != 0),
            LinkAttribute::Mtu(mtu) => device.mtu = *mtu,
            LinkAttribute::Link(index) => link = Some(*index),
            // A bridge that tells of itself says that it is its own.
            LinkAttribute::Controller(index) if *index != message.header.index => {
                device.master = Some(*index).filter(|it| *it != 0);
            }
            // That index is then of another namespace.
            LinkAttribute::LinkNetNsId(_) => foreign = true,
            LinkAttribute::Address(address) => {
                device.mac = address.as_slice().try_into().map(Mac).unwrap_or_default();
            }
            LinkAttribute::LinkInfo(all) => {
                let is_macvlan = |info: &LinkInfo| {
                    matches!(info, LinkInfo::Kind(InfoKind::MacVlan | InfoKind::MacVtap))
                };
                macvlan = all.iter().any(is_macvlan);
                device.vrf = all.contains(&LinkInfo::Kind(InfoKind::Vrf));
            }
            _ => {}
        }
    }
    let flags = message.header.flags;
    device.up = flags.contains(LinkFlags::Up);
    device.carrier = device.up && carrier.unwrap_or(flags.contains(LinkFlags::LowerUp));
    device.below = link.filter(|_| macvlan && !foreign);
    device
}
