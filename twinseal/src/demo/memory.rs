//! The path without root: the same three routers in this process, over memory ports, with hosts of our own.

use std::io;
use std::net::IpAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::oneshot;
use twinseal_api::v1;
use twinseal_crypto::{DEFAULT_PROVIDER, MAX_COUNTER};
use twinseal_lab::LabError;
use twinseal_lab::frame::UdpFrame;
use twinseal_lab::traffic::{Load, Outlet, Payload, Tally, now_ns};
use twinseal_xsk::HugePages;

use twinseal_node::events::file::EventsConfig;
use twinseal_node::jsonl::Reopen;
use twinseal_node::usage::UsageConfig;
use twinseal_runtime::ports::memory::{End, EndQueue};
use twinseal_runtime::workers::{DEFAULT_SLICE, Idle, PoolConfig};
use twinseal_server::{NodeConfig, SocketConfig};
use twinseal_testbed::plan::{Devices, EAST, EDGE_PORT, Host, Router, WEST};
use twinseal_wire::ethernet::{self, Mac};
use twinseal_wire::ip;

const PATIENCE: Duration = Duration::from_secs(10);
/// Where test packets go.
pub(super) const TEST_PORT: u16 = 9009;

/// The three routers and two hosts.
pub(super) struct Network {
    routers: Vec<Node>,
    pub(super) hosts: [MemoryHost; 2],
    wires: String,
    _folder: tempfile::TempDir,
}

struct Node {
    router: Router,
    socket: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Network {
    pub(super) fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        // The folder's name is unique in the process, and made of what names may be made of.
        let unique = folder.path().file_name().unwrap_or_default();
        let wires = format!("demo-{}", unique.to_string_lossy());
        let host = |host: Host| MemoryHost::start(host, &wire(&wires, edge_of(host), EDGE_PORT));
        let hosts = [host(Host::A)?, host(Host::B)?];
        let mut routers = Vec::new();
        for router in Router::ALL {
            routers.push(Node::start(router, folder.path())?);
        }
        Ok(Self {
            routers,
            hosts,
            wires,
            _folder: folder,
        })
    }

    pub(super) fn sockets(&self) -> impl Iterator<Item = (Router, &Path)> {
        let nodes = self.routers.iter();
        nodes.map(|node| (node.router, node.socket.as_path()))
    }

    pub(super) fn host(&self, host: Host) -> &MemoryHost {
        &self.hosts[host as usize]
    }
}

impl Devices for Network {
    fn device(&self, router: Router, port: &str) -> v1::port::Device {
        v1::port::Device::Memory(v1::Memory {
            wire: wire(&self.wires, router, port),
            mac: mac(router, port).to_string(),
        })
    }

    fn neighbours(&self, router: Router) -> Vec<v1::Neighbour> {
        let neighbour = |port: &str, address: IpAddr, mac: Mac| v1::Neighbour {
            port: port.into(),
            address: address.to_string(),
            mac: mac.to_string(),
        };
        let underlay = twinseal_testbed::plan::Underlay::V4;
        let peer = |link: &str, peer: Router| {
            neighbour(link, underlay.address(peer, link).0, mac(peer, link))
        };
        let edge = |host: Host| {
            [false, true].map(|v6| neighbour(EDGE_PORT, host.address(v6), host_mac(host)))
        };
        match router {
            Router::EdgeA => [vec![peer(WEST, Router::Transit)], edge(Host::A).to_vec()].concat(),
            Router::Transit => vec![peer(WEST, Router::EdgeA), peer(EAST, Router::EdgeB)],
            Router::EdgeB => [vec![peer(EAST, Router::Transit)], edge(Host::B).to_vec()].concat(),
        }
    }
}

/// Both ends of a wire call it by the same name.
fn wire(prefix: &str, router: Router, port: &str) -> String {
    match port {
        EDGE_PORT => format!("{prefix}-{}", router.name()),
        link => format!("{prefix}-{link}"),
    }
}

fn edge_of(host: Host) -> Router {
    match host {
        Host::A => Router::EdgeA,
        Host::B => Router::EdgeB,
    }
}

fn mac(router: Router, port: &str) -> Mac {
    let port = match port {
        EDGE_PORT => 0,
        WEST => 1,
        _ => 2,
    };
    Mac([2, 0, 0, 0, router as u8 + 1, port])
}

fn host_mac(host: Host) -> Mac {
    Mac([2, 0, 0, 0xff, host as u8 + 1, 0])
}

