//! What fits, and what is told of what does not.

use twinseal_api::v1::{self, item::Item};

use super::compile::{Bench, open};
use super::*;
use crate::mtu::{Families, concerned, of_taps, warnings};
use twinseal_fib::LinkIndex;
use twinseal_model::state::{Name, VrfName};

fn red() -> VrfName {
    Name::new("red").expect("a name")
}

/// What is told if the underlay's MTU is this.
fn told(bench: &Bench, mtu: u16) -> Vec<String> {
    let mut ports = open(&bench.state);
    ports.values_mut().for_each(|port| port.mtu = mtu);
    let found = bench.look(&ports, warnings).into_iter();
    let sentences =
        found.flat_map(|(item, told)| told.into_iter().map(move |it| format!("{item}: {it}")));
    sentences.collect()
}

#[test]
fn an_inner_mtu_too_small_for_what_is_routed_is_told() {
    let mut bench = Bench::new();
    // Around an inner packet over IPv4 there are 92 bytes.
    assert!(told(&bench, 1372).is_empty());
    let small = told(&bench, 1371);
    assert_eq!(small.len(), 1);
    let warning = small.first().expect("one");
    for part in [
        "link \"l1\"",
        "1279 bytes",
        "too small for IPv6",
        "vrf \"red\"",
        "1280",
        "from 1371 to 1372",
    ] {
        assert!(warning.contains(part), "{part}: {warning}");
    }
    assert_eq!(told(&bench, 667).len(), 2, "for IPv4 too");
    assert_eq!(told(&bench, 668).len(), 1);
    // What is not routed needs nothing.
    let gone = v1::RouteRef {
        vrf: "red".into(),
        prefix: "2001:db8::/32".into(),
    };
    bench.change(vec![delete(v1::item_ref::Item::Route(gone))]);
    assert!(told(&bench, 1371).is_empty());
    assert_eq!(told(&bench, 667).len(), 1);
}

#[test]
fn the_inner_mtu_is_what_the_tables_have() {
    let mut bench = Bench::new();
    let link = Name::new("l1").expect("a name");
    for remote in [["192.0.2.1", "192.0.2.2"], ["2001:db8::1", "2001:db8::2"]] {
        bench.apply([Item::Link(v1::Link {
            local: remote[0].into(),
            remote: remote[1].into(),
            ..super::link("l1")
        })]);
        let told = bench.look(&open(&bench.state), |from| from.inner_mtu(&link));
        let tables = bench.compile();
        assert_eq!(told, Some(tables.link(LinkIndex(0)).inner_mtu()));
    }
}

#[test]
fn taps_have_what_fits_every_circuit_of_their_vrf() {
    let mut bench = Bench::new();
    let tap = v1::port::Device::Tap(v1::Tap {
        netdev: "tap0".into(),
    });
    bench.apply([
        vrf("blue"),
        Item::Port(v1::Port {
            device: Some(tap),
            ..port("t0", "red")
        }),
        Item::Port(port("narrow", "")),
        Item::Link(v1::Link {
            port: "narrow".into(),
            ..super::link("l2")
        }),
    ]);
    let taps = |bench: &Bench, mtu: u16| {
        let mut ports = open(&bench.state);
        for (_, port) in ports
            .iter_mut()
            .filter(|(name, _)| name.as_str() == "narrow")
        {
            port.mtu = mtu;
        }
        let taps = bench.look(&ports, of_taps);
        taps.values().copied().collect::<Vec<_>>()
    };
    assert_eq!(
        taps(&bench, 1400),
        [1408],
        "no circuit of its VRF leads there"
    );
    let second = v1::Circuit {
        link: "l2".into(),
        ..circuit("c2", 8, 101)
    };
    bench.apply([Item::Circuit(v1::Circuit {
        vrf: "blue".into(),
        ..second.clone()
    })]);
    assert_eq!(taps(&bench, 1400), [1408]);
    bench.change(vec![delete(v1::item_ref::Item::Circuit("c2".into()))]);
    bench.apply([Item::Circuit(second)]);
    assert_eq!(taps(&bench, 1400), [1308]);
    assert_eq!(
        taps(&bench, 1300),
        [1280],
        "with less the kernel takes IPv6 off"
    );
    let gone = v1::RouteRef {
        vrf: "red".into(),
        prefix: "2001:db8::/32".into(),
    };
    bench.change(vec![delete(v1::item_ref::Item::Route(gone))]);
    assert_eq!(taps(&bench, 1300), [1208]);
}

#[test]
fn transactions_that_change_no_family_of_routes_look_at_nothing() {
    let bench = Bench::new();
    let both = Families { v4: true, v6: true };
    assert_eq!(Families::of(&bench.state, &red()), both);
    let blackhole = || v1::route::Target::Blackhole(v1::Blackhole {});
    let after = |changes| {
        let outcome = super::apply(&bench.state, changes);
        concerned(&bench.state, &outcome.state, &outcome.touched)
    };
    assert!(!after(sets([route("red", "10.9.0.0/16", blackhole())])));
    assert!(!after(sets([route("red", "2001:db8:9::/48", blackhole())])));
    let last = v1::RouteRef {
        vrf: "red".into(),
        prefix: "2001:db8::/32".into(),
    };
    assert!(after(vec![delete(v1::item_ref::Item::Route(last))]));
    assert!(after(sets([Item::Circuit(circuit("c2", 8, 101))])));
}
