//! A table of what is refused, each with the item and field that the refusal must name.

use twinseal_api::v1::{self, Direction::AToB, Direction::BToA, item::Item, item_ref::Item as Ref};

use super::*;

/// Refused in the state of [`edge`]: changes, the item and the field.
type Case = (Vec<v1::Change>, &'static str, &'static str);

#[track_caller]
fn check(cases: Vec<Case>) {
    let state = edge();
    for (n, (changes, item, field)) in cases.into_iter().enumerate() {
        let before = state.clone();
        let Err(refused) = try_apply(&state, changes) else {
            panic!("case {n} was not refused: {item} {field}");
        };
        assert!(
            refused
                .items()
                .iter()
                .any(|it| it.item == item && it.field == field),
            "case {n} should name {item} {field}: {refused}"
        );
        for it in refused.items() {
            assert!(it.change >= 0 && !it.reason.is_empty(), "case {n}: {it:?}");
            assert!(!it.fix.is_empty(), "case {n} says not what to do: {it:?}");
        }
        assert_eq!(before, state, "case {n}");
    }
}

fn one(item: Item) -> Vec<v1::Change> {
    vec![set(item)]
}

/// The item with one field changed.
fn with<T>(mut item: T, change: impl FnOnce(&mut T)) -> T {
    change(&mut item);
    item
}

