//! A router's own host: its traffic through a TAP, its neighbour table, and what becomes of its devices.

mod common;

use std::net::IpAddr;
use std::time::Duration;

use common::{FAMILIES, PATIENCE, Path, lab_available, logs, options};
use twinseal_api::v1;
use twinseal_lab::traffic::Until;
use twinseal_lab::{Namespace, PingConfig, Route, VethConfig, ping};
use twinseal_testbed::items::set;
use twinseal_testbed::kernel::{Network, netdev};
use twinseal_testbed::plan::{CIRCUIT, Devices, EDGE_PORT, Host, Router, Underlay, VRF, WEST};
use v1::item::Item;

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
    // It follows the underlay's, but not below what IPv6 needs; the kernel lets in only what comes from where it sends to.
    router.set_mtu(netdev(WEST), 1300).expect("an MTU");
    let begin = std::time::Instant::now();
    while mtu() != 1280 {
        assert!(begin.elapsed() < PATIENCE, "the TAP's MTU is {}", mtu());
        std::thread::sleep(Duration::from_millis(5));
    }
    for scope in ["all", TAP] {
        let path = format!("net/ipv4/conf/{scope}/rp_filter");
        router.sysctl(&path, "1").expect("a strict kernel");
    }
    let large = PingConfig {
        count: 1,
        size: 1250 - 28,
        dont_fragment: true,
        ..few()
    };
    let result = ping(router, Host::B.address(false), &large).expect("a ping");
    let told = result.errors.iter().any(|error| error.mtu == 1208);
    assert!(told, "{result}");
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

/// A link of edge A.
fn link_reason(path: &mut Path, link: &str) -> String {
    let got = path.controller.get(Router::EdgeA).expect("the state");
    let found = got.links.into_iter().find(|it| it.link == link);
    found.expect("the link").reason
}

#[test]
fn ports_follow_their_devices_with_the_keys_that_they_have() {
    let Some(mut path) = Path::start(options()) else {
        return;
    };
    let tables = path.controller.get(Router::EdgeA).expect("the state");
    let (west, edge) = (netdev(WEST), netdev(EDGE_PORT));

    // Other hardware addresses, told to the neighbours as an operator would have it told.
    let router = path.network.router(Router::EdgeA);
    for (device, mac) in [(west, 0xa1), (edge, 0xa2)] {
        router
            .sysctl(&format!("net/ipv4/conf/{device}/arp_notify"), "1")
            .expect("announcements");
        router
            .sysctl(&format!("net/ipv6/conf/{device}/ndisc_notify"), "1")
            .expect("announcements");
        router
            .set_mac(device, [2, 0, 0, 0, 0xaa, mac])
            .expect("another hardware address");
    }
    for (port, mac) in [
        (WEST, "02:00:00:00:aa:a1"),
        (EDGE_PORT, "02:00:00:00:aa:a2"),
    ] {
        path.wait_for_port(port, |it| it.up && it.mac == mac);
    }
    path.settle();

    // A smaller MTU, and the old one.
    for mtu in [1400, 1500] {
        let router = path.network.router(Router::EdgeA);
        router.set_mtu(west, mtu).expect("another MTU");
        path.wait_for_port(WEST, |it| it.up && it.mtu == mtu);
        path.settle();
    }

    // Down, up, and its address gone for a while.
    let address = Underlay::V4.address(Router::EdgeA, WEST);
    let net = twinseal_lab::IpNet::new(address.0, address.1).expect("a prefix");
    path.network
        .router(Router::EdgeA)
        .set_down(west)
        .expect("it goes down");
    path.wait_for_port(WEST, |it| it.reason == "its device is set down");
    let router = path.network.router(Router::EdgeA);
    router.set_up(west).expect("it comes up");
    router.delete_address(west, net).expect("it is there");
    path.wait_for_port(WEST, |it| it.up);
    let reason = format!("its local address {} is not on this host", address.0);
    assert_eq!(link_reason(&mut path, WEST), reason);
    let router = path.network.router(Router::EdgeA);
    router.add_address(west, net).expect("it is gone");
    path.settle();

    // Moved away and back: its sockets are dead for good.
    let (router, other) = (
        path.network.router(Router::EdgeA),
        path.network.host(Host::B),
    );
    router.move_to(west, other).expect("it moves");
    let moved = "its device was moved to another network namespace";
    path.wait_for_port(WEST, |it| !it.up && it.reason == moved);
    assert_eq!(
        link_reason(&mut path, WEST),
        format!("port {WEST}: {moved}")
    );
    let (router, other) = (
        path.network.router(Router::EdgeA),
        path.network.host(Host::B),
    );
    other.move_to(west, router).expect("it moves back");
    router.set_up(west).expect("it comes up");
    router.add_address(west, net).expect("it has none");
    path.wait_for_port(WEST, |it| it.up && it.reason.is_empty());
    path.settle();

    // Deleted and made again.
    path.network
        .router(Router::EdgeA)
        .delete_link(edge)
        .expect("it goes");
    path.wait_for_port(EDGE_PORT, |it| it.reason == "its device was deleted");
    let to = Host::A.address(false).to_string();
    let explained = path.explain(Router::EdgeA, &to);
    assert!(
        explained.contains(&format!("port {EDGE_PORT}: its device was deleted")),
        "{explained}"
    );
    path.network
        .wire_host(Host::A)
        .expect("a host's devices, made again");
    path.wait_for_port(EDGE_PORT, |it| it.up && it.reason.is_empty());
    path.settle();
    let traffic = path.send_all_ways(4, 250.0);
    std::thread::sleep(Duration::from_secs(1));
    path.assert_all_came(traffic);

    let now = path.controller.get(Router::EdgeA).expect("the state");
    assert_eq!(
        (now.generation, now.items),
        (tables.generation, tables.items),
        "nobody has told it anything"
    );
    path.finish();
}

