//! The path in the kernel: namespaces, veths, switches, and three daemons that take their ports over AF_XDP.
//!
//! A switch (a bridge in a namespace of its own) is between each two routers, as on a real underlay; the captures are
//! taken there, where AF_XDP traffic passes an ordinary network stack.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use twinseal_api::v1;
use twinseal_lab::{Lab, Namespace, PingConfig, Route, VethConfig};

use crate::daemon::Daemon;
use crate::plan::{Devices, EAST, EDGE_PORT, Host, Router, Underlay, WEST};

/// How long a daemon may take to stop.
const PATIENCE: Duration = Duration::from_secs(20);
/// Ports have these names on the routers.
const NETDEVS: [(&str, &str); 3] = [(EDGE_PORT, "edge0"), (WEST, "west0"), (EAST, "east0")];

/// What the network is to be like.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program to run as daemon.
    pub program: PathBuf,
    /// The underlay's family.
    pub underlay: Underlay,
    /// Workers of each daemon.
    pub workers: u32,
    /// Queues of each veth; as many as workers if none.
    pub queues: Option<u32>,
    /// MTU of every veth.
    pub mtu: u32,
    /// Whether hosts have their devices' offloads, as the kernel gives them.
    pub offloads: bool,
    /// How edge ports attach.
    pub edge_xdp: v1::XdpMode,
    /// Lines to add to each daemon's configuration.
    pub extra: String,
}

impl Options {
    /// One worker a daemon, over IPv4, hosts without offloads.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            underlay: Underlay::V4,
            workers: 1,
            queues: None,
            mtu: 1500,
            offloads: false,
            edge_xdp: v1::XdpMode::Auto,
            extra: String::new(),
        }
    }
}

/// The network, running.
pub struct Network {
    // Dropped in this order: daemons, then what they stand on.
    daemons: Vec<(Router, Daemon)>,
    routers: Vec<(Router, Namespace)>,
    hosts: Vec<(Host, Namespace)>,
    switches: Vec<(&'static str, Namespace)>,
    options: Options,
    lab: Lab,
}

impl Network {
    /// Builds the network and starts the daemons, without tables.
    pub fn start(options: Options) -> anyhow::Result<Self> {
        let lab = Lab::new("twinseal")?;
        let spaces = |names: &[&'static str]| -> anyhow::Result<Vec<_>> {
            let make = |name: &&'static str| Ok((*name, lab.namespace(name)?));
            names.iter().map(make).collect()
        };
        let mut routers = Vec::new();
        for router in Router::ALL {
            routers.push((router, lab.namespace(router.name())?));
        }
        let hosts = vec![
            (Host::A, lab.namespace("host-a")?),
            (Host::B, lab.namespace("host-b")?),
        ];
        let switches = spaces(&[WEST, EAST])?;
        let mut network = Self {
            daemons: Vec::new(),
            routers,
            hosts,
            switches,
            options,
            lab,
        };
        network.wire()?;
        for router in Router::ALL {
            network.start_daemon(router)?;
        }
        Ok(network)
    }

    fn wire(&self) -> anyhow::Result<()> {
        self.wire_host(Host::A)?;
        self.wire_host(Host::B)?;
        let queues = self.queues();
        for (link, ends) in [
            (WEST, [Router::EdgeA, Router::Transit]),
            (EAST, [Router::Transit, Router::EdgeB]),
        ] {
            let switch = self.switch(link);
            for (router, port) in ends.into_iter().zip(["p0", "p1"]) {
                let (address, len) = self.options.underlay.address(router, link);
                let netdev = netdev(link);
                let mut veth = VethConfig::new((self.router(router), netdev), (switch, port))
                    .addresses(&[net(address, len)], &[]);
                (veth.queues, veth.mtu) = (queues, self.options.mtu);
                self.lab.veth(&veth)?;
            }
            self.lab.bridge(switch, "br0", &["p0", "p1"])?;
        }
        Ok(())
    }

    fn queues(&self) -> u32 {
        self.options.queues.unwrap_or(self.options.workers)
    }