impl Node {
    fn start(router: Router, folder: &Path) -> anyhow::Result<Self> {
        let folder = folder.join(router.name());
        std::fs::create_dir_all(&folder)?;
        let socket = folder.join("control.sock");
        let config = NodeConfig {
            name: router.name().into(),
            socket: SocketConfig::new(&socket),
            state_dir: folder.join("state"),
            keep_tables: true,
            provider: DEFAULT_PROVIDER.into(),
            window_bits: 4096,
            lane_limit: MAX_COUNTER,
            events: EventsConfig::default(),
            usage: UsageConfig::default(),
            audit: None,
            reopen: Reopen::default(),
            key_limits: Default::default(),
            pool: PoolConfig {
                cpus: vec![None],
                frames: 8192,
                frame_size: 2048,
                jumbo_frames: 0,
                huge_pages: HugePages::Auto,
                ring: 2048,
                idle: Idle::Sleep,
                slice: DEFAULT_SLICE,
                lanes: 4,
            },
        };
        twinseal_node::state_dir::init(&config.state_dir, false)?;
        let (ready, is_ready) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name(router.name().into())
            .spawn(move || -> anyhow::Result<()> {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                runtime.block_on(async {
                    let (tell, told) = oneshot::channel();
                    let shutdown = async {
                        // A dropped sender stops it too.
                        let _ = stopped.await;
                    };
                    let forward = async {
                        if told.await.is_ok() {
                            let _ = ready.send(());
                        }
                    };
                    let node = twinseal_server::run(config, shutdown, Some(tell));
                    tokio::join!(node, forward).0
                })?;
                Ok(())
            })?;
        let node = Self {
            router,
            socket,
            stop: Some(stop),
            thread: Some(thread),
        };
        is_ready
            .recv_timeout(PATIENCE)
            .with_context(|| format!("{} did not start", router.name()))?;
        Ok(node)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && let Ok(Err(error)) = thread.join()
        {
            tracing::warn!("{}: {error:#}", self.router.name());
        }
    }
}

/// A host: answers pings, keeps the tally of test packets.
pub(super) struct MemoryHost {
    host: Host,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    queue: EndQueue,
    stop: AtomicBool,
    /// Echo replies received.
    echoes: AtomicU32,
    tally: Mutex<Option<Tally>>,
}

impl MemoryHost {
    fn start(host: Host, wire: &str) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared {
            queue: End::open(wire, 1)?.queue(0),
            stop: AtomicBool::new(false),
            echoes: AtomicU32::new(0),
            tally: Mutex::new(None),
        });
        let thread = std::thread::Builder::new().name("host".into()).spawn({
            let shared = Arc::clone(&shared);
            move || {
                while !shared.stop.load(Ordering::Relaxed) {
                    if !shared.drain() {
                        std::thread::sleep(Duration::from_micros(50));
                    }
                }
            }
        })?;
        Ok(Self {
            host,
            shared,
            thread: Some(thread),
        })
    }

    /// Sends echo requests, one after the other; returns how many were answered.
    pub(super) fn ping(&self, v6: bool, count: u32) -> u32 {
        let before = self.shared.echoes.load(Ordering::Relaxed);
        for sequence in 0..count {
            self.shared
                .queue
                .send(&echo_request(self.host, v6, sequence as u16));
            let deadline = Instant::now() + Duration::from_secs(1);
            while self.shared.echoes.load(Ordering::Relaxed) <= before + sequence
                && Instant::now() < deadline
            {
                std::thread::sleep(Duration::from_micros(100));
            }
        }
        self.shared.echoes.load(Ordering::Relaxed) - before
    }

    /// Begins a new tally.
    pub(super) fn receive(&self, marker: [u8; 8]) {
        *self.shared.tally() = Some(Tally::new(marker));
    }

    /// Looks at the tally, if there is one.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Tally) -> T) -> Option<T> {
        self.shared.tally().as_ref().map(look)
    }

    /// Ends the tally.
    pub(super) fn finish(&self) -> Option<Tally> {
        self.shared.tally().take()
    }

    /// What a load leaves by.
    pub(super) fn outlet(&self, v6: bool) -> MemoryOutlet {
        let frame = UdpFrame {
            dst_mac: mac(edge_of(self.host), EDGE_PORT).0,
            src_mac: host_mac(self.host).0,
            src: self.host.address(v6),
            dst: self.host.other().address(v6),
            src_port: 0,
            dst_port: TEST_PORT,
            ttl: 64,
            traffic_class: 0,
        };
        MemoryOutlet {
            shared: Arc::clone(&self.shared),
            frame,
            messages: Vec::new(),
        }
    }
}

impl Drop for MemoryHost {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn tally(&self) -> MutexGuard<'_, Option<Tally>> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Handles what has arrived; false if nothing had.
    fn drain(&self) -> bool {
        let mut any = false;
        let mut tally = self.tally();
        let now = now_ns();
        for _ in 0..64 {
            let reply = self
                .queue
                .receive_one(|frame| self.handle(frame, now, &mut tally));
            match reply {
                None => break,
                Some(reply) => {
                    any = true;
                    if let Some(reply) = reply {
                        self.queue.send(&reply);
                    }
                }
            }
        }
        any
    }

