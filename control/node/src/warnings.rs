//! What is sound, but will hardly do what was meant. It is told once when it begins, once when it is over, and by Get.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::compile::Sources;
use crate::events::{Events, FaultKind};
use crate::keys::Live;
use crate::mtu;
use crate::mtu::Families;
use crate::unopened::Unopened;
use twinseal_model::parse::ItemKey;
use twinseal_model::port::Device;
use twinseal_model::state::{
    End, LabelAction, LinkName, Owner, PersistentMap, Role, State, VrfName,
};

/// Sentences in one answer: there may be one of each link, of which there may be many.
const IN_AN_ANSWER: usize = 256;

/// By what they are of, in words.
pub(super) type Found = BTreeMap<ItemKey, Vec<String>>;

/// What was told, and what it is found by.
#[derive(Default)]
pub(super) struct Warnings {
    told: Found,
    /// Links whose far end seals with this end's keys.
    same_end: BTreeMap<LinkName, SameEnd>,
    /// Circuits whose far end seals with other keys, or with this end's.
    unopened: Unopened,
    /// From which link to which other packets are swapped, and by which labels: these may be many.
    swaps: BTreeSet<(LinkName, LinkName)>,
    labels: PersistentMap<(LinkName, u32), LabelAction>,
    /// Links that are too small; to be found by a look at all circuits, and so only when something may be otherwise.
    small: Option<Found>,
    /// Ports by whose devices hosts can do what they should not.
    devices: Found,
    /// What began while a transaction is committed; `None` at other times.
    begun: Option<Vec<String>>,
}

/// How a link was when its far end was found to be the same end.
#[derive(Clone)]
struct SameEnd {
    end: End,
    received: u64,
}

impl Warnings {
    /// What is to be said of an item.
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

    /// All of them, in sentences, but no more than an answer has room for.
    pub(super) fn all(&self) -> Vec<String> {
        few(news(&self.told, &Found::new()))
    }

    /// What fits links may be otherwise than before.
    pub(super) fn look_at_mtus(&mut self) {
        self.small = None;
    }

    /// What hosts can do by which ports' devices.
    pub(super) fn of_devices(&mut self, found: Found) {
        self.devices = found;
    }

    /// Keeps what begins, until it is [collected](Self::collected).
    pub(super) fn collect(&mut self) {
        self.begun = Some(Vec::new());
    }

    /// What has begun meanwhile, in sentences.
    pub(super) fn collected(&mut self) -> Vec<String> {
        few(self.begun.take().unwrap_or_default())
    }

    /// What would begin if this were so.
    pub(super) fn would_begin(&self, from: &Sources<'_>) -> Vec<String> {
        let mut other = Self {
            same_end: self.same_end.clone(),
            unopened: self.unopened.clone(),
            devices: self.devices.clone(),
            ..Self::default()
        };
        few(news(&other.look(from), &self.told))
    }

    /// Looks at circuits, if the node has dropped more packets whose circuit seal does not verify than before.
    pub(super) fn unopened(&mut self, state: &State, live: &Live, dropped: u64) {
        self.unopened.look(state, live, dropped);
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
        for over in news(&self.told, &now) {
            events.fault(FaultKind::WarningOver, over);
        }
        for new in news(&now, &self.told) {
            tracing::warn!("{new}");
            events.fault(FaultKind::Warning, new.clone());
            if let Some(begun) = &mut self.begun {
                begun.push(new);
            }
        }
        self.told = now;
    }

    fn look(&mut self, from: &Sources<'_>) -> Found {
        let small = self.small.get_or_insert_with(|| mtu::warnings(from));
        let mut found = small.clone();
        let mut add = |item, warning| found.entry(item).or_default().push(warning);
        for (item, warnings) in &self.devices {
            for warning in warnings {
                add(item.clone(), warning.clone());
            }
        }
        for (item, warning) in self.unopened.found(from.state, from.live) {
            add(item, warning);
        }
        for (name, port) in from.state.ports.iter() {
            let (Role::Edge(vrf), Device::AfXdp { netdev, .. }) = (&port.role, &port.spec.device)
            else {
                continue;
            };
            let Some(open) = from.ports.get(name) else {
                continue;
            };
            if let Some(lacks) = open.ifindex.and_then(|it| lacking(from, vrf, it)) {
                let warning = format!(
                    "{netdev} has no {lacks}, so hosts find no gateway there and hear of no ICMP error: give it one of their network with `ip address add`"
                );
                add(ItemKey::Port(name.clone()), warning);
            }
            if open.seen && port.spec.mtu != 0 && open.mtu < open.device_mtu {
                let warning = format!(
                    "its mtu, {}, is less than the {} of {netdev}: what hosts send that is larger may be lost, and they do not hear of it; leave `mtu` out, or set the same on {netdev} and at its hosts",
                    open.mtu, open.device_mtu
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

/// What is said in one and not in the other, in sentences.
fn news(these: &Found, others: &Found) -> Vec<String> {
    let mut news = Vec::new();
    for (item, warnings) in these {
        let known = others.get(item).map_or(&[][..], Vec::as_slice);
        let new = warnings.iter().filter(|it| !known.contains(it));
        news.extend(new.map(|warning| format!("{item}: {warning}")));
    }
    news
}

/// An answer's part of them.
fn few(mut all: Vec<String>) -> Vec<String> {
    let more = all.len().saturating_sub(IN_AN_ANSWER);
    if more > 0 {
        all.truncate(IN_AN_ANSWER);
        all.push(format!("and {more} more: see the log"));
    }
    all
}

/// What a device lacks that hosts need as their gateway, of the families that its VRF routes.
fn lacking(from: &Sources<'_>, vrf: &VrfName, ifindex: u32) -> Option<&'static str> {
    let of_device = from.addresses.keys().filter(|it| it.ifindex == ifindex);
    let (mut v4, mut v6) = (false, false);
    for host in of_device {
        match host.address {
            IpAddr::V4(_) => v4 = true,
            IpAddr::V6(address) => v6 |= !address.is_unicast_link_local(),
        }
    }
    let routed = Families::of(from.state, vrf);
    match (v4, v6) {
        (false, false) => Some("address"),
        (false, true) if routed.v4 => Some("IPv4 address, and its VRF routes IPv4"),
        (true, false) if routed.v6 => {
            Some("IPv6 address but link-local ones, and its VRF routes IPv6")
        }
        _ => None,
    }
}

/// Bytes of a packet with its circuit header that fit a link. Outer IP and UDP headers come before it; what follows is the
/// same on all links.
fn carries(from: &Sources<'_>, link: &LinkName) -> Option<u16> {
    let link = from.state.links.get(link)?;
    let port = from.ports.get(&link.port).filter(|port| port.seen)?;
    let outer = if link.local.is_ipv4() { 28 } else { 48 };
    port.mtu.checked_sub(outer)
}