/// A second edge port of edge A's, with a host of its own, whose device can be taken away.
const SPARE: &str = "spare";
const SPARE_DEVICE: &str = "spare0";
const SPARE_NET: &str = "10.3.0.0/24";

fn wire_spare(path: &Path, host: &Namespace) {
    let net = |address: &str| [address.parse().expect("an address")];
    let lab = path.network.lab();
    let router = path.network.router(Router::EdgeA);
    let veth = VethConfig::new((host, "eth0"), (router, SPARE_DEVICE));
    lab.veth(&veth.addresses(&net("10.3.0.2/24"), &net("10.3.0.1/24")))
        .expect("a pair of devices");
    let far = Host::B.prefix(false).parse().expect("a prefix");
    let gateway = "10.3.0.1".parse().expect("an address");
    host.add_route(&Route::to(far).via(gateway).dev("eth0"))
        .expect("a route");
}

#[test]
fn a_start_goes_on_without_devices_that_are_not_there() {
    let Some(mut path) = Path::start(options()) else {
        return;
    };
    let spare = path.network.lab().namespace("spare").expect("a namespace");
    wire_spare(&path, &spare);
    let route = |target| {
        set(Item::Route(v1::Route {
            vrf: VRF.into(),
            prefix: SPARE_NET.into(),
            target: Some(target),
        }))
    };
    let via = v1::Via {
        port: SPARE.into(),
        address: String::new(),
    };
    let changes = vec![
        af_xdp(SPARE, SPARE_DEVICE),
        route(v1::route::Target::Via(via)),
    ];
    path.controller
        .apply(Router::EdgeA, changes)
        .expect("another port");
    let far = v1::route::Target::Circuit(CIRCUIT.into());
    path.controller
        .apply(Router::EdgeB, vec![route(far)])
        .expect("a route to it");
    let back = Route::to(SPARE_NET.parse().expect("a prefix"));
    let back = back.via(Host::B.gateway(false)).dev("eth0");
    let host = path.network.host(Host::B);
    host.add_route(&back).expect("a way back");
    let reaches = |host: &Namespace| {
        let begin = std::time::Instant::now();
        while !ping(host, Host::B.address(false), &few())
            .expect("a ping")
            .all_answered()
        {
            assert!(begin.elapsed() < PATIENCE, "no answer");
        }
    };
    reaches(&spare);

    // Both a host's device and the underlay's are away while the node starts.
    assert!(path.network.stop_daemon(Router::EdgeA).expect("it stops"));
    let router = path.network.router(Router::EdgeA);
    router.delete_link(SPARE_DEVICE).expect("it goes");
    router.set_down(netdev(WEST)).expect("it goes down");
    router.rename(netdev(WEST), "west9").expect("a new name");
    path.network
        .start_daemon(Router::EdgeA)
        .expect("it starts again");
    path.reconnect();
    let started = path.controller.get(Router::EdgeA).expect("the state");
    assert_eq!(started.restoring, "", "nothing waits");
    for (port, device) in [(SPARE, SPARE_DEVICE), (WEST, netdev(WEST))] {
        let found = started.ports.iter().find(|it| it.port == port);
        let (up, why) = found.map(|it| (it.up, it.reason.as_str())).expect("a port");
        assert_eq!(
            (up, why),
            (
                false,
                format!("there is no network device {device}").as_str()
            )
        );
        let explained = path.explain(Router::EdgeA, "10.3.0.2");
        let told = format!("port {SPARE}: there is no network device {SPARE_DEVICE}");
        assert!(explained.contains(&told), "{explained}");
    }
    path.wait_for_port(EDGE_PORT, |it| it.up);
    // What is asked for now is most likely mistyped; what waits need not be there.
    let changes = vec![af_xdp("more", "no-such-dev")];
    let refused = path.controller.apply(Router::EdgeA, changes);
    let refused = refused.expect_err("there is none").to_string();
    assert!(refused.contains("no-such-dev"), "{refused}");
    // Nor is what no host and no other node can send to.
    let mut underlay = af_xdp("more", "lo");
    if let Some(v1::change::Change::Set(v1::Item {
        item: Some(Item::Port(port)),
        ..
    })) = &mut underlay.change
    {
        (port.role, port.vrf) = (v1::PortRole::Underlay.into(), String::new());
    }
    for change in [af_xdp("more", "lo"), underlay] {
        let refused = path.controller.apply(Router::EdgeA, vec![change]);
        let refused = refused.expect_err("it is nobody's device").to_string();
        assert!(refused.contains("no hardware address"), "{refused}");
    }
    let changes = vec![af_xdp(SPARE, SPARE_DEVICE)];
    path.controller
        .dry_run(Router::EdgeA, changes)
        .expect("it may go on to wait");

    // The underlay's device comes without its address at first.
    let address = Underlay::V4.address(Router::EdgeA, WEST);
    let net = twinseal_lab::IpNet::new(address.0, address.1).expect("a prefix");
    let router = path.network.router(Router::EdgeA);
    router.delete_address("west9", net).expect("it has it");
    router.rename("west9", netdev(WEST)).expect("its old name");
    router.set_up(netdev(WEST)).expect("it comes up");
    path.wait_for_port(WEST, |it| {
        !it.up && it.reason.contains("cannot hold UDP 192.0.2.1")
    });
    let router = path.network.router(Router::EdgeA);
    router.add_address(netdev(WEST), net).expect("it has none");
    path.wait_for_port(WEST, |it| it.up && it.reason.is_empty());
    path.controller.rotate(&mut path.plan).expect("new secrets");
    path.settle();
    let generation = |path: &mut Path| path.controller.get(Router::EdgeA).expect("it").generation;
    let before = generation(&mut path);

    // The host's comes back: nobody tells the node anything.
    wire_spare(&path, &spare);
    path.wait_for_port(SPARE, |it| {
        it.up && it.reason.is_empty() && it.mac != "00:00:00:00:00:00"
    });
    reaches(&spare);
    assert_eq!(generation(&mut path), before);

    // An address that is not there yet: the port waits for it, and the rest does not.
    assert!(path.network.stop_daemon(Router::EdgeA).expect("it stops"));
    let router = path.network.router(Router::EdgeA);
    router.delete_address(netdev(WEST), net).expect("it has it");
    path.network
        .start_daemon(Router::EdgeA)
        .expect("it starts again");
    path.reconnect();
    path.wait_for_port(EDGE_PORT, |it| it.up);
    path.wait_for_port(WEST, |it| {
        !it.up && it.reason.contains("cannot hold UDP 192.0.2.1")
    });
    let router = path.network.router(Router::EdgeA);
    router.add_address(netdev(WEST), net).expect("it has none");
    path.wait_for_port(WEST, |it| it.up && it.reason.is_empty());
    path.finish();
}

