//! What a device does not send is counted once: not among what was sent.

mod common;

use common::{Path, options};
use twinseal_api::v1;
use twinseal_lab::Route;
use twinseal_lab::traffic::Until;
use twinseal_testbed::items::{delete, set};
use twinseal_testbed::kernel::netdev;
use twinseal_testbed::plan::{EDGE_PORT, Host, Router, VRF};
use v1::item::Item;
use v1::item_ref::Item as Ref;

/// Of edge A's edge port: packets and bytes sent, and what its socket dropped.
fn sent(path: &mut Path) -> (u64, u64, u64) {
    let stats = path.controller.stats(Router::EdgeA).expect("counters");
    let port = stats.ports.iter().find(|port| port.port == EDGE_PORT);
    let port = port.expect("its counters");
    let dropped = port.sockets.iter().find(|it| it.name == "tx_dropped");
    let dropped = dropped.map_or(0, |counter| counter.value);
    (port.sent_packets, port.sent_bytes, dropped)
}

/// Host B sends so many packets, of which none arrives.
#[track_caller]
fn send_in_vain(path: &Path, packets: u64) {
    let load = path.send(Host::B, false, 1, 500.0, Until::Count(packets));
    let summary = load.finish();
    assert_eq!((summary.sent, summary.received), (packets, 0));
}

#[test]
fn what_a_device_does_not_send_is_counted_once() {
    let Some(mut path) = Path::start(options()) else {
        return;
    };
    // The kernel forgets who is behind a device without carrier.
    let mac = path.network.host(Host::A).mac("eth0").expect("an address");
    let address = Host::A.address(false).to_string();
    let neighbour = v1::Neighbour {
        port: EDGE_PORT.into(),
        address: address.clone(),
        mac: mac.map(|octet| format!("{octet:02x}")).join(":"),
    };
    path.controller
        .apply(Router::EdgeA, vec![set(Item::Neighbour(neighbour))])
        .expect("a neighbour");

    // No carrier: the device drops what it gets.
    let host = path.network.host(Host::A);
    host.set_down("eth0").expect("the cable is pulled");
    path.wait_for_port(EDGE_PORT, |it| !it.up);
    let (packets, bytes, dropped) = sent(&mut path);
    send_in_vain(&path, 100);
    assert_eq!(sent(&mut path), (packets, bytes, dropped + 100));
    let host = path.network.host(Host::A);
    host.set_up("eth0").expect("the cable is back");
    // The kernel has taken that with it.
    let far = Host::B.prefix(false).parse().expect("a prefix");
    let route = Route::to(far).via(Host::A.gateway(false)).dev("eth0");
    host.add_route(&route).expect("a route");
    path.wait_for_port(EDGE_PORT, |it| it.up);
    path.wait_for_ping(Host::B, false);
    let (packets, bytes, dropped) = sent(&mut path);

    // Set down: it takes nothing, and what waits in the ring is gone with the port.
    let router = path.network.router(Router::EdgeA);
    router.set_down(netdev(EDGE_PORT)).expect("it goes down");
    path.wait_for_port(EDGE_PORT, |it| !it.up);
    send_in_vain(&path, 50);
    assert_eq!(sent(&mut path), (packets, bytes, dropped));
    let gone = path.dropped(Router::EdgeA, "port_gone");
    let route = |v6| {
        let (vrf, prefix) = (VRF.into(), Host::A.prefix(v6));
        delete(Ref::Route(v1::RouteRef { vrf, prefix }))
    };
    let neighbour = v1::NeighbourRef {
        port: EDGE_PORT.into(),
        address,
    };
    let changes = vec![
        route(false),
        route(true),
        delete(Ref::Neighbour(neighbour)),
        delete(Ref::Port(EDGE_PORT.into())),
    ];
    path.controller
        .apply(Router::EdgeA, changes)
        .expect("a port goes");
    assert_eq!(path.dropped(Router::EdgeA, "port_gone"), gone + 50);
    assert_eq!(path.dropped(Router::EdgeA, "transmit_full"), 0);
    path.finish();
}
