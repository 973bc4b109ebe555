//! The node's state and counters as the API tells them. No secret is in either.

use std::collections::BTreeMap;
use std::sync::Arc;

use twinseal_api::v1;

use crate::compile::{OpenPort, Sources};
use crate::down::Down;
use crate::drain::{Drains, Scope};
use crate::health;
use crate::keys::Live;
use crate::netlink::View;
use crate::node::Node;
use twinseal_fib::traffic::TrafficTotals;
use twinseal_model::items::{after, key_ref, suite};
use twinseal_model::parse::ItemKey;
use twinseal_model::persistent_map::PersistentMap;
use twinseal_model::state::{
    CircuitName, Key, KeyId, LinkName, Name, OwnerName, PortName, Role, State,
};
use twinseal_runtime::workers::stats::Snapshot;

/// The node at one moment, to be told at leisure and on another thread: it shares its tables with the node, which goes
/// on.
pub struct Moment {
    /// All of [`Get`](v1::GetResponse) but what there may be many of.
    pub(super) head: v1::GetResponse,
    pub(super) state: State,
    pub(super) live: Live,
    pub(super) ports: BTreeMap<PortName, OpenPort>,
    pub(super) view: View,
    pub(super) down: Arc<Down>,
    pub(super) drains: Drains,
    /// What is odd about links.
    pub(super) warnings: BTreeMap<LinkName, Vec<String>>,
}

/// The node's counters at one moment.
pub struct Counts {
    moment: Moment,
    workers: Snapshot,
    /// Of each port, but for what workers count.
    ports: Vec<v1::PortStats>,
    boot: u64,
    refusals: Vec<(&'static str, u64)>,
}

impl Node {
    /// This moment.
    pub(super) fn moment(&self) -> Moment {
        Moment {
            head: v1::GetResponse {
                node: self.name.clone(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                generation: self.state.generation,
                ports: ports(self),
                workers: self.pool.workers() as u32,
                provider: self.sa.provider.label().to_owned(),
                memory: self.pool.memory().to_owned(),
                pending: self.waiting.report(&OwnerName::default()),
                owners: self.owners(),
                restoring: self.restoring(),
                rollback_incomplete: self.rollback_incomplete(),
                secrets_refused: self.burned.refuses().unwrap_or_default(),
                tables_not_stored: self.not_stored(),
                stored_tables_damaged: self.damage.clone(),
                drains: self.drains.report(),
                warnings: self.all_warnings(),
                ..Default::default()
            },
            state: self.state.clone(),
            live: self.live.clone(),
            ports: self.ports.open().clone(),
            view: self.netlink.view.clone(),
            down: Arc::clone(self.members.down()),
            drains: self.drains.clone(),
            warnings: self.warnings.links(),
        }
    }

    /// Who has items, or had some.
    fn owners(&self) -> Vec<v1::OwnerState> {
        let owners = self.state.owned();
        let owners = owners.map(|(owner, generation, items)| v1::OwnerState {
            owner: owner.to_string(),
            generation,
            items: items as u64,
            pending: self.waiting.report(owner),
        });
        owners.collect()
    }

    /// Of the node itself, and of what it has.
    fn all_warnings(&self) -> Vec<String> {
        let own = self.state_dir_changed.iter().cloned();
        own.chain(self.warnings.all()).collect()
    }

    /// The counters of this moment.
    pub(super) fn counts(&self) -> Counts {
        let ports = self.ports.open().keys().map(|name| v1::PortStats {
            port: name.to_string(),
            steering: counters(&self.ports.steering(name)),
            ..Default::default()
        });
        Counts {
            moment: self.moment(),
            workers: self.pool.stats(),
            ports: ports.collect(),
            boot: self.events.boot(),
            refusals: self.access.refusals(),
        }
    }
}

impl Moment {
    /// What links are judged by.
    pub(super) fn sources(&self) -> Sources<'_> {
        Sources {
            state: &self.state,
            live: &self.live,
            ports: &self.ports,
            neighbours: &self.view.neighbours,
            addresses: &self.view.addresses,
            down: &self.down,
        }
    }

    /// How a link is.
    pub(super) fn link(&self, name: &LinkName) -> v1::LinkState {
        let sources = self.sources();
        let status = health::link(&sources, &self.view, name);
        v1::LinkState {
            link: name.to_string(),
            up: status.carries(),
            reason: status.reason().to_owned(),
            next_hop_mac: sources
                .next_hop(name)
                .map(|mac| mac.to_string())
                .unwrap_or_default(),
            draining: self.drains.link(name, &self.state),
            warnings: self.warnings.get(name).cloned().unwrap_or_default(),
        }
    }

    /// How a key is.
    pub(super) fn key(&self, id: &KeyId, key: &Key) -> v1::KeyState {
        let seal = self.live.seal(id);
        v1::KeyState {
            key: Some(key_ref(id)),
            suite: suite(key.suite).into(),
            receiver_index: key.receiver_index,
            transmitter: self.state.seals(id) == Some(true),
            transmitting: key.installed && self.state.transmitting(&id.owner).as_ref() == Some(id),
            packets: seal.map_or(0, |sa| sa.sealed()),
            exhausted: seal.is_some_and(|sa| sa.exhausted()),
            needed: !key.installed,
        }
    }