/// A port of edge A's that takes a device as it is.
fn af_xdp(port: &str, netdev: &str) -> v1::Change {
    set(Item::Port(v1::Port {
        name: port.into(),
        role: v1::PortRole::Edge.into(),
        vrf: VRF.into(),
        device: Some(v1::port::Device::AfXdp(v1::AfXdp {
            netdev: netdev.into(),
            ..v1::AfXdp::default()
        })),
        ..v1::Port::default()
    }))
}

#[test]
fn another_device_needs_no_new_keys() {
    let Some(mut path) = Path::start(options()) else {
        return;
    };
    // The same device under another name, as after its hardware was replaced.
    let router = path.network.router(Router::EdgeA);
    router.set_down(netdev(WEST)).expect("it goes down");
    router.rename(netdev(WEST), "west9").expect("a new name");
    router.set_up("west9").expect("it comes up");
    path.wait_for_port(WEST, |it| {
        it.up && it.reason == "its device is called west9 now"
    });
    path.settle();
    let port = |netdev: &str, mtu| {
        set(Item::Port(v1::Port {
            name: WEST.into(),
            role: v1::PortRole::Underlay.into(),
            mtu,
            device: Some(v1::port::Device::AfXdp(v1::AfXdp {
                netdev: netdev.into(),
                ..v1::AfXdp::default()
            })),
            ..v1::Port::default()
        }))
    };
    let zero_copy = |netdev: &str| {
        let mut change = port(netdev, 0);
        if let Some(v1::change::Change::Set(v1::Item {
            item: Some(Item::Port(port)),
            ..
        })) = &mut change.change
            && let Some(v1::port::Device::AfXdp(device)) = &mut port.device
        {
            device.bind = v1::BindMode::ZeroCopy.into();
        }
        change
    };
    // What is refused leaves the device before alone, as far as can be known without closing it.
    for (changed, words) in [
        (
            port("no-such-dev", 0),
            "af_xdp.netdev: there is no network device no-such-dev",
        ),
        (zero_copy("west9"), "cannot zero-copy"),
    ] {
        let refused = path.controller.apply(Router::EdgeA, vec![changed]);
        let refused = refused.expect_err("it cannot be opened").to_string();
        assert!(refused.contains(words), "{refused}");
    }
    path.wait_for_port(WEST, |it| it.up);
    let closed = |(_, log): &(_, String)| log.contains("a transaction changes it");
    assert!(!logs(&path.network).iter().any(closed));
    path.controller
        .apply(Router::EdgeA, vec![port("west9", 1480)])
        .expect("a port takes another device");
    path.wait_for_port(WEST, |it| it.up && it.reason.is_empty() && it.mtu == 1480);
    let warned = |(_, log): &(_, String)| log.contains("closed until its device can be opened");
    assert!(!logs(&path.network).iter().any(warned), "it went well");
    path.settle();
    path.finish();
}