    /// Makes the devices between a host and its edge; again, if they were deleted.
    pub fn wire_host(&self, host: Host) -> anyhow::Result<()> {
        let edge = match host {
            Host::A => Router::EdgeA,
            Host::B => Router::EdgeB,
        };
        let nets = |address: fn(Host, bool) -> IpAddr| {
            [false, true].map(|v6| net(address(host, v6), if v6 { 64 } else { 24 }))
        };
        let mut veth = VethConfig::new((self.host(host), "eth0"), (self.router(edge), "edge0"))
            .addresses(&nets(Host::address), &nets(Host::gateway));
        (veth.queues, veth.mtu) = (self.queues(), self.options.mtu);
        veth.offloads = self.options.offloads;
        self.lab.veth(&veth)?;
        for v6 in [false, true] {
            let far = host.other().prefix(v6).parse().context("a prefix")?;
            let route = Route::to(far).via(host.gateway(v6)).dev("eth0");
            self.host(host).add_route(&route)?;
        }
        Ok(())
    }

    /// Starts a router's daemon; it has no tables then.
    pub fn start_daemon(&mut self, router: Router) -> anyhow::Result<()> {
        let lines = format!(
            "workers.count = {}\n{}",
            self.options.workers, self.options.extra
        );
        let daemon = Daemon::start(
            &self.options.program,
            router.name(),
            self.router(router),
            &self.lab.directory().join(router.name()),
            &lines,
        )?;
        self.daemons.push((router, daemon));
        Ok(())
    }

    /// Stops a router's daemon as an operator would, and says whether it ended well.
    pub fn stop_daemon(&mut self, router: Router) -> anyhow::Result<bool> {
        let place = self.daemons.iter().position(|(known, _)| *known == router);
        let (_, mut daemon) = self
            .daemons
            .swap_remove(place.context("the daemon does not run")?);
        Ok(daemon.process.terminate(PATIENCE)?.success())
    }

    /// Ends a router's daemon with SIGKILL.
    pub fn kill_daemon(&mut self, router: Router) -> anyhow::Result<()> {
        let place = self.daemons.iter().position(|(known, _)| *known == router);
        let (_, mut daemon) = self
            .daemons
            .swap_remove(place.context("the daemon does not run")?);
        daemon.process.kill()?;
        Ok(())
    }

    /// Whether a router's daemon runs.
    pub fn is_running(&mut self, router: Router) -> bool {
        let daemon = self.daemons.iter_mut().find(|(known, _)| *known == router);
        daemon.is_some_and(|(_, daemon)| daemon.process.is_running())
    }

    /// The daemons' control sockets.
    pub fn sockets(&self) -> impl Iterator<Item = (Router, &Path)> {
        let sockets = self.daemons.iter();
        sockets.map(|(router, daemon)| (*router, daemon.socket.as_path()))
    }

    /// A host's namespace.
    pub fn host(&self, host: Host) -> &Namespace {
        find(&self.hosts, host)
    }

    /// A router's namespace.
    pub fn router(&self, router: Router) -> &Namespace {
        find(&self.routers, router)
    }

    /// The namespace of a link's switch; its ports are p0 towards A and p1 towards B.
    pub fn switch(&self, link: &str) -> &Namespace {
        find(&self.switches, if link == WEST { WEST } else { EAST })
    }

    /// The lab under it.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Pings one host from the other.
    pub fn ping(
        &self,
        from: Host,
        v6: bool,
        config: &PingConfig,
    ) -> anyhow::Result<twinseal_lab::PingResult> {
        let to = from.other().address(v6);
        Ok(twinseal_lab::ping(self.host(from), to, config)?)
    }

    /// Leaves everything running, and returns the lab's name to tear it down by.
    pub fn keep(self) -> anyhow::Result<String> {
        for (_, daemon) in self.daemons {
            daemon.process.detach();
        }
        Ok(self.lab.keep()?)
    }
}

impl Devices for Network {
    fn device(&self, _: Router, port: &str) -> v1::port::Device {
        let xdp = match port {
            EDGE_PORT => self.options.edge_xdp,
            _ => v1::XdpMode::Auto,
        };
        v1::port::Device::AfXdp(v1::AfXdp {
            netdev: netdev(port).into(),
            xdp: xdp.into(),
            ..v1::AfXdp::default()
        })
    }
}

/// The device of a port.
pub fn netdev(port: &str) -> &'static str {
    let found = NETDEVS.iter().find(|(name, _)| *name == port);
    found.map_or("", |(_, netdev)| netdev)
}

fn net(address: IpAddr, len: u8) -> twinseal_lab::IpNet {
    twinseal_lab::IpNet::new(address, len).unwrap_or_else(|_| address.into())
}

fn find<K: PartialEq, V>(list: &[(K, V)], key: K) -> &V {
    let found = list.iter().find(|(known, _)| *known == key);
    &found
        .expect("every host, router and switch is made at the start")
        .1
}