#[test]
fn items_that_are_wrong_in_themselves() {
    let p = || port("p", "red");
    let l = || link("l");
    let c = || circuit("c", 9, 9);
    let k = || key(link_owner("l1"), AToB, 2, 9);
    let memory = |wire: &str, mac: &str| {
        Some(v1::port::Device::Memory(v1::Memory {
            wire: wire.into(),
            mac: mac.into(),
        }))
    };
    let af_xdp = |netdev: &str, bind, xdp| {
        Some(v1::port::Device::AfXdp(v1::AfXdp {
            netdev: netdev.into(),
            bind,
            xdp,
            busy_poll: false,
            owned: bind == 2,
        }))
    };
    let tap = |netdev: &str| {
        Some(v1::port::Device::Tap(v1::Tap {
            netdev: netdev.into(),
        }))
    };
    let long = "x".repeat(65);
    check(vec![
        (vec![v1::Change { change: None }], "change", "change"),
        (
            vec![v1::Change {
                change: Some(v1::change::Change::Set(v1::Item::default())),
            }],
            "change",
            "item",
        ),
        (
            vec![v1::Change {
                change: Some(v1::change::Change::Delete(v1::ItemRef { item: None })),
            }],
            "change",
            "delete",
        ),
        (one(vrf("")), "vrf \"\"", "name"),
        (one(vrf("a b")), "vrf \"a b\"", "name"),
        (one(vrf("ä")), "vrf \"ä\"", "name"),
        (
            one(vrf(&long)),
            "vrf \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"…",
            "name",
        ),
        (
            one(Item::Port(with(p(), |p| p.role = 0))),
            "port \"p\"",
            "role",
        ),
        (
            one(Item::Port(with(p(), |p| p.role = 9))),
            "port \"p\"",
            "role",
        ),
        (
            one(Item::Port(with(p(), |p| p.vrf.clear()))),
            "port \"p\"",
            "vrf",
        ),
        (
            one(Item::Port(with(port("p", ""), |p| p.vrf = "red".into()))),
            "port \"p\"",
            "vrf",
        ),
        (
            one(Item::Port(with(p(), |p| p.mtu = 575))),
            "port \"p\"",
            "mtu",
        ),
        (
            one(Item::Port(with(p(), |p| p.mtu = 65536))),
            "port \"p\"",
            "mtu",
        ),
        (
            one(Item::Port(with(p(), |p| p.checksum = 3))),
            "port \"p\"",
            "checksum",
        ),
        (
            one(Item::Port(with(port("p", ""), |p| p.checksum = 1))),
            "port \"p\"",
            "checksum",
        ),
        (
            one(Item::Port(with(p(), |p| p.local = vec!["fe80::1".into()]))),
            "port \"p\"",
            "local[0]",
        ),
        (
            one(Item::Port(with(p(), |p| {
                p.local = vec!["10.0.0.1".into(), "::ffff:10.0.0.1".into()]
            }))),
            "port \"p\"",
            "local[1]",
        ),
        (
            one(Item::Port(with(p(), |p| {
                p.local = (0..65).map(|n| format!("10.0.0.{n}")).collect()
            }))),
            "port \"p\"",
            "local",
        ),
        (
            one(Item::Port(with(port("p", ""), |p| {
                p.local = vec!["10.0.0.1".into()]
            }))),
            "port \"p\"",
            "local",
        ),
        (
            one(Item::Port(with(p(), |p| p.device = None))),
            "port \"p\"",
            "device",
        ),
        (
            one(Item::Port(with(p(), |p| {
                p.device = memory("", "02:00:00:00:00:01")
            }))),
            "port \"p\"",
            "memory.wire",
        ),
        (
            one(Item::Port(with(p(), |p| p.device = memory("w", "02")))),
            "port \"p\"",
            "memory.mac",
        ),
        (
            one(Item::Port(with(p(), |p| {
                p.device = memory("w", "01:00:00:00:00:01")
            }))),
            "port \"p\"",
            "memory.mac",
        ),
        (
            one(Item::Port(with(p(), |p| {
                p.device = memory("w", "00:00:00:00:00:00")
            }))),
            "port \"p\"",
            "memory.mac",
        ),
        (
            one(Item::Port(with(p(), |p| p.device = af_xdp("a/b", 0, 0)))),
            "port \"p\"",
            "af_xdp.netdev",
        ),
        (
            one(Item::Port(with(p(), |p| {
                p.device = af_xdp("0123456789abcdef", 0, 0)
            }))),
            "port \"p\"",
            "af_xdp.netdev",
        ),
        (
            one(Item::Port(with(p(), |p| p.device = af_xdp("eth0", 3, 0)))),
            "port \"p\"",
            "af_xdp.bind",
        ),
        (
            one(Item::Port(with(p(), |p| p.device = af_xdp("eth0", 0, -1)))),
            "port \"p\"",
            "af_xdp.xdp",
        ),
        (
            one(Item::Port(with(p(), |p| p.device = tap("..")))),
            "port \"p\"",
            "tap.netdev",
        ),
        (
            one(Item::Link(with(l(), |l| l.end = 0))),
            "link \"l\"",
            "end",
        ),
        (
            one(Item::Link(with(l(), |l| l.port.clear()))),
            "link \"l\"",
            "port",
        ),
        (
            one(Item::Link(with(l(), |l| l.local = "192.0.2".into()))),
            "link \"l\"",
            "local",
        ),
        (
            one(Item::Link(with(l(), |l| l.local = "0.0.0.0".into()))),
            "link \"l\"",
            "local",
        ),
        (
            one(Item::Link(with(l(), |l| {
                l.local = "::ffff:192.0.2.1".into()
            }))),
            "link \"l\"",
            "local",
        ),
        (
            one(Item::Link(with(l(), |l| l.remote = "2001:db8::2".into()))),
            "link \"l\"",
            "remote",
        ),
        (
            one(Item::Link(with(l(), |l| l.remote = "192.0.2.1".into()))),
            "link \"l\"",
            "remote",
        ),
        (
            one(Item::Link(with(l(), |l| l.remote = "224.0.0.1".into()))),
            "link \"l\"",
            "remote",
        ),
        (
            one(Item::Link(with(l(), |l| {
                l.remote = "255.255.255.255".into()
            }))),
            "link \"l\"",
            "remote",
        ),
        (
            one(Item::Link(with(l(), |l| l.local_port = 65536))),
            "link \"l\"",
            "local_port",
        ),
        (
            one(Item::Link(with(l(), |l| l.remote_port = u32::MAX))),
            "link \"l\"",
            "remote_port",
        ),
        (
            one(Item::Link(with(l(), |l| l.next_hop = "fe80::1".into()))),
            "link \"l\"",
            "next_hop",
        ),
        (
            one(Item::Circuit(with(c(), |c| c.id = 0))),
            "circuit \"c\"",
            "id",
        ),
        (
            one(Item::Circuit(with(c(), |c| c.end = 3))),
            "circuit \"c\"",
            "end",
        ),
        (
            one(Item::Circuit(with(c(), |c| c.hop_limit = 256))),
            "circuit \"c\"",
            "hop_limit",
        ),
        (
            one(Item::Circuit(with(c(), |c| c.dscp = 3))),
            "circuit \"c\"",
            "dscp",
        ),
        (
            one(Item::Circuit(with(c(), |c| {
                (c.dscp, c.dscp_value) = (1, 64)
            }))),
            "circuit \"c\"",
            "dscp_value",
        ),
        (
            one(Item::Circuit(with(c(), |c| c.dscp_value = 1))),
            "circuit \"c\"",
            "dscp_value",
        ),
        (
            one(Item::Circuit(with(c(), |c| {
                c.tags = (0..17).map(|n| (n.to_string(), String::new())).collect();
            }))),
            "circuit \"c\"",
            "tags",
        ),
        (
            one(Item::Circuit(with(c(), |c| {
                c.tags = [(String::new(), "x".into())].into();
            }))),
            "circuit \"c\"",
            "tags",
        ),
        (
            one(Item::Circuit(with(c(), |c| {
                c.tags = [("k".repeat(65), "x".into())].into();
            }))),
            "circuit \"c\"",
            "tags",
        ),
        (
            one(Item::Circuit(with(c(), |c| {
                c.tags = [("k".into(), "x".repeat(257))].into();
            }))),
            "circuit \"c\"",
            "tags",
        ),
        (
            one(Item::Label(v1::Label {
                link: "l1".into(),
                label: 5,
                action: None,
            })),
            "label 5 on link \"l1\"",
            "action",
        ),
        (
            one(Item::Group(v1::Group {
                name: "g".into(),
                members: vec![],
            })),
            "group \"g\"",
            "members",
        ),
        (
            one(Item::Group(v1::Group {
                name: "g".into(),
                members: vec![v1::Member::default(); 65],
            })),
            "group \"g\"",
            "members",
        ),
        (
            one(Item::Group(v1::Group {
                name: "g".into(),
                members: vec![v1::Member::default()],
            })),
            "group \"g\"",
            "members[0]",
        ),
        (
            one(Item::Route(v1::Route {
                vrf: "red".into(),
                prefix: "10.0.0.0/8".into(),
                target: None,
            })),
            "route 10.0.0.0/8 in vrf \"red\"",
            "target",
        ),
        (
            one(Item::Neighbour(v1::Neighbour {
                port: "hosts".into(),
                address: "x".into(),
                mac: "02:00:00:00:00:01".into(),
            })),
            "neighbour x on port \"hosts\"",
            "address",
        ),
        (
            one(Item::Neighbour(v1::Neighbour {
                port: "hosts".into(),
                address: "10.0.0.1".into(),
                mac: "ff:ff:ff:ff:ff:ff".into(),
            })),
            "neighbour 10.0.0.1 on port \"hosts\"",
            "mac",
        ),
        (
            one(Item::Key(with(k(), |k| k.owner = None))),
            "key of nothing, a-to-b, epoch 2",
            "owner",
        ),
        (
            one(Item::Key(with(k(), |k| k.direction = 0))),
            "key of link \"l1\", ?, epoch 2",
            "direction",
        ),
        (
            one(Item::Key(with(k(), |k| k.suite = 4))),
            "key of link \"l1\", a-to-b, epoch 2",
            "suite",
        ),
        (
            one(Item::Key(with(k(), |k| k.secret.truncate(31)))),
            "key of link \"l1\", a-to-b, epoch 2",
            "secret",
        ),
        (
            one(Item::Key(with(k(), |k| k.secret.push(1)))),
            "key of link \"l1\", a-to-b, epoch 2",
            "secret",
        ),
        (
            one(Item::Key(with(k(), |k| k.secret = vec![0; 32]))),
            "key of link \"l1\", a-to-b, epoch 2",
            "secret",
        ),
        (
            one(Item::Key(with(k(), |k| k.receiver_index = 0))),
            "key of link \"l1\", a-to-b, epoch 2",
            "receiver_index",
        ),
        (
            one(Item::Key(with(key(circuit_owner("c1"), AToB, 2, 9), |k| {
                k.receiver_index = 1
            }))),
            "key of circuit \"c1\", a-to-b, epoch 2",
            "receiver_index",
        ),
        (
            one(Item::Transmit(v1::Transmit::default())),
            "transmit of nothing",
            "owner",
        ),
    ]);
    for prefix in [
        "",
        "10.0.0.0",
        "10.0.0.0/33",
        "10.0.0.0/-1",
        "10.0.0.0/+8",
        "10.0.0.1/8",
        "::/129",
        "::ffff:10.0.0.0/104",
        "::ffff:0:0/96",
        "::ffff:10.0.0.1/128",
        "x/8",
        "10.0.0.0/8/8",
        "10.0.0.0/",
    ] {
        let blackhole = v1::route::Target::Blackhole(v1::Blackhole {});
        let refused = try_apply(&edge(), one(route("red", prefix, blackhole))).err();
        let refused = refused.unwrap_or_else(|| panic!("{prefix} was not refused"));
        assert_eq!(refused.items()[0].field, "prefix", "{prefix}");
    }
}

