//! Routes, and where they lead.

use std::net::IpAddr;

use super::own::Own;
use super::*;
use twinseal_model::state::{PersistentMap, Prefix};

impl Compiler {
    /// Enters the routes that differ.
    pub(super) fn routes(&mut self, old: &State, from: &Sources<'_>) -> Result<(), Missing> {
        let mut sound = Ok(());
        let none = PersistentMap::default();
        old.routes.diff_by(
            &from.state.routes,
            PersistentMap::same,
            |name, before, now| {
                let Some(vrf) = self.slots.vrfs.get(name).map(VrfIndex) else {
                    return sound = Err(Missing(ItemKey::Vrf(name.clone())));
                };
                let own = self.own.get(name).cloned();
                let (before, now) = (before.unwrap_or(&none), now.unwrap_or(&none));
                before.diff(now, |prefix, before, now| {
                    let entered = self.route(from, (vrf, own.as_ref()), prefix, before, now);
                    if let Err(missing) = entered {
                        sound = Err(missing);
                    }
                });
            },
        );
        sound
    }

    fn route(
        &mut self,
        from: &Sources<'_>,
        (vrf, own): (VrfIndex, Option<&Own>),
        prefix: &Prefix,
        before: Option<&Target>,
        now: Option<&Target>,
    ) -> Result<(), Missing> {
        let target = match now {
            Some(target) => Some(self.target(from, target)?),
            None => None,
        };
        if own.is_none_or(|own| !own.ends(prefix)) {
            self.enter(vrf, prefix, target);
        }
        if let Some(Target::Hop(hop)) = before {
            self.leave(hop);
        }
        Ok(())
    }

    /// Enters where a prefix leads, or that it leads nowhere.
    pub(super) fn enter(&mut self, vrf: VrfIndex, prefix: &Prefix, target: Option<fib::Target>) {
        let (draft, len) = (&mut self.draft, prefix.len());
        match (prefix.address(), target) {
            (IpAddr::V4(it), Some(target)) => draft.set_route(vrf, it.octets(), len, target),
            (IpAddr::V6(it), Some(target)) => draft.set_route(vrf, it.octets(), len, target),
            (IpAddr::V4(it), None) => draft.remove_route(vrf, it.octets(), len),
            (IpAddr::V6(it), None) => draft.remove_route(vrf, it.octets(), len),
        };
    }

    /// A target that has its use already.
    pub(super) fn known(&self, target: &Target) -> Result<fib::Target, Missing> {
        Ok(match target {
            Target::Hop(hop) => self.known_hop(hop)?,
            Target::Group(name) => {
                let place = self.slots.groups.get(name);
                fib::Target::Group(GroupIndex(
                    place.or_missing(|| ItemKey::Group(name.clone()))?,
                ))
            }
            Target::Blackhole => fib::Target::Blackhole,
        })
    }

    fn known_hop(&self, hop: &Hop) -> Result<fib::Target, Missing> {
        Ok(match hop {
            Hop::Circuit(name) => {
                let place = self.slots.circuits.get(name);
                fib::Target::Circuit(CircuitIndex(
                    place.or_missing(|| ItemKey::Circuit(name.clone()))?,
                ))
            }
            Hop::Via(via) => {
                let place = self.slots.vias.get(via);
                fib::Target::NextHop(fib::NextHopIndex(
                    place.or_missing(|| ItemKey::Port(via.port.clone()))?,
                ))
            }
        })
    }

    /// A target, with one more use if it is a next hop.
    fn target(&mut self, from: &Sources<'_>, target: &Target) -> Result<fib::Target, Missing> {
        match target {
            Target::Hop(hop) => self.hop(from, hop),
            other => self.known(other),
        }
    }

    /// A hop, with one more use if it is out of a port.
    pub(super) fn hop(&mut self, from: &Sources<'_>, hop: &Hop) -> Result<fib::Target, Missing> {
        if let Hop::Via(via) = hop {
            let (place, new) = self.slots.vias.take(via);
            if new {
                let via = self.compiled(from, via)?;
                self.draft.tables.vias.set(place, via);
            }
        }
        self.known_hop(hop)
    }

    /// One use less.
    pub(super) fn leave(&mut self, hop: &Hop) {
        if let Hop::Via(via) = hop
            && let Some(place) = self.slots.vias.give_back(via)
        {
            self.draft.tables.vias.remove(place);
        }
    }

    /// Has next hops leave by their ports, and to their neighbours, as these are now.
    pub(super) fn move_vias(&mut self, from: &Sources<'_>) {
        for (via, place) in self.slots.vias.iter() {
            // The last use of one whose port is gone goes in this very update.
            if let Ok(via) = self.compiled(from, via)
                && self.draft.tables.vias.get(place) != Some(&via)
            {
                self.draft.tables.vias.set(place, via);
            }
        }
    }

    fn compiled(&self, from: &Sources<'_>, via: &Via) -> Result<fib::NextHop, Missing> {
        let open = from.ports.get(&via.port);
        let port = open.or_missing(|| ItemKey::Port(via.port.clone()))?.index;
        let address = via.address.map(mapped);
        let known = |address| {
            let key = NeighbourKey { port, address };
            self.draft.tables.neighbours.get(&key).cloned()
        };
        Ok(fib::NextHop {
            port,
            address,
            neighbour: address.and_then(known),
        })
    }
}
