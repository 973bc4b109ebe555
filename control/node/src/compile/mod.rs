//! From the desired state, and what lives, to the tables of the workers.
//!
//! The compiler keeps the state that it compiled last and looks only at what is different now, whoever made it so: a
//! transaction, its rollback, or a Replace. So a transaction costs what it changes. Things keep their places in the
//! tables, and so what points at them needs no change either.

mod addresses;
#[cfg(test)]
mod dump;
mod groups;
mod links;
mod missing;
mod names;
mod own;
mod ports;
mod routes;
mod slots;
mod sources;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::down::Down;
pub(crate) use addresses::{HostAddress, HostAddresses, Standing};
use links::link;
pub(crate) use missing::Missing;
use missing::OrMissing;
pub(crate) use names::{Names, Wanted};
use own::Own;
pub(crate) use own::subnet_ends;
use ports::neighbours;
use slots::SlotAllocator;
pub(crate) use sources::{KernelNeighbours, OpenPort, Sources};
use twinseal_fib::draft::Draft;
use twinseal_fib::group::{self, Group};
use twinseal_fib::hash::{FastMap, FoldState};
use twinseal_fib::neighbour::Neighbour;
use twinseal_fib::outer::OuterHeaders;
use twinseal_fib::trie::burst::Root;
use twinseal_fib::{
    self as fib, Circuit, CircuitIndex, Fib, GroupIndex, InboundSa, Link, LinkIndex, NeighbourKey,
    OutboundSa, Port, PortIndex, PortRole, Swap, Vrf, VrfIndex,
};
use twinseal_model::parse::ItemKey;
use twinseal_model::state::{
    CircuitName, GroupName, Hop, KeyId, LabelAction, LinkName, Owner, PortName, Role, State,
    Target, Via, VrfName,
};
use twinseal_wire::ethernet::Mac;
use twinseal_wire::ip::mapped;

/// Makes tables, each out of the last.
#[derive(Default)]
pub(crate) struct Compiler {
    draft: Draft,
    /// What the tables were made from.
    state: State,
    ports: BTreeMap<PortName, OpenPort>,
    neighbours: KernelNeighbours,
    addresses: HostAddresses,
    own: BTreeMap<VrfName, Own>,
    down: Arc<Down>,
    slots: AllSlots,
}

#[derive(Default)]
struct AllSlots {
    vrfs: SlotAllocator<VrfName>,
    links: SlotAllocator<LinkName>,
    circuits: SlotAllocator<CircuitName>,
    groups: SlotAllocator<GroupName>,
    /// With a use for every route and member.
    vias: SlotAllocator<Via>,
}

impl AllSlots {
    fn set_generation(&mut self, generation: u64) {
        self.vrfs.generation = generation;
        self.links.generation = generation;
        self.circuits.generation = generation;
        self.groups.generation = generation;
        self.vias.generation = generation;
    }
}

/// What has to be made anew, and what goes.
#[derive(Default)]
struct Changes {
    links: HashSet<LinkName>,
    circuits: HashSet<CircuitName>,
    groups: HashSet<GroupName>,
    gone_vrfs: Vec<VrfName>,
    gone_links: Vec<LinkName>,
    gone_circuits: Vec<CircuitName>,
    gone_groups: Vec<GroupName>,
}

impl Compiler {
    /// Makes tables with this number.
    ///
    /// # Errors
    /// If something that is pointed at is missing, which a checked state with all its ports open never has.
    pub(crate) fn compile(&mut self, generation: u64, from: &Sources<'_>) -> Result<Fib, Missing> {
        if let Err(missing) = self.update(generation, from) {
            // What is half made is no base for anything.
            *self = Self::default();
            return Err(missing);
        }
        Ok(self.draft.publish(generation))
    }

