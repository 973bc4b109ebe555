//! Nodes on memory ports, each on a thread of its own, controlled over their real sockets.
#![allow(dead_code, missing_docs, unreachable_pub)]

pub mod guarded;

use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use twinseal_api::v1::control_client::ControlClient;
use twinseal_api::v1::{self, change::Change, item::Item};
use twinseal_node::events::file::EventsConfig;
use twinseal_node::jsonl::Reopen;
use twinseal_node::usage::UsageConfig;
use twinseal_runtime::ports::memory::{End, EndQueue as Wire};
use twinseal_runtime::workers::{DEFAULT_SLICE, Idle, PoolConfig};
use twinseal_server::{ControlError, NodeConfig, SocketConfig};

/// A node on a thread of its own, as a process would run it.
pub struct Node {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), ControlError>>>,
}

impl Node {
    pub fn start(config: NodeConfig) -> Result<Self, ControlError> {
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
            runtime.block_on(twinseal_server::run(config, shutdown, Some(ready)))
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

    pub fn stop(mut self) {
        self.end().expect("it ran well");
    }

    pub fn end(&mut self) -> Result<(), ControlError> {
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

/// A node with a state directory of its own, which is made.
pub fn config(dir: &Path, name: &str) -> NodeConfig {
    let state_dir = dir.join(name);
    twinseal_node::state_dir::init(&state_dir, false).expect("a new one");
    NodeConfig {
        name: name.into(),
        socket: SocketConfig::new(dir.join(format!("{name}.sock"))),
        state_dir,
        keep_tables: true,
        events: EventsConfig::default(),
        usage: UsageConfig::default(),
        audit: None,
        reopen: Reopen::default(),
        provider: twinseal_crypto::DEFAULT_PROVIDER.into(),
        window_bits: 2048,
        lane_limit: twinseal_crypto::MAX_COUNTER,
        key_limits: Default::default(),
        pool: PoolConfig {
            cpus: vec![None],
            frames: 1024,
            frame_size: 2048,
            jumbo_frames: 0,
            huge_pages: twinseal_xsk::HugePages::Never,
            ring: 256,
            idle: Idle::Sleep,
            slice: DEFAULT_SLICE,
            lanes: 2,
        },
    }
}

pub async fn connect(config: &NodeConfig) -> ControlClient<Channel> {
    let uri = format!("unix://{}", config.socket.path.display());
    let channel = Endpoint::try_from(uri)
        .expect("a path")
        .connect()
        .await
        .expect("it listens");
    ControlClient::new(channel)
}

pub fn on_runtime<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(test)
}

pub fn secret(n: u8) -> Vec<u8> {
    (0..32).map(|i| n ^ (i * 7)).collect()
}

pub fn port(name: &str, vrf: &str, wire: &str, mac: &str) -> Item {
    let role = match vrf {
        "" => v1::PortRole::Underlay,
        _ => v1::PortRole::Edge,
    };
    Item::Port(v1::Port {
        name: name.into(),
        role: role.into(),
        vrf: vrf.into(),
        device: Some(v1::port::Device::Memory(v1::Memory {
            wire: wire.into(),
            mac: mac.into(),
        })),
        ..v1::Port::default()
    })
}

pub fn key(owner: v1::key::Owner, direction: v1::Direction, epoch: u32, n: u8) -> Item {
    let is_link = matches!(owner, v1::key::Owner::Link(_));
    Item::Key(v1::Key {
        owner: Some(owner),
        direction: direction.into(),
        epoch,
        suite: 0,
        secret: secret(n),
        receiver_index: if is_link { u32::from(n) } else { 0 },
        ..Default::default()
    })
}

pub fn link_owner() -> v1::key::Owner {
    v1::key::Owner::Link("l1".into())
}

pub fn circuit_owner() -> v1::key::Owner {
    v1::key::Owner::Circuit("c1".into())
}

pub fn transmit(owner: v1::transmit::Owner, epoch: u32) -> Item {
    Item::Transmit(v1::Transmit {
        owner: Some(owner),
        epoch,
    })
}

/// Edge A or B of a pair: hosts on wire `<tag>-host-<a|b>`, the other edge on wire `<tag>-under`.
pub fn edge(tag: &str, end: v1::End) -> Vec<Item> {
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

pub fn request(items: impl IntoIterator<Item = Item>) -> v1::ApplyRequest {
    v1::ApplyRequest {
        changes: items
            .into_iter()
            .map(|item| v1::Change {
                change: Some(Change::Set(v1::Item {
                    item: Some(item),
                    ..Default::default()
                })),
            })
            .collect(),
        ..Default::default()
    }
}

/// A whole state in one message.
pub fn whole(items: Vec<v1::Item>) -> v1::ReplaceRequest {
    v1::ReplaceRequest {
        commit: Some(items.len() as u64),
        items,
        ..Default::default()
    }
}

pub async fn apply(
    client: &mut ControlClient<Channel>,
    items: impl IntoIterator<Item = Item>,
) -> Result<u64, Status> {
    let response = client.apply(request(items)).await?;
    Ok(response.into_inner().generation)
}

pub fn refusal(status: &Status) -> Vec<v1::RefusedItem> {
    let refusal = twinseal_api::errors::detail::<v1::Refusal>(status);
    refusal.expect("details have a refusal").items
}

pub async fn get(client: &mut ControlClient<Channel>) -> v1::GetResponse {
    let response = client.get(v1::GetRequest {}).await;
    response.expect("it answers").into_inner()
}

pub async fn stats(client: &mut ControlClient<Channel>) -> v1::StatsResponse {
    let response = client.stats(v1::StatsRequest {}).await;
    response.expect("it answers").into_inner()
}

/// The next fault of this kind.
pub async fn fault(reader: &mut tonic::Streaming<v1::Event>, kind: &str) -> String {
    loop {
        let event = reader.message().await.expect("it goes on");
        if let Some(v1::event::Event::Fault(fault)) = event.expect("an event").event
            && fault.kind == kind
        {
            return fault.detail;
        }
    }
}

/// A name for wires that no other test has.
pub fn tag(test: &str) -> String {
    format!("{test}-{}", std::process::id())
}

/// A host's IPv4/UDP packet in an Ethernet frame.
pub fn frame(destination_mac: [u8; 6], from: [u8; 4], to: [u8; 4], payload: &[u8]) -> Vec<u8> {
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

/// Packets from the host of A to the host of B, numbered.
pub struct Flow {
    a: Wire,
    b: Wire,
    pub sent: u32,
    pub received: u32,
}

impl Flow {
    /// Between the hosts of the pair of [`edge`]s with this tag.
    pub fn new(tag: &str) -> Self {
        let end = |letter| {
            let end = End::open(&format!("{tag}-host-{letter}"), 1);
            end.expect("one end is free").queue(0)
        };
        Self {
            a: end("a"),
            b: end("b"),
            sent: 0,
            received: 0,
        }
    }

    /// Sends some packets on their way.
    pub fn send(&mut self, packets: u32) {
        self.send_to([10, 2, 0, 9], packets);
    }

    pub fn send_to(&mut self, to: [u8; 4], packets: u32) {
        for _ in 0..packets {
            let payload = self.sent.to_be_bytes();
            let frame = frame([2, 0, 0, 0, 2, 1], [10, 1, 0, 9], to, &payload);
            assert!(self.a.send(&frame), "the wire has room");
            self.sent += 1;
        }
    }

    /// Sends one packet to where it will not arrive.
    pub fn send_elsewhere(&mut self, to: [u8; 4]) {
        let frame = frame([2, 0, 0, 0, 2, 1], [10, 1, 0, 9], to, &[]);
        assert!(self.a.send(&frame), "the wire has room");
    }

    /// Takes what has arrived; all in order, and none is missing.
    pub fn receive(&mut self) {
        while let Some(number) = self.b.receive_one(|octets| {
            assert_eq!(octets[..12], [2, 0, 0, 0, 9, 2, 2, 0, 0, 0, 2, 2]);
            u32::from_be_bytes(octets[42..46].try_into().expect("four octets"))
        }) {
            assert_eq!(number, self.received, "order and no loss");
            self.received += 1;
        }
    }

    /// Waits until all that was sent has arrived.
    pub async fn all_arrive(&mut self) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        loop {
            self.receive();
            if self.received == self.sent {
                return;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "{} of {} arrived",
                self.received,
                self.sent
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