#[test]
fn references_to_what_is_not_there_or_of_the_wrong_kind() {
    let c = || circuit("c", 9, 9);
    let r = |prefix: &str, target| one(route("red", prefix, target));
    use v1::route::Target;
    let group = |target| {
        Item::Group(v1::Group {
            name: "g".into(),
            members: vec![v1::Member {
                target: Some(target),
                weight: Some(1),
            }],
        })
    };
    use v1::member::Target as Hop;
    let blue = || vec![set(vrf("blue")), set(Item::Port(port("blue", "blue")))];
    let and = |mut changes: Vec<v1::Change>, item| {
        changes.push(set(item));
        changes
    };
    check(vec![
        (one(Item::Port(port("p", "blue"))), "port \"p\"", "vrf"),
        (
            one(Item::Link(with(link("l"), |l| l.port = "none".into()))),
            "link \"l\"",
            "port",
        ),
        (
            one(Item::Link(with(link("l"), |l| l.port = "hosts".into()))),
            "link \"l\"",
            "port",
        ),
        (
            one(Item::Circuit(with(c(), |c| c.link = "none".into()))),
            "circuit \"c\"",
            "link",
        ),
        (
            one(Item::Circuit(with(c(), |c| c.vrf = "none".into()))),
            "circuit \"c\"",
            "vrf",
        ),
        (
            one(Item::Circuit(with(c(), |c| c.id = 7))),
            "circuit \"c\"",
            "id",
        ),
        // The label that c1 sends with, and the one that a label is swapped to.
        (
            one(Item::Circuit(with(c(), |c| c.label = 100))),
            "circuit \"c\"",
            "label",
        ),
        (
            one(Item::Circuit(with(c(), |c| c.label = 301))),
            "circuit \"c\"",
            "label",
        ),
        (
            one(egress("none", 5, "c1")),
            "label 5 on link \"none\"",
            "link",
        ),
        (
            one(egress("l1", 5, "none")),
            "label 5 on link \"l1\"",
            "egress.circuit",
        ),
        (
            one(group(Hop::Circuit("none".into()))),
            "group \"g\"",
            "members[0].circuit",
        ),
        (
            one(group(Hop::Via(via("none", "")))),
            "group \"g\"",
            "members[0].via.port",
        ),
        (
            one(group(Hop::Via(via("under", "")))),
            "group \"g\"",
            "members[0].via.port",
        ),
        (
            r("10.9.0.0/16", Target::Circuit("none".into())),
            "route 10.9.0.0/16 in vrf \"red\"",
            "circuit",
        ),
        (
            r("10.9.0.0/16", Target::Group("none".into())),
            "route 10.9.0.0/16 in vrf \"red\"",
            "group",
        ),
        (
            r("10.9.0.0/16", Target::Via(via("none", ""))),
            "route 10.9.0.0/16 in vrf \"red\"",
            "via.port",
        ),
        (
            r("10.9.0.0/16", Target::Via(via("under", ""))),
            "route 10.9.0.0/16 in vrf \"red\"",
            "via.port",
        ),
        (
            r("2001::/16", Target::Via(via("hosts", "10.0.0.1"))),
            "route 2001::/16 in vrf \"red\"",
            "via",
        ),
        (
            r("2001::/16", Target::Group("g1".into())),
            "route 2001::/16 in vrf \"red\"",
            "group",
        ),
        (
            one(route(
                "blue",
                "10.9.0.0/16",
                Target::Blackhole(v1::Blackhole {}),
            )),
            "route 10.9.0.0/16 in vrf \"blue\"",
            "vrf",
        ),
        (
            and(
                blue(),
                route("red", "10.9.0.0/16", Target::Via(via("blue", ""))),
            ),
            "route 10.9.0.0/16 in vrf \"red\"",
            "via",
        ),
        (
            and(
                blue(),
                route("blue", "10.9.0.0/16", Target::Circuit("c1".into())),
            ),
            "route 10.9.0.0/16 in vrf \"blue\"",
            "circuit",
        ),
        (
            and(
                blue(),
                route("blue", "10.9.0.0/16", Target::Group("g1".into())),
            ),
            "route 10.9.0.0/16 in vrf \"blue\"",
            "group",
        ),
        (
            one(Item::Neighbour(v1::Neighbour {
                port: "none".into(),
                address: "10.0.0.1".into(),
                mac: "02:00:00:00:00:01".into(),
            })),
            "neighbour 10.0.0.1 on port \"none\"",
            "port",
        ),
        (
            one(Item::Port(port("under", "red"))),
            "port \"under\"",
            "role",
        ),
    ]);
}

