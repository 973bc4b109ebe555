//! What the nodes are told: a chain of them with a host at each end, and one or more tenants with a circuit each.
//!
//! ```text
//! host A -- lan0 [node 0] east0 == link 0 == west0 [node 1] ... [node n] lan0 -- host B
//! ```

use twinseal_api::v1;
use twinseal_testbed::items;
use twinseal_testbed::items::{delete, label, random, set};
use twinseal_testbed::plan::Host;
use v1::item::Item;
use v1::key::Owner;

use super::items::{link_name, port, route, tenant_name};

/// A node's device, and port, towards its host.
pub const LAN: &str = "lan0";
/// Towards the node before it.
pub const WEST: &str = "west0";
/// Towards the node after it.
pub const EAST: &str = "east0";

/// The tenant that the hosts belong to.
const HOSTS_TENANT: u32 = 0;
/// A tenant's label towards B on every link; the next is that towards A. Each tenant has two.
const FIRST_LABEL: u32 = 1000;
/// The epoch that a circuit of a tenant without hosts keeps.
const ONLY_EPOCH: u32 = 1;

/// Changes, a list a node.
pub type Changes = Vec<Vec<v1::Change>>;

/// The nodes' state, and its keys from epoch to epoch.
pub struct Chain {
    nodes: usize,
    suite: v1::Suite,
    epoch: u32,
    keys: Vec<v1::Key>,
}

impl Chain {
    /// A chain of two or more nodes, with fresh secrets of epoch 1.
    pub fn new(nodes: usize, suite: v1::Suite) -> anyhow::Result<Self> {
        anyhow::ensure!(nodes >= 2, "a chain has two nodes at least, not {nodes}");
        let mut chain = Self {
            nodes,
            suite,
            epoch: 0,
            keys: Vec::new(),
        };
        chain.next_epoch()?;
        Ok(chain)
    }

    /// How many nodes there are.
    pub fn nodes(&self) -> usize {
        self.nodes
    }

    /// The outer address of a link's end; links are numbered from the west.
    pub fn outer(link: usize, end: v1::End) -> [u8; 4] {
        [
            192,
            0,
            2 + link as u8,
            if end == v1::End::A { 1 } else { 2 },
        ]
    }

    /// All that the nodes start with: ports, links, keys, and the tenant of the hosts.
    pub fn start(&self) -> anyhow::Result<Changes> {
        let tenant = self.tenant(HOSTS_TENANT, self.keys.iter(), self.epoch, &[])?;
        let start = tenant.into_iter().enumerate().map(|(node, tenant)| {
            let mut items = Vec::new();
            for (link, end, netdev) in self.links_of(node) {
                items.push(port(netdev, v1::PortRole::Underlay, ""));
                let other = if end == v1::End::A {
                    v1::End::B
                } else {
                    v1::End::A
                };
                let address = |end| std::net::Ipv4Addr::from(Self::outer(link, end)).to_string();
                items.push(Item::Link(v1::Link {
                    name: link_name(link),
                    end: end.into(),
                    port: netdev.into(),
                    local: address(end),
                    remote: address(other),
                    ..v1::Link::default()
                }));
            }
            if let Some(host) = self.host_of(node) {
                items.push(port(LAN, v1::PortRole::Edge, &tenant_name(HOSTS_TENANT)));
                for v6 in [false, true] {
                    let via = v1::Via {
                        port: LAN.into(),
                        address: String::new(),
                    };
                    let own = v1::route::Target::Via(via);
                    items.push(route(HOSTS_TENANT, host.prefix(v6), own));
                    let far = v1::route::Target::Circuit(tenant_name(HOSTS_TENANT));
                    items.push(route(HOSTS_TENANT, host.other().prefix(v6), far));
                }
            }
            let keys = self.keys_of(node).filter(|key| is_link(key));
            items.extend(keys.cloned().map(Item::Key));
            let links = self.links_of(node);
            let transmit =
                links.map(|(link, ..)| items::transmit(&Owner::Link(link_name(link)), self.epoch));
            let items = items.into_iter().map(set);
            items.chain(transmit).chain(tenant).collect()
        });
        Ok(start.collect())
    }

