//! A router's own host: its traffic through a TAP, and its neighbour table.

mod common;

use std::net::IpAddr;
use std::time::Duration;

use common::{FAMILIES, PATIENCE, Path, lab_available, options};
use twinseal::cli::demo::kernel::{Network, netdev};
use twinseal::cli::demo::plan::{Devices, EDGE_PORT, Host, Router, Underlay, WEST};
use twinseal_api::v1;
use twinseal_lab::traffic::Until;
use twinseal_lab::{PingConfig, Route, ping};

/// As the demo's network, but edge A faces its own host by a TAP.
struct WithTap<'a>(&'a Network);

const TAP: &str = "tap0";
/// The router's own addresses at it.
const OWN: [&str; 2] = ["10.1.0.9", "2001:db8:1::9"];

impl Devices for WithTap<'_> {
    fn device(&self, router: Router, port: &str) -> v1::port::Device {
        match (router, port) {
            (Router::EdgeA, EDGE_PORT) => v1::port::Device::Tap(v1::Tap { netdev: TAP.into() }),
            _ => self.0.device(router, port),
        }
    }
}

#[test]
fn a_routers_own_traffic_passes_by_a_tap() {
    if lab_available() && !std::path::Path::new("/dev/net/tun").exists() {
        eprintln!("SKIPPED: there is no /dev/net/tun; load the module tun");
        return;
    }
    let Some(mut path) = Path::without_tables(options()) else {
        return;
    };
    path.controller
        .start(&path.plan, &WithTap(&path.network))
        .expect("tables and keys are taken");
    path.controller.wait_for_links(PATIENCE).expect("links up");
    let router = path.network.router(Router::EdgeA);
    for v6 in FAMILIES {
        let own: IpAddr = OWN[usize::from(v6)].parse().expect("an address");
        router
            .add_address(TAP, own.into())
            .expect("the TAP's address");
        let far = Host::B.prefix(v6).parse().expect("a prefix");
        router
            .add_route(&Route::to(far).dev(TAP))
            .expect("a route into the TAP");
    }
    for v6 in FAMILIES {
        let to = Host::B.address(v6);
        let begin = std::time::Instant::now();
        // The first may be lost while edge B resolves its host.
        while !ping(router, to, &few()).expect("a ping").all_answered() {
            assert!(begin.elapsed() < PATIENCE, "{to} does not answer");
        }
        for size in [12, 500, 1300] {
            let config = PingConfig {
                size,
                ..PingConfig::default()
            };
            let result = ping(router, to, &config).expect("a ping");
            assert!(
                result.all_answered() && result.damaged == 0,
                "{to}: {result}"
            );
        }
    }
    for own in OWN {
        let own = own.parse().expect("an address");
        let result = ping(path.network.host(Host::B), own, &PingConfig::default());
        assert!(result.expect("a ping").all_answered(), "{own}");
    }
    let stats = path.controller.stats(Router::EdgeA).expect("counters");
    let tap = stats.ports.iter().find(|port| port.port == EDGE_PORT);
    let tap = tap.expect("the TAP's counters");
    assert!(
        tap.received_packets >= 30 && tap.sent_packets >= 30,
        "{tap:?}"
    );
    assert!(path.network.stop_daemon(Router::EdgeA).expect("it stops"));
    let router = path.network.router(Router::EdgeA);
    assert!(
        router.interface(TAP).is_err(),
        "the TAP goes with the daemon"
    );
    path.network
        .start_daemon(Router::EdgeA)
        .expect("it starts again");
    path.finish();
}

/// The host behind a TAP is the router's own, which takes no IPv4 packet from an address of its own.
#[test]
fn a_taps_host_sends_what_fits_and_hears_of_errors() {
    if lab_available() && !std::path::Path::new("/dev/net/tun").exists() {
        eprintln!("SKIPPED: there is no /dev/net/tun; load the module tun");
        return;
    }
    let Some(mut path) = Path::without_tables(options()) else {
        return;
    };
    path.controller
        .start(&path.plan, &WithTap(&path.network))
        .expect("tables and keys are taken");
    path.controller.wait_for_links(PATIENCE).expect("links up");
    let router = path.network.router(Router::EdgeA);
    let mtu = || router.interface(TAP).expect("the TAP").mtu;
    assert_eq!(mtu(), 1408, "what fits the circuit");
    for v6 in FAMILIES {
        let own: IpAddr = OWN[usize::from(v6)].parse().expect("an address");
        router
            .add_address(TAP, own.into())
            .expect("the TAP's address");
        let far = Host::B.prefix(v6).parse().expect("a prefix");
        router
            .add_route(&Route::to(far).dev(TAP))
            .expect("a route into the TAP");
    }
    let begin = std::time::Instant::now();
    for v6 in FAMILIES {
        while !ping(router, Host::B.address(v6), &few())
            .expect("a ping")
            .all_answered()
        {
            assert!(begin.elapsed() < PATIENCE, "the host does not answer");
        }
    }
    // Traced, by an address that nobody has; IPv6 takes the router's own.
    for v6 in FAMILIES {
        let last_hop = PingConfig {
            ttl: Some(1),
            ..few()
        };
        let result = ping(router, Host::B.address(v6), &last_hop).expect("a ping");
        let from = match v6 {
            false => "192.0.0.8".parse().expect("an address"),
            true => OWN[1].parse().expect("an address"),
        };
        assert!(
            !result.errors.is_empty(),
            "no hop for IPv{}",
            if v6 { 6 } else { 4 }
        );
        for error in result.errors {
            assert_eq!((error.from, error.kind), (from, if v6 { 3 } else { 11 }));
        }
    }
    // By hand it is larger than fits, and the kernel lets in only what comes from where it sends to.
    router.set_mtu(TAP, 1500).expect("an MTU");
    for scope in ["all", TAP] {
        let path = format!("net/ipv4/conf/{scope}/rp_filter");
        router.sysctl(&path, "1").expect("a strict kernel");
    }
    for v6 in FAMILIES {
        let large = PingConfig {
            count: 1,
            size: 1450 - if v6 { 48 } else { 28 },
            dont_fragment: true,
            ..few()
        };
        let result = ping(router, Host::B.address(v6), &large).expect("a ping");
        let told = result.errors.iter().any(|error| error.mtu == 1408);
        assert!(told, "IPv{}: {result}", if v6 { 6 } else { 4 });
    }
    path.finish();
}

fn few() -> PingConfig {
    PingConfig {
        count: 2,
        timeout: Duration::from_millis(500),
        ..PingConfig::default()
    }
}

#[test]
fn an_operators_permanent_neighbour_stays_so() {
    let Some(mut path) = Path::start(options()) else {
        return;
    };
    let (edge, transit) = (
        path.network.router(Router::EdgeA),
        path.network.router(Router::Transit),
    );
    // As on an underlay without ARP: transit answers none, and edge A's kernel has been told its address.
    let mac = transit.mac(netdev(WEST)).expect("transit's address");
    let address = Underlay::V4.address(Router::Transit, WEST).0;
    edge.set_neighbour(netdev(WEST), address, mac)
        .expect("a permanent neighbour");
    transit
        .sysctl(&format!("net/ipv4/conf/{}/arp_ignore", netdev(WEST)), "8")
        .expect("a transit router that answers no ARP");
    // Longer than it takes the daemon to see to its neighbours again (10 s) and the kernel to give one up (3 s).
    let until = Until::Elapsed(Duration::from_secs(15));
    let load = path.send(Host::A, false, 1, 100.0, until);
    let summary = load.finish();
    path.assert_perfect(&summary);
    path.finish();
}
