//! The demo's network of three real daemons, to test on: loads, their accounts, and what must hold at the end.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use twinseal_api::v1;
use twinseal_lab::frame::UdpFrame;
use twinseal_lab::traffic::{
    Load, RawConfig, RawSender, Receiver, Running, Sender, SenderConfig, Sent, Summary, Until,
};
use twinseal_lab::{Lab, PingConfig, PingResult};
use twinseal_testbed::controller::Controller;
use twinseal_testbed::items::random;
use twinseal_testbed::kernel::{Network, Options};
use twinseal_testbed::plan::{EDGE_PORT, Host, Plan, Router, VRF};

/// Only a guard against hanging for ever; nothing is measured.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// How long nothing must have come before packets count as lost.
const QUIET: Duration = Duration::from_secs(2);
/// UDP payload of test packets, in bytes.
const PAYLOAD: usize = 200;
/// Both families.
pub(crate) const FAMILIES: [bool; 2] = [false, true];
/// Both hosts.
pub(crate) const HOSTS: [Host; 2] = [Host::A, Host::B];

/// Three daemons and a CPU hungry test: one network at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Two hosts, three routers and their controller.
pub(crate) struct Path {
    // Dropped in this order.
    pub(crate) controller: Controller,
    pub(crate) network: Network,
    pub(crate) plan: Plan,
    /// UDP payload of loads, in bytes.
    pub(crate) payload: usize,
    _alone: MutexGuard<'static, ()>,
}

/// One worker a daemon, over IPv4.
pub(crate) fn options() -> Options {
    Options::new(env!("CARGO_BIN_EXE_twinseal"))
}

/// Whether a lab can run here; says loudly if not.
pub(crate) fn lab_available() -> bool {
    match Lab::available() {
        Ok(()) => true,
        Err(why) => {
            eprintln!("SKIPPED: {why}");
            false
        }
    }
}

impl Path {
    /// The whole path, its hosts reaching each other; `None` where no lab can run.
    pub(crate) fn start(options: Options) -> Option<Self> {
        let mut path = Self::without_tables(options)?;
        path.controller
            .start(&path.plan, &path.network)
            .expect("tables and keys are taken");
        path.settle();
        Some(path)
    }

    /// Daemons that have been told nothing.
    pub(crate) fn without_tables(options: Options) -> Option<Self> {
        if !lab_available() {
            return None;
        }
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = Plan::new(options.underlay, v1::Suite::Aes256Gcm).expect("a plan");
        let network = Network::start(options).expect("a network");
        let controller = Controller::connect(network.sockets()).expect("control sockets");
        Some(Self {
            controller,
            network,
            plan,
            payload: PAYLOAD,
            _alone: alone,
        })
    }

    /// Waits until links are up and hosts and edges have resolved each other.
    pub(crate) fn settle(&mut self) {
        self.controller.wait_for_links(PATIENCE).expect("links up");
        for v6 in FAMILIES {
            for from in HOSTS {
                self.wait_for_ping(from, v6);
            }
        }
    }

