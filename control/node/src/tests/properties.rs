//! Random changes: nothing panics, what is refused changes nothing, and what is accepted compiles.

use std::net::IpAddr;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message;
use twinseal_api::v1::{self, item::Item, item_ref::Item as Ref};

use super::compile::{open, sa_config};
use super::*;
use crate::commit::Cause;
use crate::compile::{Compiler, HostAddress, KernelNeighbours, Sources, Standing};
use crate::confirm::{Pending, Within};
use crate::down::Down;
use crate::keys::Live;
use crate::waiting::Waiting;
use twinseal_model::check::check_whole;
use twinseal_model::owners::By;
use twinseal_model::refusal::Refused;
use twinseal_model::state::{Hop, Name, OwnerName};
use twinseal_model::transaction::Outcome;
use twinseal_model::{items, parse, transaction};

/// Few enough names that references hit, and some that are none.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => prop::sample::select(vec!["a", "b", "red", "under", "hosts", "l1", "c1", "g1"]).prop_map(str::to_owned),
        1 => any::<String>(),
    ]
}

fn address() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec!["192.0.2.1", "192.0.2.2", "10.0.0.9", "2001:db8::1", "::", ""]).prop_map(str::to_owned),
        1 => any::<std::net::IpAddr>().prop_map(|address| address.to_string()),
    ]
}

fn prefix() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => (0u32..8, 0u8..=33).prop_map(|(n, len)| {
            let address = std::net::Ipv4Addr::from(10 << 24 | n << 16);
            format!("{address}/{len}")
        }),
        1 => (any::<std::net::Ipv6Addr>(), any::<u8>()).prop_map(|(address, len)| format!("{address}/{len}")),
    ]
}

fn via() -> impl Strategy<Value = v1::Via> {
    (name(), address()).prop_map(|(port, address)| v1::Via { port, address })
}

fn tags() -> impl Strategy<Value = std::collections::BTreeMap<String, String>> {
    prop_oneof![
        8 => Just(std::collections::BTreeMap::new()),
        1 => prop::collection::btree_map(any::<String>(), any::<String>(), 0..20),
    ]
}

fn small() -> impl Strategy<Value = u32> {
    prop_oneof![8 => 0u32..4, 1 => any::<u32>()]
}

fn item() -> impl Strategy<Value = Item> {
    use v1::{key, label, member, port, route, transmit};
    let device = prop_oneof![
        (name(), -1i32..4, -1i32..4, any::<bool>()).prop_map(|(netdev, bind, xdp, owned)| {
            port::Device::AfXdp(v1::AfXdp {
                netdev,
                bind,
                xdp,
                busy_poll: false,
                owned,
            })
        }),
        name().prop_map(|netdev| port::Device::Tap(v1::Tap { netdev })),
        name().prop_map(|wire| port::Device::Memory(v1::Memory {
            wire,
            mac: "02:00:00:00:00:07".into()
        })),
    ]
    .boxed();
    let action = prop_oneof![
        (name(), small()).prop_map(|(link, label)| label::Action::Swap(v1::Swap { link, label })),
        name().prop_map(|circuit| label::Action::Egress(v1::Egress { circuit })),
    ]
    .boxed();
    let hop = prop_oneof![
        name().prop_map(member::Target::Circuit),
        via().prop_map(member::Target::Via),
    ]
    .boxed();
    let member = (option::weighted(0.9, hop), option::of(small()))
        .prop_map(|(target, weight)| v1::Member { target, weight })
        .boxed();
    let target = prop_oneof![
        name().prop_map(route::Target::Circuit),
        name().prop_map(route::Target::Group),
        via().prop_map(route::Target::Via),
        Just(route::Target::Blackhole(v1::Blackhole {})),
    ]
    .boxed();
    let owner = prop_oneof![
        name().prop_map(key::Owner::Link),
        name().prop_map(key::Owner::Circuit),
    ];
    let transmitter = prop_oneof![
        name().prop_map(transmit::Owner::Link),
        name().prop_map(transmit::Owner::Circuit),
    ];
    let secret = prop_oneof![8 => (0u8..12).prop_map(secret), 1 => vec(any::<u8>(), 0..40)];
    prop_oneof![
        (
            name(),
            -1i32..4,
            prop_oneof![Just(String::new()), name()],
            small(),
            vec(
                prop::sample::select(vec!["10.0.0.9", "10.1.0.0", "2001:db8::1", "fe80::1"]),
                0..3
            ),
            option::weighted(0.9, device),
            prop_oneof![3 => Just(0), 1 => -1i32..4],
        )
            .prop_map(
                |(name, role, vrf, mtu, local, device, checksum)| Item::Port(v1::Port {
                    name,
                    role,
                    vrf,
                    mtu,
                    local: local.into_iter().map(str::to_owned).collect(),
                    device,
                    checksum,
                })
            ),
        name().prop_map(|name| Item::Vrf(v1::Vrf { name })),
        (
            name(),
            -1i32..4,
            name(),
            address(),
            address(),
            small(),
            small(),
            address()
        )
            .prop_map(
                |(name, end, port, local, remote, local_port, remote_port, next_hop)| Item::Link(
                    v1::Link {
                        name,
                        end,
                        port,
                        local,
                        remote,
                        local_port,
                        remote_port,
                        next_hop
                    }
                )
            ),
        (
            (name(), 0u64..4, 0i32..4, name(), name(), small()),
            (0u32..300, -1i32..4, 0u32..70, tags())
        )
            .prop_map(
                |((name, id, end, vrf, link, label), (hop_limit, dscp, dscp_value, tags))| {
                    Item::Circuit(v1::Circuit {
                        name,
                        id,
                        end,
                        vrf,
                        link,
                        label,
                        hop_limit,
                        dscp,
                        dscp_value,
                        tags,
                    })
                }
            ),
        (name(), small(), option::weighted(0.9, action)).prop_map(|(link, label, action)| {
            Item::Label(v1::Label {
                link,
                label,
                action,
            })
        }),
        (name(), vec(member, 0..4))
            .prop_map(|(name, members)| Item::Group(v1::Group { name, members })),
        (name(), prefix(), option::weighted(0.9, target)).prop_map(|(vrf, prefix, target)| {
            Item::Route(v1::Route {
                vrf,
                prefix,
                target,
            })
        }),
        (name(), address()).prop_map(|(port, address)| Item::Neighbour(v1::Neighbour {
            port,
            address,
            mac: "02:00:00:00:00:09".into()
        })),
        (
            option::weighted(0.9, owner),
            0i32..4,
            small(),
            -1i32..5,
            secret,
            small()
        )
            .prop_map(
                |(owner, direction, epoch, suite, secret, receiver_index)| Item::Key(v1::Key {
                    owner,
                    direction,
                    epoch,
                    suite,
                    secret,
                    receiver_index,
                    ..Default::default()
                })
            ),
        (option::weighted(0.9, transmitter), small())
            .prop_map(|(owner, epoch)| Item::Transmit(v1::Transmit { owner, epoch })),
    ]
}

