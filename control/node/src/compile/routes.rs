//! Routes, and where they lead.

use std::net::IpAddr;

use super::own::Own;
use super::*;
use twinseal_model::state::{Prefix, Table};

impl Compiler {
    /// Enters the routes that differ.
    pub(super) fn routes(&mut self, old: &State, from: &Sources<'_>) -> Option<()> {
        let mut sound = Some(());
        let none = Table::default();
        old.routes
            .diff_by(&from.state.routes, Table::same, |name, before, now| {
                let Some(vrf) = self.places.vrfs.get(name).map(VrfIndex) else {
                    return sound = None;
                };
                let own = self.own.get(name).cloned();
                let (before, now) = (before.unwrap_or(&none), now.unwrap_or(&none));
                before.diff(now, |prefix, before, now| {
                    if self
                        .route(from, (vrf, own.as_ref()), prefix, before, now)
                        .is_none()
                    {
                        sound = None;
                    }
                });
            });
        sound
    }

    fn route(
        &mut self,
        from: &Sources<'_>,
        (vrf, own): (VrfIndex, Option<&Own>),
        prefix: &Prefix,
        before: Option<&Target>,
        now: Option<&Target>,
    ) -> Option<()> {
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
        Some(())
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
    pub(super) fn known(&self, target: &Target) -> Option<fib::Target> {
        Some(match target {
            Target::Hop(hop) => self.known_hop(hop)?,
            Target::Group(name) => fib::Target::Group(GroupIndex(self.places.groups.get(name)?)),
            Target::Blackhole => fib::Target::Blackhole,
        })
    }

    fn known_hop(&self, hop: &Hop) -> Option<fib::Target> {
        Some(match hop {
            Hop::Circuit(name) => {
                fib::Target::Circuit(CircuitIndex(self.places.circuits.get(name)?))
            }
            Hop::Via(via) => fib::Target::Via(fib::ViaIndex(self.places.vias.get(via)?)),
        })
    }

    /// A target, with one more use if it is a next hop.
    fn target(&mut self, from: &Sources<'_>, target: &Target) -> Option<fib::Target> {
        match target {
            Target::Hop(hop) => self.hop(from, hop),
            other => self.known(other),
        }
    }

    /// A hop, with one more use if it is out of a port.
    pub(super) fn hop(&mut self, from: &Sources<'_>, hop: &Hop) -> Option<fib::Target> {
        if let Hop::Via(via) = hop {
            let (place, new) = self.places.vias.take(via);
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
            && let Some(place) = self.places.vias.give_back(via)
        {
            self.draft.tables.vias.remove(place);
        }
    }

    /// Has next hops leave by their ports, and to their neighbours, as these are now.
    pub(super) fn move_vias(&mut self, from: &Sources<'_>) {
        for (via, place) in self.places.vias.iter() {
            // The last use of one whose port is gone goes in this very update.
            if let Some(via) = self.compiled(from, via)
                && self.draft.tables.vias.get(place) != Some(&via)
            {
                self.draft.tables.vias.set(place, via);
            }
        }
    }

    fn compiled(&self, from: &Sources<'_>, via: &Via) -> Option<fib::Via> {
        let port = from.ports.get(&via.port)?.index;
        let address = via.address.map(mapped);
        let known = |address| {
            let key = NeighbourKey { port, address };
            self.draft.tables.neighbours.get(&key).cloned()
        };
        Some(fib::Via {
            port,
            address,
            neighbour: address.and_then(known),
        })
    }
}
