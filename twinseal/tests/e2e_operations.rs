//! What operators do to a daemon and what befalls it, while hosts use the path.

mod common;

use std::os::unix::fs::FileTypeExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{FAMILIES, PATIENCE, Path, options, route_by_edge_port};
use twinseal_api::v1;
use twinseal_ebpf::{Role, Steering, XdpMode};
use twinseal_lab::traffic::Until;
use twinseal_lab::{PingConfig, VethConfig, ping};
use twinseal_testbed::items::{install, keys, set, transmit};
use twinseal_testbed::kernel::netdev;
use twinseal_testbed::plan::{CIRCUIT, EAST, EDGE_PORT, Host, Router, Underlay, VRF, WEST};
use v1::item::Item;

#[test]
fn a_stopped_daemon_leaves_nothing_and_starts_again_at_once() {
    let Some(mut path) = Path::start(options()) else {
        return;
    };
    let socket = control_socket(&path);
    let before = path.controller.get(Router::EdgeA).expect("the state");
    let boot = boot(&mut path);
    assert!(has_xdp(&path, WEST) && has_xdp(&path, EDGE_PORT));
    assert_hears_its_own(&path);
    assert!(
        path.network.stop_daemon(Router::EdgeA).expect("it stops"),
        "exit status 0"
    );
    assert!(!socket.exists(), "the control socket goes with the daemon");
    assert_restarts(path, &before, boot);
}

#[test]
fn a_killed_daemon_leaves_the_host_its_hearing_and_starts_again_at_once() {
    let Some(mut path) = Path::start(options()) else {
        return;
    };
    let socket = control_socket(&path);
    let before = path.controller.get(Router::EdgeA).expect("the state");
    let boot = boot(&mut path);
    path.network.kill_daemon(Router::EdgeA).expect("it dies");
    let kind = std::fs::symlink_metadata(&socket).expect("the dead daemon's socket");
    assert!(kind.file_type().is_socket());
    assert_restarts(path, &before, boot);
}

/// Which life of edge A's daemon this is.
#[track_caller]
fn boot(path: &mut Path) -> u64 {
    let stats = path.controller.stats(Router::EdgeA).expect("counters");
    stats.boot
}

/// Items as a node has them that knows its keys but not their secrets.
fn without_secrets(items: &[v1::Item]) -> Vec<v1::Item> {
    let mut items = items.to_vec();
    for item in &mut items {
        if let Some(Item::Key(key)) = &mut item.item {
            key.needed = true;
        }
    }
    items
}

/// With edge A's daemon dead: the host is as without it. Then it starts again with the tables that it had, refuses the
/// old secrets and takes new ones.
fn assert_restarts(mut path: Path, before: &v1::GetResponse, boot: u64) {
    assert!(!path.network.is_running(Router::EdgeA));
    assert!(!has_xdp(&path, WEST) && !has_xdp(&path, EDGE_PORT));
    assert_hears_its_own(&path);

    path.network
        .start_daemon(Router::EdgeA)
        .expect("it starts again at once");
    path.reconnect();
    assert!(boot != 0 && self::boot(&mut path) != boot, "another life");
    let tables = path.plan.start(Router::EdgeA, &path.network);
    let refused = path.controller.apply(Router::EdgeA, tables);
    let refused = refused
        .expect_err("these secrets have sealed before")
        .to_string();
    for words in [
        "link \"west\"",
        "circuit \"blue\"",
        "has sealed before",
        "load a new secret",
    ] {
        assert!(refused.contains(words), "no {words:?} in: {refused}");
    }
    let state = path.controller.get(Router::EdgeA).expect("the state");
    assert_eq!(
        (state.generation, &state.items),
        (before.generation, &without_secrets(&before.items)),
        "the tables are there without a controller"
    );
    assert!(has_xdp(&path, WEST) && has_xdp(&path, EDGE_PORT));
    assert!(!state.keys.is_empty() && state.keys.iter().all(|key| key.needed));

    let old = path.plan.next_epoch().expect("new secrets");
    for router in [Router::Transit, Router::EdgeB] {
        let keys = path.plan.install(router);
        path.controller.apply(router, keys).expect("new keys");
    }
    let keys = path.plan.install(Router::EdgeA);
    path.controller
        .apply(Router::EdgeA, keys)
        .expect("new secrets are all that it needs");
    for router in [Router::EdgeA, Router::Transit, Router::EdgeB] {
        let transmit = path.plan.transmit(router);
        path.controller
            .apply(router, transmit)
            .expect("new keys in use");
        let retire = path.plan.retire(router, old);
        path.controller
            .apply(router, retire)
            .expect("old keys gone");
    }
    path.settle();
    assert!(has_xdp(&path, WEST) && has_xdp(&path, EDGE_PORT));
    assert_hears_its_own(&path);
    let traffic = path.send_all_ways(4, 250.0);
    std::thread::sleep(Duration::from_secs(1));
    path.assert_all_came(traffic);
    path.finish();
}

