//! A whole node under its controller: everything loaded through its real socket, then routes changed as fast as they go
//! while packets pass, each of which is counted.

mod items;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tonic::transport::{Channel, Endpoint};
use twinseal_api::v1::{self, control_client::ControlClient, item::Item};
use twinseal_runtime::ports::memory::{End, EndQueue};
use twinseal_server::NodeConfig;
use twinseal_testbed::items::set;

use crate::machine::Machine;
use crate::routes::{Family, Route, random, routes};
use items::*;

/// Changes of a transaction.
const TRANSACTION: usize = 10_000;
/// Routes of one transaction while packets pass.
const UPDATES: usize = 1000;
/// Frames under way at most: fewer than a wire holds.
const WINDOW: u64 = 256;
/// Between two looks of who sends and receives.
const PAUSE: Duration = Duration::from_micros(100);
/// How long a frame may be under way.
const PATIENCE: Duration = Duration::from_secs(5);
/// Packets go to so many routes in turn.
const TARGETS: u64 = 4096;

/// How much there is of everything.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LoadSizes {
    /// IPv4 routes.
    pub v4: usize,
    /// IPv6 routes.
    pub v6: usize,
    /// VRFs.
    pub vrfs: u32,
    /// Circuits, spread over the VRFs.
    pub circuits: u32,
    /// Links.
    pub links: u32,
    /// How many of the circuits have keys, two each.
    pub keyed: u32,
    /// Seconds of updates.
    pub seconds: u64,
    /// Updates a second at most; none: as many as go.
    pub rate: Option<u32>,
    /// Packets a second meanwhile.
    pub pps: u32,
}

