//! A node on memory ports, controlled over its real socket.

mod node;

use prost::Message;
use tempfile::TempDir;
use tonic::Code;
use tonic::transport::Channel;
use twinseal_access::Access;
use twinseal_api::v1::control_client::ControlClient;
use twinseal_api::v1::{self, event::Event as Kind, item::Item};
use twinseal_node::state_dir::StateDirError;
use twinseal_runtime::ports::memory::End;
use twinseal_server::{ControlError, NodeConfig, SocketError};

use node::*;

#[test]
fn apply_get_stats_and_watch() {
    let dir = TempDir::new().expect("a folder");
    let config = config(dir.path(), "n");
    let node = Node::start(config.clone()).expect("it starts");
    on_runtime(async {
        let mut client = connect(&config).await;
        let watch = client.watch(v1::WatchRequest::default()).await;
        let mut events = watch.expect("it streams").into_inner();
        let items = edge(&tag("apply"), v1::End::A);
        assert_eq!(apply(&mut client, items.clone()).await.expect("sound"), 1);

        let response = client.get(v1::GetRequest {}).await.expect("it answers");
        let state = response.into_inner();
        for n in 1..=4 {
            let encoded = state.encode_to_vec();
            let secret = secret(n);
            let leaked = encoded.windows(16).any(|bytes| bytes == &secret[..16]);
            assert!(!leaked, "secret {n} is read back");
        }
        assert_eq!((state.generation, state.items.len()), (1, items.len()));
        assert_eq!((state.node.as_str(), state.workers), ("n", 1));
        assert_eq!(state.provider, twinseal_crypto::default_provider().label());
        assert_eq!(state.ports.len(), 2);
        assert!(state.ports.iter().all(|port| port.up && port.mtu == 1500));
        assert!(state.links[0].up);
        assert_eq!(state.links[0].next_hop_mac, "02:00:00:00:01:02");
        let transmitting: Vec<_> = state.keys.iter().map(|key| key.transmitting).collect();
        assert_eq!(transmitting, [true, false, true, false]);
        assert_eq!(state.neighbours.len(), 2);

        let counters = stats(&mut client).await;
        assert_eq!(counters.generation, 1);
        assert_eq!((counters.links.len(), counters.circuits.len()), (1, 1));
        assert!(counters.drops.iter().any(|drop| drop.name == "no_route"));

        let mut seen = Vec::new();
        let up = |event: &Kind| matches!(event, Kind::Circuit(it) if it.change() == v1::CircuitChange::Up);
        let mut boot = 0;
        while !seen.iter().any(up) {
            let event = events.message().await.expect("no error").expect("no end");
            assert!(event.unix_nanos > 0);
            assert_eq!(event.sequence, 1 + seen.len() as u64);
            boot = event.boot;
            seen.extend(event.event);
        }
        assert!(
            matches!(&seen[0], Kind::Table(table) if table.generation == 1 && table.changes == 16)
        );
        let key_changes = |change: v1::KeyChange| {
            let of_kind = |event: &&Kind| matches!(event, Kind::Key(key) if key.change() == change);
            seen.iter().filter(of_kind).count()
        };
        assert_eq!(key_changes(v1::KeyChange::Installed), 4);
        assert_eq!(key_changes(v1::KeyChange::Transmitting), 2);
        assert!(
            seen.iter().any(
                |event| matches!(event, Kind::Link(link) if link.status() == v1::LinkStatus::Up)
            )
        );

        // A reader that was away goes on where it was.
        let request = v1::WatchRequest {
            from_sequence: Some(2),
            boot,
            kinds: vec![v1::EventKind::Configuration.into()],
        };
        let watch = client.watch(request).await;
        let mut again = watch.expect("it streams").into_inner();
        let event = again.message().await.expect("no error").expect("no end");
        assert_eq!((event.sequence, event.boot), (2, boot));
        assert!(
            matches!(event.event, Some(Kind::Circuit(it)) if it.change() == v1::CircuitChange::Created)
        );
        // One of another life is told that it missed something.
        let request = v1::WatchRequest {
            from_sequence: Some(9000),
            boot: boot - 1,
            kinds: Vec::new(),
        };
        let watch = client.watch(request).await;
        let mut other = watch.expect("it streams").into_inner();
        let event = other.message().await.expect("no error").expect("no end");
        let gap = v1::GapEvent {
            first: 9000,
            next: 1,
            cause: v1::GapCause::Restarted.into(),
        };
        assert_eq!(event.event, Some(Kind::Gap(gap)));
        let unknown = v1::WatchRequest {
            kinds: vec![77],
            ..Default::default()
        };
        let status = client.watch(unknown).await.expect_err("no such kind");
        assert_eq!(status.code(), Code::InvalidArgument);
        let told = status.message();
        assert!(told.starts_with("kinds[0]: 77 is not known"), "{told}");

        // The stream ends with the node, and does not hold it up.
        drop(client);
        tokio::task::spawn_blocking(|| node.stop())
            .await
            .expect("no panic");
        while let Ok(Some(_)) = events.message().await {}
    });
    assert!(!config.socket.path.exists(), "the socket stays behind");
}