#[test]
fn deletions_of_what_is_needed_or_never_was() {
    let name = |name: &str| name.to_owned();
    check(vec![
        (vec![delete(Ref::Port(name("none")))], "port \"none\"", ""),
        (vec![delete(Ref::Port(name("under")))], "port \"under\"", ""),
        (vec![delete(Ref::Port(name("hosts")))], "port \"hosts\"", ""),
        (vec![delete(Ref::Vrf(name("red")))], "vrf \"red\"", ""),
        (vec![delete(Ref::Link(name("l1")))], "link \"l1\"", ""),
        (vec![delete(Ref::Circuit(name("c1")))], "circuit \"c1\"", ""),
        (vec![delete(Ref::Group(name("g1")))], "group \"g1\"", ""),
        (
            vec![delete(Ref::Label(v1::LabelRef {
                link: name("l1"),
                label: 1,
            }))],
            "label 1 on link \"l1\"",
            "",
        ),
        (
            vec![delete(Ref::Route(v1::RouteRef {
                vrf: name("red"),
                prefix: name("10.0.0.0/8"),
            }))],
            "route 10.0.0.0/8 in vrf \"red\"",
            "",
        ),
        (
            vec![delete(Ref::Neighbour(v1::NeighbourRef {
                port: name("hosts"),
                address: name("10.0.0.8"),
            }))],
            "neighbour 10.0.0.8 on port \"hosts\"",
            "",
        ),
        (vec![delete(Ref::Vrf(name("")))], "vrf \"\"", "name"),
    ]);
}

