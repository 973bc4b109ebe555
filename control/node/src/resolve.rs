//! Whom the kernel is asked to resolve, and when; and which neighbours are looked after.
//!
//! A router probes the neighbours that it sends to. The kernel does not know of what we send, so we see to it, whoever
//! learnt them: workers mark the neighbours that they send to ([`Fib::take_used`]), and those that are in use are probed.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use crate::asked::{Asked, Key};
use crate::compile::{OpenPort, Sources};
use crate::crowd::Crowd;
use crate::netlink::Netlink;
use twinseal_fib::{Fib, PortIndex};
use twinseal_model::state::{Hop, PortName};
use twinseal_runtime::workers::NeighbourRequest;
use twinseal_wire::ip::unmapped;

/// Between two attempts at what is not resolved, and two looks at who is in use.
const RETRY: Duration = Duration::from_secs(1);
/// Between two looks at links' next hops that are resolved, so that the kernel neither forgets one nor misses that it went
/// away.
const REFRESH: Duration = Duration::from_secs(10);
/// Between two probes of a neighbour in use. It has three seconds to answer; so this and three seconds is how long packets
/// go to a hardware address that its host has left.
const PROBE: Duration = Duration::from_secs(5);
/// Neighbours that are probed in [`RETRY`] at most. Where more are in use, they are probed less often.
const PROBES: usize = 1000;
/// How long after the last packet a neighbour that vanishes is asked for, though no packet waits for it.
const IN_USE: Duration = Duration::from_secs(30);

/// Asks the kernel to resolve link next hops and what workers wait for, and to probe what is in use.
pub(super) struct Resolver {
    retried: Instant,
    refreshed: Instant,
    asked: Asked,
    used: HashMap<Key, Use>,
}

/// When a neighbour was last in use, and when it was probed.
struct Use {
    seen: Instant,
    probed: Option<Instant>,
}