fn reference() -> impl Strategy<Value = Ref> {
    use v1::key_ref;
    let owner = prop_oneof![
        name().prop_map(key_ref::Owner::Link),
        name().prop_map(key_ref::Owner::Circuit),
    ];
    prop_oneof![
        name().prop_map(Ref::Port),
        name().prop_map(Ref::Vrf),
        name().prop_map(Ref::Link),
        name().prop_map(Ref::Circuit),
        name().prop_map(Ref::Group),
        (name(), small()).prop_map(|(link, label)| Ref::Label(v1::LabelRef { link, label })),
        (name(), prefix()).prop_map(|(vrf, prefix)| Ref::Route(v1::RouteRef { vrf, prefix })),
        (name(), address())
            .prop_map(|(port, address)| Ref::Neighbour(v1::NeighbourRef { port, address })),
        (option::weighted(0.9, owner), 0i32..4, small()).prop_map(|(owner, direction, epoch)| {
            Ref::Key(v1::KeyRef {
                owner,
                direction,
                epoch,
            })
        }),
    ]
}

fn change() -> impl Strategy<Value = v1::Change> {
    // Without optimisation the trees of values would be copied from one stack frame to the next.
    prop_oneof![4 => item().prop_map(set).boxed(), 1 => reference().prop_map(delete).boxed()]
}

/// Everything that a state promises to the compiler and to the crypto.
fn check_state(compiler: &mut Compiler, state: &State, live: &Live) {
    // What the kernel tells changes meanwhile.
    let turn = state.generation % 3;
    let host = HostAddress {
        ifindex: 10,
        address: IpAddr::from([10, turn as u8, 0, 0]),
        len: 15,
    };
    let circuit = Hop::Circuit(Name::new("c1").expect("a name"));
    let down = Down::of(if turn == 0 {
        &[]
    } else {
        std::slice::from_ref(&circuit)
    });
    let sources = Sources {
        state,
        live,
        ports: &open(state),
        neighbours: &KernelNeighbours::new(),
        addresses: &[(host, Standing::Preferred)].into(),
        down: &down,
    };
    let compile = |compiler: &mut Compiler| {
        let tables = compiler.compile(1, &sources);
        tables.expect("a checked state compiles")
    };
    let tables = compile(compiler);
    assert_eq!(tables.circuits.count(), state.circuits.len());
    // Out of the tables before, or from nothing: the same to every packet.
    let mut anew = Compiler::default();
    compile(&mut anew);
    assert_eq!(compiler.dump(), anew.dump());
    let mut secrets: Vec<_> = state.keys.values().map(|key| key.fingerprint).collect();
    secrets.sort_unstable();
    secrets.dedup();
    assert_eq!(secrets.len(), state.keys.len(), "a secret serves twice");
    for owner in state.transmits.keys() {
        let id = state.transmitting(owner).expect("its owner exists");
        assert!(live.seal(&id).is_some(), "{id} transmits but is not there");
    }
}

