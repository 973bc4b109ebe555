//! From names to places and back, for whoever asks or tells about packets.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use super::Compiler;
use super::slots::SlotAllocator;
use twinseal_fib::{CircuitIndex, Fib, LinkIndex, VrfIndex};
use twinseal_model::state::{CircuitName, LinkName, VrfName};

/// Places whose names are wanted.
#[derive(Default)]
pub(crate) struct Wanted {
    /// VRFs.
    pub vrfs: HashSet<u32>,
    /// Links.
    pub links: HashSet<u32>,
    /// Circuits.
    pub circuits: HashSet<u32>,
}

/// Their names; what has gone has none. As a place may be another's by now, each is asked for with the generation of the
/// tables that it is from.
#[derive(Default)]
pub(crate) struct Names {
    vrfs: Named<VrfName>,
    links: Named<LinkName>,
    circuits: Named<CircuitName>,
}

/// Names by place, with the generation since which they have it.
type Named<K> = HashMap<u32, (K, u64)>;

impl Compiler {
    /// The tables that were made last.
    pub(crate) fn tables(&self) -> &Fib {
        &self.draft.tables
    }

    /// The place of a VRF.
    pub(crate) fn vrf_index(&self, name: &VrfName) -> Option<VrfIndex> {
        self.slots.vrfs.get(name).map(VrfIndex)
    }

    /// The place of a link.
    pub(crate) fn link_index(&self, name: &LinkName) -> Option<LinkIndex> {
        self.slots.links.get(name).map(LinkIndex)
    }

    /// The place of a circuit.
    pub(crate) fn circuit_index(&self, name: &CircuitName) -> Option<CircuitIndex> {
        self.slots.circuits.get(name).map(CircuitIndex)
    }

    /// The names of what is wanted.
    pub(crate) fn names(&self, wanted: &Wanted) -> Names {
        let slots = &self.slots;
        Names {
            vrfs: named(&slots.vrfs, &wanted.vrfs),
            links: named(&slots.links, &wanted.links),
            circuits: named(&slots.circuits, &wanted.circuits),
        }
    }
}

fn named<K: Hash + Eq + Clone>(slots: &SlotAllocator<K>, wanted: &HashSet<u32>) -> Named<K> {
    let named = wanted.iter().filter_map(|&place| {
        let (name, since) = slots.name(place)?;
        Some((place, (name.clone(), since)))
    });
    named.collect()
}

/// Who had the place in the tables of a generation, if it has it still.
fn at<K>(named: &Named<K>, place: u32, generation: u64) -> Option<&K> {
    let (name, since) = named.get(&place)?;
    (*since <= generation).then_some(name)
}

impl Names {
    /// A VRF's.
    pub(crate) fn vrf(&self, index: VrfIndex, generation: u64) -> Option<&VrfName> {
        at(&self.vrfs, index.0, generation)
    }

    /// A link's.
    pub(crate) fn link(&self, index: LinkIndex, generation: u64) -> Option<&LinkName> {
        at(&self.links, index.0, generation)
    }

    /// A circuit's.
    pub(crate) fn circuit(&self, index: CircuitIndex, generation: u64) -> Option<&CircuitName> {
        at(&self.circuits, index.0, generation)
    }
}