    /// A further tenant, from 1 on: VRF, circuit with its keys, labels, and routes into it at both edges. The hosts'
    /// tenant gets the same routes into its own circuit.
    pub fn add_tenant(&self, tenant: u32, prefixes: &[String]) -> anyhow::Result<Changes> {
        let owner = Owner::Circuit(tenant_name(tenant));
        let keys = items::keys([owner], ONLY_EPOCH, self.suite)?;
        let mut changes = self.tenant(tenant, keys.iter(), ONLY_EPOCH, prefixes)?;
        for (node, changes) in changes.iter_mut().enumerate() {
            if self.host_of(node).is_some() {
                let into = || v1::route::Target::Circuit(tenant_name(HOSTS_TENANT));
                let routes = prefixes
                    .iter()
                    .map(|prefix| route(HOSTS_TENANT, prefix.clone(), into()));
                changes.extend(routes.map(set));
            }
        }
        Ok(changes)
    }

    /// What takes a further tenant away again.
    pub fn remove_tenant(&self, tenant: u32, prefixes: &[String]) -> Changes {
        let name = tenant_name(tenant);
        let remove = |node: usize| {
            let (mut items, mut keys) = (Vec::new(), Vec::new());
            for (link, end, _) in self.links_of(node) {
                let label = into_label(tenant, end);
                items.push(v1::item_ref::Item::Label(v1::LabelRef {
                    link: link_name(link),
                    label,
                }));
            }
            if self.host_of(node).is_some() {
                for vrf in [&name, &tenant_name(HOSTS_TENANT)] {
                    items.extend(prefixes.iter().map(|prefix| {
                        v1::item_ref::Item::Route(v1::RouteRef {
                            vrf: vrf.clone(),
                            prefix: prefix.clone(),
                        })
                    }));
                }
                keys.extend([v1::Direction::AToB, v1::Direction::BToA].map(|direction| {
                    items::retire(&Owner::Circuit(name.clone()), direction.into(), ONLY_EPOCH)
                }));
                items.push(v1::item_ref::Item::Circuit(name.clone()));
                items.push(v1::item_ref::Item::Vrf(name.clone()));
            }
            items.into_iter().map(delete).chain(keys).collect()
        };
        (0..self.nodes).map(remove).collect()
    }

    /// Draws fresh secrets for all links and the hosts' circuit; returns the number of the epoch before.
    pub fn next_epoch(&mut self) -> anyhow::Result<u32> {
        let old = self.epoch;
        self.epoch += 1;
        let links = (0..self.nodes - 1).map(|link| Owner::Link(link_name(link)));
        let owners = links.chain([Owner::Circuit(tenant_name(HOSTS_TENANT))]);
        self.keys = items::keys(owners, self.epoch, self.suite)?;
        Ok(old)
    }

    /// First step of a rotation: receive with the present epoch's keys.
    pub fn install(&self) -> Changes {
        let of_node = |node| self.keys_of(node).map(items::install).collect();
        (0..self.nodes).map(of_node).collect()
    }

    /// Second step, once all nodes took the first: transmit with them.
    pub fn transmit(&self) -> Changes {
        let of_node = |node| {
            let owners = items::owners(self.keys_of(node)).into_iter();
            owners.map(|it| items::transmit(it, self.epoch)).collect()
        };
        (0..self.nodes).map(of_node).collect()
    }

    /// Last step, once nothing of it is under way any more: the old epoch's keys go.
    pub fn retire(&self, epoch: u32) -> Changes {
        let retire = |key: &v1::Key| Some(items::retire(key.owner.as_ref()?, key.direction, epoch));
        let of_node = |node| self.keys_of(node).filter_map(retire).collect();
        (0..self.nodes).map(of_node).collect()
    }

