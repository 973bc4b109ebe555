//! What is sound, but will hardly do what was meant. It is told once when it begins, once when it is over, and by Get.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use twinseal_api::v1::{self, EventKind, event::Event as Body};

use super::compile::{HostAddress, Sources, Standing};
use super::events::Events;
use super::keys::Live;
use super::model::{End, LabelAction, LinkName, Owner, Role, State, Table};
use super::parse::ItemKey;
use crate::ports::Device;

/// What was told, and what it is found by.
#[derive(Default)]
pub(super) struct Oddities {
    told: BTreeMap<ItemKey, Vec<String>>,
    /// Links whose far end seals with this end's keys.
    same_end: BTreeMap<LinkName, SameEnd>,
    /// From which link to which other packets are swapped, and by which labels: these may be many.
    swaps: BTreeSet<(LinkName, LinkName)>,
    labels: Table<(LinkName, u32), LabelAction>,
}

/// How a link was when its far end was found to be the same end.
struct SameEnd {
    end: End,
    received: u64,
}

impl Oddities {
    /// What is to be said of a port or link.
    pub(super) fn of(&self, item: &ItemKey) -> Vec<String> {
        self.told.get(item).cloned().unwrap_or_default()
    }

    /// The same of all links that have some.
    pub(super) fn links(&self) -> BTreeMap<LinkName, Vec<String>> {
        let told = self.told.iter();
        told.filter_map(|(item, told)| match item {
            ItemKey::Link(name) => Some((name.clone(), told.clone())),
            _ => None,
        })
        .collect()
    }

    /// Looks at receiver indices that packets had and that no key has. One that is of a key which this node seals with
    /// comes from a far end that seals with it too.
    pub(super) fn unknown_receivers(&mut self, state: &State, live: &Live, indices: &[u32]) {
        if indices.iter().all(|index| *index == 0) {
            return;
        }
        for (id, key) in state.keys.iter() {
            if let Owner::Link(name) = &id.owner
                && indices.contains(&key.receiver_index)
                && state.seals(id) == Some(true)
                && let Some(link) = state.links.get(name)
            {
                let received = live.link(name).map_or(0, |it| it.totals().received_packets);
                let seen = SameEnd {
                    end: link.end,
                    received,
                };
                self.same_end.insert(name.clone(), seen);
            }
        }
    }

    /// Tells what is new, and what is over.
    pub(super) fn update(&mut self, events: &Events, from: &Sources<'_>) {
        let now = self.look(from);
        if now == self.told {
            return;
        }
        let tell = |kind: &str, item: &ItemKey, warning: &str| {
            let body = v1::FaultEvent {
                kind: kind.to_owned(),
                detail: format!("{item}: {warning}"),
            };
            events.emit(EventKind::Fault, Body::Fault(body));
        };
        let each =
            |these: &BTreeMap<ItemKey, Vec<String>>, others: &BTreeMap<_, Vec<String>>, kind| {
                for (item, warnings) in these {
                    let known = others.get(item).map_or(&[][..], Vec::as_slice);
                    for warning in warnings.iter().filter(|it| !known.contains(it)) {
                        tell(kind, item, warning);
                    }
                }
            };
        each(&self.told, &now, "warning_over");
        each(&now, &self.told, "warning");
        self.told = now;
    }

    fn look(&mut self, from: &Sources<'_>) -> BTreeMap<ItemKey, Vec<String>> {
        let mut found: BTreeMap<ItemKey, Vec<String>> = BTreeMap::new();
        let mut add = |item, warning| found.entry(item).or_default().push(warning);
        for (name, port) in from.state.ports.iter() {
            if let Role::Edge(_) = port.role
                && let Device::AfXdp { netdev, .. } = &port.spec.device
                && let Some(ifindex) = from.ports.get(name).and_then(|open| open.ifindex)
                && !gateway(from.addresses, ifindex)
            {
                let warning = format!(
                    "{netdev} has no address, so hosts find no gateway there and hear of no ICMP error: give it one of their network with `ip address add`"
                );
                add(ItemKey::Port(name.clone()), warning);
            }
        }
        if !from.state.labels.same(&self.labels) {
            self.labels = from.state.labels.clone();
            let swaps = self
                .labels
                .iter()
                .filter_map(|((link, _), action)| match action {
                    LabelAction::Swap { link: to, .. } => Some((link.clone(), to.clone())),
                    LabelAction::Egress(_) => None,
                });
            self.swaps = swaps.collect();
        }
        for (link, to) in &self.swaps {
            if let (Some(takes), Some(carries)) = (carries(from, link), carries(from, to))
                && carries < takes
            {
                let warning = format!(
                    "it carries circuit packets of at most {carries} bytes and link {link:?} brings up to {takes}: larger ones are dropped here (packet_too_big), and no sender hears of it; set mtu of the edges' underlay ports by the smallest link of the path"
                );
                add(ItemKey::Link(to.clone()), warning);
            }
        }
        self.same_end.retain(|name, seen| {
            let received = from
                .live
                .link(name)
                .map_or(0, |it| it.totals().received_packets);
            let end = from.state.links.get(name).map(|link| link.end);
            end == Some(seen.end) && received == seen.received
        });
        for (name, seen) in &self.same_end {
            let end = match seen.end {
                End::A => "a",
                End::B => "b",
            };
            let warning = format!(
                "its far end seals with the keys of end {end}, as this node does: one node must be end a and the other end b"
            );
            add(ItemKey::Link(name.clone()), warning);
        }
        found
    }
}

/// Whether hosts can have an address of this device as their gateway.
fn gateway(addresses: &BTreeMap<HostAddress, Standing>, ifindex: u32) -> bool {
    let routable = |address: IpAddr| match address {
        IpAddr::V4(_) => true,
        IpAddr::V6(address) => !address.is_unicast_link_local(),
    };
    let mut hosts = addresses.keys();
    hosts.any(|host| host.ifindex == ifindex && routable(host.address))
}

/// Bytes of a packet with its circuit header that fit a link. Outer IP and UDP headers come before it; what follows is the
/// same on all links.
fn carries(from: &Sources<'_>, link: &LinkName) -> Option<u16> {
    let link = from.state.links.get(link)?;
    let port = from.ports.get(&link.port).filter(|port| port.seen)?;
    let outer = if link.local.is_ipv4() { 28 } else { 48 };
    port.mtu.checked_sub(outer)
}
