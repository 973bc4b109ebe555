//! How ports, links, circuits and keys are, and what changed for the worse or better.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

use twinseal_api::v1::{
    self, CircuitChange, EventKind, LinkStatus, PortStatus, event::Event as Body,
};

use crate::compile::{OpenPort, Sources};
use crate::events::changes::{Births, Change};
use crate::events::{Events, changes};
use crate::netlink::View;
use crate::said::{Kind, Said};
use twinseal_model::port::Device;
use twinseal_model::state::{CircuitName, KeyId, LinkName, Owner, PortName, State};
use twinseal_wire::ethernet::Mac;

/// How a port, link or circuit is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Status {
    /// It carries.
    Up,
    /// It carries, but not all is well.
    Degraded(Cow<'static, str>),
    /// It does not.
    Down(Cow<'static, str>),
}

impl Status {
    /// What is wrong; empty if nothing is.
    pub fn reason(&self) -> &str {
        match self {
            Self::Up => "",
            Self::Degraded(reason) | Self::Down(reason) => reason,
        }
    }

    /// Whether it is at least degraded.
    pub fn carries(&self) -> bool {
        !matches!(self, Self::Down(_))
    }
}

fn degraded(reason: &'static str) -> Status {
    Status::Degraded(Cow::Borrowed(reason))
}

fn down(reason: &'static str) -> Status {
    Status::Down(Cow::Borrowed(reason))
}

/// Whether a port can receive and send, as the kernel would say.
pub fn port(from: &Sources<'_>, view: &View, name: &PortName) -> Status {
    let Some(open) = from.ports.get(name) else {
        return down("it is not open");
    };
    if !open.device.carries() || view.devices.is_unknown() {
        return open.device.clone();
    }
    let Some(ifindex) = open.ifindex else {
        return open.device.clone();
    };
    let spec = from.state.ports.get(name).map(|port| &port.spec);
    let netdev = spec.and_then(|spec| spec.netdev());
    match view.devices.get(ifindex) {
        // Not heard of yet, or about to be closed.
        None => open.device.clone(),
        Some(device) if !device.up => down("its device is set down"),
        Some(device) if !device.carrier => down("its device has no carrier"),
        Some(device) if netdev.is_some_and(|netdev| netdev != device.name) => {
            Status::Degraded(format!("its device is called {} now", device.name).into())
        }
        // The kernel hands its frames to another, and answers no host on it.
        Some(_) if spec.is_some_and(|spec| matches!(spec.device, Device::AfXdp { .. })) => {
            let taken = view.devices.taken(ifindex);
            taken.map_or_else(|| open.device.clone(), |why| Status::Degraded(why.into()))
        }
        Some(_) => open.device.clone(),
    }
}

/// Whether a link can send.
pub fn link(from: &Sources<'_>, view: &View, name: &LinkName) -> Status {
    let Some(link) = from.state.links.get(name) else {
        return down("deleted");
    };
    let port = port(from, view, &link.port);
    if !port.carries() {
        return Status::Down(format!("port {}: {}", link.port, port.reason()).into());
    }
    // Other ports' addresses are not this host's.
    let steered = from.state.ports.get(&link.port);
    let steered = steered.is_some_and(|port| matches!(port.spec.device, Device::AfXdp { .. }));
    let local = link.local.ip();
    if steered && !view.devices.is_unknown() && !from.addresses.keys().any(|it| it.address == local)
    {
        return Status::Down(format!("its local address {local} is not on this host").into());
    }
    if from.next_hop(name).is_none() {
        return down("its next hop is not resolved");
    }
    let owner = Owner::Link(name.clone());
    let key = from.state.transmitting(&owner);
    match key.and_then(|key| from.live.seal(&key)) {
        None => degraded("no key transmits"),
        Some(sa) if sa.exhausted() => degraded("its transmit key is exhausted"),
        Some(sa) if sa.nearly_exhausted() => degraded("its transmit key is nearly exhausted"),
        Some(_) if !from.live.receives(&owner) => degraded("no key receives"),
        Some(_) => Status::Up,
    }
}

/// Whether a circuit can send.
fn circuit(from: &Sources<'_>, links: &BTreeMap<LinkName, Status>, name: &CircuitName) -> Status {
    let Some(circuit) = from.state.circuits.get(name) else {
        return down("deleted");
    };
    if !links.get(&circuit.link).is_some_and(|link| link.carries()) {
        return down("its link is down");
    }
    let key = |owner| {
        let key = from.state.transmitting(&owner)?;
        from.live.seal(&key)
    };
    if key(Owner::Link(circuit.link.clone())).is_none() {
        return down("no key transmits on its link");
    }
    match key(Owner::Circuit(name.clone())) {
        None => down("no key transmits"),
        Some(sa) if sa.exhausted() => down("its transmit key is exhausted"),
        Some(_) => Status::Up,
    }
}

/// What is told of a port.
#[derive(Clone, PartialEq, Eq)]
struct Seen {
    status: Status,
    mac: Mac,
    mtu: u16,
}

/// What was told last.
#[derive(Default)]
pub struct Health {
    ports: BTreeMap<PortName, Seen>,
    links: BTreeMap<LinkName, Status>,
    circuits: BTreeMap<CircuitName, Status>,
    nearly: HashSet<KeyId>,
    exhausted: HashSet<KeyId>,
    births: Births,
    /// Circuits are to be looked at: there may be a hundred thousand, and little else that changes concerns them.
    stale: bool,
    said: Said,
}

impl Health {
    /// Tells what a transaction did, which turned `old` into `new`.
    pub fn changed(&mut self, events: &Events, old: &State, new: &State, change: Change) {
        changes::tell(events, &mut self.births, old, new, change);
        self.stale |= !(new.circuits.same(&old.circuits)
            && new.transmits.same(&old.transmits)
            && new.keys.same(&old.keys)
            && new.links.same(&old.links));
    }

    /// Tells what changed since the last call. Returns whether circuits were looked at.
    pub fn update(&mut self, events: &Events, from: &Sources<'_>, view: &View) -> bool {
        self.keys(events, from);
        self.update_ports(events, from, view);
        let links: BTreeMap<_, _> = from
            .state
            .links
            .keys()
            .map(|name| (name.clone(), link(from, view, name)))
            .collect();
        if links != self.links {
            self.tell_links(events, from.state, &links);
            self.links = links;
            self.stale = true;
        }
        let stale = std::mem::take(&mut self.stale);
        if stale {
            self.update_circuits(events, from);
        }
        for line in self.said.lines(Instant::now()) {
            match line.good {
                true => tracing::info!("{}", line.text),
                false => tracing::warn!("{}", line.text),
            }
        }
        stale
    }

    /// Why a circuit can't send, as was found last; `None` if it can, or was not looked at yet.
    pub fn circuit_down(&self, name: &CircuitName) -> Option<String> {
        let status = self.circuits.get(name)?;
        (!status.carries()).then(|| status.reason().to_owned())
    }

    /// Tells that a key is near a limit, or has come to it.
    pub(super) fn limit(
        &mut self,
        events: &Events,
        id: &KeyId,
        change: v1::KeyChange,
        limit: &str,
    ) {
        // What has stopped is not near any more.
        let near = self.nearly.insert(id.clone());
        let new = match change {
            v1::KeyChange::Exhausted => self.exhausted.insert(id.clone()),
            _ => near,
        };
        if new {
            events.limit(id, change, limit);
            self.stale = true;
        }
    }

    fn keys(&mut self, events: &Events, from: &Sources<'_>) {
        self.nearly.retain(|id| from.live.seal(id).is_some());
        self.exhausted.retain(|id| from.live.seal(id).is_some());
        for (id, sa) in from.live.seals() {
            if sa.nearly_exhausted() && self.nearly.insert(id.clone()) {
                events.key(id, v1::KeyChange::NearlyExhausted);
            }
            if sa.exhausted() && self.exhausted.insert(id.clone()) {
                events.key(id, v1::KeyChange::Exhausted);
                self.stale = true;
            }
        }
    }

    fn update_ports(&mut self, events: &Events, from: &Sources<'_>, view: &View) {
        let seen = |(name, open): (&PortName, &OpenPort)| {
            let seen = Seen {
                status: port(from, view, name),
                mac: open.mac,
                mtu: open.mtu,
            };
            (name.clone(), seen)
        };
        let open = from.ports.iter();
        let open = open.filter(|(name, _)| from.state.ports.contains_key(*name));
        let ports: BTreeMap<_, _> = open.map(seen).collect();
        let now = Instant::now();
        for (name, seen) in &ports {
            let before = self.ports.get(name);
            if before != Some(seen) {
                tell_port(events, from.state, name, seen);
            }
            if before.map(|it| &it.status) != Some(&seen.status) {
                let known = before.is_some();
                self.said
                    .note(now, Kind::Port, name.as_str(), &seen.status, known);
            }
        }
        for (name, seen) in &self.ports {
            if !ports.contains_key(name) {
                let status = down("deleted");
                let seen = Seen {
                    status,
                    ..seen.clone()
                };
                tell_port(events, from.state, name, &seen);
                self.said.forget(Kind::Port, name.as_str());
            }
        }
        self.ports = ports;
    }

    fn tell_links(&mut self, events: &Events, state: &State, links: &BTreeMap<LinkName, Status>) {
        let tell = |name: &LinkName, status: &Status| {
            let link = state.links.get(name);
            let body = v1::LinkEvent {
                link: name.to_string(),
                status: match status {
                    Status::Up => LinkStatus::Up,
                    Status::Degraded(_) => LinkStatus::Degraded,
                    Status::Down(_) => LinkStatus::Down,
                }
                .into(),
                reason: status.reason().to_owned(),
                remote: link.map(|link| link.remote.to_string()).unwrap_or_default(),
            };
            events.emit(EventKind::Fault, Body::Link(body));
        };
        let now = Instant::now();
        for (name, status) in links {
            let before = self.links.get(name);
            if before != Some(status) {
                tell(name, status);
                let known = before.is_some();
                self.said
                    .note(now, Kind::Link, name.as_str(), status, known);
            }
        }
        for name in self.links.keys().filter(|name| !links.contains_key(name)) {
            tell(name, &down("deleted"));
            self.said.forget(Kind::Link, name.as_str());
        }
    }

    /// Those that are gone were told of by the transaction.
    fn update_circuits(&mut self, events: &Events, from: &Sources<'_>) {
        let now = Instant::now();
        let mut circuits = BTreeMap::new();
        for (name, it) in from.state.circuits.iter() {
            let status = circuit(from, &self.links, name);
            let before = self.circuits.get(name);
            if before != Some(&status) {
                let known = before.is_some();
                self.said
                    .note(now, Kind::Circuit, name.as_str(), &status, known);
                let change = if status.carries() {
                    CircuitChange::Up
                } else {
                    CircuitChange::Failed
                };
                let cause = status.reason();
                let body = changes::circuit(&self.births, from.state, name, it, change, cause);
                events.emit(EventKind::Fault, Body::Circuit(body));
            }
            circuits.insert(name.clone(), status);
        }
        for name in self.circuits.keys().filter(|it| !circuits.contains_key(it)) {
            self.said.forget(Kind::Circuit, name.as_str());
        }
        self.circuits = circuits;
    }
}

fn tell_port(events: &Events, state: &State, name: &PortName, seen: &Seen) {
    let spec = state.ports.get(name).map(|port| &port.spec);
    let netdev = spec.and_then(|spec| spec.netdev());
    let status = match &seen.status {
        Status::Up => PortStatus::Up,
        Status::Degraded(_) => PortStatus::Degraded,
        Status::Down(_) => PortStatus::Down,
    };
    let body = v1::PortEvent {
        port: name.to_string(),
        status: status.into(),
        reason: seen.status.reason().to_owned(),
        netdev: netdev.unwrap_or_default().to_owned(),
        mac: seen.mac.to_string(),
        mtu: seen.mtu.into(),
    };
    events.emit(EventKind::Fault, Body::Port(body));
}
