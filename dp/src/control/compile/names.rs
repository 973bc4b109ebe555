//! From names to places and back, for whoever asks or tells about packets.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use super::Compiler;
use super::places::Places;
use crate::control::model::{CircuitName, GroupName, LinkName, VrfName};
use crate::tables::{CircuitIndex, GroupIndex, LinkIndex, Tables, VrfIndex};

/// Places whose names are wanted.
#[derive(Default)]
pub struct Wanted {
    /// VRFs.
    pub vrfs: HashSet<u32>,
    /// Links.
    pub links: HashSet<u32>,
    /// Circuits.
    pub circuits: HashSet<u32>,
    /// Groups.
    pub groups: HashSet<u32>,
}

/// Their names; what has gone has none.
#[derive(Default)]
pub struct Names {
    vrfs: HashMap<u32, VrfName>,
    links: HashMap<u32, LinkName>,
    circuits: HashMap<u32, CircuitName>,
    groups: HashMap<u32, GroupName>,
}

impl Compiler {
    /// The tables that were made last.
    pub fn tables(&self) -> &Tables {
        &self.draft.tables
    }

    /// The place of a VRF.
    pub fn vrf_index(&self, name: &VrfName) -> Option<VrfIndex> {
        self.places.vrfs.get(name).map(VrfIndex)
    }

    /// The place of a link.
    pub fn link_index(&self, name: &LinkName) -> Option<LinkIndex> {
        self.places.links.get(name).map(LinkIndex)
    }

    /// The place of a circuit.
    pub fn circuit_index(&self, name: &CircuitName) -> Option<CircuitIndex> {
        self.places.circuits.get(name).map(CircuitIndex)
    }

    /// The names of what is wanted. It looks at all that there is of a kind, once: ask for many together.
    pub fn names(&self, wanted: &Wanted) -> Names {
        let places = &self.places;
        Names {
            vrfs: named(&places.vrfs, &wanted.vrfs),
            links: named(&places.links, &wanted.links),
            circuits: named(&places.circuits, &wanted.circuits),
            groups: named(&places.groups, &wanted.groups),
        }
    }
}

fn named<K: Hash + Eq + Clone>(places: &Places<K>, wanted: &HashSet<u32>) -> HashMap<u32, K> {
    if wanted.is_empty() {
        return HashMap::new();
    }
    let all = places.iter().filter(|(_, place)| wanted.contains(place));
    all.map(|(name, place)| (place, name.clone())).collect()
}

impl Names {
    /// A VRF's.
    pub fn vrf(&self, index: VrfIndex) -> Option<&VrfName> {
        self.vrfs.get(&index.0)
    }

    /// A link's.
    pub fn link(&self, index: LinkIndex) -> Option<&LinkName> {
        self.links.get(&index.0)
    }

    /// A circuit's.
    pub fn circuit(&self, index: CircuitIndex) -> Option<&CircuitName> {
        self.circuits.get(&index.0)
    }

    /// A group's.
    pub fn group(&self, index: GroupIndex) -> Option<&GroupName> {
        self.groups.get(&index.0)
    }
}
