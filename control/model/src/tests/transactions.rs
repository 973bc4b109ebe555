//! Transactions that are right, and what they come to.

use twinseal_api::v1::{self, Direction::AToB, Direction::BToA, item::Item, item_ref::Item as Ref};

use super::*;
use crate::check::check_whole;
use crate::state::{CircuitName, Key, KeyId, Name, Owner, VrfName};

fn owner(circuit: &str) -> Owner {
    Owner::Circuit(CircuitName::new(circuit).expect("a name"))
}

fn key_id(circuit: &str, direction: twinseal_crypto::Direction, epoch: u32) -> KeyId {
    KeyId {
        owner: owner(circuit),
        direction,
        epoch,
    }
}

#[test]
fn order_is_of_no_importance_but_a_later_change_wins() {
    let mut items = edge_items();
    items.reverse();
    let state = apply(&State::default(), sets(items)).state;
    assert_eq!(state, edge());

    let name = VrfName::new("blue").expect("a name");
    let there = apply(
        &state,
        vec![delete(Ref::Vrf("blue".into())), set(vrf("blue"))],
    );
    assert!(there.state.vrfs.contains_key(&name));
    let gone = apply(
        &state,
        vec![set(vrf("blue")), delete(Ref::Vrf("blue".into()))],
    );
    assert!(!gone.state.vrfs.contains_key(&name));
}

#[test]
fn the_same_again_changes_nothing_but_the_generation() {
    let state = edge();
    let again = apply(&state, sets(edge_items()));
    assert_eq!(again.state.generation, 2);
    assert!(again.secrets.is_empty() && again.starts.is_empty());
    assert!(again.state.keys.same(&state.keys));
    assert!(again.state.routes.same(&state.routes));
    assert_eq!(
        State {
            generation: 1,
            ..again.state
        },
        state
    );
}

#[test]
fn secrets_and_starts_are_handed_over_once() {
    let first = apply(&State::default(), sets(edge_items()));
    assert_eq!(first.secrets.len(), 4);
    let starts: Vec<_> = first.starts.iter().map(|start| &start.key).collect();
    assert_eq!(starts.len(), 2);
    assert_eq!(
        starts[1],
        &key_id("c1", twinseal_crypto::Direction::AToB, 1)
    );

    let rekey = vec![
        set(Item::Key(key(circuit_owner("c1"), AToB, 2, 9))),
        set(Item::Key(key(circuit_owner("c1"), BToA, 2, 10))),
    ];
    let second = apply(&first.state, rekey);
    assert_eq!((second.secrets.len(), second.starts.len()), (2, 0));
    let third = apply(&second.state, vec![set(transmit_circuit("c1", 2))]);
    assert_eq!((third.secrets.len(), third.starts.len()), (0, 1));
    assert_eq!(third.starts[0].key.epoch, 2);
}

#[test]
fn what_lives_together_goes_together() {
    let state = edge();
    let name = |name: &str| name.to_owned();
    let deletions = vec![
        delete(Ref::Circuit(name("c1"))),
        delete(Ref::Label(v1::LabelRef {
            link: name("l1"),
            label: 200,
        })),
        delete(Ref::Group(name("g1"))),
        delete(Ref::Route(v1::RouteRef {
            vrf: name("red"),
            prefix: name("10.1.0.0/16"),
        })),
        delete(Ref::Route(v1::RouteRef {
            vrf: name("red"),
            prefix: name("10.2.0.0/16"),
        })),
    ];
    let outcome = apply(&state, deletions);
    let keys: Vec<_> = outcome
        .state
        .keys
        .keys()
        .map(|id| id.owner.to_string())
        .collect();
    assert_eq!(keys, ["link \"l1\"", "link \"l1\""]);
    assert_eq!(outcome.state.transmits.len(), 1);
    assert!(outcome.state.end(&owner("c1")).is_none());
}

