//! Items of a state, and as the API tells them. A key shows its fingerprint, never its secret.

use std::cmp::Ordering;
use std::net::IpAddr;

use twinseal_api::v1::{self, item::Item as Proto};
use twinseal_crypto::{Direction, Suite};

use crate::parse::{Item, ItemKey};
use crate::port::{BindMode, Device, XdpMode};
use crate::state::{
    Checksum, Circuit, End, Hop, Key, KeyId, LabelAction, Limits, Link, LinkName, Member, Owner,
    OwnerName, PersistentMap, Port, PortName, Prefix, Role, State, Target, Via, VrfName,
};
use twinseal_wire::ethernet::Mac;
use twinseal_wire::ip::Dscp;

impl State {
    /// The item as it is.
    pub fn item(&self, key: &ItemKey) -> Option<Item> {
        Some(match key {
            ItemKey::Port(name) => Item::Port(name.clone(), self.ports.get(name)?.clone()),
            ItemKey::Vrf(name) => {
                self.vrfs.get(name)?;
                Item::Vrf(name.clone())
            }
            ItemKey::Link(name) => Item::Link(name.clone(), self.links.get(name)?.clone()),
            ItemKey::Circuit(name) => Item::Circuit(name.clone(), self.circuits.get(name)?.clone()),
            ItemKey::Label(link, label) => {
                let action = self.labels.get(&(link.clone(), *label))?;
                Item::Label(link.clone(), *label, action.clone())
            }
            ItemKey::Group(name) => Item::Group(name.clone(), self.groups.get(name)?.clone()),
            ItemKey::Route(vrf, prefix) => {
                let target = self.routes.get(vrf)?.get(prefix)?;
                Item::Route(vrf.clone(), *prefix, target.clone())
            }
            ItemKey::Neighbour(port, address) => {
                let mac = self.neighbours.get(&(port.clone(), *address))?;
                Item::Neighbour(port.clone(), *address, *mac)
            }
            ItemKey::Key(id) => Item::Key(id.clone(), self.keys.get(id)?.clone()),
            ItemKey::Transmit(owner) => Item::Transmit(owner.clone(), *self.transmits.get(owner)?),
        })
    }

    /// Whether there is such an item.
    pub fn has(&self, key: &ItemKey) -> bool {
        match key {
            ItemKey::Port(name) => self.ports.contains_key(name),
            ItemKey::Vrf(name) => self.vrfs.contains_key(name),
            ItemKey::Link(name) => self.links.contains_key(name),
            ItemKey::Circuit(name) => self.circuits.contains_key(name),
            ItemKey::Label(link, label) => self.labels.contains_key(&(link.clone(), *label)),
            ItemKey::Group(name) => self.groups.contains_key(name),
            ItemKey::Route(vrf, prefix) => {
                let routes = self.routes.get(vrf);
                routes.is_some_and(|routes| routes.contains_key(prefix))
            }
            ItemKey::Neighbour(port, address) => {
                self.neighbours.contains_key(&(port.clone(), *address))
            }
            ItemKey::Key(id) => self.keys.contains_key(id),
            ItemKey::Transmit(owner) => self.transmits.contains_key(owner),
        }
    }

    /// How many items there are.
    pub fn count(&self) -> usize {
        let routes: usize = self.routes.values().map(PersistentMap::len).sum();
        routes
            + self.ports.len()
            + self.vrfs.len()
            + self.links.len()
            + self.circuits.len()
            + self.labels.len()
            + self.groups.len()
            + self.neighbours.len()
            + self.keys.len()
            + self.transmits.len()
    }
}

/// All items of a state; given back to Replace they make the same state.
pub fn all(state: &State) -> Vec<v1::Item> {
    let mut items = Vec::new();
    each(state, |item| items.push(item));
    items
}

/// The same, one after the other.
pub fn each(state: &State, mut take: impl FnMut(v1::Item)) {
    each_after(state, None, |item| {
        take(item);
        true
    });
}

