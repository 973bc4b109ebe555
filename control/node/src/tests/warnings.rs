//! What is sound and will hardly do what was meant.

use std::collections::BTreeMap;

use twinseal_api::v1::{self, event::Event as Kind, item::Item};

use super::compile::{Bench, open};
use super::*;
use crate::compile::{HostAddress, OpenPort, Sources, Standing};
use crate::events::{Events, Reader, Start};
use crate::warnings::Warnings;
use twinseal_forward::reason::DropReason;
use twinseal_model::state::PortName;

struct Told {
    bench: Bench,
    warnings: Warnings,
    events: Events,
    reader: Reader,
    ports: BTreeMap<PortName, OpenPort>,
    addresses: BTreeMap<HostAddress, Standing>,
}

impl Told {
    fn new() -> Self {
        let events = Events::new("n", 100);
        let bench = Bench::new();
        Self {
            ports: open(&bench.state),
            bench,
            warnings: Warnings::default(),
            reader: events.log().read(Start::Now, Vec::new()),
            events,
            addresses: BTreeMap::new(),
        }
    }

    /// Gives a device an address.
    fn address(&mut self, ifindex: u32, address: &str) {
        let host = HostAddress {
            ifindex,
            address: address.parse().expect("an address"),
            len: 24,
        };
        self.addresses.insert(host, Standing::Preferred);
    }

    /// Kind and detail of what is told now.
    fn update(&mut self) -> Vec<(String, String)> {
        let sources = Sources {
            state: &self.bench.state,
            live: &self.bench.live,
            ports: &self.ports,
            neighbours: &self.bench.neighbours,
            addresses: &self.addresses,
            down: &Default::default(),
        };
        self.warnings.update(&self.events, &sources);
        let mut told = Vec::new();
        while let Some(event) = self.reader.take() {
            let Some(Kind::Fault(fault)) = event.event else {
                panic!("{event:?}")
            };
            told.push((fault.kind, fault.detail));
        }
        told
    }
}

#[test]
fn an_edge_device_without_an_address_is_told_until_it_has_one() {
    let mut told = Told::new();
    assert_eq!(told.update(), [], "memory ports have no device");
    told.bench.apply([Item::Port(v1::Port {
        device: Some(v1::port::Device::AfXdp(v1::AfXdp {
            netdev: "eth9".into(),
            ..Default::default()
        })),
        ..port("lan", "red")
    })]);
    told.ports = open(&told.bench.state);
    let name = PortName::new("lan").expect("a name");
    let ifindex = told.ports[&name].ifindex.expect("it has one");
    told.address(ifindex, "fe80::1");
    told.address(ifindex + 100, "10.0.0.1");
    let now = told.update();
    assert_eq!(now.len(), 1, "{now:?}");
    assert_eq!(now[0].0, "warning");
    assert!(
        now[0].1.starts_with("port \"lan\": eth9 has no address"),
        "{now:?}"
    );
    assert_eq!(told.update(), [], "told once");
    told.address(ifindex, "10.0.0.1");
    told.address(ifindex, "2001:db8::1");
    let now = told.update();
    assert_eq!(
        (now.len(), now[0].0.as_str()),
        (1, "warning_over"),
        "{now:?}"
    );
}

#[test]
fn an_edge_device_without_an_address_of_a_family_that_is_routed_is_told() {
    let mut told = Told::new();
    let route = |prefix: &str| {
        Item::Route(v1::Route {
            vrf: "blue".into(),
            prefix: prefix.into(),
            target: Some(v1::route::Target::Blackhole(v1::Blackhole {})),
        })
    };
    told.bench.apply([
        Item::Vrf(v1::Vrf {
            name: "blue".into(),
        }),
        Item::Port(v1::Port {
            device: Some(v1::port::Device::AfXdp(v1::AfXdp {
                netdev: "eth9".into(),
                ..Default::default()
            })),
            mtu: 1600,
            ..port("lan", "blue")
        }),
        route("10.0.0.0/8"),
    ]);
    told.ports = open(&told.bench.state);
    let name = PortName::new("lan").expect("a name");
    let ifindex = told.ports[&name].ifindex.expect("it has one");
    told.address(ifindex, "10.0.0.1");
    assert_eq!(told.update(), [], "IPv6 is not routed");
    told.bench.apply([route("2001:db8::/32")]);
    let now = told.update();
    assert_eq!(now.len(), 1, "{now:?}");
    assert!(now[0].1.contains("eth9 has no IPv6 address"), "{now:?}");
    told.address(ifindex, "2001:db8::1");
    assert_eq!(told.update()[0].0, "warning_over");
    told.addresses.retain(|host, _| host.address.is_ipv6());
    let now = told.update();
    assert!(now[0].1.contains("eth9 has no IPv4 address"), "{now:?}");

    // And what hosts may send is no more than the port takes.
    let lan = told.ports.get_mut(&name).expect("it is open");
    (lan.mtu, lan.device_mtu) = (1600, 9000);
    let now = told.update();
    assert_eq!(now.len(), 1, "{now:?}");
    assert!(
        now[0]
            .1
            .contains("its mtu, 1600, is less than the 9000 of eth9"),
        "{now:?}"
    );
}