#[test]
fn everything_can_be_deleted_at_once() {
    let state = edge();
    let deletions: Vec<_> = items::all(&state)
        .into_iter()
        .filter_map(|item| match item.item? {
            Item::Port(it) => Some(Ref::Port(it.name)),
            Item::Vrf(it) => Some(Ref::Vrf(it.name)),
            Item::Link(it) => Some(Ref::Link(it.name)),
            Item::Circuit(it) => Some(Ref::Circuit(it.name)),
            Item::Label(it) => Some(Ref::Label(v1::LabelRef {
                link: it.link,
                label: it.label,
            })),
            Item::Group(it) => Some(Ref::Group(it.name)),
            Item::Route(it) => Some(Ref::Route(v1::RouteRef {
                vrf: it.vrf,
                prefix: it.prefix,
            })),
            Item::Neighbour(it) => Some(Ref::Neighbour(v1::NeighbourRef {
                port: it.port,
                address: it.address,
            })),
            Item::Key(_) | Item::Transmit(_) => None,
        })
        .map(delete)
        .collect();
    let outcome = apply(&state, deletions);
    assert_eq!(
        outcome.state,
        State {
            generation: 2,
            ..State::default()
        }
    );
}

#[test]
fn a_transmitting_key_goes_when_another_transmits() {
    let state = edge();
    let changes = vec![
        set(Item::Key(key(circuit_owner("c1"), AToB, 2, 9))),
        set(transmit_circuit("c1", 2)),
        delete(Ref::Key(v1::KeyRef {
            owner: Some(v1::key_ref::Owner::Circuit("c1".into())),
            direction: AToB.into(),
            epoch: 1,
        })),
    ];
    let outcome = apply(&state, changes);
    assert_eq!(outcome.starts.len(), 1);
    assert_eq!(outcome.state.transmits[&owner("c1")], 2);
}

/// After a restart a `Transmit` names a key whose secret is gone: loading it, the same or another, begins to transmit.
#[test]
fn loading_what_a_transmit_names_is_a_start() {
    let mut state = edge();
    let ids: Vec<_> = state.keys.keys().cloned().collect();
    for id in ids {
        let key = Key {
            installed: false,
            ..state.keys[&id].clone()
        };
        state.keys.set(id, key);
    }
    for (n, starts) in [(1, true), (100, true), (2, false)] {
        let direction = if n == 2 { BToA } else { AToB };
        let load = vec![set(Item::Key(key(link_owner("l1"), direction, 1, n)))];
        let outcome = apply(&state, load);
        let started: Vec<_> = outcome.starts.iter().map(|it| it.installed).collect();
        assert_eq!(started, vec![true; usize::from(starts)], "secret {n}");
    }
    // Naming it is none, but is burned all the same, as whoever reads the stored tables takes it for one.
    let more = vec![set(Item::Key(key(link_owner("l1"), AToB, 2, 9)))];
    let mut state = apply(&state, more).state;
    let id = state.keys.keys().find(|id| id.epoch == 2).cloned();
    let id = id.expect("it was set");
    let lost = Key {
        installed: false,
        ..state.keys[&id].clone()
    };
    state.keys.set(id, lost);
    let outcome = apply(&state, vec![set(transmit_link("l1", 2))]);
    assert_eq!(outcome.starts.len(), 1);
    assert!(!outcome.starts[0].installed);
}

#[test]
fn sixteen_epochs_may_be_live() {
    let more = (2..=16).map(|epoch| {
        set(Item::Key(key(
            circuit_owner("c1"),
            BToA,
            epoch,
            100 + epoch as u8,
        )))
    });
    let state = apply(&edge(), more.collect()).state;
    assert_eq!(state.keys.len(), 4 + 15);
    let one_more = vec![set(Item::Key(key(circuit_owner("c1"), BToA, 17, 99)))];
    assert!(try_apply(&state, one_more).is_err());
}

#[test]
fn only_touched_tables_are_copied() {
    let state = edge();
    let blackhole = v1::route::Target::Blackhole(v1::Blackhole {});
    let outcome = apply(&state, vec![set(route("red", "10.9.0.0/16", blackhole))]);
    assert!(!outcome.state.routes.same(&state.routes));
    assert!(outcome.state.circuits.same(&state.circuits));
    assert!(outcome.state.keys.same(&state.keys));
    assert!(outcome.state.ports.same(&state.ports));
}