#[test]
fn a_deleted_tap_is_made_again_and_nobody_spins() {
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
    // The device goes with the port that made it.
    let refused = path
        .controller
        .apply(Router::EdgeA, vec![af_xdp(EDGE_PORT, TAP)]);
    let refused = refused.expect_err("it would be gone").to_string();
    assert!(refused.contains("own TAP device"), "{refused}");
    let before = path.network.router(Router::EdgeA).interface(TAP);
    let before = before.expect("the TAP").index;
    path.network
        .router(Router::EdgeA)
        .delete_link(TAP)
        .expect("it goes");
    let begin = std::time::Instant::now();
    let made_again = |path: &Path| {
        let tap = path.network.router(Router::EdgeA).interface(TAP);
        tap.is_ok_and(|tap| tap.index != before)
    };
    while !made_again(&path) {
        assert!(begin.elapsed() < PATIENCE, "it is not made again");
        std::thread::sleep(Duration::from_millis(20));
    }
    path.wait_for_port(EDGE_PORT, |it| it.up && it.reason.is_empty());
    let logs = logs(&path.network);
    let mut logs = logs.iter().map(|(_, log)| log);
    assert!(logs.any(|log| log.contains("its device was deleted")));
    path.finish();
}

/// A port of edge A's towards its host, whose kernel has it to itself or not.
fn edge_port(owned: bool) -> v1::Change {
    set(Item::Port(v1::Port {
        name: EDGE_PORT.into(),
        role: v1::PortRole::Edge.into(),
        vrf: VRF.into(),
        device: Some(v1::port::Device::AfXdp(v1::AfXdp {
            netdev: netdev(EDGE_PORT).into(),
            owned,
            ..v1::AfXdp::default()
        })),
        ..v1::Port::default()
    }))
}