    /// The kernel's neighbours on our ports, and the static ones, which come before them.
    pub(super) fn neighbours(&self) -> Vec<v1::NeighbourState> {
        let fixed = &self.state.neighbours;
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
            let mut open = self.ports.iter();
            open.find(|(_, port)| port.ifindex == Some(ifindex))
                .map(|(name, _)| name)
        };
        let mut kernel: Vec<_> = self.view.neighbours.iter().collect();
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
}

impl Counts {
    /// All counters but those that there may be many of.
    pub(super) fn head(&mut self) -> v1::StatsResponse {
        let ports = std::mem::take(&mut self.ports);
        let Self {
            moment,
            workers: snapshot,
            boot,
            refusals,
            ..
        } = self;
        let totals = |name: &PortName| {
            let index = moment.ports.get(name)?.index;
            snapshot.ports.iter().find(|port| port.port == index)
        };
        let ports = moment.ports.keys().zip(ports).map(|(name, port)| {
            let totals = totals(name);
            v1::PortStats {
                received_packets: totals.map_or(0, |t| t.received_packets),
                received_bytes: totals.map_or(0, |t| t.received_bytes),
                sent_packets: totals.map_or(0, |t| t.sent_packets),
                sent_bytes: totals.map_or(0, |t| t.sent_bytes),
                sockets: totals.map_or_else(Vec::new, |t| counters(&t.sockets)),
                offloads: totals.map_or_else(Vec::new, |t| counters(&t.offloads.by_name())),
                ..port
            }
        });
        let workers = snapshot.workers.iter().zip(0..);
        let drains = moment.drains.scopes().map(|scope| v1::DrainStats {
            target: Some(scope.target()),
            packets: carried(moment, snapshot, scope),
        });
        v1::StatsResponse {
            generation: moment.state.generation,
            boot: *boot,
            ports: ports.collect(),
            drops: counters(&snapshot.drops),
            icmp_errors: counters(&snapshot.icmp_errors),
            echoes: counters(&snapshot.echoes),
            provider: moment.head.provider.clone(),
            drains: drains.collect(),
            refusals: counters(refusals),
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
            ..Default::default()
        }
    }

    /// Traffic of some links: those after `last`. Tells which was the last if there may be more.
    pub(super) fn links(
        &self,
        last: Option<&LinkName>,
        most: usize,
    ) -> (Vec<v1::Traffic>, Option<LinkName>) {
        let Moment { state, live, .. } = &self.moment;
        let totals = |name: &LinkName| live.link(name).map(|it| it.totals());
        some(&state.links, last, most, totals)
    }

    /// The same of circuits.
    pub(super) fn circuits(
        &self,
        last: Option<&CircuitName>,
        most: usize,
    ) -> (Vec<v1::Traffic>, Option<CircuitName>) {
        let Moment { state, live, .. } = &self.moment;
        let totals = |name: &CircuitName| live.circuit(name).map(|it| it.totals());
        some(&state.circuits, last, most, totals)
    }
}

fn some<K: Ord + Clone, V>(
    table: &PersistentMap<Name<K>, V>,
    last: Option<&Name<K>>,
    most: usize,
    totals: impl Fn(&Name<K>) -> Option<TrafficTotals>,
) -> (Vec<v1::Traffic>, Option<Name<K>>) {
    let names: Vec<_> = after(table, last)
        .take(most)
        .map(|(name, _)| name)
        .collect();
    let told = names.iter().filter_map(|name| {
        let totals = totals(name)?;
        Some(traffic(name.as_str(), totals))
    });
    let more = names.len() == most;
    let last = names.last().filter(|_| more).map(|name| (*name).clone());
    (told.collect(), last)
}

/// Packets that what drains has carried.
fn carried(moment: &Moment, snapshot: &Snapshot, scope: &Scope) -> u64 {
    let of_link = |name: &LinkName| moment.live.link(name).map(|traffic| traffic.totals());
    let both =
        |name: &LinkName| of_link(name).map_or(0, |it| it.received_packets + it.sent_packets);
    let links = moment.state.links.iter();
    match scope {
        Scope::Node => {
            let received = links.filter_map(|(name, _)| of_link(name));
            let received: u64 = received.map(|it| it.received_packets).sum();
            let sent: u64 = snapshot.ports.iter().map(|it| it.sent_packets).sum();
            received + sent
        }
        Scope::Link(name) => both(name),
        Scope::Port(name) => match moment.state.ports.get(name).map(|port| &port.role) {
            Some(Role::Underlay) => {
                let on_it = links.filter(|(_, link)| link.port == *name);
                on_it.map(|(name, _)| both(name)).sum()
            }
            _ => {
                let index = moment.ports.get(name).map(|open| open.index);
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
                warnings: node.warnings.of(&ItemKey::Port(name.clone())),
            })
        })
        .collect()
}