/// One kind of thing, loaded.
#[derive(Clone, Debug, Serialize)]
pub struct LoadLine {
    /// What.
    pub what: &'static str,
    /// How many.
    pub count: usize,
    /// Seconds until the node had applied the last.
    pub seconds: f64,
    /// Bytes of memory that the node has more than before, for each.
    pub bytes: f64,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct LoadReport {
    /// Where.
    pub machine: Machine,
    /// How much.
    pub sizes: LoadSizes,
    /// What was loaded, in order.
    pub lines: Vec<LoadLine>,
    /// Route updates a second while packets passed.
    pub updates_per_second: f64,
    /// The slowest of their transactions, in seconds, from request to answer.
    pub slowest: f64,
    /// Packets sent meanwhile.
    pub packets: u64,
    /// Of these, lost.
    pub lost: u64,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The node.
    #[error("the node: {0}")]
    Node(String),
    /// It refused what was loaded.
    #[error("the node refused {what}: {status}")]
    Refused {
        /// What.
        what: &'static str,
        /// Why.
        status: Box<tonic::Status>,
    },
    /// The thread that sends and receives.
    #[error("the thread of the packets panicked")]
    Traffic,
    /// The packets' ports.
    #[error(transparent)]
    Port(#[from] twinseal_runtime::ports::PortError),
}

/// Runs a node, loads it and changes it. `live` tells the bytes that are allocated now.
///
/// # Errors
/// The node did not start, or refused something.
pub fn load(
    config: NodeConfig,
    sizes: LoadSizes,
    live: fn() -> u64,
) -> Result<LoadReport, LoadError> {
    let (stop, stopped) = oneshot::channel::<()>();
    let (ready, is_ready) = oneshot::channel();
    let socket = config.socket.path.clone();
    let node = std::thread::Builder::new().name("control".into());
    let node = node.spawn(move || {
        runtime()?
            .block_on(twinseal_server::run(
                config,
                async {
                    // A dropped sender stops it too.
                    let _ = stopped.await;
                },
                Some(ready),
            ))
            .map_err(|error| LoadError::Node(error.to_string()))
    });
    let node = node.map_err(|error| LoadError::Node(error.to_string()))?;
    let report = is_ready
        .blocking_recv()
        .map_err(|_| LoadError::Node("it did not start".into()))
        .and_then(|()| runtime()?.block_on(Loader::run(socket, sizes, live)));
    drop(stop);
    match node.join() {
        Ok(Ok(())) => report,
        Ok(Err(error)) => Err(error),
        Err(_) => Err(LoadError::Node("it panicked".into())),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, LoadError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| LoadError::Node(error.to_string()))
}

struct Loader {
    client: ControlClient<Channel>,
    sizes: LoadSizes,
    live: fn() -> u64,
    lines: Vec<LoadLine>,
}

impl Loader {
    async fn run(
        socket: PathBuf,
        sizes: LoadSizes,
        live: fn() -> u64,
    ) -> Result<LoadReport, LoadError> {
        let node = |error: tonic::transport::Error| LoadError::Node(error.to_string());
        let endpoint = Endpoint::try_from(format!("unix://{}", socket.display())).map_err(node)?;
        let client = ControlClient::new(endpoint.connect().await.map_err(node)?);
        let mut loader = Self {
            client: client.max_encoding_message_size(64 << 20),
            sizes,
            live,
            lines: Vec::new(),
        };
        let [hosts_in, hosts_out] = ["in", "out"].map(wire);
        let [hosts_in, hosts_out] = [End::open(&hosts_in, 1)?, End::open(&hosts_out, 1)?];
        let (v4, v6) = (
            routes(Family::V4, sizes.v4, sizes.vrfs),
            routes(Family::V6, sizes.v6, sizes.vrfs),
        );
        loader.everything(&v4, &v6).await?;

        let done = Arc::new(AtomicBool::new(false));
        let traffic = std::thread::spawn({
            let done = Arc::clone(&done);
            move || traffic(&hosts_in.queue(0), &hosts_out.queue(0), sizes.pps, &done)
        });
        let updated = loader.update(&v4).await;
        done.store(true, Relaxed);
        let (packets, received) = traffic.join().map_err(|_| LoadError::Traffic)?;
        let (updates_per_second, slowest) = updated?;
        Ok(LoadReport {
            machine: Machine::this(),
            sizes,
            lines: loader.lines,
            updates_per_second,
            slowest,
            packets,
            lost: packets - received,
        })
    }

    async fn everything(&mut self, v4: &[Route], v6: &[Route]) -> Result<(), LoadError> {
        let sizes = self.sizes;
        let vrfs = (0..sizes.vrfs).map(vrf_item);
        self.load("VRFs", vrfs).await?;
        let ports = [
            port("in", 1, Some(vrf(0))),
            port("out", 2, Some(vrf(0))),
            port("under", 3, None),
            neighbour(1),
            neighbour(2),
        ];
        self.load("ports", ports.into_iter()).await?;
        self.load("links", (0..sizes.links).map(link)).await?;
        let circuits = (0..sizes.circuits).map(move |n| circuit(n, &sizes));
        self.load("circuits", circuits).await?;
        let labels = (0..sizes.circuits).map(move |n| label(n, &sizes));
        self.load("labels", labels).await?;
        let keys = (0..sizes.keyed.min(sizes.circuits)).flat_map(keys);
        self.load("keys", keys).await?;
        // Made as they are asked for: what the controller frees meanwhile would count as freed by the node.
        let v4 = v4.iter().enumerate();
        self.load(
            "IPv4 routes",
            v4.map(|(n, it)| route(Family::V4, it, n, &sizes)),
        )
        .await?;
        let v6 = v6.iter().enumerate();
        self.load(
            "IPv6 routes",
            v6.map(|(n, it)| route(Family::V6, it, n, &sizes)),
        )
        .await?;
        let targets = (0..TARGETS).map(|n| target(n, 0));
        self.load("routes for packets", targets).await?;
        // What one more costs, and one less, where there are so many.
        let n = sizes.circuits;
        let more = [circuit(n, &sizes), label(n, &sizes)].map(set);
        self.apply("a circuit more", more.into_iter()).await?;
        self.apply("a circuit less", without(n, &sizes).into_iter())
            .await
    }

    async fn load(
        &mut self,
        what: &'static str,
        items: impl Iterator<Item = Item>,
    ) -> Result<(), LoadError> {
        self.apply(what, items.map(set)).await
    }

    /// Applies changes, many at a time.
    async fn apply(
        &mut self,
        what: &'static str,
        changes: impl Iterator<Item = v1::Change>,
    ) -> Result<(), LoadError> {
        let mut changes = changes.peekable();
        let before = (self.live)();
        let (mut count, mut took) = (0, Duration::ZERO);
        while changes.peek().is_some() {
            let request = request(changes.by_ref().take(TRANSACTION));
            count += request.changes.len();
            let start = Instant::now();
            let applied = self.client.apply(request).await;
            applied.map_err(|status| LoadError::Refused {
                what,
                status: Box::new(status),
            })?;
            took += start.elapsed();
        }
        // Old snapshots and blocks go when the node keeps house.
        tokio::time::sleep(Duration::from_millis(100)).await;
        self.lines.push(LoadLine {
            what,
            count,
            seconds: took.as_secs_f64(),
            bytes: (self.live)().saturating_sub(before) as f64 / count.max(1) as f64,
        });
        Ok(())
    }

    /// Leads routes elsewhere for some seconds: those that packets take, and others.
    async fn update(&mut self, v4: &[Route]) -> Result<(f64, f64), LoadError> {
        let (sizes, v4) = (self.sizes, v4.to_vec());
        // In a thread of its own: the controller thinks of the next while the node applies one.
        let (ready, mut prepared) = mpsc::channel(4);
        std::thread::spawn(move || {
            let mut requests = (1..).map(|round| updates(round, &v4, &sizes));
            requests.all(|request| ready.blocking_send(request).is_ok())
        });
        let start = Instant::now();
        let (mut updates, mut slowest) = (0, 0f64);
        while start.elapsed().as_secs() < self.sizes.seconds {
            let Some(request) = prepared.recv().await else {
                break;
            };
            if let Some(rate) = self.sizes.rate {
                let due = start + Duration::from_secs_f64(updates as f64 / f64::from(rate));
                tokio::time::sleep_until(due.into()).await;
            }
            let begun = start.elapsed();
            updates += UPDATES;
            let applied = self.client.apply(request).await;
            applied.map_err(|status| LoadError::Refused {
                what: "updates",
                status: Box::new(status),
            })?;
            slowest = slowest.max((start.elapsed() - begun).as_secs_f64());
        }
        Ok((updates as f64 / start.elapsed().as_secs_f64(), slowest))
    }
}

/// A transaction of updates: one in eight of a route that packets take.
fn updates(round: u64, v4: &[Route], sizes: &LoadSizes) -> v1::ApplyRequest {
    let changes = (0..UPDATES).map(|n| {
        let draw = random(round, n as u64);
        if n % 8 == 0 {
            return target(draw % TARGETS, round);
        }
        let place = draw as usize % v4.len();
        route(Family::V4, &v4[place], draw as usize >> 32, sizes)
    });
    request(changes.map(set))
}

/// Sends until `done`, and then waits for what is under way. Returns what was sent and received.
fn traffic(hosts_in: &EndQueue, hosts_out: &EndQueue, pps: u32, done: &AtomicBool) -> (u64, u64) {
    let (mut sent, mut received) = (0u64, 0u64);
    let begin = Instant::now();
    let mut last = begin;
    loop {
        let done = done.load(Relaxed);
        if done && (sent == received || last.elapsed() > PATIENCE) {
            return (sent, received);
        }
        let lost = last.elapsed() > PATIENCE;
        let due = (begin.elapsed().as_secs_f64() * f64::from(pps)) as u64;
        while !done && !lost && sent < due && sent - received < WINDOW {
            // What finds no room counts as lost.
            hosts_in.send(&packet(sent % TARGETS));
            sent += 1;
        }
        let before = received;
        while hosts_out.receive_one(|_| ()).is_some() {
            received += 1;
        }
        if received > before {
            last = Instant::now();
        }
        // Not to take the core from the node.
        std::thread::sleep(PAUSE);
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:20} {:>9} {:>9} {:>8}",
            "LOADED", "COUNT", "SECONDS", "B/EACH"
        )?;
        for line in &self.lines {
            let LoadLine {
                what,
                count,
                seconds,
                bytes,
            } = line;
            writeln!(f, "{what:20} {count:>9} {seconds:>9.3} {bytes:>8.0}")?;
        }
        write!(
            f,
            "{:.0} updates a second, {UPDATES} in a transaction, the slowest {:.1} ms; {} packets meanwhile, {} lost",
            self.updates_per_second,
            self.slowest * 1000.0,
            self.packets,
            self.lost
        )
    }
}
