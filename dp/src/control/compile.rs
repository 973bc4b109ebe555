//! From the desired state, and what lives, to the tables of the workers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::keys::Live;
use super::model::{
    CircuitName, GroupName, Hop, LabelAction, LinkName, Owner, PortName, Prefix, Role, State,
    Table, Target, Via, VrfName,
};
use crate::tables::fib::Fib;
use crate::tables::group::Group;
use crate::tables::hash::{FastMap, FoldState};
use crate::tables::outer::Outer;
use crate::tables::{
    self, Circuit, CircuitIndex, GroupIndex, Link, LinkIndex, LinkTransmit, NeighbourKey, Port,
    PortIndex, PortRole, Receiver, Tables, Vrf, VrfIndex, label_key,
};
use crate::wire::ethernet::Mac;
use crate::wire::ip::mapped;

/// An open port, as far as tables are concerned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OpenPort {
    /// Its place.
    pub index: PortIndex,
    /// Its hardware address.
    pub mac: Mac,
    /// Octets of an IP packet.
    pub mtu: u16,
    /// The hardware address of its only peer, if it can have but one.
    pub peer: Option<Mac>,
    /// The kernel's index of its device.
    pub ifindex: Option<u32>,
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
    /// This host's addresses, by the kernel's index of their device.
    pub addresses: &'a BTreeSet<(u32, IpAddr)>,
}

/// Makes tables, and keeps what is dear to make: the tries.
#[derive(Default)]
pub struct Compiler {
    tries: HashMap<VrfName, Trie>,
}

/// A VRF's trie, with what it was built from.
#[derive(Clone)]
struct Trie {
    routes: Table<Prefix, Target>,
    fib: Arc<Fib>,
    /// Leaf n leads to entry n - 1.
    targets: Arc<[Target]>,
}

impl Compiler {
    /// Makes tables with this number. `None` if something that is pointed at is missing, which a checked state with all
    /// its ports open never has.
    pub fn compile(&mut self, generation: u64, from: &Sources<'_>) -> Option<Tables> {
        let state = from.state;
        self.tries.retain(|vrf, _| state.vrfs.contains_key(vrf));
        let places = Places::new(from);
        Some(Tables {
            generation,
            ports: places.ports()?,
            vrfs: self.vrfs(&places)?,
            links: places.links()?,
            circuits: places.circuits()?,
            groups: places.groups()?,
            receivers: places.receivers()?,
            labels: places.labels()?,
            neighbours: Arc::new(places.neighbours()?),
        })
    }

    fn vrfs(&mut self, places: &Places<'_>) -> Option<Vec<Vrf>> {
        let state = places.from.state;
        state
            .vrfs
            .keys()
            .map(|vrf| {
                let trie = self.trie(vrf, state.routes.get(vrf));
                let targets = trie.targets.iter().map(|target| places.target(target));
                Some(Vrf {
                    targets: targets.collect::<Option<_>>()?,
                    fib: trie.fib,
                    v4: places.own_address(vrf, v4),
                    v6: places.own_address(vrf, global_v6),
                })
            })
            .collect()
    }

    fn trie(&mut self, vrf: &VrfName, routes: Option<&Table<Prefix, Target>>) -> Trie {
        let empty = Table::default();
        let routes = routes.unwrap_or(&empty);
        if let Some(trie) = self.tries.get(vrf)
            && (trie.routes.same(routes) || (trie.routes.is_empty() && routes.is_empty()))
        {
            return trie.clone();
        }
        let trie = Trie::new(routes.clone());
        self.tries.insert(vrf.clone(), trie.clone());
        trie
    }
}

impl Trie {
    fn new(routes: Table<Prefix, Target>) -> Self {
        let mut targets = Vec::new();
        let mut leaves = HashMap::new();
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (prefix, target) in routes.iter() {
            let leaf = *leaves.entry(target).or_insert_with(|| {
                targets.push(target.clone());
                targets.len() as u32
            });
            match prefix.address() {
                IpAddr::V4(address) => v4.push((address.octets(), prefix.len(), leaf)),
                IpAddr::V6(address) => v6.push((address.octets(), prefix.len(), leaf)),
            }
        }
        Self {
            fib: Arc::new(Fib::new(v4, v6)),
            targets: targets.into(),
            routes,
        }
    }
}

