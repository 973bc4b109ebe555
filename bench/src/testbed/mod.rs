//! A network to measure: a host, two or three nodes with real daemons, and another host, each in a namespace.
//!
//! ```text
//! host A -- eth0 | lan0 [node 0] east0 | west0 [node 1] (east0 | west0 [node 2]) lan0 | eth0 -- host B
//! ```
//!
//! [`chain`] is what the nodes are told, and a [`Node`] tells it, as any controller would. All veths have their offloads
//! off; the underlay carries nothing but Twinseal's packets (its neighbours are fixed), so that every one of them can be
//! accounted for.

pub mod chain;
mod items;
mod node;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use twinseal_api::v1;
use twinseal_lab::impair::Impairment;
use twinseal_lab::wire::ImpairedWire;
use twinseal_lab::{IpNet, Lab, Namespace, PingConfig, Route, VethConfig, ping};
use twinseal_testbed::plan::Host;

use crate::generator;
use chain::{Chain, Changes, EAST, LAN, WEST};
pub use node::Node;

/// A host's device.
pub const HOST: &str = "eth0";
/// How long anything may take to come up.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long packets of an old epoch may be under way before its keys go.
const DRAIN: Duration = Duration::from_millis(300);

/// What the network is to be like.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The program twinseal.
    pub program: PathBuf,
    /// A third node in the middle.
    pub transit: bool,
    /// Workers of each daemon, and queues of each veth.
    pub workers: u32,
    /// Hosts have as many queues again, to send by while they receive by the first ones.
    pub both_ways: bool,
    /// Further lines of each daemon's configuration.
    pub config: Vec<String>,
    /// The algorithm of every key.
    pub suite: v1::Suite,
    /// What the wires between nodes do to packets, if they are not perfect.
    pub impairment: Option<Impairment>,
}

impl Setup {
    /// Two nodes of one worker, AES-256-GCM, perfect wires; the program beside this one.
    ///
    /// # Errors
    /// When nobody knows where this program is.
    pub fn new() -> anyhow::Result<Self> {
        let this = std::env::current_exe().context("where is this program?")?;
        Ok(Self {
            program: this.with_file_name("twinseal"),
            transit: false,
            workers: 1,
            both_ways: false,
            config: Vec::new(),
            suite: v1::Suite::Aes256Gcm,
            impairment: None,
        })
    }
}

/// The network, running.
pub struct Testbed {
    // Dropped in this order: daemons, then what they stand on.
    nodes: Vec<Node>,
    wires: Vec<ImpairedWire>,
    chain: Chain,
    places: Vec<Namespace>,
    hosts: [Namespace; 2],
    between: Vec<Namespace>,
    lab: Lab,
}

impl Testbed {
    /// Builds it, starts the daemons, gives them tables and keys, and waits until the hosts reach each other.
    ///
    /// # Errors
    /// When a lab cannot run here, or a daemon does not come up.
    pub fn start(setup: &Setup) -> anyhow::Result<Self> {
        anyhow::ensure!(
            setup.program.exists(),
            "{} is not there: build it (cargo build --release -p twinseal) or name it with --twinseal",
            setup.program.display()
        );
        let lab = Lab::new("bench")?;
        let chain = Chain::new(if setup.transit { 3 } else { 2 }, setup.suite)?;
        let spaces = |count: usize, role: &str| -> anyhow::Result<Vec<Namespace>> {
            let make = |n| Ok(lab.namespace(&format!("{role}-{n}"))?);
            (0..count).map(make).collect()
        };
        let wires = if setup.impairment.is_some() {
            chain.nodes() - 1
        } else {
            0
        };
        let mut testbed = Self {
            nodes: Vec::new(),
            wires: Vec::new(),
            places: spaces(chain.nodes(), "node")?,
            hosts: [lab.namespace("host-a")?, lab.namespace("host-b")?],
            between: spaces(wires, "wire")?,
            chain,
            lab,
        };
        testbed.connect_hosts(setup)?;
        testbed.connect_nodes(setup)?;
        let lines = with_workers(&setup.config, setup.workers);
        for (number, place) in testbed.places.iter().enumerate() {
            let name = format!("node-{number}");
            let folder = testbed.lab.directory().join(&name);
            let node = Node::start(&name, &setup.program, place, folder, &lines)?;
            testbed.nodes.push(node);
        }
        let start = testbed.chain.start()?;
        testbed.apply(start)?;
        testbed.settle()?;
        Ok(testbed)
    }

