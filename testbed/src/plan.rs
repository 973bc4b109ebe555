//! What the three routers are told: the part that an external controller plays.
//!
//! ```text
//! host A -- [edge A] ==== link "west" ==== [transit] ==== link "east" ==== [edge B] -- host B
//!               '------------------------- circuit "blue" -------------------'
//! ```

use std::net::IpAddr;

use twinseal_api::v1;
use v1::item::Item;
use v1::key::Owner;

use crate::items;
use crate::items::{label, random, set};

/// The circuit's name on both edges.
pub const CIRCUIT: &str = "blue";
/// The first link's name on both its nodes.
pub const WEST: &str = "west";
/// The second link's name on both its nodes.
pub const EAST: &str = "east";
/// The tenant's VRF.
pub const VRF: &str = "blue";
/// The edge port's name on both edges.
pub const EDGE_PORT: &str = "edge";

/// One of the three routers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Router {
    /// Where host A is.
    EdgeA,
    /// In the middle.
    Transit,
    /// Where host B is.
    EdgeB,
}

impl Router {
    /// All of them, from A to B.
    pub const ALL: [Router; 3] = [Router::EdgeA, Router::Transit, Router::EdgeB];

    /// Its name, also that of its namespace.
    pub fn name(self) -> &'static str {
        match self {
            Router::EdgeA => "edge-a",
            Router::Transit => "transit",
            Router::EdgeB => "edge-b",
        }
    }
}

/// Which host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Host {
    /// Behind edge A.
    A,
    /// Behind edge B.
    B,
}

impl Host {
    /// Its number, in its addresses.
    fn site(self) -> u8 {
        match self {
            Host::A => 1,
            Host::B => 2,
        }
    }

    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Host::A => Host::B,
            Host::B => Host::A,
        }
    }

    /// Its address: 10.N.0.2 or 2001:db8:N::2.
    pub fn address(self, v6: bool) -> IpAddr {
        self.on_site(v6, 2)
    }

    /// Its gateway's address, on the edge router.
    pub fn gateway(self, v6: bool) -> IpAddr {
        self.on_site(v6, 1)
    }

    /// Its site's prefix.
    pub fn prefix(self, v6: bool) -> String {
        match v6 {
            false => format!("10.{}.0.0/24", self.site()),
            true => format!("2001:db8:{}::/64", self.site()),
        }
    }

    fn on_site(self, v6: bool, host: u8) -> IpAddr {
        let site = self.site();
        match v6 {
            false => [10, site, 0, host].into(),
            true => [0x2001, 0xdb8, site.into(), 0, 0, 0, 0, host.into()].into(),
        }
    }
}

/// Whether the underlay is IPv6.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Underlay {
    /// 192.0.2.0/24 and 198.51.100.0/24.
    #[default]
    V4,
    /// 2001:db8:f1::/64 and 2001:db8:f2::/64.
    V6,
}

impl Underlay {
    /// A router's address on a link, and its prefix length.
    pub fn address(self, router: Router, link: &str) -> (IpAddr, u8) {
        let host = Router::ALL.iter().position(|&r| r == router).unwrap_or(0) as u8 + 1;
        match (self, link == WEST) {
            (Underlay::V4, true) => ([192, 0, 2, host].into(), 24),
            (Underlay::V4, false) => ([198, 51, 100, host].into(), 24),
            (Underlay::V6, west) => {
                let net = if west { 0xf1 } else { 0xf2 };
                let host = host.into();
                ([0x2001, 0xdb8, net, 0, 0, 0, 0, host].into(), 64)
            }
        }
    }
}

/// What makes a port: the kernel's devices, or memory.
pub trait Devices {
    /// The device of a router's port: [`EDGE_PORT`], [`WEST`] or [`EAST`].
    fn device(&self, router: Router, port: &str) -> v1::port::Device;

    /// Neighbours that no kernel would resolve.
    fn neighbours(&self, _router: Router) -> Vec<v1::Neighbour> {
        Vec::new()
    }
}

/// The circuit's labels. Each is the receiving node's choice.
const LABELS_EAST: [u32; 2] = [1001, 2002];
const LABELS_WEST: [u32; 2] = [1002, 2001];

/// The state of the path, and its keys from epoch to epoch.
pub struct Plan {
    underlay: Underlay,
    suite: v1::Suite,
    circuit_id: u64,
    epoch: u32,
    keys: Vec<v1::Key>,
}

impl Plan {
    /// A plan with fresh secrets of epoch 1.
    pub fn new(underlay: Underlay, suite: v1::Suite) -> anyhow::Result<Self> {
        let mut id = [0; 8];
        random(&mut id)?;
        let mut plan = Self {
            underlay,
            suite,
            circuit_id: u64::from_be_bytes(id) | 1,
            epoch: 0,
            keys: Vec::new(),
        };
        plan.draw_keys()?;
        Ok(plan)
    }

    /// The circuit's end-to-end id, which must never be on the wire.
    pub fn circuit_id(&self) -> u64 {
        self.circuit_id
    }

    /// The epoch that transmits, or will.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The keys of the present epoch.
    pub fn keys(&self) -> &[v1::Key] {
        &self.keys
    }

    /// Six fresh secrets: two links and one circuit, each in two directions.
    fn draw_keys(&mut self) -> anyhow::Result<()> {
        self.epoch += 1;
        let owners = [
            Owner::Link(WEST.into()),
            Owner::Link(EAST.into()),
            Owner::Circuit(CIRCUIT.into()),
        ];
        self.keys = items::keys(owners, self.epoch, self.suite)?;
        Ok(())
    }