/// The same, from the one after `last` until `take` has enough; tells which was taken last then.
pub fn each_after(
    state: &State,
    last: Option<&ItemKey>,
    mut take: impl FnMut(v1::Item) -> bool,
) -> Option<ItemKey> {
    let owners = &state.owners;
    let mut take = |item, id: &dyn Fn() -> ItemKey| {
        take(v1::Item {
            item: Some(item),
            owner: match owners.are_one() {
                true => String::new(),
                false => owners.told(&id()),
            },
        })
    };
    let mut begun = last.is_none();
    // One table: from its beginning, or after `last` if that is of it.
    macro_rules! each {
        ($table:ident after $last:pat => $from:expr; $key:pat, $value:pat => $item:expr, $id:expr) => {
            let from = match last {
                Some($last) => {
                    begun = true;
                    Some($from)
                }
                _ => None,
            };
            if begun {
                for ($key, $value) in after(&state.$table, from.as_ref()) {
                    if !take($item, &|| $id) {
                        return Some($id);
                    }
                }
            }
        };
    }
    each!(vrfs after ItemKey::Vrf(last) => last.clone();
        name, _ => vrf(name), ItemKey::Vrf(name.clone()));
    each!(ports after ItemKey::Port(last) => last.clone();
        name, it => port(name, it), ItemKey::Port(name.clone()));
    each!(links after ItemKey::Link(last) => last.clone();
        name, it => link(name.as_str(), it), ItemKey::Link(name.clone()));
    each!(circuits after ItemKey::Circuit(last) => last.clone();
        name, it => Proto::Circuit(circuit(name.as_str(), it)), ItemKey::Circuit(name.clone()));
    each!(labels after ItemKey::Label(link, number) => (link.clone(), *number);
        (link, number), action => label(link, *number, action), ItemKey::Label(link.clone(), *number));
    each!(groups after ItemKey::Group(last) => last.clone();
        name, members => group(name.as_str(), members), ItemKey::Group(name.clone()));
    let mut of = None;
    if let Some(ItemKey::Route(vrf, prefix)) = last {
        begun = true;
        of = Some(vrf);
        let routes = state.routes.get(vrf).into_iter();
        for (prefix, target) in routes.flat_map(|routes| after(routes, Some(prefix))) {
            let id = || ItemKey::Route(vrf.clone(), *prefix);
            if !take(route(vrf, prefix, target), &id) {
                return Some(id());
            }
        }
    }
    if begun {
        for (vrf, routes) in after(&state.routes, of) {
            for (prefix, target) in routes.iter() {
                let id = || ItemKey::Route(vrf.clone(), *prefix);
                if !take(route(vrf, prefix, target), &id) {
                    return Some(id());
                }
            }
        }
    }
    each!(neighbours after ItemKey::Neighbour(port, address) => (port.clone(), *address);
        (port, address), mac => neighbour(port, *address, *mac), ItemKey::Neighbour(port.clone(), *address));
    each!(keys after ItemKey::Key(last) => last.clone();
        id, it => key(id, it), ItemKey::Key(id.clone()));
    each!(transmits after ItemKey::Transmit(last) => last.clone();
        owner, epoch => transmit(owner, *epoch), ItemKey::Transmit(owner.clone()));
    None
}

/// The entries of a table after a key, or all.
pub fn after<'a, K: Ord, V>(
    table: &'a PersistentMap<K, V>,
    last: Option<&'a K>,
) -> impl Iterator<Item = (&'a K, &'a V)> {
    table.range(move |key| match last {
        Some(last) if key <= last => Ordering::Less,
        _ => Ordering::Equal,
    })
}