    fn connect_hosts(&self, setup: &Setup) -> anyhow::Result<()> {
        for host in [Host::A, Host::B] {
            let nets = |of: fn(Host, bool) -> IpAddr| [net(of(host, false)), net(of(host, true))];
            let (ours, gateway) = (nets(Host::address), nets(Host::gateway));
            let ends = [(self.host(host), HOST), (self.place_of(host), LAN)];
            let queues = setup.workers * if setup.both_ways { 2 } else { 1 };
            self.veth(queues, ends, [&ours, &gateway])?;
            for v6 in [false, true] {
                let far = Route::to(host.other().prefix(v6).parse()?);
                let far = far.via(host.gateway(v6)).dev(HOST);
                self.host(host).add_route(&far)?;
            }
        }
        Ok(())
    }

    fn connect_nodes(&mut self, setup: &Setup) -> anyhow::Result<()> {
        for link in 0..self.chain.nodes() - 1 {
            let (west, east) = (&self.places[link], &self.places[link + 1]);
            let address = |end| IpAddr::from(Chain::outer(link, end));
            let (near, far) = ([net(address(v1::End::A))], [net(address(v1::End::B))]);
            let between = self.between.get(link);
            // IPv6's own chatter would be on the wire with our packets.
            for place in [west, east].into_iter().chain(between) {
                place.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
            }
            let (west_end, east_end) = ((west, EAST), (east, WEST));
            match (setup.impairment, between) {
                (Some(bad), Some(between)) => {
                    self.veth(setup.workers, [west_end, (between, "p0")], [&near, &[]])?;
                    self.veth(setup.workers, [east_end, (between, "p1")], [&far, &[]])?;
                    let wire = ImpairedWire::start(between, "p0", "p1", bad, bad)?;
                    self.wires.push(wire);
                }
                _ => self.veth(setup.workers, [west_end, east_end], [&near, &far])?,
            }
            west.set_neighbour(EAST, address(v1::End::B), east.mac(WEST)?)?;
            east.set_neighbour(WEST, address(v1::End::A), west.mac(EAST)?)?;
        }
        Ok(())
    }

    fn veth(
        &self,
        queues: u32,
        ends: [(&Namespace, &str); 2],
        addresses: [&[IpNet]; 2],
    ) -> anyhow::Result<()> {
        let veth = VethConfig::new(ends[0], ends[1]);
        let mut veth = veth.addresses(addresses[0], addresses[1]);
        veth.queues = queues;
        Ok(self.lab.veth(&veth)?)
    }

