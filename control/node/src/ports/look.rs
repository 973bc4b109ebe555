//! A look at what ports would be, and at what they could not, before anything is opened or closed: what a dry run is told.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::mem::discriminant;
use std::net::SocketAddr;

use super::refused::{cannot_hold, cannot_open};
use super::wanted::wanted;
use super::{IfAbsent, Ports};
use crate::compile::OpenPort;
use crate::health::Status;
use crate::netlink::View;
use twinseal_ebpf::SteerError;
use twinseal_fib::{MAX_PORTS, PortIndex};
use twinseal_model::parse::ItemKey;
use twinseal_model::port::{Device, PortSpec};
use twinseal_model::refusal::Refused;
use twinseal_model::state::{Link, LinkName, PersistentMap, Port, PortName, State};
use twinseal_model::transaction::Touched;
use twinseal_runtime::ports::{PortError, check_endpoint, ifindex_of, memory};
use twinseal_runtime::workers::Pool;

impl Ports {
    /// The ports of `state` as they would be if they were opened now, as far as can be seen: of those that are not open so,
    /// what packets they would take.
    pub(crate) fn would_be(
        &self,
        pool: &Pool,
        state: &State,
        view: &View,
    ) -> BTreeMap<PortName, OpenPort> {
        let mut ports = BTreeMap::new();
        for (name, port) in state.ports.iter() {
            let before = self.open.get(name);
            let would_be = match before {
                Some(open) if self.has(name, port) => Some(open.clone()),
                _ => self.would_open(pool, name, port, view),
            };
            // What cannot be seen is told when it is there.
            ports.extend(would_be.or(before.cloned()).map(|it| (name.clone(), it)));
        }
        ports
    }

    fn would_open(
        &self,
        pool: &Pool,
        name: &PortName,
        port: &Port,
        view: &View,
    ) -> Option<OpenPort> {
        let (ifindex, mac, device_mtu, mtu) = match &port.spec.device {
            Device::AfXdp { netdev, .. } => {
                let (ifindex, device) = view.devices.named(netdev)?;
                let fit = pool.fit(netdev, device.mtu, port.spec.mtu).ok()?;
                let device_mtu = u16::try_from(device.mtu).unwrap_or(u16::MAX);
                (Some(ifindex), device.mac, device_mtu, fit.mtu)
            }
            Device::Memory { mac, .. } => (None, *mac, memory::MTU, memory::MTU),
            // No link goes by one.
            Device::Tap { .. } => return None,
        };
        let before = self.open.get(name);
        Some(OpenPort {
            // Tables are not made of it, so its place may be another's.
            index: before.map_or(PortIndex(0), |open| open.index),
            mac,
            more_macs: Vec::new(),
            mtu,
            device_mtu,
            offloads: before.is_some_and(|open| open.offloads),
            peer: before.and_then(|open| open.peer),
            ifindex,
            seen: true,
            device: Status::Up,
        })
    }

    /// Adds why ports of `state` would not open, as far as can be known without opening them. One that waits for its device
    /// may go on to.
    pub(crate) fn check(
        &self,
        pool: &Pool,
        state: &State,
        touched: &Touched,
        if_absent: IfAbsent,
        refused: &mut Refused,
    ) {
        let mut room = MAX_PORTS.saturating_sub(self.open.len());
        for (name, port) in state
            .ports
            .iter()
            .filter(|(name, port)| !self.has(name, port))
        {
            let ours = self.is_on_its_device(name, &port.spec);
            let mut checked = self.check_kind(name, &port.spec);
            checked = checked.and_then(|()| pool.check_port(&wanted(&port.spec), ours));
            if !self.handles.contains_key(name) {
                match room.checked_sub(1) {
                    Some(rest) => room = rest,
                    None => checked = checked.and(Err(PortError::TooMany)),
                }
            }
            match checked {
                // That the transaction gives one device to two ports is told as such.
                Err(PortError::Steering(SteerError::AlreadyAttached { .. }))
                    if self.is_of_another(name, &port.spec) => {}
                Err(error) if !if_absent.waits(&port.spec, &error) => {
                    refused.push(cannot_open(name, touched, &error));
                }
                _ => {}
            }
        }
        if if_absent == IfAbsent::Refuse {
            self.check_endpoints(state, touched, refused);
        }
    }

    /// Adds the links whose address and UDP port cannot be had: all of them, and before anything is opened.
    fn check_endpoints(&self, state: &State, touched: &Touched, refused: &mut Refused) {
        // Links come by the thousand, and most transactions leave them alone.
        let same = |links: &PersistentMap<LinkName, Link>| links.same(&state.links);
        if self.links.as_ref().is_some_and(same) {
            return;
        }
        let held = self.handles.values().flat_map(|it| &it.endpoints);
        let held: HashSet<SocketAddr> = held.copied().collect();
        let binds: BTreeSet<_> = state
            .ports
            .iter()
            .filter(|(name, port)| self.binds(name, port))
            .map(|(name, _)| name)
            .collect();
        let mut tried = HashMap::new();
        for (name, link) in state.links.iter() {
            if !binds.contains(&link.port) {
                continue;
            }
            let tried =
                tried
                    .entry(link.local)
                    .or_insert_with(|| match held.contains(&link.local) {
                        true => Ok(()),
                        false => check_endpoint(link.local),
                    });
            if let Err(error) = tried {
                let item = ItemKey::Link(name.clone());
                refused.push(cannot_hold(item, touched, error));
            }
        }
    }

    /// Whether a port will hold the endpoints of its links: while its device is away it waits with these, too.
    fn binds(&self, name: &PortName, port: &Port) -> bool {
        let is_device = matches!(port.spec.device, Device::AfXdp { .. });
        is_device && (self.carries(name) || !self.has(name, port))
    }

    /// Whether another port of ours has this device, by the same name: to take it from that one is refused anyway.
    fn is_of_another(&self, name: &PortName, spec: &PortSpec) -> bool {
        let netdev = spec.netdev();
        let mut others = self.handles.iter().filter(|(other, _)| *other != name);
        netdev.is_some() && others.any(|(_, it)| it.port.spec.netdev() == netdev)
    }

    /// A TAP device goes with the port, so nothing else can be made of it.
    fn check_kind(&self, name: &PortName, spec: &PortSpec) -> Result<(), PortError> {
        let before = self.handles.get(name).map(|it| &it.port.spec.device);
        match (before, &spec.device) {
            (Some(Device::Tap { netdev: tap }), Device::AfXdp { netdev, .. }) if tap == netdev => {
                Err(PortError::Device {
                    netdev: netdev.clone(),
                    call: "AF_XDP",
                    source: io::Error::other("it is the port's own TAP device and goes with it"),
                    fix: "make a device of another name",
                })
            }
            _ => Ok(()),
        }
    }

    /// Whether the device of this is open as this port now, and nobody has taken our program off it.
    pub(super) fn is_on_its_device(&self, name: &PortName, spec: &PortSpec) -> bool {
        let Some((open, handle)) = self.open.get(name).zip(self.handles.get(name)) else {
            return false;
        };
        let same_kind = discriminant(&handle.port.spec.device) == discriminant(&spec.device);
        // By the kernel's index: the device may be called otherwise by now.
        let here = open.ifindex.is_some() && open.ifindex == spec.netdev().and_then(ifindex_of);
        same_kind && here && handle.steering.is_attached()
    }
}