/// The name of an item.
pub fn reference(key: &ItemKey) -> v1::ItemRef {
    use v1::item_ref::Item as Ref;
    let item = match key {
        ItemKey::Port(name) => Ref::Port(name.to_string()),
        ItemKey::Vrf(name) => Ref::Vrf(name.to_string()),
        ItemKey::Link(name) => Ref::Link(name.to_string()),
        ItemKey::Circuit(name) => Ref::Circuit(name.to_string()),
        ItemKey::Group(name) => Ref::Group(name.to_string()),
        ItemKey::Label(link, label) => Ref::Label(v1::LabelRef {
            link: link.to_string(),
            label: *label,
        }),
        ItemKey::Route(vrf, prefix) => Ref::Route(v1::RouteRef {
            vrf: vrf.to_string(),
            prefix: prefix.to_string(),
        }),
        ItemKey::Neighbour(port, address) => Ref::Neighbour(v1::NeighbourRef {
            port: port.to_string(),
            address: address.to_string(),
        }),
        ItemKey::Key(id) => Ref::Key(key_ref(id)),
        ItemKey::Transmit(owner) => Ref::Transmit(v1::TransmitRef {
            owner: Some(match owner {
                Owner::Link(name) => v1::transmit_ref::Owner::Link(name.to_string()),
                Owner::Circuit(name) => v1::transmit_ref::Owner::Circuit(name.to_string()),
            }),
        }),
    };
    v1::ItemRef { item: Some(item) }
}

/// One item of an owner.
pub fn proto(item: &Item, owner: &OwnerName) -> v1::Item {
    let item = match item {
        Item::Port(name, it) => port(name, it),
        Item::Vrf(name) => vrf(name),
        Item::Link(name, it) => link(name.as_str(), it),
        Item::Circuit(name, it) => Proto::Circuit(circuit(name.as_str(), it)),
        Item::Label(link, number, action) => label(link, *number, action),
        Item::Group(name, members) => group(name.as_str(), members),
        Item::Route(vrf, prefix, target) => route(vrf, prefix, target),
        Item::Neighbour(port, address, mac) => neighbour(port, *address, *mac),
        Item::Key(id, it) => key(id, it),
        Item::Transmit(of, epoch) => transmit(of, *epoch),
    };
    v1::Item {
        item: Some(item),
        owner: owner.told(),
    }
}

fn vrf(name: &VrfName) -> Proto {
    Proto::Vrf(v1::Vrf {
        name: name.to_string(),
    })
}