impl Resolver {
    /// Begins now.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            retried: now,
            refreshed: now,
            asked: Asked::by_kernel(),
            used: HashMap::new(),
        }
    }

    /// Asks for what links need and the kernel does not know.
    pub(super) fn links(&self, netlink: &Netlink, from: &Sources<'_>) {
        self.ask_links(netlink, from, false);
    }

    /// Asks for neighbours that packets wait for.
    pub(super) fn wanted(
        &mut self,
        now: Instant,
        netlink: &Netlink,
        tables: &Fib,
        ports: &BTreeMap<PortName, OpenPort>,
        requests: impl Iterator<Item = NeighbourRequest>,
    ) {
        for request in requests {
            // The index may be another port's by now.
            let port = tables.port(request.port);
            if port.is_some_and(|port| port.since == request.since)
                && let Some(ifindex) = ifindex(ports, request.port)
            {
                self.ask(now, netlink, (ifindex, request.address));
            }
        }
    }

    /// Takes in what the kernel told of neighbours. Says whether one came that packets wait for.
    pub(super) fn heard(&mut self, now: Instant, netlink: &mut Netlink) -> bool {
        for key in std::mem::take(&mut netlink.view.vanished) {
            // Packets go there: before the next ones wait for it.
            if self.used.contains_key(&key) {
                self.ask(now, netlink, key);
            }
        }
        let known = &netlink.view.neighbours;
        self.asked.answered(|key| known.contains_key(key))
    }

    /// Does what is due. Says once a second whom the kernel was told to forget.
    pub(super) fn tick(
        &mut self,
        now: Instant,
        netlink: &Netlink,
        tables: &Fib,
        from: &Sources<'_>,
    ) -> Option<Vec<Key>> {
        if now - self.retried < RETRY {
            return None;
        }
        self.retried = now;
        let refresh = now - self.refreshed >= REFRESH;
        if refresh {
            self.refreshed = now;
        }
        self.ask_links(netlink, from, refresh);
        self.asked
            .expire(now, |(ifindex, address)| netlink.forget(ifindex, address));
        self.mark(now, tables, from);
        let thinned = self.thin_out(netlink, from);
        for (ifindex, address) in self.due(now) {
            netlink.probe(ifindex, address);
        }
        Some(thinned)
    }

    fn ask(&mut self, now: Instant, netlink: &Netlink, key: Key) {
        if netlink.view.neighbours.contains_key(&key) {
            return;
        }
        let verdict = self.asked.wanted(key, now);
        if let Some((ifindex, address)) = verdict.forget {
            netlink.forget(ifindex, address);
        }
        if verdict.ask {
            let (ifindex, address) = key;
            netlink.resolve(ifindex, address);
        }
    }

    /// Notes which of the kernel's neighbours packets went to.
    fn mark(&mut self, now: Instant, tables: &Fib, from: &Sources<'_>) {
        let used = &mut self.used;
        tables.take_used(|key| {
            let key = ifindex(from.ports, key.port).map(|it| (it, unmapped(key.address)));
            if let Some(key) = key.filter(|key| from.neighbours.contains_key(key)) {
                let probed = None;
                used.entry(key).or_insert(Use { seen: now, probed }).seen = now;
            }
        });
        used.retain(|key, it| now - it.seen < IN_USE && from.neighbours.contains_key(key));
    }

    /// Has the kernel forget those whom hosts had it learn beyond their port's share, and tells whom.
    fn thin_out(&self, netlink: &Netlink, from: &Sources<'_>) -> Vec<Key> {
        let edges = from.state.ports.iter().filter(|(_, port)| port.spec.edge);
        let edges = edges.filter_map(|(name, _)| from.ports.get(name)?.ifindex);
        let edges: Vec<_> = edges.collect();
        let in_use = |key: &Key| self.used.contains_key(key);
        let excess = Crowd::by_kernel().excess(from.neighbours, &edges, in_use);
        for (ifindex, address) in &excess {
            netlink.forget(*ifindex, *address);
        }
        excess
    }

    /// Whom to probe now: those in use, the longest unprobed first.
    fn due(&mut self, now: Instant) -> Vec<Key> {
        let due = |(_, it): &(&Key, &mut Use)| {
            it.seen == now && it.probed.is_none_or(|probed| now - probed >= PROBE)
        };
        let mut due: Vec<_> = self.used.iter_mut().filter(due).collect();
        due.sort_by_key(|(_, it)| it.probed);
        due.truncate(PROBES);
        let probe = |(key, it): (&Key, &mut Use)| {
            it.probed = Some(now);
            *key
        };
        due.into_iter().map(probe).collect()
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
            let Some((ifindex, None)) = port else {
                continue;
            };
            if from.state.neighbours.contains_key(&fixed) {
                continue;
            }
            match from.neighbours.contains_key(&(ifindex, address)) {
                true if all => netlink.probe(ifindex, address),
                true => {}
                false => netlink.resolve(ifindex, address),
            }
        }
    }
}

/// The kernel's index of a port's device.
fn ifindex(ports: &BTreeMap<PortName, OpenPort>, index: PortIndex) -> Option<u32> {
    let mut ports = ports.values();
    ports.find(|port| port.index == index)?.ifindex
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(nth: u32) -> Key {
        (7, std::net::Ipv4Addr::from(nth).into())
    }

    #[test]
    fn those_in_use_are_probed_in_turn_and_others_not() {
        let start = Instant::now();
        let mut resolver = Resolver::new(start);
        let mut probed = HashMap::new();
        let hosts = PROBES as u32 * 2;
        for second in 0..20 {
            let now = start + RETRY * second;
            for nth in 0..hosts {
                // The last one only at first.
                if nth < hosts - 1 || second == 0 {
                    let it = Use {
                        seen: now,
                        probed: None,
                    };
                    resolver.used.entry(host(nth)).or_insert(it).seen = now;
                }
            }
            let due = resolver.due(now);
            assert!(due.len() <= PROBES);
            for key in due {
                let before = probed.insert(key, now);
                assert!(
                    before.is_none_or(|before| now - before >= PROBE),
                    "too soon"
                );
            }
        }
        let late = start + RETRY * 19 - PROBE;
        let not_late = probed.values().filter(|&&at| at > late).count();
        assert_eq!(
            not_late,
            hosts as usize - 1,
            "all others are probed in time"
        );
        assert!(probed.get(&host(hosts - 1)).is_none_or(|&at| at == start));
    }
}
