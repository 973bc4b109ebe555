//! Links, circuits, their labels and the keys that they receive with.

use std::hash::{BuildHasher, Hasher};

use super::*;

impl Compiler {
    /// Notes the links whose frames go to another hardware address now, or out of a port that is not as it was.
    pub(super) fn links_by_neighbour(
        &self,
        old: &State,
        from: &Sources<'_>,
        ports_changed: bool,
        kernel: &HashSet<(u32, IpAddr)>,
        changes: &mut Changes,
    ) {
        let mut fixed = HashSet::new();
        old.neighbours
            .diff(&from.state.neighbours, |key, _, _| _ = fixed.insert(key));
        for (name, link) in &from.state.links {
            let affected = ports_changed || {
                let address = link.neighbour();
                let ifindex = from.ports.get(&link.port).and_then(|port| port.ifindex);
                ifindex.is_some_and(|ifindex| kernel.contains(&(ifindex, address)))
                    || fixed.contains(&(link.port.clone(), address))
            };
            if affected {
                changes.links.insert(name.clone());
            }
        }
    }

    pub(super) fn circuit(
        &self,
        from: &Sources<'_>,
        name: &CircuitName,
    ) -> Result<Circuit, Missing> {
        let Sources { state, live, .. } = from;
        let circuit = state
            .circuits
            .get(name)
            .or_missing(|| ItemKey::Circuit(name.clone()))?;
        let owner = Owner::Circuit(name.clone());
        let mut receive: [_; 16] = Default::default();
        for (id, _) in state.keys.range(|id| id.owner.cmp(&owner)) {
            if let Some(sa) = live.open(id) {
                receive[(id.epoch & 0xf) as usize] = Some(Arc::clone(sa));
            }
        }
        let key = state.transmitting(&owner);
        let vrf = self.slots.vrfs.get(&circuit.vrf);
        let link = self.slots.links.get(&circuit.link);
        let traffic = live.circuit(name);
        Ok(Circuit {
            id: circuit.id,
            vrf: VrfIndex(vrf.or_missing(|| ItemKey::Vrf(circuit.vrf.clone()))?),
            link: LinkIndex(link.or_missing(|| ItemKey::Link(circuit.link.clone()))?),
            label: circuit.label,
            hop_limit: circuit.hop_limit,
            dscp: circuit.dscp,
            transmit: key.and_then(|id| live.seal(&id).cloned()),
            receive,
            traffic: traffic
                .or_missing(|| ItemKey::Circuit(name.clone()))?
                .clone(),
        })
    }

    /// Receive keys of links, by their indices.
    pub(super) fn receivers(&mut self, old: &State, from: &Sources<'_>) -> Result<(), Missing> {
        let new = from.state;
        let of_link = |id: &KeyId| match &id.owner {
            Owner::Link(name) => Some(name.clone()),
            Owner::Circuit(_) => None,
        };
        let mut gone = Vec::new();
        let mut come = Vec::new();
        old.keys.diff(&new.keys, |id, before, now| {
            if let Some(name) = of_link(id) {
                // Which end we are may have changed too.
                if let Some(key) = before.filter(|_| old.seals(id) == Some(false)) {
                    gone.push(key.receiver_index);
                }
                if let Some(key) = now {
                    come.push((key.receiver_index, name, id));
                }
            }
        });
        // An index may pass from one key to another.
        for index in gone {
            self.draft.remove_receiver(index);
        }
        for (index, name, id) in come {
            if let Some(sa) = from.live.open(id) {
                let link = self.slots.links.get(&name);
                let receiver = InboundSa {
                    link: LinkIndex(link.or_missing(|| ItemKey::Link(name))?),
                    sa: Arc::clone(sa),
                };
                self.draft.set_receiver(index, receiver);
            }
        }
        Ok(())
    }

    pub(super) fn labels(&mut self, old: &State, new: &State) -> Result<(), Missing> {
        let Self { slots, draft, .. } = self;
        let mut sound = Ok(());
        old.labels.diff(&new.labels, |(link, label), _, now| {
            let Some(place) = slots.links.get(link).map(LinkIndex) else {
                return sound = Err(Missing(ItemKey::Link(link.clone())));
            };
            let action = match now {
                None => return draft.remove_label(place, *label),
                Some(LabelAction::Swap { link, label }) => {
                    let place = slots.links.get(link);
                    let place = place.or_missing(|| ItemKey::Link(link.clone()));
                    place.map(|place| {
                        fib::LabelAction::Swap(Swap {
                            link: LinkIndex(place),
                            label: *label,
                        })
                    })
                }
                Some(LabelAction::Egress(circuit)) => {
                    let place = slots.circuits.get(circuit);
                    let place = place.or_missing(|| ItemKey::Circuit(circuit.clone()));
                    place.map(|place| fib::LabelAction::Egress(CircuitIndex(place)))
                }
            };
            match action {
                Ok(action) => draft.set_label(place, *label, action),
                Err(missing) => sound = Err(missing),
            }
        });
        sound
    }
}

pub(super) fn link(from: &Sources<'_>, name: &LinkName, labels: Root) -> Result<Link, Missing> {
    let Sources { state, live, .. } = from;
    let this = || ItemKey::Link(name.clone());
    let link = state.links.get(name).or_missing(this)?;
    let port = from.ports.get(&link.port);
    let port = port.or_missing(|| ItemKey::Port(link.port.clone()))?;
    let key = state.transmitting(&Owner::Link(name.clone()));
    let transmit = key.and_then(|id| {
        Some(OutboundSa {
            sa: Arc::clone(live.seal(&id)?),
            receiver: state.keys.get(&id)?.receiver_index,
        })
    });
    let outer = OuterHeaders::new(
        port.mac,
        from.next_hop(name),
        link.local.ip(),
        link.remote.ip(),
        link.remote.port(),
    );
    Ok(Link {
        port: port.index,
        outer: outer.or_missing(this)?,
        mtu: port.mtu,
        transmit,
        source_port_salt: salt(name),
        labels,
        traffic: live.link(name).or_missing(this)?.clone(),
    })
}

/// So that two links between the same nodes send from other ports, yet each always from the same.
fn salt(link: &LinkName) -> u16 {
    let mut hasher = FoldState.build_hasher();
    hasher.write(link.as_str().as_bytes());
    hasher.finish() as u16
}
