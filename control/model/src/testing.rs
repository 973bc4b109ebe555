//! Items and states for tests of this crate and of those that build on it.

use twinseal_api::v1::{self, change::Change, item::Item};

use crate::refusal::Refused;
use crate::state::State;
use crate::transaction::Outcome;
use crate::{parse, transaction};

/// A secret that tests tell from others by its first byte.
pub fn secret(n: u8) -> Vec<u8> {
    let mut secret = vec![0xa5; 32];
    secret[0] = n;
    secret
}

/// The change that sets an item.
pub fn set(item: Item) -> v1::Change {
    v1::Change {
        change: Some(Change::Set(v1::Item {
            item: Some(item),
            ..Default::default()
        })),
    }
}

/// The change that deletes one.
pub fn delete(item: v1::item_ref::Item) -> v1::Change {
    v1::Change {
        change: Some(Change::Delete(v1::ItemRef { item: Some(item) })),
    }
}

/// A VRF.
pub fn vrf(name: &str) -> Item {
    Item::Vrf(v1::Vrf { name: name.into() })
}

/// A port over memory: of an edge with a VRF, else of the underlay.
pub fn port(name: &str, vrf: &str) -> v1::Port {
    let role = match vrf {
        "" => v1::PortRole::Underlay,
        _ => v1::PortRole::Edge,
    };
    v1::Port {
        name: name.into(),
        role: role.into(),
        vrf: vrf.into(),
        device: Some(v1::port::Device::Memory(v1::Memory {
            wire: name.into(),
            mac: "02:00:00:00:00:01".into(),
        })),
        ..v1::Port::default()
    }
}

/// A link over the port "under".
pub fn link(name: &str) -> v1::Link {
    v1::Link {
        name: name.into(),
        end: v1::End::A.into(),
        port: "under".into(),
        local: "192.0.2.1".into(),
        remote: "192.0.2.2".into(),
        ..Default::default()
    }
}

/// A circuit of the VRF "red" over the link "l1".
pub fn circuit(name: &str, id: u64, label: u32) -> v1::Circuit {
    v1::Circuit {
        name: name.into(),
        id,
        end: v1::End::A.into(),
        vrf: "red".into(),
        link: "l1".into(),
        label,
        ..Default::default()
    }
}

/// A label that ends at a circuit.
pub fn egress(link: &str, label: u32, circuit: &str) -> Item {
    Item::Label(v1::Label {
        link: link.into(),
        label,
        action: Some(v1::label::Action::Egress(v1::Egress {
            circuit: circuit.into(),
        })),
    })
}

/// A route.
pub fn route(vrf: &str, prefix: &str, target: v1::route::Target) -> Item {
    Item::Route(v1::Route {
        vrf: vrf.into(),
        prefix: prefix.into(),
        target: Some(target),
    })
}

/// A next hop behind a port.
pub fn via(port: &str, address: &str) -> v1::Via {
    v1::Via {
        port: port.into(),
        address: address.into(),
    }
}

/// A link as the owner of a key.
pub fn link_owner(name: &str) -> Option<v1::key::Owner> {
    Some(v1::key::Owner::Link(name.into()))
}

/// A circuit as the owner of a key.
pub fn circuit_owner(name: &str) -> Option<v1::key::Owner> {
    Some(v1::key::Owner::Circuit(name.into()))
}

/// A key; `n` makes its secret, and for links its receiver index.
pub fn key(owner: Option<v1::key::Owner>, direction: v1::Direction, epoch: u32, n: u8) -> v1::Key {
    let is_link = matches!(owner, Some(v1::key::Owner::Link(_)));
    v1::Key {
        owner,
        direction: direction.into(),
        epoch,
        suite: 0,
        secret: secret(n),
        receiver_index: if is_link { u32::from(n) } else { 0 },
        ..Default::default()
    }
}

/// A link transmits with this epoch.
pub fn transmit_link(name: &str, epoch: u32) -> Item {
    Item::Transmit(v1::Transmit {
        owner: Some(v1::transmit::Owner::Link(name.into())),
        epoch,
    })
}

/// A circuit transmits with this epoch.
pub fn transmit_circuit(name: &str, epoch: u32) -> Item {
    Item::Transmit(v1::Transmit {
        owner: Some(v1::transmit::Owner::Circuit(name.into())),
        epoch,
    })
}

/// Everything once: an edge that reaches another over one link and one circuit.
pub fn edge_items() -> Vec<Item> {
    use v1::Direction::{AToB, BToA};
    vec![
        vrf("red"),
        Item::Port(port("under", "")),
        Item::Port(port("hosts", "red")),
        Item::Link(link("l1")),
        Item::Circuit(v1::Circuit {
            tags: [("clientId".into(), "k".repeat(256))].into(),
            ..circuit("c1", 7, 100)
        }),
        egress("l1", 200, "c1"),
        Item::Label(v1::Label {
            link: "l1".into(),
            label: 300,
            action: Some(v1::label::Action::Swap(v1::Swap {
                link: "l1".into(),
                label: 301,
            })),
        }),
        Item::Group(v1::Group {
            name: "g1".into(),
            members: vec![
                v1::Member {
                    target: Some(v1::member::Target::Circuit("c1".into())),
                    weight: Some(3),
                },
                v1::Member {
                    target: Some(v1::member::Target::Via(via("hosts", "10.0.0.9"))),
                    weight: None,
                },
            ],
        }),
        route(
            "red",
            "10.1.0.0/16",
            v1::route::Target::Circuit("c1".into()),
        ),
        route("red", "10.2.0.0/16", v1::route::Target::Group("g1".into())),
        route(
            "red",
            "10.0.0.0/24",
            v1::route::Target::Via(via("hosts", "")),
        ),
        route(
            "red",
            "2001:db8::/32",
            v1::route::Target::Blackhole(v1::Blackhole {}),
        ),
        Item::Neighbour(v1::Neighbour {
            port: "hosts".into(),
            address: "10.0.0.9".into(),
            mac: "02:00:00:00:00:09".into(),
        }),
        Item::Key(key(link_owner("l1"), AToB, 1, 1)),
        Item::Key(key(link_owner("l1"), BToA, 1, 2)),
        Item::Key(key(circuit_owner("c1"), AToB, 1, 3)),
        Item::Key(key(circuit_owner("c1"), BToA, 1, 4)),
        transmit_link("l1", 1),
        transmit_circuit("c1", 1),
    ]
}

/// Changes that set items.
pub fn sets(items: impl IntoIterator<Item = Item>) -> Vec<v1::Change> {
    items.into_iter().map(set).collect()
}

/// What becomes of a state by changes.
///
/// # Errors
/// If they are refused.
pub fn try_apply(old: &State, changes: Vec<v1::Change>) -> Result<Outcome, Refused> {
    transaction::apply(old, parse::changes(changes))
}

/// The same; they are right.
#[track_caller]
pub fn apply(old: &State, changes: Vec<v1::Change>) -> Outcome {
    try_apply(old, changes).unwrap_or_else(|refused| panic!("refused: {refused}"))
}

/// The state of [`edge_items`].
pub fn edge() -> State {
    apply(&State::default(), sets(edge_items())).state
}