#[test]
fn a_refused_transaction_leaves_nothing() {
    let dir = TempDir::new().expect("a folder");
    let tag = tag("refused");
    let config = config(dir.path(), "n");
    let _node = Node::start(config.clone()).expect("it starts");
    on_runtime(async {
        let mut client = connect(&config).await;
        let mut items = edge(&tag, v1::End::A);
        items.push(Item::Vrf(v1::Vrf { name: "b d".into() }));
        let status = apply(&mut client, items).await.expect_err("a bad name");
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains("vrf \"b d\": name: "), "{status}");
        let items = refusal(&status);
        assert_eq!(
            (items.len(), items[0].change, items[0].field.as_str()),
            (1, 16, "name")
        );

        // One port's wire has no end left: the other port, opened before it, is closed again.
        let taken = format!("{tag}-under");
        let ends = (
            End::open(&taken, 1).expect("free"),
            End::open(&taken, 1).expect("free"),
        );
        let status = apply(&mut client, edge(&tag, v1::End::A))
            .await
            .expect_err("no end left");
        assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
        assert_eq!(refusal(&status)[0].item, "port \"under\"");
        let hosts = format!("{tag}-host-a");
        let other = (
            End::open(&hosts, 1).expect("free"),
            End::open(&hosts, 1).expect("free"),
        );
        drop((ends, other));
        let state = get(&mut client).await;
        assert_eq!(
            (state.generation, state.items.len(), state.ports.len()),
            (0, 0, 0)
        );

        // Nothing was burned either: the very same secrets are good now.
        assert_eq!(
            apply(&mut client, edge(&tag, v1::End::A))
                .await
                .expect("sound"),
            1
        );
    });
}

#[test]
fn many_refusals_still_reach_the_client() {
    let dir = TempDir::new().expect("a folder");
    let config = config(dir.path(), "n");
    let _node = Node::start(config.clone()).expect("it starts");
    on_runtime(async {
        let mut client = connect(&config).await;
        let bad = (0..5000).map(|n| {
            Item::Vrf(v1::Vrf {
                name: format!("bad name {n}"),
            })
        });
        let status = apply(&mut client, bad).await.expect_err("bad names");
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        let items = refusal(&status);
        let last = items.last().expect("some");
        assert!(items.len() > 10 && last.change == -1, "{last:?}");
        let left = 5000 - (items.len() - 1);
        assert!(last.reason.starts_with(&left.to_string()), "{last:?}");
        assert!(status.message().contains("more"), "{status}");
    });
}

#[test]
fn a_dry_run_and_a_wrong_generation_change_nothing() {
    let dir = TempDir::new().expect("a folder");
    let tag = tag("dry");
    let config = config(dir.path(), "n");
    let _node = Node::start(config.clone()).expect("it starts");
    on_runtime(async {
        let mut client = connect(&config).await;
        let burned = config.state_dir.join(twinseal_node::state_dir::BURNED_FILE);
        let before = std::fs::read(&burned).expect("it is made at start");
        let mut dry = request(edge(&tag, v1::End::A));
        dry.dry_run = true;
        let response = client.apply(dry.clone()).await.expect("sound");
        assert_eq!(response.into_inner().generation, 0);
        assert!(get(&mut client).await.items.is_empty());
        let wire = format!("{tag}-under");
        let ends = (
            End::open(&wire, 1).expect("free"),
            End::open(&wire, 1).expect("free"),
        );
        drop(ends);
        assert_eq!(std::fs::read(&burned).expect("still there"), before);

        let mut wrong = request(edge(&tag, v1::End::A));
        wrong.expected_generation = Some(1);
        let status = client.apply(wrong).await.expect_err("generation 0");
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(refusal(&status)[0].field, "expected_generation");

        let mut right = request(edge(&tag, v1::End::A));
        right.expected_generation = Some(0);
        assert_eq!(
            client
                .apply(right)
                .await
                .expect("sound")
                .into_inner()
                .generation,
            1
        );
        // The same again, while it transmits: no secret is burned twice.
        assert_eq!(
            apply(&mut client, edge(&tag, v1::End::A))
                .await
                .expect("the same"),
            2
        );
    });
}