    /// Waits until a port of edge A's is like this.
    #[track_caller]
    pub(crate) fn wait_for_port(&mut self, port: &str, what: impl Fn(&v1::PortState) -> bool) {
        let begin = Instant::now();
        loop {
            let got = self.controller.get(Router::EdgeA).expect("the state");
            let found = got.ports.into_iter().find(|it| it.port == port);
            let state = found.unwrap_or_else(|| panic!("no port {port}"));
            if what(&state) {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "{state:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Pings until the other host answers all of a few requests.
    #[track_caller]
    pub(crate) fn wait_for_ping(&mut self, from: Host, v6: bool) {
        let config = PingConfig {
            count: 2,
            timeout: Duration::from_millis(500),
            ..PingConfig::default()
        };
        let begin = Instant::now();
        loop {
            let result = self.ping(from, v6, &config);
            if result.all_answered() {
                return;
            }
            let waited = begin.elapsed() < PATIENCE;
            assert!(waited, "from {from:?}: {result}; {:?}", self.drops());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Pings the other host.
    #[track_caller]
    pub(crate) fn ping(&self, from: Host, v6: bool, config: &PingConfig) -> PingResult {
        self.network.ping(from, v6, config).expect("a ping")
    }

    /// Asserts that the hosts reach each other both ways in both families.
    #[track_caller]
    pub(crate) fn assert_pings(&mut self, config: &PingConfig) {
        for v6 in FAMILIES {
            for from in HOSTS {
                let result = self.ping(from, v6, config);
                let good = result.all_answered() && result.damaged + result.duplicates == 0;
                assert!(good, "from {from:?}: {result}; {:?}", self.drops());
            }
        }
    }

    /// Begins to send from a host to the other: frames made by us, each flow with a port of its own (up to 10,000).
    #[track_caller]
    pub(crate) fn send(&self, from: Host, v6: bool, flows: u32, pps: f64, until: Until) -> Traffic {
        let (receiver, load) = self.receive(from.other(), v6, flows, pps, until);
        let host = self.network.host(from);
        let edge = self.network.router(edge_of(from));
        let config = RawConfig {
            frame: UdpFrame {
                dst_mac: edge.mac("edge0").expect("the gateway's address"),
                src_mac: host.mac("eth0").expect("the host's address"),
                src: from.address(v6),
                dst: from.other().address(v6),
                src_port: 0,
                dst_port: receiver.address().port(),
                ttl: 64,
                traffic_class: 0,
            },
            src_ports: 10_000..=19_999,
        };
        let sender = RawSender::open(host, "eth0", &config).expect("a sender");
        Traffic {
            running: sender.start(load),
            receiver,
        }
    }

    /// As [`send`](Self::send) over IPv4 from A, but through a socket a flow: the host's kernel spreads these over the
    /// queues of its device, where frames made by us all take the queue of the CPU that we run on.
    #[track_caller]
    pub(crate) fn send_by_sockets(&self, flows: u32, pps: f64, until: Until) -> Traffic {
        self.send_from(Host::A, false, flows, pps, until)
    }

    /// The same from any host, in any family.
    pub(crate) fn send_from(
        &self,
        from: Host,
        v6: bool,
        flows: u32,
        pps: f64,
        until: Until,
    ) -> Traffic {
        let (receiver, load) = self.receive(from.other(), v6, flows, pps, until);
        let config = SenderConfig {
            dst: receiver.address(),
            src: None,
            sockets: flows,
        };
        let sender = Sender::open(self.network.host(from), &config).expect("sockets");
        Traffic {
            running: sender.start(load),
            receiver,
        }
    }

    fn receive(&self, at: Host, v6: bool, flows: u32, pps: f64, until: Until) -> (Receiver, Load) {
        let mut marker = [0; 8];
        random(&mut marker).expect("random octets");
        let bind = SocketAddr::new(at.address(v6), 0);
        let receiver = Receiver::start(self.network.host(at), bind, marker).expect("a receiver");
        let load = Load {
            marker,
            first_flow: 0,
            flows,
            payload_size: self.payload,
            pps,
            until,
        };
        (receiver, load)
    }

    /// Both directions in both families, until they are [stopped](Traffic::stop).
    pub(crate) fn send_all_ways(&self, flows: u32, pps: f64) -> Vec<Traffic> {
        let ways = HOSTS.iter().flat_map(|&from| FAMILIES.map(|v6| (from, v6)));
        // Far longer than any test; it ends with the test if that panics.
        let until = Until::Elapsed(Duration::from_secs(600));
        ways.map(|(from, v6)| self.send(from, v6, flows, pps, until))
            .collect()
    }

    /// Ends loads, of which every packet must have come once, in order and whole.
    #[track_caller]
    pub(crate) fn assert_all_came(&mut self, traffic: Vec<Traffic>) {
        let stopped: Vec<_> = traffic.into_iter().map(Traffic::stop).collect();
        for summary in stopped {
            self.assert_perfect(&summary);
        }
    }

    /// Asserts that every packet came once, in its flow's order and whole.
    #[track_caller]
    pub(crate) fn assert_perfect(&mut self, summary: &Summary) {
        let good = summary.is_perfect() && summary.foreign == 0 && summary.sent > 0;
        assert!(good, "{summary:#?}\ndrops: {:?}", self.drops());
    }

    /// What each router and its sockets dropped, where that is not zero.
    pub(crate) fn drops(&mut self) -> BTreeMap<String, u64> {
        let mut all = BTreeMap::new();
        for router in Router::ALL {
            let Ok(stats) = self.controller.stats(router) else {
                continue;
            };
            let sockets = stats.ports.into_iter().flat_map(|port| {
                let name = port.port;
                let sockets = port.sockets.into_iter();
                sockets.map(move |counter| (format!("{name} {}", counter.name), counter.value))
            });
            let drops = stats.drops.into_iter().map(|c| (c.name, c.value));
            for (name, value) in drops.chain(sockets).filter(|(_, value)| *value > 0) {
                all.insert(format!("{} {name}", router.name()), value);
            }
        }
        all
    }

    /// One of a router's counters of what hosts at its edge port left to a device.
    #[track_caller]
    pub(crate) fn offloaded(&mut self, router: Router, name: &str) -> u64 {
        let stats = self.controller.stats(router).expect("counters");
        let port = stats.ports.iter().find(|port| port.port == EDGE_PORT);
        let port = port.expect("the edge port");
        let counters = port.offloads.iter().chain(&port.sockets);
        let found = counters.into_iter().find(|counter| counter.name == name);
        found.unwrap_or_else(|| panic!("no counter {name}")).value
    }

    /// What `ctl explain` says of a packet of the tenant's.
    #[track_caller]
    pub(crate) fn explain(&self, router: Router, destination: &str) -> String {
        let mut explain = self.ctl(router);
        explain.args(["explain", "--vrf", VRF, "--destination", destination]);
        let output = explain.output().expect("the program starts");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// `ctl` of a router's node, without its subcommand.
    #[track_caller]
    pub(crate) fn ctl(&self, router: Router) -> Command {
        let mut sockets = self.network.sockets();
        let socket = sockets.find(|(known, _)| *known == router);
        let mut ctl = Command::new(env!("CARGO_BIN_EXE_twinseal"));
        ctl.args(["ctl", "--socket"]);
        ctl.arg(socket.expect("the router runs").1);
        ctl
    }

    /// A router's counter of drops for one reason.
    #[track_caller]
    pub(crate) fn dropped(&mut self, router: Router, reason: &str) -> u64 {
        let stats = self.controller.stats(router).expect("counters");
        let found = stats.drops.iter().find(|drop| drop.name == reason);
        found.unwrap_or_else(|| panic!("no reason {reason}")).value
    }

    /// Connects anew, as is needed after a daemon was started again.
    pub(crate) fn reconnect(&mut self) {
        self.controller = Controller::connect(self.network.sockets()).expect("control sockets");
    }

    /// The end of every test: all daemons still run, and nothing in them panicked.
    #[track_caller]
    pub(crate) fn finish(mut self) {
        for router in Router::ALL {
            assert!(self.network.is_running(router), "{} is gone", router.name());
        }
        let logs = logs(&self.network);
        assert!(!logs.is_empty(), "the daemons' logs are where we look");
        for (name, text) in logs {
            assert!(!text.contains("panicked"), "{name}:\n{text}");
        }
    }
}

/// The logs of all processes that the network's lab has started, by file name.
pub(crate) fn logs(network: &Network) -> Vec<(String, String)> {
    let files = std::fs::read_dir(network.lab().directory()).expect("the lab's folder");
    let files = files.map(|file| file.expect("a file").path());
    let logs = files.filter(|path| path.extension().is_some_and(|it| it == "log"));
    logs.map(|path| {
        let text = std::fs::read(&path).expect("a readable log");
        let text = String::from_utf8_lossy(&text).into_owned();
        (path.display().to_string(), text)
    })
    .collect()
}

/// The router that a host is behind.
pub(crate) fn edge_of(host: Host) -> Router {
    match host {
        Host::A => Router::EdgeA,
        Host::B => Router::EdgeB,
    }
}

/// A route of the tenant's to its edge port.
pub(crate) fn route_by_edge_port(prefix: &str) -> v1::Route {
    v1::Route {
        vrf: twinseal_testbed::plan::VRF.into(),
        prefix: prefix.into(),
        target: Some(v1::route::Target::Via(v1::Via {
            port: EDGE_PORT.into(),
            address: String::new(),
        })),
    }
}

/// A load and its receiver.
pub(crate) struct Traffic {
    running: Running,
    receiver: Receiver,
}

impl Traffic {
    /// Packets received so far.
    pub(crate) fn received(&self) -> u64 {
        self.receiver.received()
    }

    /// Ends the load and says what came of it.
    #[track_caller]
    pub(crate) fn stop(self) -> Summary {
        let sent = self.running.stop().expect("the load was sent");
        summary(self.receiver, &sent)
    }

    /// Waits for the load's end and says what came of it.
    #[track_caller]
    pub(crate) fn finish(self) -> Summary {
        let sent = self.running.join().expect("the load was sent");
        summary(self.receiver, &sent)
    }
}

fn summary(receiver: Receiver, sent: &Sent) -> Summary {
    receiver.wait_for(sent.packets, QUIET);
    let tally = receiver.stop().expect("a tally");
    tally.summary(sent)
}
