//! A node on memory ports, controlled over its real socket.

use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use prost::Message;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use twinseal::control::access::Access;
use twinseal::control::events::file::EventsConfig;
use twinseal::control::lines::Reopen;
use twinseal::control::usage::UsageConfig;
use twinseal::control::{self, ControlError, NodeConfig, SocketConfig, SocketError};
use twinseal::ports::memory::End;
use twinseal::workers::{Idle, PoolConfig};
use twinseal_api::v1::control_client::ControlClient;
use twinseal_api::v1::{self, change::Change, event::Event as Kind, item::Item};

/// A node on a thread of its own, as a process would run it.
struct Node {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), ControlError>>>,
}

impl Node {
    fn start(config: NodeConfig) -> Result<Self, ControlError> {
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            let shutdown = async {
                let _ = stopped.await;
            };
            runtime.block_on(control::run(config, shutdown, Some(ready)))
        });
        match is_ready.blocking_recv() {
            Ok(()) => Ok(Self {
                stop: Some(stop),
                thread: Some(thread),
            }),
            Err(_) => Err(thread
                .join()
                .expect("no panic")
                .expect_err("it was not ready")),
        }
    }

    fn stop(mut self) {
        self.end().expect("it ran well");
    }

    fn end(&mut self) -> Result<(), ControlError> {
        drop(self.stop.take());
        self.thread
            .take()
            .map_or(Ok(()), |thread| thread.join().expect("no panic"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // When a test panics, what it started still ends.
        let _ = self.end();
    }
}

fn config(dir: &Path, name: &str) -> NodeConfig {
    NodeConfig {
        name: name.into(),
        socket: SocketConfig::new(dir.join(format!("{name}.sock"))),
        state_dir: dir.join(name),
        provider: twinseal_crypto::DEFAULT_PROVIDER.into(),
        window_bits: 2048,
        lane_limit: twinseal_crypto::MAX_COUNTER,
        events: EventsConfig::default(),
        usage: UsageConfig::default(),
        audit: None,
        reopen: Reopen::default(),
        pool: PoolConfig {
            cpus: vec![None],
            frames: 1024,
            frame_size: 2048,
            jumbo_frames: 0,
            huge_pages: twinseal_xsk::HugePages::Never,
            ring: 256,
            idle: Idle::Sleep,
            lanes: 2,
        },
    }
}

async fn connect(config: &NodeConfig) -> ControlClient<Channel> {
    let uri = format!("unix://{}", config.socket.path.display());
    let channel = Endpoint::try_from(uri)
        .expect("a path")
        .connect()
        .await
        .expect("it listens");
    ControlClient::new(channel)
}

fn on_runtime<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(test)
}

fn secret(n: u8) -> Vec<u8> {
    (0..32).map(|i| n ^ (i * 7)).collect()
}

fn port(name: &str, vrf: &str, wire: &str, mac: &str) -> Item {
    let role = match vrf {
        "" => v1::PortRole::Underlay,
        _ => v1::PortRole::Edge,
    };
    Item::Port(v1::Port {
        name: name.into(),
        role: role.into(),
        vrf: vrf.into(),
        mtu: 0,
        device: Some(v1::port::Device::Memory(v1::Memory {
            wire: wire.into(),
            mac: mac.into(),
        })),
    })
}

fn key(owner: v1::key::Owner, direction: v1::Direction, epoch: u32, n: u8) -> Item {
    let is_link = matches!(owner, v1::key::Owner::Link(_));
    Item::Key(v1::Key {
        owner: Some(owner),
        direction: direction.into(),
        epoch,
        suite: 0,
        secret: secret(n),
        receiver_index: if is_link { u32::from(n) } else { 0 },
    })
}

fn link_owner() -> v1::key::Owner {
    v1::key::Owner::Link("l1".into())
}

fn circuit_owner() -> v1::key::Owner {
    v1::key::Owner::Circuit("c1".into())
}

fn transmit(owner: v1::transmit::Owner, epoch: u32) -> Item {
    Item::Transmit(v1::Transmit {
        owner: Some(owner),
        epoch,
    })
}

/// Edge A or B of a pair: hosts on wire `<tag>-host-<a|b>`, the other edge on wire `<tag>-under`.
fn edge(tag: &str, end: v1::End) -> Vec<Item> {
    let (me, peer, letter, subnet, other) = match end {
        v1::End::A => (1, 2, "a", "10.1.0.0/16", "10.2.0.0/16"),
        _ => (2, 1, "b", "10.2.0.0/16", "10.1.0.0/16"),
    };
    let mac = |kind: u8, n: u8| format!("02:00:00:00:{kind:02x}:{n:02x}");
    vec![
        Item::Vrf(v1::Vrf { name: "red".into() }),
        port("under", "", &format!("{tag}-under"), &mac(1, me)),
        port("hosts", "red", &format!("{tag}-host-{letter}"), &mac(2, me)),
        Item::Link(v1::Link {
            name: "l1".into(),
            end: end.into(),
            port: "under".into(),
            local: format!("192.0.2.{me}"),
            remote: format!("192.0.2.{peer}"),
            ..Default::default()
        }),
        Item::Neighbour(v1::Neighbour {
            port: "under".into(),
            address: format!("192.0.2.{peer}"),
            mac: mac(1, peer),
        }),
        Item::Neighbour(v1::Neighbour {
            port: "hosts".into(),
            address: format!("10.{me}.0.9"),
            mac: mac(9, me),
        }),
        Item::Circuit(v1::Circuit {
            name: "c1".into(),
            id: 77,
            end: end.into(),
            vrf: "red".into(),
            link: "l1".into(),
            label: 100 + u32::from(peer),
            ..Default::default()
        }),
        Item::Label(v1::Label {
            link: "l1".into(),
            label: 100 + u32::from(me),
            action: Some(v1::label::Action::Egress(v1::Egress {
                circuit: "c1".into(),
            })),
        }),
        Item::Route(v1::Route {
            vrf: "red".into(),
            prefix: other.into(),
            target: Some(v1::route::Target::Circuit("c1".into())),
        }),
        Item::Route(v1::Route {
            vrf: "red".into(),
            prefix: subnet.into(),
            target: Some(v1::route::Target::Via(v1::Via {
                port: "hosts".into(),
                address: String::new(),
            })),
        }),
        key(link_owner(), v1::Direction::AToB, 1, 1),
        key(link_owner(), v1::Direction::BToA, 1, 2),
        key(circuit_owner(), v1::Direction::AToB, 1, 3),
        key(circuit_owner(), v1::Direction::BToA, 1, 4),
        transmit(v1::transmit::Owner::Link("l1".into()), 1),
        transmit(v1::transmit::Owner::Circuit("c1".into()), 1),
    ]
}