#[test]
fn a_link_that_carries_less_than_what_is_swapped_to_it_is_told() {
    let mut told = Told::new();
    let other = v1::Link {
        port: "under2".into(),
        local: "198.51.100.1".into(),
        remote: "198.51.100.2".into(),
        ..link("l2")
    };
    let swap = |from: &str, to: &str| {
        Item::Label(v1::Label {
            link: from.into(),
            label: 900,
            action: Some(v1::label::Action::Swap(v1::Swap {
                link: to.into(),
                label: 901,
            })),
        })
    };
    told.bench.apply([
        Item::Port(port("under2", "")),
        Item::Link(other),
        swap("l1", "l2"),
        swap("l2", "l1"),
    ]);
    told.ports = open(&told.bench.state);
    assert_eq!(told.update(), [], "both carry as much");
    let name = PortName::new("under2").expect("a name");
    told.ports.get_mut(&name).expect("it is open").mtu = 1400;
    let now = told.update();
    assert_eq!(now.len(), 1, "{now:?}");
    assert!(now[0].1.starts_with("link \"l2\": it carries"), "{now:?}");
    assert!(
        now[0].1.contains("1372") && now[0].1.contains("1472"),
        "{now:?}"
    );
    told.bench
        .change(vec![delete(v1::item_ref::Item::Label(v1::LabelRef {
            link: "l1".into(),
            label: 900,
        }))]);
    let now = told.update();
    assert_eq!(
        (now.len(), now[0].0.as_str()),
        (1, "warning_over"),
        "{now:?}"
    );
}

#[test]
fn a_circuit_of_which_nothing_can_be_opened_is_told_until_something_is() {
    let mut told = Told::new();
    let circuits = told.bench.live.circuits();
    let (name, traffic) = circuits
        .map(|(name, it)| (name.clone(), it.clone()))
        .next()
        .expect("one");
    let mut total = 0;
    let mut fail = |told: &mut Told, times: u64| {
        for _ in 0..times {
            traffic.dropped(DropReason::CircuitAuthentication as usize);
            total += 1;
            let (state, live) = (&told.bench.state, &told.bench.live);
            told.warnings.unopened(state, live, total);
            // Nothing new is nothing to go by.
            told.warnings.unopened(state, live, total);
        }
        told.update()
    };
    assert_eq!(fail(&mut told, 3), [], "these may be left from before");
    let now = fail(&mut told, 1);
    assert_eq!(now.len(), 1, "{now:?}");
    let (kind, text) = &now[0];
    let start = format!("circuit {name:?}: its packets come and none can be opened");
    assert!(kind == "warning" && text.starts_with(&start), "{now:?}");
    assert!(
        text.contains("end a with id 7") && text.contains("end b"),
        "{text}"
    );
    assert_eq!(fail(&mut told, 3), [], "told once");
    traffic.received(0, 1, 100);
    let now = told.update();
    assert_eq!(
        (now.len(), now[0].0.as_str()),
        (1, "warning_over"),
        "{now:?}"
    );
    // Later it is mended here.
    assert_eq!(fail(&mut told, 4).len(), 1);
    let circuit = told
        .bench
        .state
        .circuits
        .get(&name)
        .expect("it is there")
        .clone();
    let end = twinseal_model::state::End::B;
    let circuit = twinseal_model::state::Circuit { end, ..circuit };
    told.bench.state.circuits.set(name, circuit);
    let now = told.update();
    assert_eq!(
        (now.len(), now[0].0.as_str()),
        (1, "warning_over"),
        "{now:?}"
    );
}

#[test]
fn a_far_end_that_is_the_same_end_is_told() {
    let mut told = Told::new();
    let state = &told.bench.state;
    let of = |seals| {
        let mut keys = state
            .keys
            .iter()
            .filter(|(id, key)| key.receiver_index != 0 && state.seals(id) == Some(seals));
        keys.next().expect("there is one").1.receiver_index
    };
    let (ours, theirs) = (of(true), of(false));
    let live = &told.bench.live;
    told.warnings
        .unknown_receivers(state, live, &[0, theirs, 0x7777]);
    assert_eq!(told.update(), [], "these say nothing");
    let (state, live) = (&told.bench.state, &told.bench.live);
    told.warnings.unknown_receivers(state, live, &[0, ours]);
    let now = told.update();
    assert_eq!(now.len(), 1, "{now:?}");
    assert!(
        now[0]
            .1
            .contains("one node must be end a and the other end b"),
        "{now:?}"
    );
    // It is mended here.
    let (name, link) = told.bench.state.links.iter().next().expect("it is there");
    let (name, link) = (name.clone(), link.clone());
    let end = twinseal_model::state::End::B;
    told.bench
        .state
        .links
        .set(name, twinseal_model::state::Link { end, ..link });
    let now = told.update();
    assert_eq!(
        (now.len(), now[0].0.as_str()),
        (1, "warning_over"),
        "{now:?}"
    );
}
