//! The node's state and counters as the API tells them. No secret is in either.

use twinseal_api::v1;

use super::drain::Scope;
use super::events::key_ref;
use super::health;
use super::items::{self, suite};
use super::model::{LinkName, PortName, Role};
use super::node::Node;
use super::parse::ItemKey;
use crate::tables::traffic::TrafficTotals;
use crate::workers::stats::Snapshot;

/// Desired state, and what became of it.
pub(super) fn get(node: &Node) -> v1::GetResponse {
    v1::GetResponse {
        node: node.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        generation: node.state.generation,
        items: items::all(&node.state),
        ports: ports(node),
        links: links(node),
        keys: keys(node),
        neighbours: neighbours(node),
        workers: node.pool.workers() as u32,
        provider: node.sa.provider.label().to_owned(),
        memory: node.pool.memory().to_owned(),
        pending: node.pending(),
        restoring: node.restoring(),
        secrets_refused: node.burned.refuses().unwrap_or_default(),
        drains: node.drains.report(),
        warnings: node.warnings.iter().cloned().collect(),
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
            offloads: totals.map_or_else(Vec::new, |t| counters(&t.offloads.by_name())),
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
    let drains = node.drains.scopes().map(|scope| v1::DrainStats {
        target: Some(scope.target()),
        packets: carried(node, &snapshot, scope),
    });
    v1::StatsResponse {
        generation: node.state.generation,
        boot: node.events.boot(),
        ports: ports.collect(),
        links: links.collect(),
        circuits: circuits.collect(),
        drops: counters(&snapshot.drops),
        icmp_errors: counters(&snapshot.icmp_errors),
        provider: node.sa.provider.label().to_owned(),
        drains: drains.collect(),
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

/// Packets that what drains has carried.
fn carried(node: &Node, snapshot: &Snapshot, scope: &Scope) -> u64 {
    let of_link = |name: &LinkName| node.live.link(name).map(|traffic| traffic.totals());
    let both =
        |name: &LinkName| of_link(name).map_or(0, |it| it.received_packets + it.sent_packets);
    let links = node.state.links.iter();
    match scope {
        Scope::Node => {
            let received = links.filter_map(|(name, _)| of_link(name));
            let received: u64 = received.map(|it| it.received_packets).sum();
            let sent: u64 = snapshot.ports.iter().map(|it| it.sent_packets).sum();
            received + sent
        }
        Scope::Link(name) => both(name),
        Scope::Port(name) => match node.state.ports.get(name).map(|port| &port.role) {
            Some(Role::Underlay) => {
                let on_it = links.filter(|(_, link)| link.port == *name);
                on_it.map(|(name, _)| both(name)).sum()
            }
            _ => {
                let index = node.ports.open().get(name).map(|open| open.index);
                let port = snapshot.ports.iter().find(|it| Some(it.port) == index);
                port.map_or(0, |it| it.received_packets + it.sent_packets)
            }
        },
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
    let sources = node.sources();
    let ports = node.state.ports.iter();
    ports
        .filter_map(|(name, port)| {
            let outcome = node.ports.outcome(name)?;
            let status = health::port(&sources, &node.netlink.view, name);
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
                up: status.carries(),
                reason: status.reason().to_owned(),
                draining: node.drains.port(name),
                checksum: match (&port.role, port.finishes(outcome.offloads)) {
                    (Role::Underlay, _) => "",
                    (Role::Edge(_), true) => "finish",
                    (Role::Edge(_), false) => "trust",
                }
                .to_owned(),
                warnings: node.oddities.of(&ItemKey::Port(name.clone())),
            })
        })
        .collect()
}

fn links(node: &Node) -> Vec<v1::LinkState> {
    let sources = node.sources();
    let links = node.state.links.keys();
    links
        .map(|name| {
            let status = health::link(&sources, &node.netlink.view, name);
            v1::LinkState {
                link: name.to_string(),
                up: status.carries(),
                reason: status.reason().to_owned(),
                next_hop_mac: sources
                    .next_hop(name)
                    .map(|mac| mac.to_string())
                    .unwrap_or_default(),
                draining: node.drains.link(name, &node.state),
                warnings: node.oddities.of(&ItemKey::Link(name.clone())),
            }
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
            transmitter: node.state.seals(id) == Some(true),
            transmitting: key.installed && node.state.transmitting(&id.owner).as_ref() == Some(id),
            packets: seal.map_or(0, |sa| sa.sealed()),
            exhausted: seal.is_some_and(|sa| sa.exhausted()),
            needed: !key.installed,
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
