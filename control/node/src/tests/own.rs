//! The node's own addresses, and members of groups that are down, in compiled tables.

use std::net::IpAddr;

use twinseal_api::v1::{self, item::Item};

use super::compile::{Bench, open, v4};
use super::*;
use crate::compile::{HostAddress, Standing};
use crate::down::Down;
use twinseal_fib::own::Source;
use twinseal_fib::{CircuitIndex, Fib, PortIndex, Target};
use twinseal_model::state::{Hop, Name};
use twinseal_wire::ethernet::Mac;

/// "hosts" is on the first of these devices, "under" on the second; the third is no port.
const HOSTS: u32 = 10;
const UNDER: u32 = 11;
const OTHER: u32 = 12;

fn host(ifindex: u32, address: &str, len: u8) -> HostAddress {
    HostAddress {
        ifindex,
        address: address.parse().expect("an address"),
        len,
    }
}

fn bench(addresses: &[(HostAddress, Standing)]) -> Bench {
    let mut bench = Bench::new();
    bench.addresses.extend(addresses.iter().copied());
    bench
}

fn preferred(addresses: &[HostAddress]) -> Bench {
    let mut bench = Bench::new();
    let all = addresses.iter().map(|it| (*it, Standing::Preferred));
    bench.addresses.extend(all);
    bench
}

fn v6(tables: &Fib, address: &str) -> Option<Target> {
    let address: std::net::Ipv6Addr = address.parse().expect("an address");
    let vrf = &tables.vrfs[0];
    Target::of(tables.tries.lookup(&vrf.routes_v6, address.octets()))
}

/// The VRF's sources of errors.
fn sources(tables: &Fib) -> [Option<String>; 2] {
    let vrf = &tables.vrfs[0];
    [
        vrf.v4.map(|it| it.to_string()),
        vrf.v6.map(|it| it.to_string()),
    ]
}

#[test]
fn packets_to_the_nodes_own_addresses_at_the_vrfs_ports_end_here_and_no_others() {
    let mut bench = preferred(&[
        host(HOSTS, "10.0.0.1", 24),
        host(HOSTS, "2001:db8::1", 64),
        host(HOSTS, "fe80::1", 64),
        host(UNDER, "10.0.0.2", 24),
        host(OTHER, "10.1.0.2", 32),
        host(OTHER, "2001:db8::2", 64),
    ]);
    let tables = bench.compile();
    assert_eq!(v4(&tables, [10, 0, 0, 1]), Some(Target::Own));
    assert_eq!(v6(&tables, "2001:db8::1"), Some(Target::Own));
    for end in [0, 255] {
        assert_eq!(v4(&tables, [10, 0, 0, end]), Some(Target::SubnetEnd));
    }
    // Addresses of the underlay, and of a device of no VRF, are where the tenant's routes say.
    assert!(matches!(
        v4(&tables, [10, 0, 0, 2]),
        Some(Target::NextHop(_))
    ));
    let circuit = Some(Target::Circuit(CircuitIndex(0)));
    assert_eq!(v4(&tables, [10, 1, 0, 2]), circuit);
    assert_eq!(v6(&tables, "2001:db8::2"), Some(Target::Blackhole));
    assert_eq!(
        sources(&tables),
        [Some("10.0.0.1".into()), Some("2001:db8::1".into())]
    );
    let barred = &tables.vrfs[0].barred;
    for (last, is) in [(0, true), (1, true), (2, false), (255, true)] {
        assert_eq!(barred.has_v4([10, 0, 0, last]), is, "{last}");
    }
    bench.addresses.clear();
    let tables = bench.compile();
    for last in [0, 1, 255] {
        assert!(matches!(
            v4(&tables, [10, 0, 0, last]),
            Some(Target::NextHop(_))
        ));
    }
    assert_eq!(sources(&tables), [None, None]);
    assert!(!tables.vrfs[0].barred.has_v4([10, 0, 0, 1]));
}

#[test]
fn a_route_to_an_own_address_waits_until_it_is_none() {
    let mut bench = preferred(&[host(HOSTS, "10.0.0.1", 24)]);
    let to = |target| route("red", "10.0.0.1/32", target);
    bench.apply([to(v1::route::Target::Circuit("c1".into()))]);
    assert_eq!(v4(&bench.compile(), [10, 0, 0, 1]), Some(Target::Own));
    // Another target meanwhile, by a next hop of its own.
    bench.apply([to(v1::route::Target::Via(via("hosts", "10.0.0.77")))]);
    assert_eq!(v4(&bench.compile(), [10, 0, 0, 1]), Some(Target::Own));
    bench.addresses.clear();
    let tables = bench.compile();
    let Some(Target::NextHop(place)) = v4(&tables, [10, 0, 0, 1]) else {
        panic!("not by the next hop");
    };
    let next_hop: IpAddr = "10.0.0.77".parse().expect("an address");
    assert_eq!(
        tables.vias[place.0].address,
        Some(twinseal_wire::ip::mapped(next_hop))
    );
    bench.addresses = preferred(&[host(HOSTS, "10.0.0.1", 24)]).addresses;
    bench.compile();
    let gone = v1::RouteRef {
        vrf: "red".into(),
        prefix: "10.0.0.1/32".into(),
    };
    bench.change(vec![delete(v1::item_ref::Item::Route(gone))]);
    assert_eq!(v4(&bench.compile(), [10, 0, 0, 1]), Some(Target::Own));
    bench.addresses.clear();
    let tables = bench.compile();
    let Some(Target::NextHop(place)) = v4(&tables, [10, 0, 0, 1]) else {
        panic!("not by the subnet's route");
    };
    assert_eq!(tables.vias[place.0].address, None);
}

