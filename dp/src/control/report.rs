//! The node's state and counters as the API tells them. No secret is in either.

use twinseal_api::v1;
use twinseal_crypto::Suite;
use twinseal_ebpf::XdpMode;
use twinseal_xsk::BindMode;

use super::events::{direction, key_ref};
use super::health;
use super::model::{
    Circuit, End, Hop, LabelAction, Link, Owner, Port, PortName, Role, State, Target, Via,
};
use super::node::Node;
use crate::ports::Device;
use crate::tables::Dscp;
use crate::tables::traffic::TrafficTotals;

/// Desired state, and what became of it.
pub(super) fn get(node: &Node) -> v1::GetResponse {
    v1::GetResponse {
        node: node.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        generation: node.state.generation,
        items: items(&node.state),
        ports: ports(node),
        links: links(node),
        keys: keys(node),
        neighbours: neighbours(node),
        workers: node.pool.workers() as u32,
        provider: node.sa.provider.label().to_owned(),
        memory: node.pool.memory().to_owned(),
    }
}

/// All counters.
pub(super) fn stats(node: &Node) -> v1::StatsResponse {
    let snapshot = node.pool.stats();
    let ports = node.ports.open().iter().map(|(name, open)| {
        let totals = snapshot.ports.iter().find(|port| port.port == open.index);
        v1::PortStats {
            port: name.to_string(),
            received_packets: totals.map_or(0, |t| t.received_packets),
            received_bytes: totals.map_or(0, |t| t.received_bytes),
            sent_packets: totals.map_or(0, |t| t.sent_packets),
            sent_bytes: totals.map_or(0, |t| t.sent_bytes),
            steering: counters(&node.ports.steering(name)),
            sockets: totals.map_or_else(Vec::new, |t| counters(&t.sockets)),
        }
    });
    let links = node.state.links.keys().filter_map(|name| {
        let totals = node.live.link(name)?.totals();
        Some(traffic(name.as_str(), totals))
    });
    let circuits = node.state.circuits.keys().filter_map(|name| {
        let totals = node.live.circuit(name)?.totals();
        Some(traffic(name.as_str(), totals))
    });
    let workers = snapshot.workers.iter().zip(0..);
    v1::StatsResponse {
        generation: node.state.generation,
        ports: ports.collect(),
        links: links.collect(),
        circuits: circuits.collect(),
        drops: counters(&snapshot.drops),
        provider: node.sa.provider.label().to_owned(),
        workers: workers
            .map(|(totals, worker)| v1::WorkerStats {
                worker,
                batches: totals.batches,
                packets: totals.packets,
                sleeps: totals.sleeps,
                frames_free: totals.frames_free,
                frames: totals.frames,
            })
            .collect(),
    }
}

fn traffic(name: &str, totals: TrafficTotals) -> v1::Traffic {
    v1::Traffic {
        name: name.to_owned(),
        received_packets: totals.received_packets,
        received_bytes: totals.received_bytes,
        sent_packets: totals.sent_packets,
        sent_bytes: totals.sent_bytes,
    }
}