    /// All that a router starts with, keys and transmission included.
    pub fn start(&self, router: Router, devices: &dyn Devices) -> Vec<v1::Change> {
        let mut items = Vec::new();
        let port = |name: &str, role: v1::PortRole, vrf: &str| {
            Item::Port(v1::Port {
                name: name.into(),
                role: role.into(),
                vrf: vrf.into(),
                device: Some(devices.device(router, name)),
                ..v1::Port::default()
            })
        };
        let links: &[(&str, v1::End)] = match router {
            Router::EdgeA => &[(WEST, v1::End::A)],
            Router::Transit => &[(WEST, v1::End::B), (EAST, v1::End::A)],
            Router::EdgeB => &[(EAST, v1::End::B)],
        };
        for &(link, end) in links {
            items.push(port(link, v1::PortRole::Underlay, ""));
            items.push(Item::Link(v1::Link {
                name: link.into(),
                end: end.into(),
                port: link.into(),
                local: self.underlay.address(router, link).0.to_string(),
                remote: self
                    .underlay
                    .address(peer(router, link), link)
                    .0
                    .to_string(),
                ..v1::Link::default()
            }));
        }
        match router {
            Router::EdgeA => self.edge(Host::A, &mut items),
            Router::EdgeB => self.edge(Host::B, &mut items),
            Router::Transit => {
                let swap = |from: &str, label: u32, to: &str, new: u32| {
                    let action = v1::label::Action::Swap(v1::Swap {
                        link: to.into(),
                        label: new,
                    });
                    items::label(from, label, action)
                };
                items.push(swap(WEST, LABELS_EAST[0], EAST, LABELS_EAST[1]));
                items.push(swap(EAST, LABELS_WEST[0], WEST, LABELS_WEST[1]));
            }
        }
        if router != Router::Transit {
            items.push(port(EDGE_PORT, v1::PortRole::Edge, VRF));
        }
        items.extend(devices.neighbours(router).into_iter().map(Item::Neighbour));
        let mut changes: Vec<v1::Change> = items.into_iter().map(set).collect();
        changes.extend(self.install(router));
        changes.extend(self.transmit(router));
        changes
    }

    fn edge(&self, host: Host, items: &mut Vec<Item>) {
        let (link, end, out, into) = match host {
            Host::A => (WEST, v1::End::A, LABELS_EAST[0], LABELS_WEST[1]),
            Host::B => (EAST, v1::End::B, LABELS_WEST[0], LABELS_EAST[1]),
        };
        items.push(Item::Vrf(v1::Vrf { name: VRF.into() }));
        items.push(Item::Circuit(v1::Circuit {
            name: CIRCUIT.into(),
            id: self.circuit_id,
            end: end.into(),
            vrf: VRF.into(),
            link: link.into(),
            label: out,
            ..v1::Circuit::default()
        }));
        let egress = v1::label::Action::Egress(v1::Egress {
            circuit: CIRCUIT.into(),
        });
        items.push(label(link, into, egress));
        for v6 in [false, true] {
            let route = |prefix: String, target| {
                Item::Route(v1::Route {
                    vrf: VRF.into(),
                    prefix,
                    target: Some(target),
                })
            };
            let own = v1::Via {
                port: EDGE_PORT.into(),
                address: String::new(),
            };
            items.push(route(host.prefix(v6), v1::route::Target::Via(own)));
            let far = v1::route::Target::Circuit(CIRCUIT.into());
            items.push(route(host.other().prefix(v6), far));
        }
    }

    /// The next epoch, with fresh secrets; returns the number of the one before.
    pub fn next_epoch(&mut self) -> anyhow::Result<u32> {
        let old = self.epoch;
        self.draw_keys()?;
        Ok(old)
    }

    /// First step of a rotation, on every router: from now on it receives with the present epoch's keys.
    pub fn install(&self, router: Router) -> Vec<v1::Change> {
        self.keys_of(router).map(items::install).collect()
    }

    /// Second step, once all routers took the first: transmission switches to the present epoch.
    pub fn transmit(&self, router: Router) -> Vec<v1::Change> {
        let owners = items::owners(self.keys_of(router)).into_iter();
        owners.map(|it| items::transmit(it, self.epoch)).collect()
    }

    /// Last step, once nothing of it is under way any more: the old epoch's keys go.
    pub fn retire(&self, router: Router, epoch: u32) -> Vec<v1::Change> {
        let keys = self.keys_of(router);
        keys.filter_map(|key| Some(items::retire(key.owner.as_ref()?, key.direction, epoch)))
            .collect()
    }

    fn keys_of(&self, router: Router) -> impl Iterator<Item = &v1::Key> {
        self.keys.iter().filter(move |key| concerns(router, key))
    }
}

/// Whether a router has the key's link or circuit.
fn concerns(router: Router, key: &v1::Key) -> bool {
    match &key.owner {
        Some(Owner::Circuit(_)) => router != Router::Transit,
        Some(Owner::Link(link)) if link == WEST => router != Router::EdgeB,
        _ => router != Router::EdgeA,
    }
}

fn peer(router: Router, link: &str) -> Router {
    match (router, link == WEST) {
        (Router::Transit, true) => Router::EdgeA,
        (Router::Transit, false) => Router::EdgeB,
        _ => Router::Transit,
    }
}