#[test]
fn only_addresses_that_the_host_may_use_are_sources() {
    let mut bench = bench(&[
        (host(HOSTS, "10.0.0.1", 24), Standing::Duplicate),
        (host(HOSTS, "10.0.0.2", 24), Standing::Preferred),
        (host(HOSTS, "2001:db8::1", 64), Standing::Tentative),
        (host(HOSTS, "2001:db8::2", 64), Standing::Deprecated),
        (host(HOSTS, "2001:db8::3", 64), Standing::Duplicate),
    ]);
    let tables = bench.compile();
    assert_eq!(sources(&tables), [Some("10.0.0.2".into()), None]);
    let port = tables.port(PortIndex(0)).expect("hosts");
    let only = Source {
        address: "10.0.0.2".parse().expect("an address"),
        len: 24,
    };
    assert_eq!(*port.sources, [only]);
    // What another host was found to have is that host's.
    assert!(matches!(
        v4(&tables, [10, 0, 0, 1]),
        Some(Target::NextHop(_))
    ));
    for (address, target) in [
        ("2001:db8::1", Target::Blackhole),
        ("2001:db8::2", Target::Own),
        ("2001:db8::3", Target::Blackhole),
    ] {
        assert_eq!(v6(&tables, address), Some(target), "{address}");
    }
}

#[test]
fn a_taps_addresses_are_its_hosts() {
    let mut bench = preferred(&[host(HOSTS, "10.0.0.1", 24)]);
    let with_tap = |bench: &Bench| {
        let mut ports = open(&bench.state);
        for port in ports.values_mut().filter(|it| it.index == PortIndex(0)) {
            port.peer = Some(Mac([2, 0, 0, 0, 9, 9]));
        }
        ports
    };
    let ports = with_tap(&bench);
    let tables = bench.compile_with(&ports);
    assert!(matches!(
        v4(&tables, [10, 0, 0, 1]),
        Some(Target::NextHop(_))
    ));
    assert_eq!(v4(&tables, [10, 0, 0, 255]), Some(Target::SubnetEnd));
    assert!(tables.vrfs[0].barred.has_v4([10, 0, 0, 1]));
    let port = tables.port(PortIndex(0)).expect("hosts");
    assert!(
        port.sources.is_empty(),
        "the host takes nothing from itself"
    );
    assert_eq!(
        sources(&tables)[0].as_deref(),
        Some("10.0.0.1"),
        "but others do"
    );
    // One that is configured is not the host's, and better than any.
    bench.apply([Item::Port(v1::Port {
        local: vec!["10.0.0.254".into()],
        ..port_of_hosts()
    })]);
    let ports = with_tap(&bench);
    let tables = bench.compile_with(&ports);
    let port = tables.port(PortIndex(0)).expect("hosts");
    assert_eq!(port.sources.len(), 1);
    assert_eq!(v4(&tables, [10, 0, 0, 254]), Some(Target::Own));
    assert_eq!(sources(&tables)[0].as_deref(), Some("10.0.0.254"));
}

fn port_of_hosts() -> v1::Port {
    port("hosts", "red")
}

#[test]
fn configured_addresses_are_own_and_move_with_the_ports_vrf() {
    let mut bench = Bench::new();
    bench.apply([Item::Port(v1::Port {
        local: vec!["192.0.2.99".into(), "2001:db8::99".into()],
        ..port_of_hosts()
    })]);
    let tables = bench.compile();
    assert_eq!(v4(&tables, [192, 0, 2, 99]), Some(Target::Own));
    assert_eq!(v6(&tables, "2001:db8::99"), Some(Target::Own));
    assert!(tables.vrfs[0].barred.has_v4([192, 0, 2, 99]));
    bench.apply([Item::Port(port_of_hosts())]);
    assert_eq!(v4(&bench.compile(), [192, 0, 2, 99]), None);
}

/// Which targets flows of group "g1" take.
fn of_group(tables: &Fib) -> Vec<Target> {
    let Some(Target::Group(group)) = v4(tables, [10, 2, 0, 1]) else {
        panic!("not a group");
    };
    let group = &tables.groups[group.0];
    let mut taken: Vec<_> = (0..256)
        .filter_map(|flow| group.member(flow << 56))
        .collect();
    taken.dedup();
    taken
}

#[test]
fn groups_go_without_the_members_that_are_down() {
    let mut bench = Bench::new();
    let circuit = Hop::Circuit(Name::new("c1").expect("a name"));
    let next_hop = Hop::Via(twinseal_model::state::Via {
        port: Name::new("hosts").expect("a name"),
        address: Some("10.0.0.9".parse().expect("an address")),
    });
    let both = of_group(&bench.compile());
    let [first, last] = both[..] else {
        panic!("{both:?}");
    };
    assert_eq!(first, Target::Circuit(CircuitIndex(0)));
    bench.down = Down::of(std::slice::from_ref(&circuit));
    let tables = bench.compile();
    assert_eq!(of_group(&tables), [last]);
    assert_eq!(tables.vias.count(), 2, "each next hop has its uses still");
    bench.down = Down::of(&[circuit, next_hop]);
    assert_eq!(of_group(&bench.compile()), []);
    bench.down = Down::of(&[]);
    assert_eq!(of_group(&bench.compile()), both);
    // With the group and the routes that lead there its next hops go.
    let gone = [
        v1::item_ref::Item::Group("g1".into()),
        v1::item_ref::Item::Route(v1::RouteRef {
            vrf: "red".into(),
            prefix: "10.2.0.0/16".into(),
        }),
    ];
    bench.change(gone.map(delete).to_vec());
    assert_eq!(bench.compile().vias.count(), 1);
}