#[test]
fn a_state_that_no_transaction_made_is_looked_at_as_a_whole() {
    let refused = |spoil: fn(&mut State)| {
        let mut state = edge();
        spoil(&mut state);
        let mut refused = Refused::default();
        check_whole(&state, &mut refused);
        refused.items().iter().map(|it| it.item.clone()).collect()
    };
    let sound: Vec<String> = refused(|_| ());
    assert!(sound.is_empty(), "{sound:?}");
    for (kind, spoil) in [
        (
            "label",
            (|it| it.circuits = Default::default()) as fn(&mut State),
        ),
        ("route", |it| it.circuits = Default::default()),
        ("circuit", |it| it.links = Default::default()),
        ("port", |it| it.vrfs = Default::default()),
        ("circuit", |it| {
            let (name, circuit) = it.circuits.iter().next().expect("a circuit");
            let twin = Name::new(&format!("{name}-twin")).expect("a name");
            let circuit = circuit.clone();
            it.circuits.insert(twin, circuit);
        }),
    ] {
        let items: Vec<String> = refused(spoil);
        assert!(
            items.iter().any(|it| it.starts_with(kind)),
            "{kind}: {items:?}"
        );
    }
}

#[test]
fn what_has_no_sound_name_silences_nothing_else() {
    let route = |prefix: &str, group: &str| {
        set(Item::Route(v1::Route {
            vrf: "red".into(),
            prefix: prefix.into(),
            target: Some(v1::route::Target::Group(group.into())),
        }))
    };
    let changes = vec![
        set(vrf("a b")),
        set(Item::Port(port("", "red"))),
        set(Item::Link(v1::Link {
            name: "l 9".into(),
            port: "x y".into(),
            local: "here".into(),
            ..link("")
        })),
        set(Item::Key(v1::Key {
            epoch: 9,
            secret: vec![1],
            ..Default::default()
        })),
        set(Item::Group(v1::Group {
            name: "g".into(),
            members: vec![v1::Member::default(); 65],
        })),
        route("10.9.0.0/16", "other"),
        // What it may mean cannot be judged.
        route("10.8.0.0/16", "g"),
        set(Item::Transmit(v1::Transmit {
            owner: Some(v1::transmit::Owner::Circuit("c1".into())),
            epoch: 8,
        })),
    ];
    let (_, refused) = transaction::judge(&edge(), parse::changes(changes));
    let mut told: Vec<_> = refused
        .items()
        .iter()
        .map(|item| (item.change, item.field.as_str()))
        .collect();
    told.sort_unstable();
    told.dedup_by_key(|(change, field)| (*change, field.split('[').next().map(str::to_owned)));
    assert_eq!(
        told,
        [
            (0, "name"),
            (1, "memory.wire"),
            (1, "name"),
            (2, "local"),
            (2, "name"),
            (2, "port"),
            (3, "direction"),
            (3, "owner"),
            (3, "secret"),
            (4, "members"),
            (5, "group"),
            (7, "epoch"),
        ],
        "{refused}"
    );
}

#[test]
fn a_member_of_weight_0_takes_no_flows_and_somebody_must() {
    let group = |weights: &[Option<u32>]| {
        let member = |weight: &Option<u32>| v1::Member {
            target: Some(v1::member::Target::Circuit("c1".into())),
            weight: *weight,
        };
        set(Item::Group(v1::Group {
            name: "g".into(),
            members: weights.iter().map(member).collect(),
        }))
    };
    let (outcome, refused) = transaction::judge(
        &edge(),
        parse::changes(vec![group(&[Some(0), None, Some(3)])]),
    );
    assert!(refused.is_empty(), "{refused}");
    let members = outcome.state.groups.values().next().expect("it is there");
    let weights: Vec<_> = members.iter().map(|member| member.weight).collect();
    assert_eq!(weights, [0, 1, 3]);
    let (_, refused) = transaction::judge(&edge(), parse::changes(vec![group(&[Some(0); 2])]));
    assert_eq!(refused.items()[0].field, "members", "{refused}");
}

#[test]
fn only_what_differs_counts_as_a_change() {
    let old = edge();
    let mut changes: Vec<_> = items::all(&old)
        .into_iter()
        .filter_map(|item| item.item)
        .map(set)
        .collect();
    changes.push(set(vrf("new")));
    changes.push(set(Item::Circuit(v1::Circuit {
        hop_limit: 9,
        ..circuit("c1", 7, 102)
    })));
    let counts = try_judge(&old, changes);
    assert_eq!((counts.created, counts.updated, counts.deleted), (1, 1, 0));
    assert_eq!(counts.all(), 2);
}

fn try_judge(old: &State, changes: Vec<v1::Change>) -> crate::diff::Counts {
    let (outcome, refused) = transaction::judge(old, parse::changes(changes));
    assert!(refused.is_empty(), "{refused}");
    outcome.changes.counts
}