#[test]
fn a_secret_that_has_served_is_refused_after_a_restart() {
    let dir = TempDir::new().expect("a folder");
    let tag = tag("burned");
    let config = NodeConfig {
        keep_tables: false,
        ..config(dir.path(), "n")
    };
    let node = Node::start(config.clone()).expect("it starts");
    on_runtime(async {
        let mut client = connect(&config).await;
        apply(&mut client, edge(&tag, v1::End::A))
            .await
            .expect("sound");
    });
    node.stop();
    let _node = Node::start(config.clone()).expect("it starts again");
    on_runtime(async {
        let mut client = connect(&config).await;
        let mut dry = request(edge(&tag, v1::End::A));
        dry.dry_run = true;
        let status = client.apply(dry).await.expect_err("burned");
        assert_eq!(status.code(), Code::FailedPrecondition);
        let status = apply(&mut client, edge(&tag, v1::End::A))
            .await
            .expect_err("burned");
        assert_eq!(status.code(), Code::FailedPrecondition);
        let items = refusal(&status);
        let mut refused: Vec<_> = items.iter().map(|item| item.item.as_str()).collect();
        refused.sort_unstable();
        refused.reverse();
        assert_eq!(
            refused,
            [
                "key of link \"l1\", b-to-a, epoch 1",
                "key of link \"l1\", a-to-b, epoch 1",
                "key of circuit \"c1\", b-to-a, epoch 1",
                "key of circuit \"c1\", a-to-b, epoch 1"
            ]
        );
        assert!(items[0].fix.contains("new secret"), "{items:?}");

        // New secrets, also for what only receives: this node stores no tables, and remembers all the same.
        let mut items = edge(&tag, v1::End::A);
        items.retain(|item| !matches!(item, Item::Transmit(_) | Item::Key(_)));
        items.push(key(link_owner(), v1::Direction::BToA, 2, 22));
        items.push(key(circuit_owner(), v1::Direction::BToA, 2, 24));
        items.push(key(link_owner(), v1::Direction::AToB, 2, 21));
        items.push(key(circuit_owner(), v1::Direction::AToB, 2, 23));
        items.push(transmit(v1::transmit::Owner::Link("l1".into()), 2));
        items.push(transmit(v1::transmit::Owner::Circuit("c1".into()), 2));
        assert_eq!(apply(&mut client, items).await.expect("new secrets"), 1);
    });
}

#[test]
fn strangers_are_refused() {
    let dir = TempDir::new().expect("a folder");
    let mut config = config(dir.path(), "n");
    // Nobody's number, so that even root is a stranger.
    config.socket.access = Access::admins([u32::MAX - 7]);
    let _node = Node::start(config.clone()).expect("it starts");
    on_runtime(async {
        let mut client = connect(&config).await;
        let status = client.get(v1::GetRequest {}).await.expect_err("a stranger");
        assert_eq!(status.code(), Code::PermissionDenied);
        assert!(
            status.message().contains("control.viewer_users"),
            "{status}"
        );
        let status = apply(&mut client, []).await.expect_err("a stranger");
        assert_eq!(status.code(), Code::PermissionDenied);
        let status = client
            .watch(v1::WatchRequest::default())
            .await
            .expect_err("a stranger");
        assert_eq!(status.code(), Code::PermissionDenied);
    });
}

