//! What tables say, by names instead of places, so that tests can compare them.

use std::fmt::Write;

use super::*;
use twinseal_fib::trie::{Leaf, Number};

impl Compiler {
    /// All that a packet could find out of the tables of the state that was compiled last.
    pub(crate) fn dump(&self) -> String {
        let (tables, state) = (&self.draft.tables, &self.state);
        let tries = &tables.tries;
        let mut out = format!(
            "{:?}\n",
            tables
                .ports
                .iter()
                .flatten()
                .map(|port| {
                    let role = match port.role {
                        PortRole::Edge(vrf) => self.vrf(vrf),
                        PortRole::Underlay => "underlay".to_owned(),
                    };
                    (role, port.mac, port.mtu, port.peer, port.sources.clone())
                })
                .collect::<Vec<_>>()
        );
        for name in state.vrfs.keys() {
            let vrf = &tables.vrfs[self.slots.vrfs.get(name).expect("a VRF has a place")];
            _ = writeln!(out, "{name} {:?} {:?} {:?}", vrf.v4, vrf.v6, vrf.barred);
            // Where routes begin, and at the same addresses of other VRFs; and own addresses likewise.
            let routes = state.routes.values().flatten();
            let routes = routes.map(|(prefix, _)| prefix.address());
            let own = self.own.values().flat_map(|own| own.all_ends()).copied();
            for address in routes.chain(own) {
                let leaf = match address {
                    IpAddr::V4(address) => tries.lookup(&vrf.routes_v4, address.octets()),
                    IpAddr::V6(address) => tries.lookup(&vrf.routes_v6, address.octets()),
                };
                _ = writeln!(out, "  {address} {}", self.described(leaf));
            }
        }
        for name in state.circuits.keys() {
            let place = self
                .slots
                .circuits
                .get(name)
                .expect("a circuit has a place");
            let circuit = &tables.circuits[place];
            let receive = circuit
                .receive
                .each_ref()
                .map(|sa| sa.as_ref().map(Arc::as_ptr));
            _ = writeln!(
                out,
                "{name} {} {} {} {} {} {:?} {:?} {receive:?} {:?}",
                circuit.id,
                self.vrf(circuit.vrf),
                self.link(circuit.link),
                circuit.label,
                circuit.hop_limit,
                circuit.dscp,
                circuit.transmit.as_ref().map(Arc::as_ptr),
                circuit.traffic.place(),
            );
        }
        for name in state.links.keys() {
            let link = &tables.links[self.slots.links.get(name).expect("a link has a place")];
            let transmit = link.transmit.as_ref();
            _ = writeln!(
                out,
                "{name} {:?} {:?} {} {} {:?} {} {:?}",
                link.port,
                link.outer.octets(),
                link.outer.resolved,
                link.mtu,
                transmit.map(|transmit| (Arc::as_ptr(&transmit.sa), transmit.receiver)),
                link.source_port_salt,
                link.traffic.place(),
            );
            for (_, label) in state.labels.keys() {
                let leaf = tries.lookup(&link.labels, Number(*label));
                let action = match tables.label_action(leaf) {
                    Some(fib::LabelAction::Swap(swap)) => {
                        format!("{} {}", self.link(swap.link), swap.label)
                    }
                    Some(fib::LabelAction::Egress(circuit)) => {
                        tables.circuit(circuit).id.to_string()
                    }
                    None => "nothing".to_owned(),
                };
                _ = writeln!(out, "  {label} {action}");
            }
        }
        for key in state.keys.values() {
            let index = Number(key.receiver_index);
            let found = tables.receiver(tries.lookup(&tables.receiver_root, index));
            let found = found.map(|it| (self.link(it.link), Arc::as_ptr(&it.sa)));
            _ = writeln!(out, "{} {found:?}", index.0);
        }
        let mut neighbours: Vec<_> = tables.neighbours.iter().collect();
        neighbours.sort_by_key(|(key, _)| (key.port, key.address));
        let counts = [
            tables.vrfs.count(),
            tables.links.count(),
            tables.circuits.count(),
            tables.groups.count(),
            tables.vias.count(),
        ];
        _ = writeln!(out, "{neighbours:?} {counts:?}");
        out
    }

    fn described(&self, leaf: Leaf) -> String {
        let tables = &self.draft.tables;
        match fib::Target::of(leaf) {
            Some(fib::Target::Circuit(circuit)) => tables.circuit(circuit).id.to_string(),
            Some(fib::Target::NextHop(via)) => format!("{:?}", tables.vias[via.0]),
            Some(fib::Target::Group(group)) => {
                let flows = (0..64).map(|flow| flow << 58);
                let members = flows.map(|flow| tables.groups[group.0].member(flow));
                let members =
                    members.map(|member| self.described(member.map_or(0, |it| it.leaf())));
                format!("{:?}", members.collect::<Vec<_>>())
            }
            other => format!("{other:?}"),
        }
    }

    fn vrf(&self, index: VrfIndex) -> String {
        name_of(&self.slots.vrfs, index.0)
    }

    fn link(&self, index: LinkIndex) -> String {
        name_of(&self.slots.links, index.0)
    }
}

fn name_of<K: std::hash::Hash + Eq + Clone + std::fmt::Display>(
    slots: &SlotAllocator<K>,
    place: u32,
) -> String {
    let mut slots = slots.iter();
    let name = slots
        .find(|(_, known)| *known == place)
        .map(|(name, _)| name.to_string());
    name.expect("who has the place")
}
