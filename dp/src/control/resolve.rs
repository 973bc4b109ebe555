//! Whom the kernel is asked to resolve, and when.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::compile::{OpenPort, Sources};
use super::model::{Hop, PortName};
use super::netlink::Netlink;
use crate::workers::NeighbourRequest;

/// Between two attempts at what is not resolved.
const RETRY: Duration = Duration::from_secs(1);
/// Between two looks at what is, so that the kernel neither forgets it nor misses that it went away.
const REFRESH: Duration = Duration::from_secs(10);
/// Edge neighbours kept fresh; beyond these, hosts are resolved again when the kernel forgot them.
const MAX_EDGE: usize = 4096;

/// Asks the kernel to resolve link next hops and what workers wait for.
pub(super) struct Resolver {
    retried: Instant,
    refreshed: Instant,
    /// Edge neighbours that workers once asked for.
    edge: HashSet<(u32, IpAddr)>,
}

impl Resolver {
    /// Begins now.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            retried: now,
            refreshed: now,
            edge: HashSet::new(),
        }
    }

    /// Asks for what links need and the kernel does not know.
    pub(super) fn links(&self, netlink: &Netlink, from: &Sources<'_>) {
        self.ask_links(netlink, from, false);
    }

    /// Asks for neighbours that packets wait for.
    pub(super) fn wanted(
        &mut self,
        netlink: &Netlink,
        ports: &BTreeMap<PortName, OpenPort>,
        requests: impl Iterator<Item = NeighbourRequest>,
    ) {
        for request in requests {
            let mut ports = ports.values();
            let port = ports.find(|port| port.index == request.port);
            if let Some(ifindex) = port.and_then(|port| port.ifindex) {
                netlink.resolve(ifindex, request.address);
                if self.edge.len() < MAX_EDGE {
                    self.edge.insert((ifindex, request.address));
                }
            }
        }
    }

    /// Asks again for what is due.
    pub(super) fn tick(&mut self, now: Instant, netlink: &Netlink, from: &Sources<'_>) {
        let refresh = now.duration_since(self.refreshed) >= REFRESH;
        if !refresh && now.duration_since(self.retried) < RETRY {
            return;
        }
        self.retried = now;
        self.ask_links(netlink, from, refresh);
        if refresh {
            self.refreshed = now;
            // A host that is gone is asked for again when packets for it come.
            self.edge.retain(|key| from.neighbours.contains_key(key));
            for (ifindex, address) in &self.edge {
                netlink.resolve(*ifindex, *address);
            }
        }
    }

    /// Groups go without a next hop that is not resolved, so it is looked for without packets.
    fn ask_links(&self, netlink: &Netlink, from: &Sources<'_>, all: bool) {
        let links = from.state.links.values();
        let links = links.map(|link| (&link.port, link.neighbour()));
        let members = from.state.groups.values().flatten();
        let members = members.filter_map(|member| match &member.hop {
            Hop::Via(via) => Some((&via.port, via.address?)),
            Hop::Circuit(_) => None,
        });
        for (name, address) in links.chain(members) {
            let fixed = (name.clone(), address);
            let port = from
                .ports
                .get(name)
                .and_then(|port| Some((port.ifindex?, port.peer)));
            if let Some((ifindex, None)) = port
                && !from.state.neighbours.contains_key(&fixed)
                && (all || !from.neighbours.contains_key(&(ifindex, address)))
            {
                netlink.resolve(ifindex, address);
            }
        }
    }
}
