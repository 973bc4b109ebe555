//! What the node's own addresses mean to each VRF.

use std::collections::BTreeSet;

use super::*;
use twinseal_fib::own::{Barred, Source};
use twinseal_model::state::Prefix;

/// What the own addresses at a VRF's edge ports come to.
#[derive(Clone, Default, PartialEq, Debug)]
pub(super) struct Own {
    /// Where packets to these addresses end; no route matters.
    ends: BTreeMap<IpAddr, fib::Target>,
    /// That no packet may come from.
    barred: BTreeSet<IpAddr>,
    v4: [Option<Ipv4Addr>; 3],
    v6: [Option<Ipv6Addr>; 3],
}

/// The order in which sources of the node's errors are taken: addresses at ports with hosts, addresses that the
/// configuration names, addresses of TAP devices.
const KERNEL: usize = 0;
const CONFIGURED: usize = 1;
const TAP: usize = 2;

impl Own {
    /// Whether packets to a prefix of one address end here.
    pub(super) fn ends(&self, prefix: &Prefix) -> bool {
        prefix.is_host() && self.ends.contains_key(&prefix.address())
    }

    /// The addresses that packets end at.
    #[cfg(test)]
    pub(super) fn all_ends(&self) -> impl Iterator<Item = &IpAddr> {
        self.ends.keys()
    }

    fn add_source(&mut self, order: usize, address: IpAddr) {
        match address {
            IpAddr::V4(v4) => _ = self.v4[order].get_or_insert(v4),
            IpAddr::V6(v6) => _ = self.v6[order].get_or_insert(v6),
        }
    }
}

/// What a port's own addresses come to, by VRF.
pub(super) fn of_vrfs(from: &Sources<'_>) -> BTreeMap<VrfName, Own> {
    let mut all: BTreeMap<VrfName, Own> = BTreeMap::new();
    for (name, port) in &from.state.ports {
        let (Role::Edge(vrf), Some(open)) = (&port.role, from.ports.get(name)) else {
            continue;
        };
        let own = all.entry(vrf.clone()).or_default();
        for (it, standing) in from.on_device(open.ifindex) {
            own.barred.insert(it.address);
            for end in subnet_ends(it) {
                own.barred.insert(end);
                own.ends.entry(end).or_insert(fib::Target::SubnetEnd);
            }
            // To the host that has a TAP device its addresses are as any host's.
            if open.peer.is_none() && standing != Standing::Tentative {
                own.ends.insert(it.address, fib::Target::Own);
            }
            if standing == Standing::Preferred {
                let order = if open.peer.is_none() { KERNEL } else { TAP };
                own.add_source(order, it.address);
            }
        }
        for address in &port.local {
            own.barred.insert(*address);
            own.ends.insert(*address, fib::Target::Own);
            own.add_source(CONFIGURED, *address);
        }
    }
    all
}

/// Addresses that the node's own packets out of a port may come from. The host takes none from an address of its own, so
/// out of a TAP they come from what is configured, or nothing.
pub(super) fn sources(from: &Sources<'_>, name: &PortName) -> Arc<[Source]> {
    let Some(open) = from.ports.get(name) else {
        return Arc::default();
    };
    let kernel = from.on_device(open.ifindex.filter(|_| open.peer.is_none()));
    let kernel = kernel
        .filter(|(_, standing)| *standing == Standing::Preferred)
        .map(|(it, _)| Source {
            address: it.address,
            len: it.len,
        });
    let port = from.state.ports.get(name);
    let configured = port.into_iter().flat_map(|port| &port.local);
    let configured = configured.map(|address| Source {
        address: *address,
        len: Prefix::host(*address).len(),
    });
    kernel.chain(configured).collect()
}

impl Sources<'_> {
    /// The edge port of a VRF at which an address is the node's own.
    pub fn own_port(&self, vrf: &VrfName, address: IpAddr) -> Option<&PortName> {
        let here = |name: &PortName| {
            let device = self.ports.get(name).and_then(|open| open.ifindex);
            self.on_device(device).any(|(it, _)| it.address == address)
        };
        let mut ports = self.state.ports.iter();
        let found = ports.find(|(name, port)| {
            let is_edge = port.role == Role::Edge(vrf.clone());
            is_edge && (port.local.contains(&address) || here(name))
        });
        found.map(|(name, _)| name)
    }

    /// The host's addresses on a device that packets are routed to and from: none that another host has, none that is
    /// only of its link.
    fn on_device(
        &self,
        ifindex: Option<u32>,
    ) -> impl Iterator<Item = (&HostAddress, Standing)> + use<'_> {
        let all = self.addresses.iter();
        all.filter(move |(it, standing)| {
            let link_local = match it.address {
                IpAddr::V4(v4) => v4.is_link_local(),
                IpAddr::V6(v6) => v6.is_unicast_link_local(),
            };
            Some(it.ifindex) == ifindex && **standing != Standing::Duplicate && !link_local
        })
        .map(|(it, standing)| (it, *standing))
    }
}

/// The first and the last address of an IPv4 subnet, which no host has (RFC 1122, 3.2.1.3); of two or one all are
/// hosts' (RFC 3021).
pub(crate) fn subnet_ends(own: &HostAddress) -> impl Iterator<Item = IpAddr> {
    let ends = match own.address {
        IpAddr::V4(v4) if own.len < 31 => {
            let hosts = u32::MAX >> own.len;
            let first = v4.to_bits() & !hosts;
            Some([first, first | hosts].map(|bits| IpAddr::V4(bits.into())))
        }
        _ => None,
    };
    ends.into_iter().flatten()
}

impl Compiler {
    /// Has packets to own addresses end here, and where an address is none any more has its route lead again.
    /// `routes` is done by then, which leaves alone what `self.own` has now.
    pub(super) fn enter_own(
        &mut self,
        from: &Sources<'_>,
        before: &BTreeMap<VrfName, Own>,
    ) -> Result<(), Missing> {
        let none = Own::default();
        let names: BTreeSet<_> = before.keys().chain(self.own.keys()).cloned().collect();
        for name in names {
            let was = before.get(&name).unwrap_or(&none);
            let now = self.own.get(&name).unwrap_or(&none).clone();
            // A VRF that is new has nothing yet, one that is gone takes all with it.
            let Some(vrf) = self.slots.vrfs.get(&name) else {
                continue;
            };
            for address in was.ends.keys().filter(|it| !now.ends.contains_key(it)) {
                let prefix = Prefix::host(*address);
                let routes = from.state.routes.get(&name);
                match routes.and_then(|routes| routes.get(&prefix)) {
                    Some(target) => {
                        let target = self.known(target)?;
                        self.enter(VrfIndex(vrf), &prefix, Some(target));
                    }
                    None => self.enter(VrfIndex(vrf), &prefix, None),
                }
            }
            for (address, end) in &now.ends {
                if was.ends.get(address) != Some(end) {
                    self.enter(VrfIndex(vrf), &Prefix::host(*address), Some(*end));
                }
            }
            if *was != now
                && let Some(vrf) = self.draft.tables.vrfs.get_mut(vrf)
            {
                vrf.v4 = now.v4.iter().flatten().next().copied();
                vrf.v6 = now.v6.iter().flatten().next().copied();
                vrf.barred = Barred::new(now.barred.iter().copied());
            }
        }
        Ok(())
    }
}