fn request(items: impl IntoIterator<Item = Item>) -> v1::ApplyRequest {
    v1::ApplyRequest {
        changes: items
            .into_iter()
            .map(|item| v1::Change {
                change: Some(Change::Set(v1::Item { item: Some(item) })),
            })
            .collect(),
        dry_run: false,
        expected_generation: None,
    }
}

async fn apply(
    client: &mut ControlClient<Channel>,
    items: impl IntoIterator<Item = Item>,
) -> Result<u64, Status> {
    let response = client.apply(request(items)).await?;
    Ok(response.into_inner().generation)
}

fn refusal(status: &Status) -> Vec<v1::RefusedItem> {
    v1::Refusal::decode(status.details())
        .expect("details are a refusal")
        .items
}

async fn get(client: &mut ControlClient<Channel>) -> v1::GetResponse {
    let response = client.get(v1::GetRequest {}).await;
    response.expect("it answers").into_inner()
}

async fn stats(client: &mut ControlClient<Channel>) -> v1::StatsResponse {
    let response = client.stats(v1::StatsRequest {}).await;
    response.expect("it answers").into_inner()
}

/// A name for wires that no other test has.
fn tag(test: &str) -> String {
    format!("{test}-{}", std::process::id())
}

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
        let burned = config.state_dir.join(control::BURNED_FILE);
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
fn a_secret_that_has_sealed_is_refused_after_a_restart() {
    let dir = TempDir::new().expect("a folder");
    let tag = tag("burned");
    let config = config(dir.path(), "n");
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
        let refused: Vec<_> = items.iter().map(|item| item.item.as_str()).collect();
        assert_eq!(
            refused,
            ["transmit of link \"l1\"", "transmit of circuit \"c1\""]
        );
        assert!(items[0].fix.contains("new secret"), "{items:?}");

        // New secrets for what transmits; what only receives may be loaded again.
        let mut items = edge(&tag, v1::End::A);
        items.retain(|item| !matches!(item, Item::Transmit(_)));
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
    assert!(matches!(error, ControlError::Burned(_)), "{error}");
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

/// A host's IPv4/UDP packet in an Ethernet frame.
fn frame(destination_mac: [u8; 6], from: [u8; 4], to: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(destination_mac);
    frame.extend([2, 0, 0, 0, 9, 1]);
    frame.extend(0x0800u16.to_be_bytes());
    let udp = 8 + payload.len();
    let mut ip = vec![0x45, 0];
    ip.extend((20 + udp as u16).to_be_bytes());
    ip.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    ip.extend(from);
    ip.extend(to);
    let sum: u32 = ip
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    frame.extend(ip);
    frame.extend(1000u16.to_be_bytes());
    frame.extend(2000u16.to_be_bytes());
    frame.extend((udp as u16).to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(payload);
    frame
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
        let host_a = End::open(&format!("{tag}-host-a"), 1).expect("one end is free");
        let host_b = End::open(&format!("{tag}-host-b"), 1).expect("one end is free");
        let (host_a, host_b) = (host_a.queue(0), host_b.queue(0));
        let mut sent = 0u32;
        let mut received = 0u32;
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
            for _ in 0..100 {
                let frame = frame(
                    [2, 0, 0, 0, 2, 1],
                    [10, 1, 0, 9],
                    [10, 2, 0, 9],
                    &sent.to_be_bytes(),
                );
                assert!(host_a.send(&frame));
                sent += 1;
            }
            let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
            while received < sent {
                let next = host_b.receive_one(|octets| {
                    assert_eq!(octets[..12], [2, 0, 0, 0, 9, 2, 2, 0, 0, 0, 2, 2]);
                    u32::from_be_bytes(octets[42..46].try_into().expect("four octets"))
                });
                match next {
                    Some(number) => {
                        assert_eq!(number, received, "order and no loss");
                        received += 1;
                    }
                    None if tokio::time::Instant::now() > deadline => {
                        let (a, b) = (stats(&mut a).await, stats(&mut b).await);
                        panic!("{received} of {sent} arrived: {:?} {:?}", a.drops, b.drops);
                    }
                    None => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            }
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