#[test]
fn keys_that_would_serve_twice_or_break_what_lives() {
    let circuit_key =
        |direction, epoch, n| Item::Key(key(circuit_owner("c1"), direction, epoch, n));
    let link_key = |direction, epoch, n| Item::Key(key(link_owner("l1"), direction, epoch, n));
    let key_ref = |direction: v1::Direction, epoch| {
        delete(Ref::Key(v1::KeyRef {
            owner: Some(v1::key_ref::Owner::Circuit("c1".into())),
            direction: direction.into(),
            epoch,
        }))
    };
    check(vec![
        // The same secret for another owner, direction, epoch; also if its first key goes at the same time.
        (
            one(circuit_key(AToB, 2, 1)),
            "key of circuit \"c1\", a-to-b, epoch 2",
            "secret",
        ),
        (
            one(circuit_key(BToA, 2, 3)),
            "key of circuit \"c1\", b-to-a, epoch 2",
            "secret",
        ),
        (
            vec![key_ref(BToA, 1), set(circuit_key(BToA, 2, 4))],
            "key of circuit \"c1\", b-to-a, epoch 2",
            "secret",
        ),
        (
            vec![set(circuit_key(AToB, 5, 50)), set(circuit_key(AToB, 6, 50))],
            "key of circuit \"c1\", a-to-b, epoch 6",
            "secret",
        ),
        // Another secret or suite for the same epoch.
        (
            one(circuit_key(AToB, 1, 9)),
            "key of circuit \"c1\", a-to-b, epoch 1",
            "secret",
        ),
        (
            one(Item::Key(with(key(circuit_owner("c1"), BToA, 1, 4), |k| {
                k.suite = 2
            }))),
            "key of circuit \"c1\", b-to-a, epoch 1",
            "suite",
        ),
        // No owner.
        (
            one(Item::Key(key(circuit_owner("none"), AToB, 1, 9))),
            "key of circuit \"none\", a-to-b, epoch 1",
            "circuit",
        ),
        (
            one(Item::Key(key(link_owner("none"), AToB, 1, 9))),
            "key of link \"none\", a-to-b, epoch 1",
            "link",
        ),
        (
            one(transmit_link("none", 1)),
            "transmit of link \"none\"",
            "link",
        ),
        // Ambiguous in packets.
        (
            one(Item::Key(with(key(link_owner("l1"), BToA, 2, 9), |k| {
                k.receiver_index = 2
            }))),
            "key of link \"l1\", b-to-a, epoch 2",
            "receiver_index",
        ),
        (
            one(circuit_key(BToA, 17, 9)),
            "key of circuit \"c1\", b-to-a, epoch 17",
            "epoch",
        ),
        // Transmission.
        (
            one(transmit_circuit("c1", 2)),
            "transmit of circuit \"c1\"",
            "epoch",
        ),
        (
            vec![set(circuit_key(BToA, 2, 9)), set(transmit_circuit("c1", 2))],
            "transmit of circuit \"c1\"",
            "epoch",
        ),
        // Numbers that are never 0, which is what one has that was not given.
        (
            one(circuit_key(AToB, 0, 9)),
            "key of circuit \"c1\", a-to-b, epoch 0",
            "epoch",
        ),
        (
            one(transmit_circuit("c1", 0)),
            "transmit of circuit \"c1\"",
            "epoch",
        ),
        (
            one(Item::Circuit(circuit("c", 9, 0))),
            "circuit \"c\"",
            "label",
        ),
        (
            one(egress("l1", 0, "c1")),
            "label 0 on link \"l1\"",
            "label",
        ),
        (
            one(Item::Label(v1::Label {
                link: "l1".into(),
                label: 7,
                action: Some(v1::label::Action::Swap(v1::Swap {
                    link: "l1".into(),
                    label: 0,
                })),
            })),
            "label 7 on link \"l1\"",
            "swap.label",
        ),
        (
            vec![key_ref(AToB, 1)],
            "key of circuit \"c1\", a-to-b, epoch 1",
            "",
        ),
        (
            vec![set(link_key(AToB, 2, 9)), set(transmit_link("l1", 3))],
            "transmit of link \"l1\"",
            "epoch",
        ),
        // Keys that would change sides.
        (
            one(Item::Circuit(with(circuit("c1", 7, 100), |c| {
                c.end = v1::End::B.into()
            }))),
            "circuit \"c1\"",
            "end",
        ),
        (
            one(Item::Link(with(link("l1"), |l| l.end = v1::End::B.into()))),
            "link \"l1\"",
            "end",
        ),
    ]);
}