    /// Waits until links are up and the hosts reach each other in both families.
    fn settle(&mut self) -> anyhow::Result<()> {
        let begin = Instant::now();
        for node in &mut self.nodes {
            while let Some(down) = node.get()?.links.into_iter().find(|link| !link.up) {
                anyhow::ensure!(
                    begin.elapsed() < PATIENCE,
                    "{}: {} does not come up",
                    node.name(),
                    down.link
                );
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        let config = PingConfig {
            count: 2,
            timeout: Duration::from_millis(200),
            ..PingConfig::default()
        };
        for (from, v6) in [
            (Host::A, false),
            (Host::A, true),
            (Host::B, false),
            (Host::B, true),
        ] {
            let to = from.other().address(v6);
            while ping(self.host(from), to, &config)?.received == 0 {
                anyhow::ensure!(
                    begin.elapsed() < PATIENCE,
                    "{to} does not answer; {:?}",
                    self.drops()
                );
            }
        }
        Ok(())
    }

    /// Each node's transaction, in their order.
    ///
    /// # Errors
    /// What the node refused.
    pub fn apply(&mut self, changes: Changes) -> anyhow::Result<()> {
        for (node, changes) in self.nodes.iter_mut().zip(changes) {
            if !changes.is_empty() {
                node.apply(changes)?;
            }
        }
        Ok(())
    }

    /// Replaces all keys of links and the hosts' circuit while packets flow: make before break.
    ///
    /// # Errors
    /// What a node refused.
    pub fn rotate(&mut self) -> anyhow::Result<()> {
        let old = self.chain.next_epoch()?;
        self.apply(self.chain.install())?;
        self.apply(self.chain.transmit())?;
        std::thread::sleep(DRAIN);
        self.apply(self.chain.retire(old))
    }

    /// What the nodes were told.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// The nodes, from host A to host B.
    pub fn nodes(&mut self) -> &mut [Node] {
        &mut self.nodes
    }

    /// A host's namespace.
    pub fn host(&self, host: Host) -> &Namespace {
        &self.hosts[usize::from(host == Host::B)]
    }

    /// From a host to the other, for a [`generator`].
    ///
    /// # Errors
    /// When a device is gone.
    pub fn route(&self, from: Host, v6: bool) -> anyhow::Result<generator::Route> {
        let to = from.other();
        Ok(generator::Route {
            from: generator::End::in_namespace(self.host(from), HOST),
            to: generator::End::in_namespace(self.host(to), HOST),
            src: from.address(v6),
            dst: to.address(v6),
            src_mac: self.host(from).mac(HOST)?,
            dst_mac: self.place_of(from).mac(LAN)?,
        })
    }

    /// All that was dropped so far, by place and reason: in daemons, at their sockets, by veths and by wires. Together
    /// with the receivers' own account this is all there is.
    ///
    /// # Errors
    /// When a node does not answer.
    pub fn drops(&mut self) -> anyhow::Result<BTreeMap<String, u64>> {
        let mut all = BTreeMap::new();
        for node in &mut self.nodes {
            let name = node.name().to_owned();
            all.extend(
                node.drops()?
                    .into_iter()
                    .map(|(reason, count)| (format!("{name} {reason}"), count)),
            );
        }
        let hosts = [
            ("host-a", &self.hosts[0], HOST),
            ("host-b", &self.hosts[1], HOST),
        ];
        let names: Vec<_> = (0..self.places.len())
            .map(|n| format!("node-{n}"))
            .collect();
        let devices = self.places.iter().zip(&names).flat_map(|(place, name)| {
            [LAN, WEST, EAST].map(|device| (name.as_str(), place, device))
        });
        let between = self
            .between
            .iter()
            .flat_map(|place| ["p0", "p1"].map(|device| ("wire", place, device)));
        for (name, place, device) in hosts.into_iter().chain(devices).chain(between) {
            // Nodes at the ends have no device towards further nodes.
            let Ok(interface) = place.interface(device) else {
                continue;
            };
            // A veth counts what its peer had no room for as its own.
            add(
                &mut all,
                format!("{name} {device} peer_full"),
                interface.stats.tx_dropped,
            );
        }
        for (number, wire) in self.wires.iter().enumerate() {
            for (way, counters) in [("east", wire.a_to_b()), ("west", wire.b_to_a())] {
                let impairment = counters.impairment;
                for (reason, count) in [
                    ("lost", impairment.lost),
                    ("overflowed", impairment.overflowed),
                    ("missed", counters.missed),
                    ("unsent", counters.unsent),
                ] {
                    add(&mut all, format!("wire-{number} {way} {reason}"), count);
                }
            }
        }
        Ok(all)
    }

    /// Packets that wires made twice so far.
    pub fn duplicated(&self) -> u64 {
        let both = self
            .wires
            .iter()
            .flat_map(|wire| [wire.a_to_b(), wire.b_to_a()]);
        both.map(|counters| counters.impairment.duplicated).sum()
    }

    fn place_of(&self, host: Host) -> &Namespace {
        match host {
            Host::A => &self.places[0],
            Host::B => &self.places[self.places.len() - 1],
        }
    }
}

/// Lines of a daemon's configuration, and how many workers it has, if they do not say so.
pub(crate) fn with_workers(config: &[String], workers: u32) -> Vec<String> {
    let mut lines = config.to_vec();
    let says = |key| lines.iter().any(|line| line.trim_start().starts_with(key));
    if !says("workers.count") && !says("workers.cpus") {
        lines.push(format!("workers.count = {workers}"));
    }
    lines
}

/// An address in a network of the usual size.
fn net(address: IpAddr) -> IpNet {
    let len = if address.is_ipv6() { 64 } else { 24 };
    IpNet::new(address, len).expect("a length that the family has")
}

fn add(all: &mut BTreeMap<String, u64>, name: String, count: u64) {
    if count > 0 {
        *all.entry(name).or_default() += count;
    }
}
