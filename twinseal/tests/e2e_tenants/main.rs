//! Two tenants on one path, whose hosts have the same addresses: nothing of one ever reaches the other.
//!
//! "blue" is the demo's. "red" has hosts of its own behind a second edge port of each edge, a VRF and a circuit with its
//! own keys; both circuits take the same links.

#[path = "../common/mod.rs"]
mod common;
mod disguised;
mod floods;
mod neighbours;
mod network;

use std::time::{Duration, Instant};

use common::{FAMILIES, HOSTS, PATIENCE};
use network::{RED, RED_MARKER, TENANTS, TO_B, Tenant, Tenants, delete, label_item, swap, via};
use twinseal_api::v1::{self, item::Item};
use twinseal_lab::capture::{Capture, Captured};
use twinseal_lab::traffic::{Load, Marker, Until};
use twinseal_lab::{IpNet, PingConfig, Route};
use twinseal_testbed::items::set;
use twinseal_testbed::plan::{CIRCUIT, EAST, Host, Router, Underlay, WEST};

#[test]
fn tenants_with_the_same_addresses_never_mix() {
    let Some(tenants) = Tenants::start() else {
        return;
    };
    let captures = tenants.listen();
    for tenant in TENANTS {
        for v6 in FAMILIES {
            for from in HOSTS {
                let result = tenants.ping(tenant, from, v6);
                assert!(result.all_answered(), "{tenant:?} from {from:?}: {result}");
            }
        }
    }
    // Both at once, each way: IPv4 from A to B, IPv6 back.
    let mut running = Vec::new();
    for tenant in TENANTS {
        for (from, v6) in [(Host::A, false), (Host::B, true)] {
            let receiver = tenants.receive(tenant, from.other(), v6);
            let sending = tenants.sender(tenant, from, v6).start(load(tenant, 1_000));
            running.push((tenant, receiver, sending));
        }
    }
    for (tenant, receiver, sending) in running {
        let sent = sending.join().expect("the load was sent");
        receiver.wait_for(sent.packets, Duration::from_secs(2));
        let summary = receiver.stop().expect("a tally").summary(&sent);
        assert!(summary.is_perfect(), "{tenant:?}: {summary:?}");
        assert_eq!(summary.foreign, 0, "{tenant:?} received what is another's");
    }
    for (tenant, captured) in captures.into_iter().map(stop) {
        assert!(captured.contains(&tenant.marker()), "{tenant:?}'s own");
        assert!(
            !captured.contains(&tenant.other().marker()),
            "to {tenant:?}"
        );
    }
    tenants.path.finish();
}

#[test]
fn a_route_that_one_tenant_lacks_is_not_borrowed_from_the_other() {
    let Some(mut tenants) = Tenants::start() else {
        return;
    };
    for (router, reason) in [(Router::EdgeA, "into"), (Router::EdgeB, "out of")] {
        let dropped = tenants.path.dropped(router, "no_route");
        let to_b = |target| {
            set(Item::Route(v1::Route {
                vrf: RED.into(),
                prefix: Host::B.prefix(false),
                target: Some(target),
            }))
        };
        let route = v1::item_ref::Item::Route(v1::RouteRef {
            vrf: RED.into(),
            prefix: Host::B.prefix(false),
        });
        tenants.apply(router, vec![delete(route)]);
        let captures = tenants.listen();
        let blue = tenants.receive(Tenant::Blue, Host::B, false);
        let mut sender = tenants.sender(Tenant::Red, Host::A, false);
        let sent = sender.send(&load(Tenant::Red, 50)).expect("sent");
        wait_until(|| tenants.path.dropped(router, "no_route") >= dropped + sent.packets);
        let result = tenants.ping(Tenant::Red, Host::A, false);
        assert_eq!(result.received, 0, "the route {reason} the circuit is gone");
        // RFC 792: network unreachable, from the router where the route is missing.
        assert!(
            result
                .errors
                .iter()
                .any(|error| (error.kind, error.code) == (3, 0))
        );
        let dropped = tenants.path.dropped(router, "no_route") - dropped;
        assert_eq!(dropped, sent.packets + u64::from(result.sent));
        for v6 in FAMILIES {
            let result = tenants.ping(Tenant::Blue, Host::A, v6);
            assert!(result.all_answered(), "blue has its route: {result}");
        }
        let tally = blue.stop().expect("a tally");
        assert_eq!(tally.received(), 0);
        for (tenant, captured) in captures.into_iter().map(stop) {
            let heard = captured.contains(&RED_MARKER);
            assert!(
                tenant == Tenant::Red || !heard,
                "blue's host saw red's packets"
            );
        }
        // Its own route again, and all is well.
        let target = match router {
            Router::EdgeA => v1::route::Target::Circuit(RED.into()),
            _ => via(),
        };
        tenants.apply(router, vec![to_b(target)]);
        let result = tenants.ping(Tenant::Red, Host::A, false);
        assert!(result.all_answered(), "{result}");
    }
    tenants.path.finish();
}