    /// What to answer a frame with.
    fn handle(&self, frame: &[u8], now: u64, tally: &mut Option<Tally>) -> Option<Vec<u8>> {
        let (payload, protocol) = match frame.get(ethernet::LEN)? >> 4 {
            4 => (ethernet::LEN + ip::V4_LEN, *frame.get(ethernet::LEN + 9)?),
            _ => (ethernet::LEN + ip::V6_LEN, *frame.get(ethernet::LEN + 6)?),
        };
        match (protocol, frame.get(payload)?) {
            (17, _) => {
                if let Some(tally) = tally {
                    tally.record(now, frame.get(payload + 8..)?);
                }
                None
            }
            (1, 8) | (58, 128) => Some(echo_reply(frame, payload)),
            (1, 0) | (58, 129) => {
                self.echoes.fetch_add(1, Ordering::Relaxed);
                None
            }
            _ => None,
        }
    }
}

/// A request of 64 octets of data. The checksum over ICMP is left out: only our own hosts see it.
fn echo_request(from: Host, v6: bool, sequence: u16) -> Vec<u8> {
    // UDP and ICMP headers are both eight octets: the frame of the one serves for the other.
    let frame = UdpFrame {
        dst_mac: mac(edge_of(from), EDGE_PORT).0,
        src_mac: host_mac(from).0,
        src: from.address(v6),
        dst: from.other().address(v6),
        src_port: 0,
        dst_port: 0,
        ttl: 64,
        traffic_class: 0,
    };
    let mut octets = Vec::new();
    frame.write(64, &mut octets);
    let icmp = frame.payload_offset() - 8;
    octets[icmp..icmp + 8].fill(0);
    octets[icmp] = if v6 { 128 } else { 8 };
    octets[icmp + 6..icmp + 8].copy_from_slice(&sequence.to_be_bytes());
    if v6 {
        octets[ethernet::LEN + 6] = 58;
    } else {
        octets[ethernet::LEN + 9] = 1;
        let header = ethernet::LEN..ethernet::LEN + ip::V4_LEN;
        octets[ethernet::LEN + 10..ethernet::LEN + 12].fill(0);
        let sum = ip::checksum(&octets[header]);
        octets[ethernet::LEN + 10..ethernet::LEN + 12].copy_from_slice(&sum.to_be_bytes());
    }
    octets
}

/// The request with its addresses turned round.
fn echo_reply(request: &[u8], icmp: usize) -> Vec<u8> {
    let mut reply = request.to_vec();
    reply[..6].copy_from_slice(&request[6..12]);
    reply[6..12].copy_from_slice(&request[..6]);
    let (source, len) = match icmp - ethernet::LEN {
        ip::V4_LEN => (ethernet::LEN + 12, 4),
        _ => (ethernet::LEN + 8, 16),
    };
    reply[source..source + len].copy_from_slice(&request[source + len..source + 2 * len]);
    reply[source + len..source + 2 * len].copy_from_slice(&request[source..source + len]);
    reply[icmp] = if len == 4 { 0 } else { 129 };
    reply
}

/// Sends a load as frames into a host's wire.
pub(super) struct MemoryOutlet {
    shared: Arc<Shared>,
    frame: UdpFrame,
    messages: Vec<Vec<u8>>,
}

impl Outlet for MemoryOutlet {
    fn channels(&self) -> usize {
        1
    }

    fn prepare(&mut self, load: &Load) -> Result<(), LabError> {
        let message = load.message()?;
        let mut octets = Vec::new();
        self.frame.write(message.len(), &mut octets);
        octets[self.frame.payload_offset()..].copy_from_slice(&message);
        self.messages = vec![octets; twinseal_lab::traffic::BATCH];
        Ok(())
    }

    fn stage(&mut self, message: usize, flow: usize, payload: &Payload) -> Result<(), LabError> {
        let at = self.frame.payload_offset();
        let octets = &mut self.messages[message];
        // The source port makes the flow.
        octets[at - 8..at - 6].copy_from_slice(&(flow as u16).to_be_bytes());
        payload.write_header(&mut octets[at..])
    }

    fn transmit(&mut self, _: usize, messages: Range<usize>) -> io::Result<usize> {
        // What finds no room is lost, as at any port.
        for message in &self.messages[messages.clone()] {
            self.shared.queue.send(message);
        }
        Ok(messages.len())
    }

    fn name(&self) -> String {
        "a memory wire".into()
    }
}