    fn update(&mut self, generation: u64, from: &Sources<'_>) -> Result<(), Missing> {
        self.slots.set_generation(generation);
        let old = std::mem::replace(&mut self.state, from.state.clone());
        let ports_changed = self.ports != *from.ports || !old.ports.same(&from.state.ports);
        let kernel = self.changed_neighbours(from);
        let addresses_changed = self.addresses != *from.addresses;

        // First the places of what is new, then what points at them.
        let mut changes = self.find_changes(&old, from.state);
        let neighbours_changed =
            ports_changed || !kernel.is_empty() || !old.neighbours.same(&from.state.neighbours);
        if neighbours_changed {
            self.links_by_neighbour(&old, from, ports_changed, &kernel, &mut changes);
            let before = &self.draft.tables.neighbours;
            self.draft.tables.neighbours = Arc::new(neighbours(from, before)?);
        }
        for name in &changes.links {
            let place = self
                .slots
                .links
                .get(name)
                .or_missing(|| ItemKey::Link(name.clone()))?;
            let labels = self.draft.tables.links.get(place).map(|link| link.labels);
            let link = link(from, name, labels.unwrap_or_default())?;
            self.draft.tables.links.set(place, link);
        }
        for name in &changes.circuits {
            let place = self
                .slots
                .circuits
                .get(name)
                .or_missing(|| ItemKey::Circuit(name.clone()))?;
            let circuit = self.circuit(from, name)?;
            self.draft.tables.circuits.set(place, circuit);
        }
        self.receivers(&old, from)?;
        let own_changed = ports_changed || addresses_changed || !old.vrfs.same(&from.state.vrfs);
        let own_before = self.own.clone();
        if own_changed {
            self.draft.tables.ports = self.make_ports(generation, &old, from)?;
            self.own = own::of_vrfs(from);
        }
        if neighbours_changed {
            self.move_vias(from);
        }
        self.groups_by_members(from, &mut changes.groups);
        self.down = Arc::clone(from.down);
        self.groups(&old, from, &changes)?;
        self.labels(&old, from.state)?;
        self.routes(&old, from)?;
        if own_changed {
            self.enter_own(from, &own_before)?;
            self.budgets(from);
        }
        self.sweep(changes);

        if ports_changed {
            self.ports = from.ports.clone();
        }
        if !kernel.is_empty() {
            self.neighbours = from.neighbours.clone();
        }
        if addresses_changed {
            self.addresses = from.addresses.clone();
        }
        Ok(())
    }

    fn changed_neighbours(&self, from: &Sources<'_>) -> HashSet<(u32, IpAddr)> {
        if self.neighbours == *from.neighbours {
            return HashSet::new();
        }
        let (old, new) = (&self.neighbours, from.neighbours);
        let keys = old.keys().chain(new.keys());
        keys.filter(|key| old.get(key) != new.get(key))
            .copied()
            .collect()
    }

    /// Gives places to what is new and notes what is to be made and what goes.
    fn find_changes(&mut self, old: &State, new: &State) -> Changes {
        let mut changes = Changes::default();
        let Self { slots, draft, .. } = self;
        old.vrfs.diff(&new.vrfs, |name, _, now| match now {
            Some(()) => {
                let (place, _) = slots.vrfs.take(name);
                draft.tables.vrfs.set(place, Vrf::default());
            }
            None => changes.gone_vrfs.push(name.clone()),
        });
        old.links.diff(&new.links, |name, before, now| match now {
            Some(_) => {
                if before.is_none() {
                    slots.links.take(name);
                }
                changes.links.insert(name.clone());
            }
            None => changes.gone_links.push(name.clone()),
        });
        old.circuits
            .diff(&new.circuits, |name, before, now| match now {
                Some(_) => {
                    if before.is_none() {
                        slots.circuits.take(name);
                    }
                    changes.circuits.insert(name.clone());
                }
                None => changes.gone_circuits.push(name.clone()),
            });
        old.groups.diff(&new.groups, |name, before, now| match now {
            Some(_) => {
                if before.is_none() {
                    slots.groups.take(name);
                }
                changes.groups.insert(name.clone());
            }
            None => changes.gone_groups.push(name.clone()),
        });
        let mut touch = |owner: &Owner| match owner {
            Owner::Link(name) if new.links.contains_key(name) => {
                changes.links.insert(name.clone());
            }
            Owner::Circuit(name) if new.circuits.contains_key(name) => {
                changes.circuits.insert(name.clone());
            }
            _ => {}
        };
        old.keys.diff(&new.keys, |id, _, _| touch(&id.owner));
        old.transmits
            .diff(&new.transmits, |owner, _, _| touch(owner));
        changes
    }

    /// Takes away what is gone; by now nothing points there any more.
    fn sweep(&mut self, changes: Changes) {
        let Self { slots, draft, .. } = self;
        for name in changes.gone_circuits {
            if let Some(place) = slots.circuits.give_back(&name) {
                draft.tables.circuits.remove(place);
            }
        }
        for name in changes.gone_groups {
            if let Some(place) = slots.groups.give_back(&name) {
                draft.tables.groups.remove(place);
            }
        }
        for name in changes.gone_links {
            if let Some(place) = slots.links.give_back(&name) {
                draft.tables.links.remove(place);
            }
        }
        for name in changes.gone_vrfs {
            if let Some(place) = slots.vrfs.give_back(&name) {
                draft.remove_vrf(VrfIndex(place));
            }
        }
    }
}