    /// A tenant's VRF, circuit, labels, keys, and routes into the circuit, on each node.
    fn tenant<'a>(
        &self,
        tenant: u32,
        keys: impl Iterator<Item = &'a v1::Key> + Clone,
        epoch: u32,
        prefixes: &[String],
    ) -> anyhow::Result<Changes> {
        let name = tenant_name(tenant);
        let mut id = [0; 8];
        random(&mut id)?;
        let id = u64::from_be_bytes(id) | 1;
        let of_node = |node: usize| {
            let links: Vec<_> = self.links_of(node).collect();
            let mut items = Vec::new();
            let Some(host) = self.host_of(node) else {
                for [from, to] in [[links[0], links[1]], [links[1], links[0]]] {
                    let label = into_label(tenant, from.1);
                    let swap = v1::Swap {
                        link: link_name(to.0),
                        label,
                    };
                    let action = v1::label::Action::Swap(swap);
                    items.push(items::label(&link_name(from.0), label, action));
                }
                return items.into_iter().map(set).collect();
            };
            let (link, link_end, _) = links[0];
            let end = if host == Host::A {
                v1::End::A
            } else {
                v1::End::B
            };
            let into = into_label(tenant, link_end);
            // What goes out has the label of the other direction.
            let out = FIRST_LABEL + 2 * tenant + u32::from(host == Host::B);
            items.push(Item::Vrf(v1::Vrf { name: name.clone() }));
            items.push(Item::Circuit(v1::Circuit {
                name: name.clone(),
                id,
                end: end.into(),
                vrf: name.clone(),
                link: link_name(link),
                label: out,
                ..v1::Circuit::default()
            }));
            let egress = v1::Egress {
                circuit: name.clone(),
            };
            let egress = v1::label::Action::Egress(egress);
            items.push(label(&link_name(link), into, egress));
            items.extend(prefixes.iter().map(|prefix| {
                route(
                    tenant,
                    prefix.clone(),
                    v1::route::Target::Circuit(name.clone()),
                )
            }));
            items.extend(
                keys.clone()
                    .filter(|key| !is_link(key))
                    .cloned()
                    .map(Item::Key),
            );
            let transmit = items::transmit(&Owner::Circuit(name.clone()), epoch);
            items.into_iter().map(set).chain([transmit]).collect()
        };
        Ok((0..self.nodes).map(of_node).collect())
    }

    fn keys_of(&self, node: usize) -> impl Iterator<Item = &v1::Key> {
        let concerned = move |key: &&v1::Key| self.concerns(node, key);
        self.keys.iter().filter(concerned)
    }

    /// A node's links from the west, with the end that it is and the device.
    fn links_of(&self, node: usize) -> impl Iterator<Item = (usize, v1::End, &'static str)> {
        let west = (node > 0).then(|| (node - 1, v1::End::B, WEST));
        let east = (node + 1 < self.nodes).then_some((node, v1::End::A, EAST));
        west.into_iter().chain(east)
    }

    /// The host behind a node.
    pub fn host_of(&self, node: usize) -> Option<Host> {
        match node {
            0 => Some(Host::A),
            _ if node + 1 == self.nodes => Some(Host::B),
            _ => None,
        }
    }

    /// Whether a node has the key's link or circuit.
    fn concerns(&self, node: usize, key: &v1::Key) -> bool {
        match &key.owner {
            Some(Owner::Link(name)) => self
                .links_of(node)
                .any(|(link, ..)| link_name(link) == *name),
            _ => self.host_of(node).is_some(),
        }
    }
}

fn is_link(key: &v1::Key) -> bool {
    matches!(key.owner, Some(Owner::Link(_)))
}

/// The label of packets that a node receives on a link whose end it is: at end B come those towards B.
fn into_label(tenant: u32, end: v1::End) -> u32 {
    FIRST_LABEL + 2 * tenant + u32::from(end == v1::End::A)
}