#[test]
fn the_socket_of_the_dead_is_replaced_and_nothing_else() {
    use std::os::unix::fs::PermissionsExt;
    let dir = TempDir::new().expect("a folder");
    let config = config(dir.path(), "n");
    let path = &config.socket.path;
    drop(std::os::unix::net::UnixListener::bind(path).expect("free"));
    assert!(path.exists(), "a listener leaves its file behind");
    let node = Node::start(config.clone()).expect("the dead one's is replaced");
    let mode = std::fs::metadata(path)
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o660);

    let mut second = config.clone();
    second.state_dir = dir.path().join("second");
    let error = Node::start(second).err().expect("it is in use");
    assert!(
        matches!(error, ControlError::Socket(SocketError::InUse { .. })),
        "{error}"
    );
    // And the same state directory is refused, on whatever socket.
    let mut third = config.clone();
    third.socket.path = dir.path().join("third.sock");
    let error = Node::start(third).err().expect("its state is in use");
    let me = std::process::id();
    assert!(
        matches!(error, ControlError::StateDir(StateDirError::InUse { pid: Some(pid), .. }) if pid == me),
        "{error}"
    );
    assert!(
        error.to_string().contains(&format!("process {me}")),
        "{error}"
    );
    node.stop();
    assert!(!path.exists());

    std::fs::write(path, "precious").expect("a file");
    let error = Node::start(config.clone()).err().expect("no socket");
    assert!(
        matches!(error, ControlError::Socket(SocketError::NotASocket { .. })),
        "{error}"
    );
    assert_eq!(std::fs::read(path).expect("untouched"), b"precious");
}

