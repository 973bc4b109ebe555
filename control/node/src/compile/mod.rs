//! From the desired state, and what lives, to the tables of the workers.
//!
//! The compiler keeps the state that it compiled last and looks only at what is different now, whoever made it so: a
//! transaction, its rollback, or a Replace. So a transaction costs what it changes. Things keep their places in the
//! tables, and so what points at them needs no change either.

mod addresses;
#[cfg(test)]
mod dump;
mod groups;
mod names;
mod own;
mod places;
mod routes;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::down::Down;
use crate::health::Status;
use crate::keys::Live;
pub use addresses::{HostAddress, HostAddresses, Standing};
pub use names::{Names, Wanted};
use own::Own;
use places::Places;
use twinseal_fib::draft::Draft;
use twinseal_fib::group::{self, Group};
use twinseal_fib::hash::{FastMap, FoldState};
use twinseal_fib::neighbour::Neighbour;
use twinseal_fib::outer::Outer;
use twinseal_fib::trie::burst::Root;
use twinseal_fib::{
    self as fib, Circuit, CircuitIndex, GroupIndex, Link, LinkIndex, LinkTransmit, NeighbourKey,
    Port, PortIndex, PortRole, Receiver, Swap, Tables, Vrf, VrfIndex,
};
use twinseal_model::state::{
    CircuitName, GroupName, Hop, KeyId, LabelAction, LinkName, Owner, PortName, Role, State,
    Target, Via, VrfName,
};
use twinseal_runtime::ports::Outcome;
use twinseal_wire::ethernet::Mac;
use twinseal_wire::ip::mapped;

/// An open port, as far as tables are concerned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OpenPort {
    /// Its place.
    pub index: PortIndex,
    /// Its hardware address.
    pub mac: Mac,
    /// Those of macvlans on its device, as virtual routers have them.
    pub more_macs: Vec<Mac>,
    /// Octets of an IP packet.
    pub mtu: u16,
    /// Octets of the largest that its device takes.
    pub device_mtu: u16,
    /// Whether hosts may leave checksums to its device.
    pub offloads: bool,
    /// The hardware address of its only peer, if it can have but one.
    pub peer: Option<Mac>,
    /// The kernel's index of its device; none while it has none.
    pub ifindex: Option<u32>,
    /// Whether it ever had one: until then its MTU is a guess, and it has no hardware address.
    pub seen: bool,
    /// Whether its device can be used: [`Status::Down`] while it is closed, for the device is gone.
    pub device: Status,
}

impl OpenPort {
    /// A port of this place, as it was opened.
    pub fn new(index: PortIndex, outcome: &Outcome) -> Self {
        Self {
            index,
            mac: outcome.mac,
            more_macs: Vec::new(),
            mtu: outcome.mtu,
            device_mtu: outcome.device_mtu,
            offloads: outcome.offloads,
            peer: outcome.peer,
            ifindex: outcome.ifindex,
            seen: true,
            device: Status::Up,
        }
    }
}

/// Hardware addresses that the kernel resolved, by its index of the device.
pub type KernelNeighbours = HashMap<(u32, IpAddr), Mac>;

/// Everything that tables are made from.
pub struct Sources<'a> {
    /// The desired state.
    pub state: &'a State,
    /// SAs and counters of that state.
    pub live: &'a Live,
    /// Its ports, all of them open.
    pub ports: &'a BTreeMap<PortName, OpenPort>,
    /// What the kernel knows.
    pub neighbours: &'a KernelNeighbours,
    /// This host's addresses.
    pub addresses: &'a HostAddresses,
    /// Members of groups that are down.
    pub down: &'a Arc<Down>,
}

/// Makes tables, each out of the last.
#[derive(Default)]
pub struct Compiler {
    draft: Draft,
    /// What the tables were made from.
    state: State,
    ports: BTreeMap<PortName, OpenPort>,
    neighbours: KernelNeighbours,
    addresses: HostAddresses,
    own: BTreeMap<VrfName, Own>,
    down: Arc<Down>,
    places: AllPlaces,
}

#[derive(Default)]
struct AllPlaces {
    vrfs: Places<VrfName>,
    links: Places<LinkName>,
    circuits: Places<CircuitName>,
    groups: Places<GroupName>,
    /// With a use for every route and member.
    vias: Places<Via>,
}