/// A transit node that mixes circuits up, by mistake or on purpose, delivers nothing to the wrong tenant: under blue's
/// label red's packets meet blue's key.
#[test]
fn a_tenants_packets_do_not_open_under_the_others_label() {
    let Some(mut tenants) = Tenants::start() else {
        return;
    };
    let blue_label = tenants.label(Router::EdgeB, CIRCUIT);
    let lead_to = |label| label_item(WEST, TO_B[0], swap(EAST, label));
    tenants.apply(Router::Transit, vec![lead_to(blue_label)]);
    let captures = tenants.listen();
    let mut sender = tenants.sender(Tenant::Red, Host::A, false);
    let sent = sender.send(&load(Tenant::Red, 50)).expect("sent");
    let reason = "circuit_authentication";
    wait_until(|| tenants.path.dropped(Router::EdgeB, reason) >= sent.packets);
    let result = tenants.ping(Tenant::Red, Host::A, false);
    assert_eq!((result.received, result.errors.len()), (0, 0), "{result}");
    assert_eq!(
        tenants.path.dropped(Router::EdgeB, reason),
        sent.packets + u64::from(result.sent)
    );
    let result = tenants.ping(Tenant::Blue, Host::A, false);
    assert!(result.all_answered(), "{result}");
    let (mut to_red, mut to_blue) = (0, 0);
    for (tenant, captured) in captures.into_iter().map(stop) {
        let frames = captured.packets.iter();
        let heard = frames.filter(|frame| contains(frame, &RED_MARKER)).count();
        match tenant {
            Tenant::Red => to_red += heard as u64,
            Tenant::Blue => to_blue += heard,
        }
    }
    // At red's host A, which sent them, and nowhere else.
    assert_eq!((to_red, to_blue), (sent.packets, 0));
    tenants.apply(Router::Transit, vec![lead_to(TO_B[1])]);
    let result = tenants.ping(Tenant::Red, Host::A, false);
    assert!(result.all_answered(), "{result}");
    tenants.path.finish();
}

/// What the router has on other devices than the tenant's, on the underlay or for itself, is no address of the tenant's.
#[test]
fn a_routers_addresses_elsewhere_are_where_the_tenants_routes_say() {
    let Some(tenants) = Tenants::start() else {
        return;
    };
    let edge = tenants.path.network.router(Router::EdgeA);
    for v6 in FAMILIES {
        let host_b = Host::B.address(v6);
        edge.add_address("lo", host_b.into()).expect("an address");
    }
    // Of the port itself, and later: when this answers the node knows of the others.
    let own: IpNet = "10.1.0.77/24".parse().expect("an address");
    edge.add_address("edge0", own).expect("an address");
    let host_a = tenants.path.network.host(Host::A);
    let ping = |to| twinseal_lab::ping(host_a, to, &PingConfig::default()).expect("a ping");
    wait_until(|| ping(own.addr()).all_answered());
    for tenant in TENANTS {
        for v6 in FAMILIES {
            let receiver = tenants.receive(tenant, Host::B, v6);
            let mut sender = tenants.sender(tenant, Host::A, v6);
            let sent = sender.send(&load(tenant, 50)).expect("sent");
            receiver.wait_for(sent.packets, Duration::from_secs(2));
            let summary = receiver.stop().expect("a tally").summary(&sent);
            assert!(summary.is_perfect(), "{tenant:?}: {summary:?}");
        }
    }
    // The underlay's has no route.
    let underlay = Underlay::V4.address(Router::EdgeA, WEST).0;
    let by_gateway = Route::to(underlay.into()).via(Host::A.gateway(false));
    host_a.add_route(&by_gateway).expect("a route");
    let result = ping(underlay);
    assert_eq!(result.received, 0, "the router answers on its underlay");
    let errors = result.errors.iter();
    let unreachable = errors.filter(|error| (error.kind, error.code) == (3, 0));
    assert!(unreachable.count() > 0, "{result}");
    tenants.path.finish();
}

fn load(tenant: Tenant, packets: u64) -> Load {
    Load {
        marker: tenant.marker(),
        first_flow: 0,
        flows: 4,
        payload_size: 200,
        pps: 1_000.0,
        until: Until::Count(packets),
    }
}

fn stop((tenant, capture): (Tenant, Capture)) -> (Tenant, Captured) {
    (tenant, capture.stop().expect("a capture"))
}

fn contains(frame: &[u8], marker: &Marker) -> bool {
    frame.windows(marker.len()).any(|window| window == marker)
}

#[track_caller]
fn wait_until(mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < PATIENCE, "it did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}
