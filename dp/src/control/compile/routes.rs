//! Routes, and where they lead.

use std::net::IpAddr;

use super::super::model::{Prefix, Table};
use super::*;

impl Compiler {
    /// Enters the routes that differ.
    pub(super) fn routes(&mut self, old: &State, from: &Sources<'_>) -> Option<()> {
        let mut sound = Some(());
        let none = Table::default();
        old.routes
            .diff_by(&from.state.routes, Table::same, |vrf, before, now| {
                let Some(vrf) = self.places.vrfs.get(vrf).map(VrfIndex) else {
                    return sound = None;
                };
                let (before, now) = (before.unwrap_or(&none), now.unwrap_or(&none));
                before.diff(now, |prefix, before, now| {
                    if self.route(from, vrf, prefix, before, now).is_none() {
                        sound = None;
                    }
                });
            });
        sound
    }

    fn route(
        &mut self,
        from: &Sources<'_>,
        vrf: VrfIndex,
        prefix: &Prefix,
        before: Option<&Target>,
        now: Option<&Target>,
    ) -> Option<()> {
        let len = prefix.len();
        match now {
            Some(target) => {
                let target = self.target(from, target)?;
                match prefix.address() {
                    IpAddr::V4(address) => self.draft.set_route(vrf, address.octets(), len, target),
                    IpAddr::V6(address) => self.draft.set_route(vrf, address.octets(), len, target),
                }
            }
            None => match prefix.address() {
                IpAddr::V4(address) => self.draft.remove_route(vrf, address.octets(), len),
                IpAddr::V6(address) => self.draft.remove_route(vrf, address.octets(), len),
            },
        };
        if let Some(Target::Hop(hop)) = before {
            self.leave(hop);
        }
        Some(())
    }

    /// A target, with one more use if it is a next hop.
    fn target(&mut self, from: &Sources<'_>, target: &Target) -> Option<tables::Target> {
        Some(match target {
            Target::Hop(hop) => self.hop(from, hop)?,
            Target::Group(name) => tables::Target::Group(GroupIndex(self.places.groups.get(name)?)),
            Target::Blackhole => tables::Target::Blackhole,
        })
    }

    /// A hop, with one more use if it is out of a port.
    pub(super) fn hop(&mut self, from: &Sources<'_>, hop: &Hop) -> Option<tables::Target> {
        Some(match hop {
            Hop::Circuit(name) => {
                tables::Target::Circuit(CircuitIndex(self.places.circuits.get(name)?))
            }
            Hop::Via(via) => {
                let (place, new) = self.places.vias.take(via);
                if new {
                    let via = self.compiled(from, via)?;
                    self.draft.tables.vias.set(place, via);
                }
                tables::Target::Via(tables::ViaIndex(place))
            }
        })
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

    fn compiled(&self, from: &Sources<'_>, via: &Via) -> Option<tables::Via> {
        let port = from.ports.get(&via.port)?.index;
        let address = via.address.map(mapped);
        let known = |address| {
            let key = NeighbourKey { port, address };
            self.draft.tables.neighbours.get(&key).copied()
        };
        Some(tables::Via {
            port,
            address,
            mac: address.and_then(known),
        })
    }
}
