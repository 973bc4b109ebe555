//! Ports, and the neighbours behind them.

use super::*;

impl Compiler {
    pub(super) fn make_ports(
        &self,
        generation: u64,
        old: &State,
        from: &Sources<'_>,
    ) -> Result<Vec<Option<Port>>, Missing> {
        let mut ports = Vec::new();
        for (name, port) in &from.state.ports {
            let open = from
                .ports
                .get(name)
                .or_missing(|| ItemKey::Port(name.clone()))?;
            let goes_on = |before: &&OpenPort| {
                let role = old.ports.get(name).map(|port| &port.role);
                (before.index, before.ifindex, role) == (open.index, open.ifindex, Some(&port.role))
            };
            let before = self.ports.get(name).filter(goes_on);
            let before = before.and_then(|before| self.draft.tables.port(before.index));
            let place = usize::from(open.index.0);
            if ports.len() <= place {
                ports.resize(place + 1, None);
            }
            ports[place] = Some(Port {
                role: match &port.role {
                    Role::Edge(vrf) => {
                        let place = self.slots.vrfs.get(vrf);
                        PortRole::Edge(VrfIndex(place.or_missing(|| ItemKey::Vrf(vrf.clone()))?))
                    }
                    Role::Underlay => PortRole::Underlay,
                },
                mac: open.mac,
                more_macs: open.more_macs.clone(),
                mtu: open.mtu,
                finishes: port.finishes(open.offloads),
                device_mtu: open.device_mtu,
                peer: open.peer,
                sources: own::sources(from, name),
                since: before.map_or(generation, |port| port.since),
            });
        }
        Ok(ports)
    }

    /// Each VRF's place among the budgets of ICMP errors: one of its ports has it.
    pub(super) fn budgets(&mut self, from: &Sources<'_>) {
        let mut of_vrfs: HashMap<&VrfName, PortIndex> = HashMap::new();
        for (name, port) in &from.state.ports {
            if let (Role::Edge(vrf), Some(open)) = (&port.role, from.ports.get(name)) {
                of_vrfs.entry(vrf).or_insert(open.index);
            }
        }
        let vrfs = &mut self.draft.tables.vrfs;
        for (name, place) in self.slots.vrfs.iter() {
            let errors = of_vrfs.get(name).copied();
            if vrfs.get(place).is_some_and(|vrf| vrf.errors != errors)
                && let Some(vrf) = vrfs.get_mut(place)
            {
                vrf.errors = errors;
            }
        }
    }
}

/// The kernel's on edge ports, and above them the static ones; with the marks that they had `before`.
pub(super) fn neighbours(
    from: &Sources<'_>,
    before: &FastMap<NeighbourKey, Neighbour>,
) -> Result<FastMap<NeighbourKey, Neighbour>, Missing> {
    let mut edges = HashMap::new();
    for (name, port) in &from.state.ports {
        let open = from
            .ports
            .get(name)
            .or_missing(|| ItemKey::Port(name.clone()))?;
        if let (Role::Edge(_), Some(ifindex)) = (&port.role, open.ifindex) {
            edges.insert(ifindex, open.index);
        }
    }
    let entry = |key: NeighbourKey, mac: &Mac| {
        let known = before.get(&key).filter(|known| known.mac() == *mac);
        (key, known.cloned().unwrap_or_else(|| (*mac).into()))
    };
    let kernel = from.neighbours.iter();
    let mut neighbours: FastMap<_, _> = kernel
        .filter_map(|((ifindex, address), mac)| {
            let port = *edges.get(ifindex)?;
            let address = mapped(*address);
            Some(entry(NeighbourKey { port, address }, mac))
        })
        .collect();
    for ((port, address), mac) in &from.state.neighbours {
        let open = from
            .ports
            .get(port)
            .or_missing(|| ItemKey::Port(port.clone()))?;
        let key = NeighbourKey {
            port: open.index,
            address: mapped(*address),
        };
        neighbours.extend([entry(key, mac)]);
    }
    Ok(neighbours)
}