/// A verdict of the steering program at edge A's edge port.
fn verdict(path: &mut Path, name: &str) -> u64 {
    let stats = path.controller.stats(Router::EdgeA).expect("counters");
    let port = stats.ports.iter().find(|port| port.port == EDGE_PORT);
    let verdicts = &port.expect("its counters").steering;
    let found = verdicts.iter().find(|counter| counter.name == name);
    found.map_or(0, |counter| counter.value)
}

#[test]
fn what_hosts_send_to_a_forwarding_kernel_does_not_leave_in_plaintext() {
    let Some(mut path) = Path::start(options()) else {
        return;
    };
    let edge = netdev(EDGE_PORT);
    let router = path.network.router(Router::EdgeA);
    // A kernel that would send on all that it gets.
    router
        .sysctl("net/ipv4/ip_forward", "1")
        .expect("the kernel forwards");
    // And one that takes its routes from hosts.
    router
        .sysctl("net/ipv6/conf/edge0/accept_ra", "1")
        .expect("the kernel believes");
    let begin = std::time::Instant::now();
    for told in [
        "the kernel forwards (net/ipv4/conf/edge0/forwarding is on)",
        "`sysctl -w net.ipv6.conf.edge0.accept_ra=0`",
    ] {
        while !logs(&path.network)
            .iter()
            .any(|(_, log)| log.contains(told))
        {
            assert!(begin.elapsed() < PATIENCE, "nobody is told {told}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    // Hosts that use the address of a virtual router.
    let virtual_mac = [0, 0, 0x5e, 0, 1, 7];
    router
        .add_macvlan("vrrp7", edge, virtual_mac)
        .expect("a virtual router's device");
    let host = path.network.host(Host::A);
    for v6 in FAMILIES {
        host.set_neighbour("eth0", Host::A.gateway(v6), virtual_mac)
            .expect("the gateway's address");
    }
    path.settle();
    let before = verdict(&mut path, "pass_other_mac");
    path.settle();
    let after = verdict(&mut path, "pass_other_mac");
    assert_eq!(after, before, "all are taken by now");
    path.network
        .router(Router::EdgeA)
        .delete_link("vrrp7")
        .expect("it goes");
    let begin = std::time::Instant::now();
    while verdict(&mut path, "pass_other_mac") == after {
        assert!(begin.elapsed() < PATIENCE, "the address stays the port's");
        path.ping(Host::A, false, &few());
    }

    // Such frames are dropped where the device is the node's own, and nothing that the kernel needs is.
    path.controller
        .apply(Router::EdgeA, vec![edge_port(true)])
        .expect("a port takes another mode");
    path.ping(Host::A, false, &few());
    assert!(verdict(&mut path, "drop_other_mac") > 0);
    assert_eq!(verdict(&mut path, "pass_other_mac"), 0);
    let (router, host) = (
        path.network.router(Router::EdgeA),
        path.network.host(Host::A),
    );
    let mac = router.mac(edge).expect("the device's address");
    for v6 in FAMILIES {
        host.set_neighbour("eth0", Host::A.gateway(v6), mac)
            .expect("the gateway's address");
        let gateway = ping(host, Host::A.gateway(v6), &few()).expect("a ping");
        assert!(gateway.all_answered(), "{gateway}");
    }
    path.settle();
    path.finish();
}