fn counters(counters: &[(&'static str, u64)]) -> Vec<v1::Counter> {
    counters
        .iter()
        .map(|(name, value)| v1::Counter {
            name: (*name).to_owned(),
            value: *value,
        })
        .collect()
}

fn ports(node: &Node) -> Vec<v1::PortState> {
    let ports = node.state.ports.keys();
    ports
        .filter_map(|name| {
            let outcome = node.ports.outcome(name)?;
            Some(v1::PortState {
                port: name.to_string(),
                mac: outcome.mac.to_string(),
                mtu: outcome.mtu.into(),
                xdp: outcome
                    .xdp
                    .as_ref()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
                bind: outcome.bind.iter().map(|&bind| bind.to_owned()).collect(),
                need_wakeup: outcome.need_wakeup,
                up: outcome
                    .ifindex
                    .is_none_or(|ifindex| node.netlink.view.carrier(ifindex)),
            })
        })
        .collect()
}

fn links(node: &Node) -> Vec<v1::LinkState> {
    let sources = node.sources();
    let links = node.state.links.keys();
    links
        .map(|name| v1::LinkState {
            link: name.to_string(),
            up: health::link(&sources, &node.netlink.view, name).carries(),
            next_hop_mac: sources
                .next_hop(name)
                .map(|mac| mac.to_string())
                .unwrap_or_default(),
        })
        .collect()
}

fn keys(node: &Node) -> Vec<v1::KeyState> {
    let keys = node.state.keys.iter();
    keys.map(|(id, key)| {
        let seal = node.live.seal(id);
        v1::KeyState {
            key: Some(key_ref(id)),
            suite: suite(key.suite).into(),
            receiver_index: key.receiver_index,
            transmitter: seal.is_some(),
            transmitting: node.state.transmitting(&id.owner).as_ref() == Some(id),
            packets: seal.map_or(0, |sa| sa.sealed()),
            exhausted: seal.is_some_and(|sa| sa.exhausted()),
        }
    })
    .collect()
}

/// The kernel's neighbours on our ports, and the static ones, which come before them.
fn neighbours(node: &Node) -> Vec<v1::NeighbourState> {
    let fixed = &node.state.neighbours;
    let mut neighbours: Vec<_> = fixed
        .iter()
        .map(|((port, address), mac)| v1::NeighbourState {
            port: port.to_string(),
            address: address.to_string(),
            mac: mac.to_string(),
            r#static: true,
        })
        .collect();
    let port_of = |ifindex: u32| -> Option<&PortName> {
        let mut open = node.ports.open().iter();
        open.find(|(_, port)| port.ifindex == Some(ifindex))
            .map(|(name, _)| name)
    };
    let mut kernel: Vec<_> = node.netlink.view.neighbours.iter().collect();
    kernel.sort();
    for ((ifindex, address), mac) in kernel {
        if let Some(port) = port_of(*ifindex)
            && !fixed.contains_key(&(port.clone(), *address))
        {
            neighbours.push(v1::NeighbourState {
                port: port.to_string(),
                address: address.to_string(),
                mac: mac.to_string(),
                r#static: false,
            });
        }
    }
    neighbours
}

/// The desired state as items; given back to Apply they make the same state, but for secrets.
pub(super) fn items(state: &State) -> Vec<v1::Item> {
    use v1::item::Item;
    let mut items = Vec::new();
    items.extend(state.vrfs.keys().map(|name| {
        Item::Vrf(v1::Vrf {
            name: name.to_string(),
        })
    }));
    items.extend(
        state
            .ports
            .iter()
            .map(|(name, it)| Item::Port(port(name, it))),
    );
    items.extend(
        state
            .links
            .iter()
            .map(|(name, it)| Item::Link(link(name.as_str(), it))),
    );
    items.extend(
        state
            .circuits
            .iter()
            .map(|(name, it)| Item::Circuit(circuit(name.as_str(), it))),
    );
    items.extend(state.labels.iter().map(|((link, label), action)| {
        Item::Label(v1::Label {
            link: link.to_string(),
            label: *label,
            action: Some(match action {
                LabelAction::Swap { link, label } => v1::label::Action::Swap(v1::Swap {
                    link: link.to_string(),
                    label: *label,
                }),
                LabelAction::Egress(circuit) => v1::label::Action::Egress(v1::Egress {
                    circuit: circuit.to_string(),
                }),
            }),
        })
    }));
    items.extend(state.groups.iter().map(|(name, members)| {
        let members = members.iter().map(|member| v1::Member {
            target: Some(match &member.hop {
                Hop::Circuit(name) => v1::member::Target::Circuit(name.to_string()),
                Hop::Via(hop) => v1::member::Target::Via(via(hop)),
            }),
            weight: member.weight,
        });
        Item::Group(v1::Group {
            name: name.to_string(),
            members: members.collect(),
        })
    }));
    for (vrf, routes) in state.routes.iter() {
        items.extend(routes.iter().map(|(prefix, target)| {
            Item::Route(v1::Route {
                vrf: vrf.to_string(),
                prefix: prefix.to_string(),
                target: Some(match target {
                    Target::Hop(Hop::Circuit(name)) => v1::route::Target::Circuit(name.to_string()),
                    Target::Hop(Hop::Via(hop)) => v1::route::Target::Via(via(hop)),
                    Target::Group(name) => v1::route::Target::Group(name.to_string()),
                    Target::Blackhole => v1::route::Target::Blackhole(v1::Blackhole {}),
                }),
            })
        }));
    }
    items.extend(state.neighbours.iter().map(|((port, address), mac)| {
        Item::Neighbour(v1::Neighbour {
            port: port.to_string(),
            address: address.to_string(),
            mac: mac.to_string(),
        })
    }));
    items.extend(state.keys.iter().map(|(id, it)| {
        Item::Key(v1::Key {
            owner: Some(match &id.owner {
                Owner::Link(name) => v1::key::Owner::Link(name.to_string()),
                Owner::Circuit(name) => v1::key::Owner::Circuit(name.to_string()),
            }),
            direction: direction(id.direction).into(),
            epoch: id.epoch,
            suite: suite(it.suite).into(),
            secret: Vec::new(),
            receiver_index: it.receiver_index,
        })
    }));
    items.extend(state.transmits.iter().map(|(owner, epoch)| {
        Item::Transmit(v1::Transmit {
            owner: Some(match owner {
                Owner::Link(name) => v1::transmit::Owner::Link(name.to_string()),
                Owner::Circuit(name) => v1::transmit::Owner::Circuit(name.to_string()),
            }),
            epoch: *epoch,
        })
    }));
    items
        .into_iter()
        .map(|item| v1::Item { item: Some(item) })
        .collect()
}

fn port(name: &PortName, port: &Port) -> v1::Port {
    let (role, vrf) = match &port.role {
        Role::Edge(vrf) => (v1::PortRole::Edge, vrf.to_string()),
        Role::Underlay => (v1::PortRole::Underlay, String::new()),
    };
    v1::Port {
        name: name.to_string(),
        role: role.into(),
        vrf,
        mtu: port.spec.mtu.into(),
        device: Some(match &port.spec.device {
            Device::AfXdp {
                netdev,
                bind,
                xdp,
                busy_poll,
            } => v1::port::Device::AfXdp(v1::AfXdp {
                netdev: netdev.clone(),
                bind: match bind {
                    BindMode::Auto => v1::BindMode::Auto,
                    BindMode::ZeroCopy => v1::BindMode::ZeroCopy,
                    BindMode::Copy => v1::BindMode::Copy,
                }
                .into(),
                xdp: match xdp {
                    XdpMode::Auto => v1::XdpMode::Auto,
                    XdpMode::Native => v1::XdpMode::Native,
                    XdpMode::Generic => v1::XdpMode::Generic,
                }
                .into(),
                busy_poll: *busy_poll,
            }),
            Device::Tap { netdev } => v1::port::Device::Tap(v1::Tap {
                netdev: netdev.clone(),
            }),
            Device::Memory { wire, mac } => v1::port::Device::Memory(v1::Memory {
                wire: wire.clone(),
                mac: mac.to_string(),
            }),
        }),
    }
}

fn link(name: &str, link: &Link) -> v1::Link {
    v1::Link {
        name: name.to_owned(),
        end: end(link.end).into(),
        port: link.port.to_string(),
        local: link.local.ip().to_string(),
        remote: link.remote.ip().to_string(),
        local_port: link.local.port().into(),
        remote_port: link.remote.port().into(),
        next_hop: link.next_hop.map(|hop| hop.to_string()).unwrap_or_default(),
    }
}

pub(super) fn circuit(name: &str, circuit: &Circuit) -> v1::Circuit {
    let (dscp, dscp_value) = match circuit.dscp {
        Dscp::Copy => (v1::Dscp::Copy, 0),
        Dscp::Fixed(0) => (v1::Dscp::Zero, 0),
        Dscp::Fixed(value) => (v1::Dscp::Fixed, value.into()),
    };
    v1::Circuit {
        name: name.to_owned(),
        id: circuit.id,
        end: end(circuit.end).into(),
        vrf: circuit.vrf.to_string(),
        link: circuit.link.to_string(),
        label: circuit.label,
        hop_limit: circuit.hop_limit.into(),
        dscp: dscp.into(),
        dscp_value,
        tags: (*circuit.tags).clone(),
    }
}

fn via(via: &Via) -> v1::Via {
    v1::Via {
        port: via.port.to_string(),
        address: via.address.map(|a| a.to_string()).unwrap_or_default(),
    }
}

fn end(end: End) -> v1::End {
    match end {
        End::A => v1::End::A,
        End::B => v1::End::B,
    }
}

fn suite(suite: Suite) -> v1::Suite {
    match suite {
        Suite::Aes256Gcm => v1::Suite::Aes256Gcm,
        Suite::Aes128Gcm => v1::Suite::Aes128Gcm,
        Suite::ChaCha20Poly1305 => v1::Suite::Chacha20Poly1305,
    }
}
