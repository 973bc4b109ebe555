//! The demo's path with a second tenant on it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use twinseal_api::v1::{self, item::Item};
use twinseal_lab::capture::{Capture, CaptureLimits};
use twinseal_lab::traffic::{Marker, Receiver, Sender, SenderConfig};
use twinseal_lab::{IpNet, Namespace, PingConfig, PingResult, Route, VethConfig};
use twinseal_testbed::items::{random, set};
use twinseal_testbed::plan::{EAST, Host, Router, WEST};

use crate::common::{FAMILIES, HOSTS, Path, edge_of, options};
use crate::wait_until;

/// The second tenant's VRF and circuit.
pub(crate) const RED: &str = "red";
pub(crate) const PORT: &str = "red-edge";
const NETDEV: &str = "edge1";
/// Labels of the red circuit at the transit node and at B, then at the transit node and at A.
pub(crate) const TO_B: [u32; 2] = [3001, 3002];
const TO_A: [u32; 2] = [3003, 3004];
const EPOCH: u32 = 1;
/// Both tenants' receivers are on this UDP port too.
const TEST_PORT: u16 = 9000;
const BLUE_MARKER: Marker = *b"blue-mrk";
pub(crate) const RED_MARKER: Marker = *b"red-mark";

/// The path with both tenants.
pub(crate) struct Tenants {
    red: [Namespace; 2],
    pub(crate) path: Path,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tenant {
    Blue,
    Red,
}

pub(crate) const TENANTS: [Tenant; 2] = [Tenant::Blue, Tenant::Red];

impl Tenant {
    pub(crate) fn marker(self) -> Marker {
        match self {
            Tenant::Blue => BLUE_MARKER,
            Tenant::Red => RED_MARKER,
        }
    }

    pub(crate) fn other(self) -> Self {
        match self {
            Tenant::Blue => Tenant::Red,
            Tenant::Red => Tenant::Blue,
        }
    }
}

impl Tenants {
    pub(crate) fn start() -> Option<Self> {
        let path = Path::start(options())?;
        let lab = path.network.lab();
        let red = HOSTS.map(|host| {
            let edge = path.network.router(edge_of(host));
            let role = if host == Host::A { "red-a" } else { "red-b" };
            let ns = lab.namespace(role).expect("a namespace");
            let nets = |address: fn(Host, bool) -> IpAddr| {
                FAMILIES.map(|v6| net(address(host, v6), if v6 { 64 } else { 24 }))
            };
            let veth = VethConfig::new((&ns, "eth0"), (edge, NETDEV))
                .addresses(&nets(Host::address), &nets(Host::gateway));
            lab.veth(&veth).expect("a veth");
            for v6 in FAMILIES {
                let far = host.other().prefix(v6).parse().expect("a prefix");
                let route = Route::to(far).via(host.gateway(v6)).dev("eth0");
                ns.add_route(&route).expect("a route");
            }
            ns
        });
        let keys = keys();
        let transit = [
            label_item(WEST, TO_B[0], swap(EAST, TO_B[1])),
            label_item(EAST, TO_A[0], swap(WEST, TO_A[1])),
        ];
        let mut tenants = Tenants { path, red };
        tenants.apply(Router::Transit, transit.into());
        for host in HOSTS {
            tenants.apply(edge_of(host), edge_items(host, &keys));
        }
        for v6 in FAMILIES {
            for from in HOSTS {
                wait_until(|| tenants.ping(Tenant::Red, from, v6).all_answered());
            }
        }
        Some(tenants)
    }

    #[track_caller]
    pub(crate) fn apply(&mut self, router: Router, changes: Vec<v1::Change>) {
        let applied = self.path.controller.apply(router, changes);
        applied.expect("the transaction is taken");
    }

    pub(crate) fn host(&self, tenant: Tenant, host: Host) -> &Namespace {
        match tenant {
            Tenant::Blue => self.path.network.host(host),
            Tenant::Red => &self.red[usize::from(host == Host::B)],
        }
    }

    pub(crate) fn ping(&self, tenant: Tenant, from: Host, v6: bool) -> PingResult {
        let config = PingConfig {
            timeout: Duration::from_secs(1),
            ..PingConfig::default()
        };
        let to = from.other().address(v6);
        twinseal_lab::ping(self.host(tenant, from), to, &config).expect("a ping")
    }

    pub(crate) fn receive(&self, tenant: Tenant, at: Host, v6: bool) -> Receiver {
        let bind = SocketAddr::new(at.address(v6), TEST_PORT);
        Receiver::start(self.host(tenant, at), bind, tenant.marker()).expect("a receiver")
    }