#[test]
fn wrong_numbers_are_refused_at_start() {
    let dir = TempDir::new().expect("a folder");
    let config = config(dir.path(), "n");
    type Wrong = (&'static str, fn(&mut NodeConfig));
    let changes: [Wrong; 5] = [
        ("workers.lanes", |c| c.pool.lanes = 0),
        ("crypto.window_bits", |c| c.window_bits = 1000),
        ("crypto.lane_limit", |c| c.lane_limit = 0),
        ("crypto.lane_limit", |c| c.lane_limit = u64::MAX),
        ("provider", |c| c.provider = "none".into()),
    ];
    for (field, change) in changes {
        let mut wrong = config.clone();
        change(&mut wrong);
        let error = Node::start(wrong).err().expect("it is wrong").to_string();
        assert!(error.contains(field), "{error}");
    }
}
#[test]
fn two_nodes_forward_and_rekey_without_loss() {
    let dir = TempDir::new().expect("a folder");
    let tag = tag("pair");
    let (a, b) = (config(dir.path(), "a"), config(dir.path(), "b"));
    let _a = Node::start(a.clone()).expect("it starts");
    let _b = Node::start(b.clone()).expect("it starts");
    on_runtime(async {
        let (mut a, mut b) = (connect(&a).await, connect(&b).await);
        apply(&mut a, edge(&tag, v1::End::A)).await.expect("sound");
        apply(&mut b, edge(&tag, v1::End::B)).await.expect("sound");
        let mut flow = Flow::new(&tag);
        for epoch in 1..=3u8 {
            if epoch > 1 {
                // Make before break: the receiver first.
                let keys = || {
                    [
                        key(link_owner(), v1::Direction::AToB, epoch.into(), 10 * epoch),
                        key(
                            circuit_owner(),
                            v1::Direction::AToB,
                            epoch.into(),
                            10 * epoch + 1,
                        ),
                    ]
                };
                apply(&mut b, keys()).await.expect("sound");
                apply(&mut a, keys()).await.expect("sound");
                let switch = [
                    transmit(v1::transmit::Owner::Link("l1".into()), epoch.into()),
                    transmit(v1::transmit::Owner::Circuit("c1".into()), epoch.into()),
                ];
                apply(&mut a, switch).await.expect("sound");
            }
            flow.send(100);
            flow.all_arrive().await;
        }
        let (a_stats, b_stats) = (stats(&mut a).await, stats(&mut b).await);
        assert_eq!(a_stats.circuits[0].sent_packets, 300);
        assert_eq!(b_stats.circuits[0].received_packets, 300);
        assert_eq!(
            a_stats.links[0].sent_packets,
            b_stats.links[0].received_packets
        );
        let keys = get(&mut a).await.keys;
        let sealed: Vec<_> = keys
            .iter()
            .filter(|key| key.transmitter)
            .map(|key| key.packets)
            .collect();
        assert_eq!(sealed, [100; 6]);
    });
}

async fn explain(client: &mut ControlClient<Channel>, destination: &str) -> v1::ExplainResponse {
    let request = v1::ExplainRequest {
        vrf: "red".into(),
        destination: destination.into(),
        protocol: 17,
        ..Default::default()
    };
    let told = client.explain(request).await;
    told.expect("it answers").into_inner()
}

#[test]
fn explain_knows_own_addresses_and_members_that_are_down() {
    let dir = TempDir::new().expect("a folder");
    let config = config(dir.path(), "n");
    let node = Node::start(config.clone()).expect("it starts");
    on_runtime(async {
        let mut client = connect(&config).await;
        let mut items = edge(&tag("own"), v1::End::A);
        for item in &mut items {
            match item {
                Item::Port(port) if port.name == "hosts" => port.local = vec!["10.1.0.1".into()],
                _ => {}
            }
        }
        let via = |address: &str| {
            let (port, address) = ("hosts".into(), address.into());
            v1::member::Target::Via(v1::Via { port, address })
        };
        let group = |name: &str, targets: Vec<v1::member::Target>| {
            let members = targets.into_iter().map(|target| v1::Member {
                target: Some(target),
                ..Default::default()
            });
            Item::Group(v1::Group {
                name: name.into(),
                members: members.collect(),
            })
        };
        let route = |prefix: &str, group: &str| {
            Item::Route(v1::Route {
                vrf: "red".into(),
                prefix: prefix.into(),
                target: Some(v1::route::Target::Group(group.into())),
            })
        };
        let circuit = v1::member::Target::Circuit("c1".into());
        let member = |address: &str| match address {
            "" => v1::Member {
                target: Some(circuit.clone()),
                ..Default::default()
            },
            address => v1::Member {
                target: Some(via(address)),
                weight: Some(0),
            },
        };
        items.extend([
            group("g1", vec![circuit.clone(), via("10.1.0.77")]),
            group("g2", vec![via("10.1.0.77"), via("10.1.0.78")]),
            Item::Group(v1::Group {
                name: "g3".into(),
                members: ["10.1.0.9", "10.1.0.77", ""].map(member).into(),
            }),
            route("10.7.0.0/16", "g3"),
            route("10.5.0.0/16", "g1"),
            route("10.6.0.0/16", "g2"),
        ]);
        apply(&mut client, items).await.expect("sound");

        let own = explain(&mut client, "10.1.0.1").await;
        assert_eq!(
            (own.own_port.as_str(), own.problem.as_str()),
            ("hosts", "own_address")
        );
        let host = explain(&mut client, "10.1.0.9").await;
        assert_eq!((host.own_port.as_str(), host.problem.as_str()), ("", ""));
        let unresolved = "10.1.0.77 on port hosts: its next hop is not resolved";
        let group = explain(&mut client, "10.5.0.1").await;
        assert_eq!(group.skipped, [unresolved]);
        assert_eq!(group.into.expect("a circuit").circuit, "c1");
        assert_eq!(group.problem, "");
        let none = explain(&mut client, "10.6.0.1").await;
        assert_eq!(
            (none.skipped.len(), none.problem.as_str()),
            (2, "group_down")
        );
        let idle = explain(&mut client, "10.7.0.1").await;
        assert_eq!(
            idle.skipped,
            [
                "10.1.0.9 on port hosts: its weight is 0",
                "10.1.0.77 on port hosts: its weight is 0, and its next hop is not resolved"
            ]
        );
        for nowhere in ["127.0.0.1", "::ffff:10.1.0.9", "fe80::1"] {
            let told = explain(&mut client, nowhere).await;
            assert_eq!(told.problem, "bad_destination", "{nowhere}");
        }
    });
    node.stop();
}

#[test]
fn an_mtu_that_is_too_small_is_told_at_once_and_as_long_as_it_is() {
    let dir = TempDir::new().expect("a folder");
    let config = config(dir.path(), "n");
    let node = Node::start(config.clone()).expect("it starts");
    on_runtime(async {
        let mut client = connect(&config).await;
        let mut items = edge(&tag("mtu"), v1::End::A);
        for item in &mut items {
            match item {
                Item::Port(port) if port.name == "under" => port.mtu = 1300,
                _ => {}
            }
        }
        let mut ask = async |items: Vec<Item>, dry_run: bool| {
            let request = v1::ApplyRequest {
                dry_run,
                ..request(items)
            };
            let answer = client.apply(request).await;
            answer.expect("it applies").into_inner().warnings
        };
        assert!(ask(items, false).await.is_empty(), "IPv4 fits");
        let v6 = || {
            vec![Item::Route(v1::Route {
                vrf: "red".into(),
                prefix: "2001:db8:2::/48".into(),
                target: Some(v1::route::Target::Circuit("c1".into())),
            })]
        };
        for dry_run in [true, false] {
            let told = ask(v6(), dry_run).await;
            assert_eq!(told.len(), 1);
            for part in ["\"l1\"", "1208 bytes", "1280", "\"under\"", "1372"] {
                assert!(told[0].contains(part), "no {part} in: {}", told[0]);
            }
        }
        assert!(ask(v6(), false).await.is_empty(), "it is told once");
        let state = client.get(v1::GetRequest {}).await.expect("it answers");
        assert_eq!(state.into_inner().warnings.len(), 1);
    });
    node.stop();
}

/// A frame that waits for a neighbour on a port must not leave by what comes after that port, though it has its index and
/// its neighbours have the same addresses.
#[test]
fn frames_that_wait_do_not_outlive_their_port_or_its_vrf() {
    let via = |vrf: &str, port: &str| {
        Item::Route(v1::Route {
            vrf: vrf.into(),
            prefix: "10.9.0.0/16".into(),
            target: Some(v1::route::Target::Via(v1::Via {
                port: port.into(),
                address: String::new(),
            })),
        })
    };
    let neighbour = |port: &str| {
        Item::Neighbour(v1::Neighbour {
            port: port.into(),
            address: "10.9.0.5".into(),
            mac: "02:00:00:00:09:05".into(),
        })
    };
    let vrf = |name: &str| Item::Vrf(v1::Vrf { name: name.into() });
    let route = |vrf: &str| {
        v1::item_ref::Item::Route(v1::RouteRef {
            vrf: vrf.into(),
            prefix: "10.9.0.0/16".into(),
        })
    };
    let port_ref = |port: &str| v1::item_ref::Item::Port(port.into());
    let vrf_ref = |vrf: &str| v1::item_ref::Item::Vrf(vrf.into());
    let (mac_in, mac_out) = ("02:00:00:00:07:01", "02:00:00:00:07:02");
    for reborn in [true, false] {
        let dir = TempDir::new().expect("a folder");
        let config = config(dir.path(), "n");
        let _node = Node::start(config.clone()).expect("it starts");
        let tag = tag(&format!("outlive-{reborn}"));
        let (wire_in, wire_out) = (format!("{tag}-in"), format!("{tag}-out"));
        let host = End::open(&wire_in, 1).expect("free").queue(0);
        let far = End::open(&wire_out, 1).expect("free").queue(0);
        on_runtime(async {
            let mut client = connect(&config).await;
            let items = [
                vrf("red"),
                vrf("blue"),
                port("in", "red", &wire_in, mac_in),
                port("out", "red", &wire_out, mac_out),
                via("red", "out"),
            ];
            apply(&mut client, items).await.expect("sound");
            let packet =
                |payload: &[u8]| frame([2, 0, 0, 0, 7, 1], [10, 1, 0, 9], [10, 9, 0, 5], payload);
            assert!(host.send(&packet(b"red's")));
            // It waits: what comes after it was dropped by then.
            let drops = |stats: v1::StatsResponse, reason: &str| {
                let found = stats.drops.iter().find(|drop| drop.name == reason);
                found.map_or(0, |drop| drop.value)
            };
            let mut short = packet(b"");
            short.truncate(20);
            assert!(host.send(&short));
            while drops(stats(&mut client).await, "truncated") == 0 {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            let mut request = v1::ApplyRequest::default();
            let mut delete = |item| {
                let item = v1::ItemRef { item: Some(item) };
                request.changes.push(v1::Change {
                    change: Some(v1::change::Change::Delete(item)),
                });
            };
            delete(route("red"));
            if reborn {
                delete(port_ref("out"));
                client.apply(request).await.expect("sound");
                let items = [
                    port("other", "blue", &wire_out, mac_out),
                    neighbour("other"),
                ];
                apply(&mut client, items).await.expect("sound");
            } else {
                delete(port_ref("in"));
                delete(vrf_ref("red"));
                let items = [port("out", "blue", &wire_out, mac_out), neighbour("out")];
                request.changes.extend(node::request(items).changes);
                client.apply(request).await.expect("sound");
            }
            assert_eq!(drops(stats(&mut client).await, "port_gone"), 1);
            // The first that leaves is blue's own, of another host.
            let name = if reborn { "other" } else { "out" };
            apply(&mut client, [via("blue", name)])
                .await
                .expect("sound");
            let own = frame([2, 0, 0, 0, 7, 2], [10, 1, 0, 9], [10, 9, 0, 5], b"blue's");
            assert!(far.send(&own));
            loop {
                let got = far.receive_one(|octets| octets.windows(6).any(|it| it == b"blue's"));
                match got {
                    Some(blue) => break assert!(blue, "red's left by blue's port"),
                    None => tokio::time::sleep(std::time::Duration::from_millis(1)).await,
                }
            }
        });
    }
}