fn label(link: &LinkName, label: u32, action: &LabelAction) -> Proto {
    Proto::Label(v1::Label {
        link: link.to_string(),
        label,
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
}

fn group(name: &str, members: &[Member]) -> Proto {
    let members = members.iter().map(|member| v1::Member {
        target: Some(match &member.hop {
            Hop::Circuit(name) => v1::member::Target::Circuit(name.to_string()),
            Hop::Via(hop) => v1::member::Target::Via(via(hop)),
        }),
        weight: Some(member.weight),
    });
    Proto::Group(v1::Group {
        name: name.to_owned(),
        members: members.collect(),
    })
}

/// A route as the API has it.
pub fn route(vrf: &VrfName, prefix: &Prefix, target: &Target) -> Proto {
    Proto::Route(v1::Route {
        vrf: vrf.to_string(),
        prefix: prefix.to_string(),
        target: Some(match target {
            Target::Hop(Hop::Circuit(name)) => v1::route::Target::Circuit(name.to_string()),
            Target::Hop(Hop::Via(hop)) => v1::route::Target::Via(via(hop)),
            Target::Group(name) => v1::route::Target::Group(name.to_string()),
            Target::Blackhole => v1::route::Target::Blackhole(v1::Blackhole {}),
        }),
    })
}

fn neighbour(port: &PortName, address: IpAddr, mac: Mac) -> Proto {
    Proto::Neighbour(v1::Neighbour {
        port: port.to_string(),
        address: address.to_string(),
        mac: mac.to_string(),
    })
}

fn key(id: &KeyId, key: &Key) -> Proto {
    Proto::Key(v1::Key {
        owner: Some(match &id.owner {
            Owner::Link(name) => v1::key::Owner::Link(name.to_string()),
            Owner::Circuit(name) => v1::key::Owner::Circuit(name.to_string()),
        }),
        direction: direction(id.direction).into(),
        epoch: id.epoch,
        suite: suite(key.suite).into(),
        secret: Vec::new(),
        receiver_index: key.receiver_index,
        fingerprint: key.fingerprint.as_bytes().to_vec(),
        limits: (key.limits != Limits::default()).then(|| key.limits.into()),
        needed: !key.installed,
    })
}

fn transmit(owner: &Owner, epoch: u32) -> Proto {
    Proto::Transmit(v1::Transmit {
        owner: Some(match owner {
            Owner::Link(name) => v1::transmit::Owner::Link(name.to_string()),
            Owner::Circuit(name) => v1::transmit::Owner::Circuit(name.to_string()),
        }),
        epoch,
    })
}

fn port(name: &PortName, port: &Port) -> Proto {
    let (role, vrf) = match &port.role {
        Role::Edge(vrf) => (v1::PortRole::Edge, vrf.to_string()),
        Role::Underlay => (v1::PortRole::Underlay, String::new()),
    };
    Proto::Port(v1::Port {
        name: name.to_string(),
        role: role.into(),
        vrf,
        mtu: port.spec.mtu.into(),
        checksum: match port.checksum {
            Checksum::Auto => v1::Checksum::Auto,
            Checksum::Finish => v1::Checksum::Finish,
            Checksum::Trust => v1::Checksum::Trust,
        }
        .into(),
        local: port.local.iter().map(ToString::to_string).collect(),
        device: Some(match &port.spec.device {
            Device::AfXdp {
                netdev,
                bind,
                xdp,
                busy_poll,
                owned,
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
                owned: *owned,
            }),
            Device::Tap { netdev } => v1::port::Device::Tap(v1::Tap {
                netdev: netdev.clone(),
            }),
            Device::Memory { wire, mac } => v1::port::Device::Memory(v1::Memory {
                wire: wire.clone(),
                mac: mac.to_string(),
            }),
        }),
    })
}

fn link(name: &str, link: &Link) -> Proto {
    Proto::Link(v1::Link {
        name: name.to_owned(),
        end: end(link.end).into(),
        port: link.port.to_string(),
        local: link.local.ip().to_string(),
        remote: link.remote.ip().to_string(),
        local_port: link.local.port().into(),
        remote_port: link.remote.port().into(),
        next_hop: link.next_hop.map(|hop| hop.to_string()).unwrap_or_default(),
    })
}

/// A circuit.
pub fn circuit(name: &str, circuit: &Circuit) -> v1::Circuit {
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

/// An end as the API has it.
pub fn end(end: End) -> v1::End {
    match end {
        End::A => v1::End::A,
        End::B => v1::End::B,
    }
}

/// A cipher suite as the API has it.
pub fn suite(suite: Suite) -> v1::Suite {
    match suite {
        Suite::Aes256Gcm => v1::Suite::Aes256Gcm,
        Suite::Aes128Gcm => v1::Suite::Aes128Gcm,
        Suite::ChaCha20Poly1305 => v1::Suite::Chacha20Poly1305,
    }
}

/// A key's name in the API.
pub fn key_ref(id: &KeyId) -> v1::KeyRef {
    v1::KeyRef {
        owner: Some(match &id.owner {
            Owner::Link(name) => v1::key_ref::Owner::Link(name.to_string()),
            Owner::Circuit(name) => v1::key_ref::Owner::Circuit(name.to_string()),
        }),
        direction: direction(id.direction).into(),
        epoch: id.epoch,
    }
}

/// A direction in the API.
pub fn direction(direction: Direction) -> v1::Direction {
    match direction {
        Direction::AToB => v1::Direction::AToB,
        Direction::BToA => v1::Direction::BToA,
    }
}