#[test]
fn all_refusals_are_told_and_too_many_are_counted() {
    let refused = try_apply(&edge(), vec![set(vrf("!")), set(vrf("ok")), set(vrf("?"))]).err();
    let refused = refused.expect("two are wrong");
    let changes: Vec<_> = refused.items().iter().map(|item| item.change).collect();
    assert_eq!(changes, [0, 2]);
    let text = refused.to_string();
    assert!(
        text.contains("vrf \"!\": name: ") && text.contains("vrf \"?\""),
        "{text}"
    );

    let many = (0..1500).map(|_| set(vrf("!"))).collect();
    let refused = try_apply(&edge(), many).err().expect("all are wrong");
    assert_eq!((refused.items().len(), refused.more()), (1000, 500));
}

#[test]
fn all_that_is_wrong_is_told_at_once_with_its_code() {
    use v1::RefusalCode as Code;
    let blackhole = || v1::route::Target::Blackhole(v1::Blackhole {});
    let changes = vec![
        set(vrf("a b")),
        set(route("no-such", "10.9.0.0/16", blackhole())),
        set(Item::Link(with(link("l9"), |link| {
            link.port = "hosts".into()
        }))),
        set(Item::Key(key(link_owner("l1"), BToA, 2, 1))),
        set(transmit_circuit("c1", 0)),
        delete(Ref::Group("no-such".into())),
        delete(Ref::Vrf("red".into())),
        set(Item::Circuit(circuit("c2", 7, 101))),
    ];
    let refused = try_apply(&edge(), changes).err().expect("all is wrong");
    let mut told: Vec<_> = refused
        .items()
        .iter()
        .map(|item| (item.change, item.code()))
        .collect();
    told.sort_unstable();
    told.dedup();
    assert_eq!(
        told,
        [
            (0, Code::Invalid),
            (1, Code::NotFound),
            (2, Code::WrongKind),
            (3, Code::SecretReused),
            (4, Code::Invalid),
            (5, Code::NotFound),
            (6, Code::InUse),
            (7, Code::NotFound),
            (7, Code::Conflict),
        ],
        "{refused}"
    );
}