fn owner() -> impl Strategy<Value = OwnerName> {
    let names = prop::sample::select(vec!["controller", "a", "b"]);
    names.prop_map(|name| Name::new(name).expect("a name"))
}

/// Each item has one owner and is counted once; what others than `by` have is what it was.
fn check_owners(old: &State, new: &State, by: Option<&OwnerName>) {
    let items = items::all(new);
    for (owner, _, count) in new.owned() {
        let told = owner.told();
        let own = items.iter().filter(|item| item.owner == told).count();
        assert_eq!(own, count, "{owner}");
    }
    for item in by.into_iter().flat_map(|_| items::all(old)) {
        let others = by.is_some_and(|by| item.owner != by.told());
        assert!(!others || items.contains(&item), "{item:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn transactions_apply_whole_or_not_at_all(
        transactions in vec((vec(change(), 0..6), owner(), prop::bool::weighted(0.2)), 1..12),
        populated in any::<bool>(),
    ) {
        let start = if populated { sets(edge_items()) } else { Vec::new() };
        let outcome = apply(&State::default(), start);
        let mut live = Live::default().next(&outcome.state, &outcome.secrets, &sa_config()).expect("sound");
        let mut state = outcome.state;
        let mut compiler = Compiler::default();
        for (changes, owner, take_over) in transactions {
            let before = state.clone();
            let by = By { owner: owner.clone(), take_over };
            match transaction::apply(&state, parse::changes_by(by, changes)) {
                Err(refused) => {
                    prop_assert!(!refused.items().is_empty());
                    prop_assert_eq!(&before, &state);
                }
                Ok(outcome) => {
                    prop_assert_eq!(outcome.state.generation, before.generation + 1);
                    live = live.next(&outcome.state, &outcome.secrets, &sa_config()).expect("sound");
                    state = outcome.state;
                    // Only what changed was looked at, but all of it must be sound.
                    let mut wrong = Refused::default();
                    check_whole(&state, &mut wrong);
                    prop_assert!(wrong.is_empty(), "{wrong}");
                    check_state(&mut compiler, &state, &live);
                    check_owners(&before, &state, (!take_over).then_some(&owner));
                }
            }
        }
    }

    #[test]
    fn what_waits_stays_or_goes_in_any_order(
        steps in vec((owner(), 0..5, vec(change(), 0..5)), 1..20),
    ) {
        let outcome = apply(&State::default(), sets(edge_items()));
        let mut live = Live::default().next(&outcome.state, &outcome.secrets, &sa_config()).expect("sound");
        let mut state = outcome.state;
        let mut compiler = Compiler::default();
        let mut waiting = Waiting::default();
        let within = Within::new(600).expect("ten minutes").expect("not 0");
        for (owner, what, changes) in steps {
            match what {
                0 => if let Some(pending) = waiting.take(&owner) {
                    waiting.settle(&state, &pending.touched);
                },
                1 => if let Some(pending) = waiting.take(&owner) {
                    let back = Outcome::back(&state, pending.state, pending.touched, &owner);
                    live = pending.live.next(&back.state, &back.secrets, &sa_config()).expect("sound");
                    state = back.state;
                    waiting.follow(&owner, true, &state, &live, &back.touched);
                },
                _ => {
                    let stays = what == 2;
                    let by = By { owner: owner.clone(), take_over: false };
                    let (outcome, mut refused) = transaction::judge(&state, parse::changes_by(by, changes));
                    waiting.check(&owner, stays, &outcome, &mut refused);
                    if !refused.is_empty() || (stays && waiting.of(&owner).is_some()) {
                        continue;
                    }
                    let before = Pending::new(state.clone(), live.clone(), within);
                    let before = waiting.of(&owner).is_none().then_some(before);
                    live = live.next(&outcome.state, &outcome.secrets, &sa_config()).expect("sound");
                    let old = std::mem::replace(&mut state, outcome.state);
                    waiting.follow(&owner, stays, &state, &live, &outcome.touched);
                    if !stays && let Some(pending) = waiting.begin(&owner, &old, before) {
                        pending.extend(state.generation, outcome.touched, within, Cause::Apply);
                    }
                }
            }
            check_state(&mut compiler, &state, &live);
            let back = waiting.iter().map(|(_, pending)| &pending.state);
            for state in back.chain([waiting.settled(&state), &state]) {
                let mut wrong = Refused::default();
                check_whole(state, &mut wrong);
                prop_assert!(wrong.is_empty(), "{wrong}");
                check_owners(state, state, None);
            }
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes in vec(any::<u8>(), 0..200)) {
        twinseal_model::fuzz_decode(&bytes);
    }

    #[test]
    fn any_request_is_survived(changes in vec(change(), 0..30)) {
        let request = v1::ApplyRequest { changes, ..Default::default() };
        twinseal_model::fuzz_decode(&request.encode_to_vec());
    }
}