/// Edge A's host answers for its own addresses, on the edge and on the underlay.
#[track_caller]
fn assert_hears_its_own(path: &Path) {
    let config = PingConfig {
        timeout: PATIENCE,
        ..PingConfig::default()
    };
    let underlay = Underlay::V4.address(Router::EdgeA, WEST).0;
    let (host, transit) = (
        path.network.host(Host::A),
        path.network.router(Router::Transit),
    );
    for (from, to) in [
        (host, Host::A.gateway(false)),
        (host, Host::A.gateway(true)),
        (transit, underlay),
    ] {
        let result = ping(from, to, &config).expect("a ping");
        assert!(result.all_answered(), "{to}: {result}");
    }
}

/// Whether an XDP program is on a port's device at edge A: only one can be, so ours is refused then.
#[track_caller]
fn has_xdp(path: &Path, port: &str) -> bool {
    let attach = || match Steering::attach(netdev(port), Role::Underlay, XdpMode::Auto) {
        Ok(_) => false,
        Err(twinseal_ebpf::SteerError::AlreadyAttached { .. }) => true,
        Err(error) => panic!("{error}"),
    };
    let router = path.network.router(Router::EdgeA);
    router.run(attach).expect("inside the namespace")
}

fn control_socket(path: &Path) -> std::path::PathBuf {
    let mut sockets = path.network.sockets();
    let found = sockets.find(|(router, _)| *router == Router::EdgeA);
    found.expect("edge A runs").1.to_owned()
}