    pub(crate) fn sender(&self, tenant: Tenant, from: Host, v6: bool) -> Sender {
        let to = SocketAddr::new(from.other().address(v6), TEST_PORT);
        let config = SenderConfig::new(to, 4);
        Sender::open(self.host(tenant, from), &config).expect("a sender")
    }

    /// Captures at all four hosts.
    pub(crate) fn listen(&self) -> Vec<(Tenant, Capture)> {
        let limits = CaptureLimits::default();
        let on = |(tenant, host)| {
            let capture = Capture::start(self.host(tenant, host), "eth0", limits, None);
            (tenant, capture.expect("a capture"))
        };
        let hosts = TENANTS
            .iter()
            .flat_map(|&tenant| HOSTS.map(|host| (tenant, host)));
        hosts.map(on).collect()
    }

    /// The label under which a circuit ends at a router.
    pub(crate) fn label(&mut self, router: Router, circuit: &str) -> u32 {
        let state = self.path.controller.get(router).expect("its state");
        let mut items = state.items.into_iter().filter_map(|item| item.item);
        let found = items.find_map(|item| match item {
            Item::Label(label) => match label.action {
                Some(v1::label::Action::Egress(to)) if to.circuit == circuit => Some(label.label),
                _ => None,
            },
            _ => None,
        });
        found.expect("the circuit's label")
    }
}

/// What an edge is told of the red tenant.
fn edge_items(host: Host, keys: &[v1::Key]) -> Vec<v1::Change> {
    let (link, end, out, into) = match host {
        Host::A => (WEST, v1::End::A, TO_B[0], TO_A[1]),
        Host::B => (EAST, v1::End::B, TO_A[0], TO_B[1]),
    };
    let device = v1::AfXdp {
        netdev: NETDEV.into(),
        ..v1::AfXdp::default()
    };
    let mut items = vec![
        Item::Vrf(v1::Vrf { name: RED.into() }),
        Item::Port(v1::Port {
            name: PORT.into(),
            role: v1::PortRole::Edge.into(),
            vrf: RED.into(),
            device: Some(v1::port::Device::AfXdp(device)),
            ..v1::Port::default()
        }),
        Item::Circuit(v1::Circuit {
            name: RED.into(),
            id: 0x7ed,
            end: end.into(),
            vrf: RED.into(),
            link: link.into(),
            label: out,
            ..v1::Circuit::default()
        }),
    ];
    for v6 in FAMILIES {
        let far = v1::route::Target::Circuit(RED.into());
        for (prefix, target) in [(host.prefix(v6), via()), (host.other().prefix(v6), far)] {
            items.push(Item::Route(v1::Route {
                vrf: RED.into(),
                prefix,
                target: Some(target),
            }));
        }
    }
    items.extend(keys.iter().cloned().map(Item::Key));
    items.push(Item::Transmit(v1::Transmit {
        owner: Some(v1::transmit::Owner::Circuit(RED.into())),
        epoch: EPOCH,
    }));
    let egress = v1::label::Action::Egress(v1::Egress {
        circuit: RED.into(),
    });
    let mut changes: Vec<_> = items.into_iter().map(set).collect();
    changes.push(label_item(link, into, egress));
    changes
}

/// The red circuit's keys, one a direction.
fn keys() -> Vec<v1::Key> {
    let directions = [v1::Direction::AToB, v1::Direction::BToA];
    let key = |direction: v1::Direction| {
        let mut secret = vec![0; 32];
        random(&mut secret).expect("random octets");
        v1::Key {
            owner: Some(v1::key::Owner::Circuit(RED.into())),
            direction: direction.into(),
            epoch: EPOCH,
            secret,
            ..v1::Key::default()
        }
    };
    directions.map(key).into()
}

pub(crate) fn via() -> v1::route::Target {
    v1::route::Target::Via(v1::Via {
        port: PORT.into(),
        address: String::new(),
    })
}

pub(crate) fn swap(link: &str, label: u32) -> v1::label::Action {
    v1::label::Action::Swap(v1::Swap {
        link: link.into(),
        label,
    })
}

pub(crate) fn label_item(link: &str, label: u32, action: v1::label::Action) -> v1::Change {
    set(Item::Label(v1::Label {
        link: link.into(),
        label,
        action: Some(action),
    }))
}

pub(crate) fn delete(item: v1::item_ref::Item) -> v1::Change {
    v1::Change {
        change: Some(v1::change::Change::Delete(v1::ItemRef { item: Some(item) })),
    }
}

fn net(address: IpAddr, len: u8) -> IpNet {
    IpNet::new(address, len).expect("a prefix length")
}