impl AllPlaces {
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
    /// Makes tables with this number. `None` if something that is pointed at is missing, which a checked state with all
    /// its ports open never has.
    pub fn compile(&mut self, generation: u64, from: &Sources<'_>) -> Option<Tables> {
        if self.update(generation, from).is_none() {
            // What is half made is no base for anything.
            *self = Self::default();
            return None;
        }
        Some(self.draft.publish(generation))
    }

    fn update(&mut self, generation: u64, from: &Sources<'_>) -> Option<()> {
        self.places.set_generation(generation);
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
            let place = self.places.links.get(name)?;
            let labels = self.draft.tables.links.get(place).map(|link| link.labels);
            let link = link(from, name, labels.unwrap_or_default())?;
            self.draft.tables.links.set(place, link);
        }
        for name in &changes.circuits {
            let place = self.places.circuits.get(name)?;
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
        Some(())
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
        let Self { places, draft, .. } = self;
        old.vrfs.diff(&new.vrfs, |name, _, now| match now {
            Some(()) => {
                let (place, _) = places.vrfs.take(name);
                draft.tables.vrfs.set(place, Vrf::default());
            }
            None => changes.gone_vrfs.push(name.clone()),
        });
        old.links.diff(&new.links, |name, before, now| match now {
            Some(_) => {
                if before.is_none() {
                    places.links.take(name);
                }
                changes.links.insert(name.clone());
            }
            None => changes.gone_links.push(name.clone()),
        });
        old.circuits
            .diff(&new.circuits, |name, before, now| match now {
                Some(_) => {
                    if before.is_none() {
                        places.circuits.take(name);
                    }
                    changes.circuits.insert(name.clone());
                }
                None => changes.gone_circuits.push(name.clone()),
            });
        old.groups.diff(&new.groups, |name, before, now| match now {
            Some(_) => {
                if before.is_none() {
                    places.groups.take(name);
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

    /// Notes the links whose frames go to another hardware address now, or out of a port that is not as it was.
    fn links_by_neighbour(
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

    fn circuit(&self, from: &Sources<'_>, name: &CircuitName) -> Option<Circuit> {
        let Sources { state, live, .. } = from;
        let circuit = state.circuits.get(name)?;
        let owner = Owner::Circuit(name.clone());
        let mut receive: [_; 16] = Default::default();
        for (id, _) in state.keys.range(|id| id.owner.cmp(&owner)) {
            if let Some(sa) = live.open(id) {
                receive[(id.epoch & 0xf) as usize] = Some(Arc::clone(sa));
            }
        }
        let key = state.transmitting(&owner);
        Some(Circuit {
            id: circuit.id,
            vrf: VrfIndex(self.places.vrfs.get(&circuit.vrf)?),
            link: LinkIndex(self.places.links.get(&circuit.link)?),
            label: circuit.label,
            hop_limit: circuit.hop_limit,
            dscp: circuit.dscp,
            transmit: key.and_then(|id| live.seal(&id).cloned()),
            receive,
            traffic: live.circuit(name)?.clone(),
        })
    }

    /// Receive keys of links, by their indices.
    fn receivers(&mut self, old: &State, from: &Sources<'_>) -> Option<()> {
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
                let receiver = Receiver {
                    link: LinkIndex(self.places.links.get(&name)?),
                    sa: Arc::clone(sa),
                };
                self.draft.set_receiver(index, receiver);
            }
        }
        Some(())
    }

    fn make_ports(
        &self,
        generation: u64,
        old: &State,
        from: &Sources<'_>,
    ) -> Option<Vec<Option<Port>>> {
        let mut ports = Vec::new();
        for (name, port) in &from.state.ports {
            let open = from.ports.get(name)?;
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
                    Role::Edge(vrf) => PortRole::Edge(VrfIndex(self.places.vrfs.get(vrf)?)),
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
        Some(ports)
    }

    fn labels(&mut self, old: &State, new: &State) -> Option<()> {
        let Self { places, draft, .. } = self;
        let mut sound = Some(());
        old.labels.diff(&new.labels, |(link, label), _, now| {
            let Some(place) = places.links.get(link).map(LinkIndex) else {
                return sound = None;
            };
            let action = match now {
                None => return draft.remove_label(place, *label),
                Some(LabelAction::Swap { link, label }) => places.links.get(link).map(|place| {
                    fib::LabelAction::Swap(Swap {
                        link: LinkIndex(place),
                        label: *label,
                    })
                }),
                Some(LabelAction::Egress(circuit)) => places
                    .circuits
                    .get(circuit)
                    .map(|place| fib::LabelAction::Egress(CircuitIndex(place))),
            };
            match action {
                Some(action) => draft.set_label(place, *label, action),
                None => sound = None,
            }
        });
        sound
    }

    /// Each VRF's place among the budgets of ICMP errors: one of its ports has it.
    fn budgets(&mut self, from: &Sources<'_>) {
        let mut of_vrfs: HashMap<&VrfName, PortIndex> = HashMap::new();
        for (name, port) in &from.state.ports {
            if let (Role::Edge(vrf), Some(open)) = (&port.role, from.ports.get(name)) {
                of_vrfs.entry(vrf).or_insert(open.index);
            }
        }
        let vrfs = &mut self.draft.tables.vrfs;
        for (name, place) in self.places.vrfs.iter() {
            let errors = of_vrfs.get(name).copied();
            if vrfs.get(place).is_some_and(|vrf| vrf.errors != errors)
                && let Some(vrf) = vrfs.get_mut(place)
            {
                vrf.errors = errors;
            }
        }
    }

    /// Takes away what is gone; by now nothing points there any more.
    fn sweep(&mut self, changes: Changes) {
        let Self { places, draft, .. } = self;
        for name in changes.gone_circuits {
            if let Some(place) = places.circuits.give_back(&name) {
                draft.tables.circuits.remove(place);
            }
        }
        for name in changes.gone_groups {
            if let Some(place) = places.groups.give_back(&name) {
                draft.tables.groups.remove(place);
            }
        }
        for name in changes.gone_links {
            if let Some(place) = places.links.give_back(&name) {
                draft.tables.links.remove(place);
            }
        }
        for name in changes.gone_vrfs {
            if let Some(place) = places.vrfs.give_back(&name) {
                draft.remove_vrf(VrfIndex(place));
            }
        }
    }
}

fn link(from: &Sources<'_>, name: &LinkName, labels: Root) -> Option<Link> {
    let Sources { state, live, .. } = from;
    let link = state.links.get(name)?;
    let port = from.ports.get(&link.port)?;
    let key = state.transmitting(&Owner::Link(name.clone()));
    let transmit = key.and_then(|id| {
        Some(LinkTransmit {
            sa: Arc::clone(live.seal(&id)?),
            receiver: state.keys.get(&id)?.receiver_index,
        })
    });
    Some(Link {
        port: port.index,
        outer: Outer::new(
            port.mac,
            from.next_hop(name),
            link.local.ip(),
            link.remote.ip(),
            link.remote.port(),
        )?,
        mtu: port.mtu,
        transmit,
        source_port_salt: salt(name),
        labels,
        traffic: live.link(name)?.clone(),
    })
}

/// The kernel's on edge ports, and above them the static ones; with the marks that they had `before`.
fn neighbours(
    from: &Sources<'_>,
    before: &FastMap<NeighbourKey, Neighbour>,
) -> Option<FastMap<NeighbourKey, Neighbour>> {
    let mut edges = HashMap::new();
    for (name, port) in &from.state.ports {
        let open = from.ports.get(name)?;
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
        let key = NeighbourKey {
            port: from.ports.get(port)?.index,
            address: mapped(*address),
        };
        neighbours.extend([entry(key, mac)]);
    }
    Some(neighbours)
}

impl Sources<'_> {
    /// The hardware address that a link's frames go to: the static neighbour's, else the port's only peer's or the kernel's.
    pub fn next_hop(&self, link: &LinkName) -> Option<Mac> {
        let link = self.state.links.get(link)?;
        let address = link.neighbour();
        let fixed = self.state.neighbours.get(&(link.port.clone(), address));
        fixed.copied().or_else(|| {
            let port = self.ports.get(&link.port)?;
            let known = self.neighbours.get(&(port.ifindex?, address));
            port.peer.or(known.copied())
        })
    }
}

/// So that two links between the same nodes send from other ports, yet each always from the same.
fn salt(link: &LinkName) -> u16 {
    let mut hasher = FoldState.build_hasher();
    hasher.write(link.as_str().as_bytes());
    hasher.finish() as u16
}
