//! What an operator or another program does to a live port's device: each is told, and healed as far as can be.

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use common::{PATIENCE, Path, logs, options};
use twinseal_api::v1;
use twinseal_ebpf::{Role, Steering, XdpMode};
use twinseal_lab::{Namespace, PingConfig, VethConfig};
use twinseal_testbed::items::{delete, set};
use twinseal_testbed::kernel::netdev;
use twinseal_testbed::plan::{EAST, EDGE_PORT, Host, Router, VRF, WEST};

/// Runs `ethtool` in a namespace; says whether it succeeded.
fn ethtool(space: &Namespace, arguments: &[&str]) -> bool {
    let mut command = std::process::Command::new("ethtool");
    command.args(arguments);
    let mut process = space.spawn(command).expect("ethtool starts");
    let status = process.wait(PATIENCE).expect("its status");
    status.is_some_and(|status| status.success())
}

/// Waits until the log of a daemon says something.
#[track_caller]
fn wait_for_log(path: &Path, words: &str) {
    let begin = std::time::Instant::now();
    while !logs(&path.network)
        .iter()
        .any(|(_, log)| log.contains(words))
    {
        assert!(begin.elapsed() < PATIENCE, "nobody says {words}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// How many sockets a port of edge A's has.
fn sockets(path: &mut Path, port: &str) -> usize {
    let got = path.controller.get(Router::EdgeA).expect("the state");
    let port = got.ports.iter().find(|it| it.port == port);
    port.expect("the port").bind.len()
}

#[test]
fn a_port_follows_the_number_of_its_devices_queues() {
    if !std::path::Path::new("/usr/sbin/ethtool").exists() {
        eprintln!("SKIPPED: there is no ethtool");
        return;
    }
    let mut options = options();
    options.queues = Some(2);
    let Some(mut path) = Path::start(options) else {
        return;
    };
    assert_eq!(sockets(&mut path, WEST), 2);
    let west = netdev(WEST);
    // The kernel takes no queue away from a socket. It does from one that has let go of its device.
    let router = path.network.router(Router::EdgeA);
    assert!(!ethtool(router, &["-L", west, "rx", "1", "tx", "1"]));
    assert!(path.network.stop_daemon(Router::EdgeA).expect("it stops"));
    let router = path.network.router(Router::EdgeA);
    assert!(ethtool(router, &["-L", west, "rx", "1", "tx", "1"]));
    path.network
        .start_daemon(Router::EdgeA)
        .expect("it starts again");
    path.reconnect();
    path.controller.rotate(&mut path.plan).expect("new secrets");
    path.settle();
    assert_eq!(sockets(&mut path, WEST), 1);

    // More: the port is opened anew, with a socket on each.
    let router = path.network.router(Router::EdgeA);
    assert!(ethtool(router, &["-L", west, "rx", "2", "tx", "2"]));
    wait_for_log(&path, "its device has 2 queues now, and had 1");
    let begin = std::time::Instant::now();
    while sockets(&mut path, WEST) != 2 {
        assert!(begin.elapsed() < PATIENCE, "it has one socket still");
        std::thread::sleep(Duration::from_millis(20));
    }
    path.wait_for_port(WEST, |it| it.up && it.reason.is_empty());
    path.settle();
    path.finish();
}

#[test]
fn a_device_that_comes_back_with_too_few_queues_is_told() {
    let mut options = options();
    options.workers = 2;
    let Some(mut path) = Path::start(options) else {
        return;
    };
    let device = netdev(EDGE_PORT);
    let router = path.network.router(Router::EdgeA);
    router.delete_link(device).expect("it goes");
    let host = path.network.host(Host::A);
    let mut veth = VethConfig::new((host, "eth0"), (router, device));
    veth.queues = 1;
    path.network.lab().veth(&veth).expect("it comes back");
    path.wait_for_port(EDGE_PORT, |it| {
        !it.up && it.reason.contains("1 queues and the node 2 workers")
    });
    // Who reads the log sees it too, and what it did to others.
    wait_for_log(
        &path,
        &format!("WARN twinseal_node::health: port {EDGE_PORT:?} is down: "),
    );
    let router = path.network.router(Router::EdgeA);
    router.delete_link(device).expect("it goes");
    path.network.wire_host(Host::A).expect("as it was");
    path.wait_for_port(EDGE_PORT, |it| it.up && it.reason.is_empty());
    wait_for_log(
        &path,
        &format!("INFO twinseal_node::health: port {EDGE_PORT:?} is up"),
    );
    path.settle();
    path.finish();
}

#[test]
fn a_port_that_needs_jumbo_frames_now_is_opened_anew() {
    let Some(mut path) = Path::start(options()) else {
        return;
    };
    let routers = Router::ALL.map(|router| path.network.router(router));
    for (space, devices) in [
        (routers[0], &[EDGE_PORT, WEST][..]),
        (routers[1], &[WEST, EAST]),
        (routers[2], &[EAST, EDGE_PORT]),
    ] {
        for device in devices {
            space.set_mtu(netdev(device), 9000).expect("another MTU");
        }
    }
    for link in [WEST, EAST] {
        for device in ["p0", "p1", "br0"] {
            let switch = path.network.switch(link);
            switch.set_mtu(device, 9000).expect("another MTU");
        }
    }
    for host in [Host::A, Host::B] {
        let host = path.network.host(host);
        host.set_mtu("eth0", 9000).expect("another MTU");
    }
    wait_for_log(&path, "its device's MTU is 9000 now");
    for port in [WEST, EDGE_PORT] {
        path.wait_for_port(port, |it| it.up && it.mtu == 9000 && it.reason.is_empty());
    }
    path.settle();
    let large = PingConfig {
        size: 8000,
        dont_fragment: true,
        ..PingConfig::default()
    };
    let begin = std::time::Instant::now();
    for from in [Host::A, Host::B] {
        while !path.ping(from, false, &large).all_answered() {
            assert!(begin.elapsed() < PATIENCE, "{:?}", path.drops());
        }
    }
    path.finish();
}

#[test]
fn a_port_without_jumbo_frames_keeps_what_it_can_carry() {
    let mut options = options();
    options.extra = "memory.jumbo_frames = 0\n".into();
    let Some(mut path) = Path::start(options) else {
        return;
    };
    let router = path.network.router(Router::EdgeA);
    router.set_mtu(netdev(WEST), 9000).expect("another MTU");
    path.wait_for_port(WEST, |it| {
        it.up && it.mtu == 1500 && it.reason.contains("memory.jumbo_frames")
    });
    path.settle();
    path.network
        .router(Router::EdgeA)
        .set_mtu(netdev(WEST), 1500)
        .expect("another MTU");
    path.wait_for_port(WEST, |it| it.up && it.reason.is_empty());
    path.finish();
}

#[test]
fn a_program_that_takes_a_live_ports_place_is_told_and_outlasted() {
    let Some(mut path) = Path::start(options()) else {
        return;
    };
    let west = netdev(WEST);
    let index = path.network.router(Router::EdgeA).interface(west);
    let index = index.expect("the device").index;
    let take_off = || {
        links::detach(index);
        Steering::attach(west, Role::Underlay, XdpMode::Auto).expect("its place is free")
    };
    let router = path.network.router(Router::EdgeA);
    let other = router.run(take_off).expect("inside the namespace");
    path.wait_for_port(WEST, |it| {
        !it.up && it.reason.starts_with("its device cannot be opened")
    });
    wait_for_log(&path, "its XDP program was taken off its device");
    let got = path.controller.get(Router::EdgeA).expect("the state");
    let port = got.ports.iter().find(|it| it.port == WEST);
    let reason = port.expect("the port").reason.clone();
    assert!(reason.contains("XDP program"), "{reason}");
    drop(other);
    path.wait_for_port(WEST, |it| it.up && it.reason.is_empty());
    path.settle();

    // A bridge takes no program off, but the kernel hands it what hosts ask the device.
    let (router, edge) = (path.network.router(Router::EdgeA), netdev(EDGE_PORT));
    let lab = path.network.lab();
    lab.bridge(router, "br0", &[edge]).expect("a bridge");
    let member = format!("{edge} is a member of br0");
    path.wait_for_port(EDGE_PORT, |it| it.up && it.reason.starts_with(&member));
    let warned = |it: &String| it.contains(&member) && it.contains("nomaster");
    let begin = std::time::Instant::now();
    // What the kernel tells is gathered for a moment before anybody is warned.
    loop {
        let got = path.controller.get(Router::EdgeA).expect("the state");
        if got.warnings.iter().any(warned) {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "{:?}", got.warnings);
        std::thread::sleep(Duration::from_millis(20));
    }
    let router = path.network.router(Router::EdgeA);
    router.delete_link("br0").expect("it goes");
    path.wait_for_port(EDGE_PORT, |it| it.up && it.reason.is_empty());
    path.settle();
    path.finish();
}

/// An AF_XDP port of edge A's, towards hosts unless it is the underlay's.
fn port(name: &str, device: &str, mtu: u32, xdp: v1::XdpMode) -> v1::Change {
    let (role, vrf) = match name {
        WEST | "under" => (v1::PortRole::Underlay, ""),
        _ => (v1::PortRole::Edge, VRF),
    };
    set(v1::item::Item::Port(v1::Port {
        name: name.into(),
        role: role.into(),
        vrf: vrf.into(),
        mtu,
        device: Some(v1::port::Device::AfXdp(v1::AfXdp {
            netdev: device.into(),
            xdp: xdp.into(),
            ..v1::AfXdp::default()
        })),
        ..v1::Port::default()
    }))
}

/// Whether a daemon has closed a port so far.
fn has_closed_a_port(path: &Path) -> bool {
    let closed = |(_, log): &(_, String)| log.contains("the port is closed until");
    logs(&path.network).iter().any(closed)
}

#[test]
fn a_refused_transaction_leaves_live_ports_alone() {
    let mut options = options();
    options.workers = 2;
    let Some(mut path) = Path::start(options) else {
        return;
    };
    // Devices of which one has another's program, and one a queue too few.
    for (device, queues) in [("foreign0", 2), ("thin0", 1)] {
        let router = path.network.router(Router::EdgeA);
        let mut veth = VethConfig::new((path.network.host(Host::A), device), (router, device));
        veth.queues = queues;
        path.network.lab().veth(&veth).expect("a device");
    }
    let router = path.network.router(Router::EdgeA);
    let attach = || Steering::attach("foreign0", Role::Underlay, XdpMode::Auto);
    let foreign = router.run(attach).expect("inside the namespace");
    let foreign = foreign.expect("a program");

    let traffic = path.send_all_ways(4, 500.0);
    let auto = v1::XdpMode::Auto;
    for (device, words) in [
        ("no-such-dev", "there is no network device no-such-dev"),
        ("foreign0", "another XDP program is attached to foreign0"),
        ("thin0", "thin0 has 1 queues and the node 2 workers"),
        ("lo", "lo has no hardware address"),
    ] {
        for live in [
            port(WEST, netdev(WEST), 1400, auto),
            port(WEST, netdev(WEST), 0, v1::XdpMode::Generic),
            port(EDGE_PORT, netdev(EDGE_PORT), 0, v1::XdpMode::Generic),
        ] {
            // The first name of all, the last, and one that is a port's device.
            for new in ["a", "z"] {
                let changes = vec![live.clone(), port(new, device, 0, auto)];
                let told = path.controller.dry_run(Router::EdgeA, changes.clone());
                let told = told.expect_err("it cannot be opened").to_string();
                assert!(told.contains(words), "{told}");
                let refused = path.controller.apply(Router::EdgeA, changes);
                let refused = refused.expect_err("it cannot be opened").to_string();
                assert!(refused.contains(words), "{refused}");
            }
        }
    }
    // Nor what is of another kind: a TAP device is made, and not found.
    if std::path::Path::new("/dev/net/tun").exists() {
        let mut tap = port(EDGE_PORT, "", 0, auto);
        if let Some(v1::change::Change::Set(item)) = &mut tap.change
            && let Some(v1::item::Item::Port(port)) = &mut item.item
        {
            let netdev = netdev(EDGE_PORT).into();
            port.device = Some(v1::port::Device::Tap(v1::Tap { netdev }));
        }
        let refused = path.controller.apply(Router::EdgeA, vec![tap]);
        let refused = refused.expect_err("its name is taken").to_string();
        assert!(refused.contains("a device of another kind"), "{refused}");
    }
    // Nor is a device taken that another port has, whether that gives it up or not.
    let (west, edge) = (netdev(WEST), netdev(EDGE_PORT));
    let gone = |port: &str| delete(v1::item_ref::Item::Port(port.into()));
    for changes in [
        vec![port(WEST, edge, 0, auto), port(EDGE_PORT, west, 0, auto)],
        vec![port("renamed", edge, 0, auto), gone(EDGE_PORT)],
    ] {
        let told = path.controller.dry_run(Router::EdgeA, changes.clone());
        let told = told.expect_err("the device is taken").to_string();
        let refused = path.controller.apply(Router::EdgeA, changes);
        let refused = refused.expect_err("the device is taken").to_string();
        for refused in [told, refused] {
            let own = "give each port a device of its own";
            assert!(refused.contains(own), "{refused}");
            // By none but the node itself.
            assert!(!refused.contains("another XDP program"), "{refused}");
        }
    }
    // What links cannot hold is told of all of them, and with what ports lack.
    let (taken, _, endpoint) = moved_link(&path);
    let router = path.network.router(Router::EdgeA);
    let bind = || std::net::UdpSocket::bind(endpoint).expect("it is free");
    let other = router.run(bind).expect("inside the namespace");
    let mut elsewhere = taken.clone();
    if let Some(v1::change::Change::Set(item)) = &mut elsewhere.change
        && let Some(v1::item::Item::Link(link)) = &mut item.item
    {
        link.name = "elsewhere".into();
        link.local = match endpoint {
            SocketAddr::V4(_) => "203.0.113.77".into(),
            SocketAddr::V6(_) => "2001:db8:ffff::77".into(),
        };
    }
    let changes = vec![taken, elsewhere, port("a", "no-such-dev", 0, auto)];
    let told = path.controller.dry_run(Router::EdgeA, changes.clone());
    let told = told.expect_err("neither can be bound").to_string();
    let refused = path.controller.apply(Router::EdgeA, changes);
    let refused = refused.expect_err("neither can be bound").to_string();
    for refused in [told, refused] {
        for words in [
            "no network device no-such-dev",
            &format!("cannot hold UDP {endpoint}"),
            "link \"elsewhere\": local: cannot hold UDP",
        ] {
            assert!(refused.contains(words), "{refused}");
        }
    }
    drop(other);
    // A dry run warns of the MTU that the port would have.
    let narrow = vec![port(WEST, west, 1300, auto)];
    let told = path.controller.dry_run(Router::EdgeA, narrow);
    let told = told.expect("it is sound").warnings;
    let small = |it: &String| it.contains("is too small for IPv6");
    assert!(told.iter().any(small), "{told:?}");
    assert!(!has_closed_a_port(&path));
    // Packets of another size need no other socket.
    let smaller = vec![port(WEST, west, 1480, auto)];
    path.controller
        .apply(Router::EdgeA, smaller)
        .expect("a port takes smaller packets");
    path.wait_for_port(WEST, |it| it.up && it.mtu == 1480);
    path.assert_all_came(traffic);
    assert!(!has_closed_a_port(&path));
    drop(foreign);

    // What is found last of all, that secrets cannot be remembered, comes before a port is closed, too.
    let folder = path.network.lab().directory().join(Router::EdgeA.name());
    std::fs::remove_file(folder.join("state/burned")).expect("the burned secrets");
    let (moved, old, new) = moved_link(&path);
    path.plan.next_epoch().expect("new secrets");
    let mut changes = path.plan.install(Router::EdgeA);
    changes.extend([moved.clone(), port(WEST, west, 1480, v1::XdpMode::Generic)]);
    let refused = path.controller.apply(Router::EdgeA, changes);
    let refused = refused.expect_err("they are lost").to_string();
    assert!(refused.contains("burned"), "{refused}");
    assert!(!has_closed_a_port(&path));
    // And the link has the endpoint that it had, and no other; one that applies gives up what it had.
    assert_eq!([old, new].map(|it| is_free(&path, it)), [false, true]);
    path.controller
        .apply(Router::EdgeA, vec![moved])
        .expect("a link moves");
    assert_eq!([old, new].map(|it| is_free(&path, it)), [true, false]);
    // To another port, whose name is before the first's, and back; also when that port goes.
    let under = port("under", "foreign0", 0, auto);
    let to = |port: &str| {
        let mut changes = vec![moved_link(&path).0];
        if let Some(v1::change::Change::Set(item)) = &mut changes[0].change
            && let Some(v1::item::Item::Link(link)) = &mut item.item
        {
            link.port = port.into();
        }
        changes
    };
    for changes in [
        [to("under"), vec![under]].concat(),
        to(WEST),
        to("under"),
        [to(WEST), vec![gone("under")]].concat(),
    ] {
        path.controller
            .apply(Router::EdgeA, changes)
            .expect("a link moves");
        assert!(!is_free(&path, new));
    }
    path.finish();
}

/// Edge A's link at another endpoint; where it is, and where it goes.
fn moved_link(path: &Path) -> (v1::Change, SocketAddr, SocketAddr) {
    let items = path.plan.start(Router::EdgeA, &path.network).into_iter();
    let mut links = items.filter_map(|change| match change.change {
        Some(v1::change::Change::Set(v1::Item {
            item: Some(v1::item::Item::Link(link)),
            ..
        })) => Some(link),
        _ => None,
    });
    let mut link = links.next().expect("a link");
    let address = link.local.parse().expect("an address");
    assert_eq!(link.local_port, 0, "where links are as a rule");
    link.local_port = 21592;
    let [old, new] = [21591, 21592].map(|it| SocketAddr::new(address, it));
    (set(v1::item::Item::Link(link)), old, new)
}

/// Whether nobody has a UDP endpoint of edge A's.
fn is_free(path: &Path, endpoint: SocketAddr) -> bool {
    let router = path.network.router(Router::EdgeA);
    let bound = router.run(|| std::net::UdpSocket::bind(endpoint).is_ok());
    bound.expect("inside the namespace")
}

#[test]
fn what_a_refused_transaction_cost_a_port_is_told() {
    let Some(mut path) = Path::start(options()) else {
        return;
    };
    // The kernel takes no program for a device on which another with a program stands, which no look at the first shows.
    let west = netdev(WEST);
    let router = path.network.router(Router::EdgeA);
    router
        .add_macvlan("above0", west, [2, 0, 0, 0, 0, 7])
        .expect("a device above");
    let attach = || Steering::attach("above0", Role::Underlay, XdpMode::Generic);
    let above = router.run(attach).expect("inside the namespace");
    let above = above.expect("a program");
    let mut sockets = path.network.sockets();
    let (_, socket) = sockets
        .find(|(known, _)| *known == Router::EdgeA)
        .expect("it runs");
    let mut watch = std::process::Command::new(env!("CARGO_BIN_EXE_twinseal"));
    watch
        .args(["ctl", "--socket"])
        .arg(socket)
        .args(["watch", "--log", "info"]);
    drop(sockets);
    let watch = router.spawn(watch).expect("the program starts");
    wait_for_log(&path, "watching");
    let generic = v1::XdpMode::Generic;
    // What its driver cannot do is known before.
    let native = vec![port("more", "above0", 0, v1::XdpMode::Native)];
    let refused = path.controller.dry_run(Router::EdgeA, native);
    let refused = refused.expect_err("it takes no program").to_string();
    assert!(refused.contains("above0 refuses native XDP"), "{refused}");

    path.plan.next_epoch().expect("new secrets");
    for router in Router::ALL {
        let keys = path.plan.install(router);
        path.controller.apply(router, keys).expect("keys");
    }
    let transmit = path.plan.transmit(Router::EdgeA);
    path.plan.next_epoch().expect("new secrets");
    let mut changes = path.plan.install(Router::EdgeA);
    changes.extend(transmit.clone());
    changes.extend([
        port(WEST, west, 0, generic),
        port(EDGE_PORT, netdev(EDGE_PORT), 0, generic),
    ]);
    let refused = path.controller.apply(Router::EdgeA, changes);
    let refused = refused.expect_err("it cannot be opened").to_string();
    // Those that came with it to receive. What was there before can transmit later.
    let burned = "2 secrets of it were burned before, and cannot be loaded again";
    assert!(refused.contains(burned), "{refused}");
    for (port, words) in [
        (WEST, "and cannot be opened again as it was"),
        (EDGE_PORT, "and is open again as it was after"),
    ] {
        let told = format!("port {port:?} was closed for a transaction that is refused, {words}");
        assert!(refused.contains(&told), "{refused}");
        wait_for_log(
            &path,
            &format!("ERROR twinseal_node::ports::reopen: {told}"),
        );
        wait_for_log(&path, &format!("fault port_interrupted: {told}"));
    }
    path.wait_for_port(EDGE_PORT, |it| it.up && it.reason.is_empty());
    path.wait_for_port(WEST, |it| {
        !it.up && it.reason.starts_with("its device cannot be opened")
    });
    drop((above, watch));
    let router = path.network.router(Router::EdgeA);
    router.delete_link("above0").expect("it goes");
    path.controller
        .apply(Router::EdgeA, transmit)
        .expect("keys that have sealed nothing");
    path.wait_for_port(WEST, |it| it.up && it.reason.is_empty());
    path.settle();
    path.finish();
}

/// The few calls of bpf(2) by which somebody else takes a program off a device.
mod links {
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

    const BPF_LINK_GET_FD_BY_ID: i64 = 30;
    const BPF_LINK_GET_NEXT_ID: i64 = 31;
    const BPF_OBJ_GET_INFO_BY_FD: i64 = 15;
    const BPF_LINK_DETACH: i64 = 34;
    /// `BPF_LINK_TYPE_XDP`
    const XDP: u32 = 6;

    /// Calls bpf(2) with attributes of plain integers.
    fn bpf<T>(command: i64, attributes: &mut T) -> i64 {
        // SAFETY: the kernel reads and writes the attributes in the size given, and pointers in them are of this module's
        // making.
        unsafe {
            libc::syscall(
                libc::SYS_bpf,
                command,
                std::ptr::from_mut(attributes),
                size_of::<T>(),
            )
        }
    }

    /// Takes every XDP program off the device of this index.
    pub(super) fn detach(index: u32) {
        let mut found = 0;
        let mut next = [0u32; 2];
        while bpf(BPF_LINK_GET_NEXT_ID, &mut next) == 0 {
            next[0] = next[1];
            let fd = bpf(BPF_LINK_GET_FD_BY_ID, &mut [next[1], 0, 0]);
            if fd < 0 {
                continue;
            }
            // SAFETY: the kernel has just made it for us.
            let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
            // Kind, number, program, padding, device of `struct bpf_link_info`.
            let mut info = [0u32; 6];
            let mut attributes = [0u64; 2];
            attributes[0] = fd.as_raw_fd() as u64 | (size_of_val(&info) as u64) << 32;
            attributes[1] = info.as_mut_ptr() as u64;
            assert_eq!(bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes), 0);
            if info[0] == XDP && info[4] == index {
                assert_eq!(bpf(BPF_LINK_DETACH, &mut [fd.as_raw_fd()]), 0);
                found += 1;
            }
        }
        assert!(found > 0, "there is a program on device {index}");
    }
}