#[test]
fn what_refers_to_an_item_that_makes_no_sense_is_not_judged() {
    let changes = vec![
        set(Item::Link(with(link("new"), |link| link.local.clear()))),
        set(egress("new", 1, "c1")),
        set(egress("other", 1, "c1")),
    ];
    let refused = try_apply(&edge(), changes).err().expect("no address");
    let told: Vec<_> = refused
        .items()
        .iter()
        .map(|item| (item.change, item.field.as_str()))
        .collect();
    assert_eq!(told, [(0, "local"), (2, "link")]);
}

#[test]
fn what_an_item_refers_to_is_told_beside_what_is_wrong_with_itself() {
    let circuit_target = |name: &str| v1::route::Target::Circuit(name.into());
    let changes = vec![
        set(Item::Circuit(with(circuit("c9", 9, 0), |circuit| {
            circuit.vrf = "no".into();
            circuit.link = "no".into();
        }))),
        set(route("no", "10.9.0.1/16", circuit_target("no"))),
        set(Item::Link(with(link("l9"), |link| {
            link.local.clear();
            link.port = "hosts".into();
        }))),
        set(Item::Port(with(port("p", "no"), |port| port.mtu = 1))),
        set(egress("no", 0, "no")),
        set(Item::Group(v1::Group {
            name: "g".into(),
            members: vec![v1::Member {
                target: Some(v1::member::Target::Via(via("under", ""))),
                weight: Some(0),
            }],
        })),
        set(Item::Key(with(
            key(circuit_owner("no"), AToB, 1, 9),
            |key| key.suite = 99,
        ))),
        set(transmit_link("no", 0)),
        // Its secret is the node's, which has no such key.
        set(Item::Key(with(key(link_owner("no"), AToB, 1, 9), |key| {
            key.secret.clear()
        }))),
        // Named by one that makes no sense either: that cannot be judged.
        set(Item::Circuit(circuit("broken", 0, 1))),
        set(route("red", "10.9.0.1/16", circuit_target("broken"))),
    ];
    let refused = try_apply(&edge(), changes).err().expect("all is wrong");
    let mut told: Vec<_> = refused
        .items()
        .iter()
        .filter(|it| it.code() != v1::RefusalCode::Invalid)
        .map(|it| (it.change, it.item.as_str(), it.field.as_str(), it.code()))
        .collect();
    told.sort_unstable();
    use v1::RefusalCode::{NotFound, SecretNeeded, WrongKind};
    assert_eq!(
        told,
        [
            (0, "circuit \"c9\"", "link", NotFound),
            (0, "circuit \"c9\"", "vrf", NotFound),
            (1, "route 10.9.0.1/16 in vrf \"no\"", "circuit", NotFound),
            (1, "route 10.9.0.1/16 in vrf \"no\"", "vrf", NotFound),
            (2, "link \"l9\"", "port", WrongKind),
            (3, "port \"p\"", "vrf", NotFound),
            (4, "label 0 on link \"no\"", "egress.circuit", NotFound),
            (4, "label 0 on link \"no\"", "link", NotFound),
            (5, "group \"g\"", "members[0].via.port", WrongKind),
            (
                6,
                "key of circuit \"no\", a-to-b, epoch 1",
                "circuit",
                NotFound
            ),
            (7, "transmit of link \"no\"", "link", NotFound),
            (8, "key of link \"no\", a-to-b, epoch 1", "link", NotFound),
            (
                8,
                "key of link \"no\", a-to-b, epoch 1",
                "secret",
                SecretNeeded
            ),
        ],
        "{refused}"
    );
}