/// Where each thing stands in the tables: in the order of its state's table.
struct Places<'a> {
    from: &'a Sources<'a>,
    vrfs: HashMap<&'a VrfName, u32>,
    links: HashMap<&'a LinkName, u32>,
    circuits: HashMap<&'a CircuitName, u32>,
    groups: HashMap<&'a GroupName, u32>,
}

impl<'a> Places<'a> {
    fn new(from: &'a Sources<'a>) -> Self {
        let state = from.state;
        Self {
            from,
            vrfs: state.vrfs.keys().zip(0..).collect(),
            links: state.links.keys().zip(0..).collect(),
            circuits: state.circuits.keys().zip(0..).collect(),
            groups: state.groups.keys().zip(0..).collect(),
        }
    }

    /// The first of this host's addresses on the VRF's ports that `pick` takes.
    fn own_address<T>(&self, vrf: &VrfName, pick: impl Fn(IpAddr) -> Option<T>) -> Option<T> {
        let ports = self.from.state.ports.iter();
        ports
            .filter(|(_, port)| matches!(&port.role, Role::Edge(of) if of == vrf))
            .filter_map(|(name, _)| self.port(name)?.ifindex)
            .find_map(|ifindex| {
                let mut addresses = self.from.addresses.iter();
                addresses.find_map(|(of, address)| pick(*address).filter(|_| *of == ifindex))
            })
    }

    fn port(&self, name: &PortName) -> Option<&OpenPort> {
        self.from.ports.get(name)
    }

    fn vrf(&self, name: &VrfName) -> Option<VrfIndex> {
        self.vrfs.get(name).copied().map(VrfIndex)
    }

    fn link(&self, name: &LinkName) -> Option<LinkIndex> {
        self.links.get(name).copied().map(LinkIndex)
    }

    fn circuit(&self, name: &CircuitName) -> Option<CircuitIndex> {
        self.circuits.get(name).copied().map(CircuitIndex)
    }

    fn hop(&self, hop: &Hop) -> Option<tables::Target> {
        Some(match hop {
            Hop::Circuit(name) => tables::Target::Circuit(self.circuit(name)?),
            Hop::Via(Via { port, address }) => tables::Target::Via(tables::Via {
                port: self.port(port)?.index,
                address: address.map(mapped),
            }),
        })
    }

    fn target(&self, target: &Target) -> Option<tables::Target> {
        Some(match target {
            Target::Hop(hop) => self.hop(hop)?,
            Target::Group(name) => tables::Target::Group(GroupIndex(*self.groups.get(name)?)),
            Target::Blackhole => tables::Target::Blackhole,
        })
    }

    fn ports(&self) -> Option<Vec<Option<Port>>> {
        let mut ports = Vec::new();
        for (name, port) in self.from.state.ports.iter() {
            let open = self.port(name)?;
            let place = usize::from(open.index.0);
            if ports.len() <= place {
                ports.resize(place + 1, None);
            }
            ports[place] = Some(Port {
                role: match &port.role {
                    Role::Edge(vrf) => PortRole::Edge(self.vrf(vrf)?),
                    Role::Underlay => PortRole::Underlay,
                },
                mac: open.mac,
                mtu: open.mtu,
                peer: open.peer,
            });
        }
        Some(ports)
    }