#[test]
fn a_second_daemon_is_refused() {
    let Some(mut path) = Path::start(options()) else {
        return;
    };
    let folder = path.network.lab().directory().join(Router::EdgeA.name());
    let own = folder.join("twinseal.toml");
    let other = folder.join("second.toml");
    let text = std::fs::read_to_string(&own).expect("edge A's configuration");
    let state = format!("{:?}", folder.join("state"));
    let elsewhere = format!("{:?}", folder.join("state2"));
    std::fs::write(&other, text.replace(&state, &elsewhere)).expect("a configuration");
    let traffic = path.send_all_ways(4, 250.0);
    for (config, complaint) in [
        (own, "is in use by process "),
        (other, "another daemon serves"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_twinseal"));
        command.arg("run").arg("--config").arg(config);
        let router = path.network.router(Router::EdgeA);
        let mut second = router.spawn(command).expect("a process");
        let status = second.wait(PATIENCE).expect("its status");
        let log = second.log_text();
        assert!(
            status.is_some_and(|status| !status.success()),
            "{status:?}\n{log}"
        );
        assert!(log.contains(complaint), "{log}");
    }
    path.assert_all_came(traffic);
    path.finish();
}

#[test]
fn a_refused_transaction_changes_nothing() {
    let Some(mut path) = Path::start(options()) else {
        return;
    };
    let traffic = path.send_all_ways(8, 400.0);
    let before = path.controller.get(Router::EdgeA).expect("the state");
    let good = || set(Item::Route(route_by_edge_port("10.77.0.0/16")));
    let no_circuit = v1::Route {
        target: Some(v1::route::Target::Circuit("nowhere".into())),
        ..route_by_edge_port("10.78.0.0/16")
    };
    // The last of them would take the path from the packets under way.
    let deleted = v1::Change {
        change: Some(v1::change::Change::Delete(v1::ItemRef {
            item: Some(v1::item_ref::Item::Circuit("blue".into())),
        })),
    };
    for (bad, words) in [
        (set(Item::Route(no_circuit)), "nowhere"),
        (
            set(Item::Route(route_by_edge_port("10.0.0.0/33"))),
            "10.0.0.0/33",
        ),
        (set(Item::Port(port("edge9", "nic9"))), "nic9"),
        (deleted, "blue"),
    ] {
        for changes in [vec![good(), bad.clone()], vec![bad, good()]] {
            let refused = path.controller.apply(Router::EdgeA, changes);
            let refused = refused.expect_err("one of them is wrong").to_string();
            assert!(refused.contains(words), "no {words:?} in: {refused}");
        }
    }
    let after = path.controller.get(Router::EdgeA).expect("the state");
    assert_eq!(after.generation, before.generation);
    assert_eq!(after.items, before.items);
    assert_eq!(after.ports, before.ports);
    assert_eq!(after.links, before.links);
    path.assert_all_came(traffic);
    path.finish();
}

fn port(name: &str, device: &str) -> v1::Port {
    v1::Port {
        name: name.into(),
        role: v1::PortRole::Edge.into(),
        vrf: VRF.into(),
        device: Some(v1::port::Device::AfXdp(v1::AfXdp {
            netdev: device.into(),
            ..v1::AfXdp::default()
        })),
        ..v1::Port::default()
    }
}

/// Edge A has a second link, of which the node itself knows that it is down once its carrier is gone.
#[test]
fn a_group_goes_without_a_member_that_is_down() {
    const SPARE: &str = "spare0";
    let Some(mut path) = Path::start(options()) else {
        return;
    };
    let lab = path.network.lab();
    let edge = path.network.router(Router::EdgeA);
    let beyond = lab.namespace("beyond").expect("a namespace");
    let address = |text: &str| text.parse().expect("an address");
    let veth = VethConfig::new((edge, SPARE), (&beyond, "eth0"))
        .addresses(&[address("203.0.113.1/24")], &[address("203.0.113.2/24")]);
    lab.veth(&veth).expect("a veth");
    let spare = [
        Item::Port(v1::Port {
            role: v1::PortRole::Underlay.into(),
            vrf: String::new(),
            ..port(SPARE, SPARE)
        }),
        Item::Link(v1::Link {
            name: SPARE.into(),
            end: v1::End::A.into(),
            port: SPARE.into(),
            local: "203.0.113.1".into(),
            remote: "203.0.113.2".into(),
            ..v1::Link::default()
        }),
        Item::Circuit(v1::Circuit {
            name: SPARE.into(),
            id: 0x5bae,
            end: v1::End::A.into(),
            vrf: VRF.into(),
            link: SPARE.into(),
            label: 77,
            ..v1::Circuit::default()
        }),
    ];
    let owners = [
        v1::key::Owner::Link(SPARE.into()),
        v1::key::Owner::Circuit(SPARE.into()),
    ];
    let keys = keys(owners.clone(), 900, v1::Suite::Aes256Gcm).expect("secrets");
    let members = [CIRCUIT, SPARE].map(|circuit| v1::Member {
        target: Some(v1::member::Target::Circuit(circuit.into())),
        ..v1::Member::default()
    });
    let mut changes: Vec<_> = spare.into_iter().map(set).collect();
    changes.extend(keys.iter().map(install));
    changes.extend(owners.iter().map(|owner| transmit(owner, 900)));
    changes.push(set(Item::Group(v1::Group {
        name: "both".into(),
        members: members.into(),
    })));
    changes.push(set(Item::Route(v1::Route {
        vrf: VRF.into(),
        prefix: Host::B.prefix(false),
        target: Some(v1::route::Target::Group("both".into())),
    })));
    let applied = path.controller.apply(Router::EdgeA, changes);
    applied.expect("the transaction is taken");
    let up = |path: &mut Path| {
        let state = path.controller.get(Router::EdgeA).expect("the state");
        let mut links = state.links.into_iter();
        links
            .find(|link| link.link == SPARE)
            .is_some_and(|link| link.up)
    };
    wait_until(|| up(&mut path));
    // Half of the flows go where nobody answers.
    let half = path
        .send(Host::A, false, 64, 2_000.0, Until::Count(640))
        .finish();
    let received = half.received;
    assert!((64..576).contains(&received), "{received} of 640 arrived");

    beyond.set_down("eth0").expect("it is ours");
    // The report is of the moment; workers look into new tables some milliseconds later.
    wait_until(|| {
        let probe = |path: &mut Path| {
            path.send(Host::A, false, 64, 2_000.0, Until::Count(64))
                .finish()
        };
        !up(&mut path) && probe(&mut path).received == 64
    });
    let all = path
        .send(Host::A, false, 64, 2_000.0, Until::Count(640))
        .finish();
    path.assert_perfect(&all);

    // And with none that is up they have a reason of their own.
    let before = path.dropped(Router::EdgeA, "group_down");
    path.network
        .router(Router::EdgeA)
        .set_down(netdev(WEST))
        .expect("it is ours");
    wait_until(|| {
        path.send(Host::A, false, 1, 100.0, Until::Count(1))
            .finish();
        path.dropped(Router::EdgeA, "group_down") > before
    });
    path.finish();
}

/// The steering program has room for 16384 of a port's own addresses.
#[test]
fn own_addresses_that_find_no_room_are_told() {
    let Some(mut path) = Path::without_tables(options()) else {
        return;
    };
    let edge = path.network.router(Router::EdgeA);
    // Besides the gateways' and the link-local one.
    for n in 0..16_381u32 {
        let address = std::net::Ipv4Addr::from_bits(0x0a40_0000 + n);
        let address = std::net::IpAddr::from(address);
        edge.add_address("edge0", address.into())
            .expect("an address");
    }
    path.controller
        .start(&path.plan, &path.network)
        .expect("tables and keys are taken");
    let told = |path: &Path| {
        let logs = common::logs(&path.network);
        let mut texts = logs.iter().map(|(_, text)| text);
        texts.any(|text| text.contains("the steering program has room for 16384"))
    };
    assert!(!told(&path), "so many fit");
    let one_more: std::net::IpAddr = "10.80.0.1".parse().expect("an address");
    path.network
        .router(Router::EdgeA)
        .add_address("edge0", one_more.into())
        .expect("an address");
    wait_until(|| told(&path));
    path.settle();
    path.finish();
}

#[track_caller]
fn wait_until(mut done: impl FnMut() -> bool) {
    let begin = std::time::Instant::now();
    while !done() {
        assert!(begin.elapsed() < PATIENCE, "it did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn transactions_under_load_lose_nothing() {
    let Some(mut path) = Path::start(options()) else {
        return;
    };
    let traffic = path.send_all_ways(8, 500.0);
    let before = path.controller.get(Router::EdgeA).expect("the state");
    /// So that packets pass by each generation of the tables.
    const BETWEEN: Duration = Duration::from_millis(5);
    for n in 0..50 {
        for (router, far) in [(Router::EdgeA, Host::B), (Router::EdgeB, Host::A)] {
            // The far host's own routes, which take over its packets and give them back, and one that has none.
            let mut routes = vec![route_by_edge_port(&format!("10.99.{n}.0/24"))];
            for v6 in FAMILIES {
                let len = if v6 { 128 } else { 32 };
                let prefix = format!("{}/{len}", far.address(v6));
                routes.push(v1::Route {
                    target: Some(v1::route::Target::Circuit(CIRCUIT.into())),
                    ..route_by_edge_port(&prefix)
                });
            }
            let deletes = routes.iter().map(|route| delete_route(&route.prefix));
            let deletes = deletes.collect();
            let routes = routes.into_iter().map(|route| set(Item::Route(route)));
            path.controller
                .apply(router, routes.collect())
                .expect("routes are taken");
            std::thread::sleep(BETWEEN);
            path.controller.apply(router, deletes).expect("routes go");
            std::thread::sleep(BETWEEN);
        }
    }
    let after = path.controller.get(Router::EdgeA).expect("the state");
    assert_eq!(after.generation, before.generation + 100);
    assert_eq!(after.items, before.items);
    path.assert_all_came(traffic);
    path.finish();
}

fn delete_route(prefix: &str) -> v1::Change {
    let route = v1::RouteRef {
        vrf: VRF.into(),
        prefix: prefix.into(),
    };
    v1::Change {
        change: Some(v1::change::Change::Delete(v1::ItemRef {
            item: Some(v1::item_ref::Item::Route(route)),
        })),
    }
}

/// What `ctl ping` begins to ask, as JSON.
#[track_caller]
fn begin_ping(path: &Path, router: Router, whom: [&str; 2], more: &[&str]) -> Child {
    let mut ping = path.ctl(router);
    ping.arg("ping").args(whom).args(["--json"]).args(more);
    ping.stdout(Stdio::piped()).spawn().expect("it starts")
}

/// Whether it ends well, and how many were sent and answered by its last line, which each request's lines must bear out.
#[track_caller]
fn pinged(ping: Child) -> (bool, u64, u64) {
    let output = ping.wait_with_output().expect("it ends");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let lines = text
        .lines()
        .map(|line| serde_json::from_str(line).expect(line));
    let mut lines: Vec<serde_json::Value> = lines.collect();
    let sums = lines.pop().unwrap_or_else(|| panic!("nothing was told"));
    let answered = lines.iter().filter(|line| line["answered"] == true);
    assert!(
        answered
            .clone()
            .all(|line| line["rtt_nanos"].as_u64() > Some(0))
    );
    let number = |field: &str| sums[field].as_u64().unwrap_or_else(|| panic!("{sums}"));
    let (sent, all) = (number("sent"), number("answered"));
    assert_eq!((lines.len() as u64, answered.count() as u64), (sent, all));
    (output.status.success(), sent, all)
}

#[test]
fn the_far_ends_of_links_and_circuits_answer_and_a_cut_transit_is_loss() {
    let mut options = options();
    options.workers = 2;
    let Some(mut path) = Path::start(options) else {
        return;
    };
    let (circuit, west, east) = (["circuit", CIRCUIT], ["link", WEST], ["link", EAST]);
    let carried = |path: &mut Path| {
        let mut stats = path.controller.stats(Router::EdgeA).expect("counters");
        let circuit = stats.circuits.remove(0);
        (circuit.sent_packets, circuit.received_packets)
    };
    let before = carried(&mut path);
    let quick = ["--count", "10", "--interval", "0.05", "--timeout", "10"];
    for (router, whom) in [
        (Router::EdgeA, circuit),
        (Router::EdgeB, circuit),
        (Router::EdgeA, west),
        (Router::Transit, west),
        (Router::Transit, east),
    ] {
        let told = pinged(begin_ping(&path, router, whom, &quick));
        assert_eq!(
            told,
            (true, 10, 10),
            "{router:?} {whom:?}: {:?}",
            path.drops()
        );
    }
    assert_eq!(carried(&mut path), before, "no circuit carried anything");
    let stats = path.controller.stats(Router::EdgeA).expect("counters");
    let echoes = stats.echoes.iter().map(|it| (&*it.name, it.value));
    assert_eq!(
        echoes.collect::<Vec<_>>(),
        [
            ("requests_sent", 20),
            ("requests_answered", 20),
            ("replies_received", 20)
        ]
    );

    // The transit node loses the circuit's labels: the circuit is cut, and the links beside it are not.
    let transit = path.controller.get(Router::Transit).expect("its state");
    let labels = transit
        .items
        .into_iter()
        .filter_map(|item| match item.item {
            Some(Item::Label(it)) => Some(v1::item_ref::Item::Label(v1::LabelRef {
                link: it.link,
                label: it.label,
            })),
            _ => None,
        });
    let cut = labels.map(|label| v1::Change {
        change: Some(v1::change::Change::Delete(v1::ItemRef {
            item: Some(label),
        })),
    });
    path.controller
        .apply(Router::Transit, cut.collect())
        .expect("labels go");
    let short = ["--count", "5", "--interval", "0.05", "--timeout", "0.2"];
    let lost = begin_ping(&path, Router::EdgeA, circuit, &short);
    let beside = begin_ping(&path, Router::EdgeA, west, &quick);
    assert_eq!(pinged(lost), (false, 5, 0));
    assert_eq!(pinged(beside), (true, 10, 10));
    assert_eq!(path.dropped(Router::Transit, "unknown_label"), 5);

    let refused = |path: &Path, name: &str| {
        let mut ping = path.ctl(Router::EdgeA);
        let output = ping.args(["ping", "link", name, "--count", "1"]).output();
        let output = output.expect("it ends");
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), why)
    };
    let (status, why) = refused(&path, "nobody");
    assert_eq!(status, Some(1));
    assert!(why.contains("there is no link \"nobody\""), "{why}");
    // A client has two at a time, and their places again when it goes.
    let long = ["--count", "1000", "--interval", "0.05"];
    let mut held = [(); 2].map(|()| begin_ping(&path, Router::EdgeA, west, &long));
    wait_until(|| refused(&path, WEST).1.contains("2 pings of this client"));
    for ping in &mut held {
        ping.kill().expect("it runs");
        ping.wait().expect("it ends");
    }
    wait_until(|| refused(&path, WEST).0 == Some(0));
    path.finish();
}

#[test]
fn frames_that_a_device_without_carrier_does_not_take_are_counted() {
    let Some(mut path) = Path::start(options()) else {
        return;
    };
    // The kernel forgets neighbours with the carrier; this one stays, so that frames go on to the device.
    let transit = path.network.router(Router::Transit);
    let mac = transit.mac(netdev(WEST)).expect("its address");
    let neighbour = v1::Neighbour {
        port: WEST.into(),
        address: Underlay::V4.address(Router::Transit, WEST).0.to_string(),
        mac: twinseal_wire::ethernet::Mac(mac).to_string(),
    };
    path.controller
        .apply(Router::EdgeA, vec![set(Item::Neighbour(neighbour))])
        .expect("a static neighbour");
    let switch = path.network.switch(WEST);
    switch.set_down("p0").expect("the cable is pulled");
    let dropped = |path: &mut Path| {
        let stats = path.controller.stats(Router::EdgeA).expect("counters");
        let port = stats.ports.into_iter().find(|port| port.port == WEST);
        let sockets = port.expect("the underlay port").sockets;
        let found = sockets.iter().find(|it| it.name == "tx_dropped");
        found.expect("the counter").value
    };
    let before = dropped(&mut path);
    let load = path.send(Host::A, false, 4, 500.0, Until::Count(200));
    let summary = load.finish();
    assert_eq!((summary.sent, summary.lost), (200, 200));
    assert_eq!(dropped(&mut path) - before, 200, "{:?}", path.drops());
    path.finish();
}
