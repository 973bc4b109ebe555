//! What is told of who has an index, and since when.

use twinseal_api::v1::item_ref::Item as Ref;

use super::compile::Bench;
use super::*;
use crate::compile::Wanted;
use twinseal_api::v1::item::Item;
use twinseal_fib::{Fib, PortIndex};
use twinseal_model::state::VrfName;

/// The life of the port "spare".
fn spare(tables: &Fib) -> u64 {
    tables.port(PortIndex(1)).expect("spare").since
}

#[test]
fn a_port_lives_as_long_as_its_vrf_is_the_same() {
    let mut bench = Bench::new();
    bench.apply([Item::Port(port("spare", "red")), vrf("blue")]);
    assert_eq!(spare(&bench.compile_at(5)), 5);
    // What leads there is no part of it.
    let by_spare = v1::route::Target::Via(via("spare", ""));
    bench.apply([route("red", "10.7.0.0/16", by_spare)]);
    assert_eq!(spare(&bench.compile_at(6)), 5);
    let prefix = "10.7.0.0/16".into();
    let vrf = "red".into();
    let mut moved = vec![delete(Ref::Route(v1::RouteRef { vrf, prefix }))];
    moved.extend(sets([Item::Port(port("spare", "blue"))]));
    bench.change(moved);
    assert_eq!(spare(&bench.compile_at(7)), 7);
    assert_eq!(spare(&bench.compile_at(8)), 7);
    bench.change(vec![delete(Ref::Port("spare".into()))]);
    bench.compile_at(9);
    bench.apply([Item::Port(port("spare", "blue"))]);
    assert_eq!(spare(&bench.compile_at(10)), 10);
}

#[test]
fn a_place_is_told_by_the_name_that_it_had() {
    let mut bench = Bench::new();
    bench.apply([vrf("blue")]);
    bench.compile_at(5);
    let blue = VrfName::new("blue").expect("a name");
    let place = bench.compiler.vrf_index(&blue).expect("a VRF");
    let name = |bench: &Bench, generation| {
        let wanted = Wanted {
            vrfs: [place.0].into(),
            ..Default::default()
        };
        let names = bench.compiler.names(&wanted);
        names.vrf(place, generation).map(ToString::to_string)
    };
    assert_eq!(name(&bench, 5).as_deref(), Some("blue"));
    bench.change(vec![delete(Ref::Vrf("blue".into()))]);
    bench.compile_at(6);
    assert_eq!(name(&bench, 5), None);
    bench.apply([vrf("green")]);
    bench.compile_at(7);
    assert_eq!(name(&bench, 5), None, "that was blue");
    assert_eq!(name(&bench, 7).as_deref(), Some("green"));
}

#[test]
fn every_vrf_with_an_edge_port_has_its_own_budget_of_errors() {
    let mut bench = Bench::new();
    let ports = [("a", "blue"), ("b", "blue"), ("z", "green")];
    let ports = ports.map(|(name, vrf)| Item::Port(port(name, vrf)));
    let vrfs = ["blue", "green", "none"].map(vrf);
    bench.apply(vrfs.into_iter().chain(ports));
    let tables = bench.compile_at(5);
    let place = |name: &str| {
        let name = VrfName::new(name).expect("a name");
        let index = bench.compiler.vrf_index(&name).expect("a VRF");
        tables.vrfs[index.0].errors
    };
    // Ports in the order of their names: a, b, hosts, under, z.
    let own = [("blue", 0), ("red", 2), ("green", 4)];
    for (vrf, port) in own {
        assert_eq!(place(vrf), Some(PortIndex(port)), "{vrf}");
    }
    assert_eq!(place("none"), None);
}