    fn links(&self) -> Option<Vec<Link>> {
        let Sources { state, live, .. } = self.from;
        state
            .links
            .iter()
            .map(|(name, link)| {
                let port = self.port(&link.port)?;
                let next_hop = self.from.next_hop(name);
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
                        next_hop,
                        link.local.ip(),
                        link.remote.ip(),
                        link.remote.port(),
                    )?,
                    mtu: port.mtu,
                    transmit,
                    source_port_salt: salt(name),
                    traffic: Arc::clone(live.link(name)?),
                })
            })
            .collect()
    }

    fn circuits(&self) -> Option<Vec<Circuit>> {
        let Sources { state, live, .. } = self.from;
        let mut circuits: Vec<Circuit> = state
            .circuits
            .iter()
            .map(|(name, circuit)| {
                let key = state.transmitting(&Owner::Circuit(name.clone()));
                Some(Circuit {
                    id: circuit.id,
                    vrf: self.vrf(&circuit.vrf)?,
                    link: self.link(&circuit.link)?,
                    label: circuit.label,
                    hop_limit: circuit.hop_limit,
                    dscp: circuit.dscp,
                    transmit: key.and_then(|id| live.seal(&id).cloned()),
                    receive: Default::default(),
                    traffic: Arc::clone(live.circuit(name)?),
                })
            })
            .collect::<Option<_>>()?;
        for id in state.keys.keys() {
            if let (Owner::Circuit(name), Some(sa)) = (&id.owner, live.open(id)) {
                let circuit = circuits.get_mut(self.circuit(name)?.0 as usize)?;
                circuit.receive[(id.epoch & 0xf) as usize] = Some(Arc::clone(sa));
            }
        }
        Some(circuits)
    }

    fn groups(&self) -> Option<Vec<Group>> {
        let groups = self.from.state.groups.values();
        groups
            .map(|members| {
                let members: Vec<_> = members
                    .iter()
                    .map(|member| Some((self.hop(&member.hop)?, member.weight)))
                    .collect::<Option<_>>()?;
                Group::new(&members)
            })
            .collect()
    }

    fn receivers(&self) -> Option<FastMap<u32, Receiver>> {
        let Sources { state, live, .. } = self.from;
        let mut receivers = FastMap::default();
        for (id, key) in state.keys.iter() {
            if let (Owner::Link(name), Some(sa)) = (&id.owner, live.open(id)) {
                let receiver = Receiver {
                    link: self.link(name)?,
                    sa: Arc::clone(sa),
                };
                receivers.insert(key.receiver_index, receiver);
            }
        }
        Some(receivers)
    }

    fn labels(&self) -> Option<FastMap<u64, tables::LabelAction>> {
        let labels = self.from.state.labels.iter();
        labels
            .map(|((link, label), action)| {
                let action = match action {
                    LabelAction::Swap { link, label } => tables::LabelAction::Swap {
                        link: self.link(link)?,
                        label: *label,
                    },
                    LabelAction::Egress(circuit) => {
                        tables::LabelAction::Egress(self.circuit(circuit)?)
                    }
                };
                Some((label_key(self.link(link)?, *label), action))
            })
            .collect()
    }

    /// The kernel's on edge ports, and above them the static ones.
    fn neighbours(&self) -> Option<FastMap<NeighbourKey, Mac>> {
        let state = self.from.state;
        let mut edges = HashMap::new();
        for (name, port) in state.ports.iter() {
            let open = self.port(name)?;
            if let (Role::Edge(_), Some(ifindex)) = (&port.role, open.ifindex) {
                edges.insert(ifindex, open.index);
            }
        }
        let kernel = self.from.neighbours.iter();
        let mut neighbours: FastMap<_, _> = kernel
            .filter_map(|((ifindex, address), mac)| {
                let port = *edges.get(ifindex)?;
                let address = mapped(*address);
                Some((NeighbourKey { port, address }, *mac))
            })
            .collect();
        for ((port, address), mac) in state.neighbours.iter() {
            let key = NeighbourKey {
                port: self.port(port)?.index,
                address: mapped(*address),
            };
            neighbours.insert(key, *mac);
        }
        Some(neighbours)
    }
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

fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(v4) => Some(v4),
        IpAddr::V6(_) => None,
    }
}

/// What hosts beyond the next link can make sense of.
fn global_v6(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V6(v6) if !v6.is_unicast_link_local() => Some(v6),
        _ => None,
    }
}

/// So that two links between the same nodes send from other ports, yet each always from the same.
fn salt(link: &LinkName) -> u16 {
    let mut hasher = FoldState.build_hasher();
    hasher.write(link.as_str().as_bytes());
    hasher.finish() as u16
}
