//! Three daemons in a triangle, two of them with a host: a network in which a link may be lost.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use twinseal_lab::traffic::{Load, Receiver, Running, Sender, SenderConfig, Summary, Until};
use twinseal_lab::{IpNet, Lab, Namespace, PingConfig, Process, Route, VethConfig, ping};
use twinseal_testbed::daemon::Daemon;
use twinseal_testbed::items::random;

/// Only a guard against hanging for ever; nothing is measured.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Packets a second of a load.
const PPS: f64 = 500.0;

/// The network, running.
pub(crate) struct Triangle {
    // Dropped in this order.
    daemons: Vec<(&'static str, Process)>,
    /// Of each daemon's configuration.
    lines: String,
    nodes: Vec<(&'static str, Namespace)>,
    hosts: [Namespace; 2],
    lab: Lab,
}

/// A load from host 1 to host 2, and its receiver.
pub(crate) struct Traffic {
    running: Running,
    receiver: Receiver,
}

impl Triangle {
    /// Daemons without tables; `None`, loudly, where no lab can run.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with("workers.count = 1")
    }

    /// The same, with these lines in each daemon's configuration.
    pub(crate) fn start_with(lines: &str) -> Option<Self> {
        if let Err(why) = Lab::available() {
            eprintln!("SKIPPED: {why}");
            return None;
        }
        let lab = Lab::new("triangle").expect("a lab");
        let space = |name: &str| lab.namespace(name).expect("a namespace");
        let nodes = ["a", "b", "t"].map(|name| (name, space(name))).to_vec();
        let mut net = Self {
            daemons: Vec::new(),
            lines: lines.to_owned(),
            nodes,
            hosts: [space("host-1"), space("host-2")],
            lab,
        };
        for (site, node) in [(1, "a"), (2, "b")] {
            net.wire_host(site, node);
        }
        net.wire(("a", "to-b", "192.0.2.1"), ("b", "to-a", "192.0.2.2"));
        net.wire(("a", "to-t", "198.51.100.1"), ("t", "to-a", "198.51.100.2"));
        net.wire(("t", "to-b", "203.0.113.1"), ("b", "to-t", "203.0.113.2"));
        for name in ["a", "b", "t"] {
            net.start_daemon(name);
        }
        Some(net)
    }

    fn wire_host(&self, site: u8, node: &str) {
        let host = &self.hosts[usize::from(site) - 1];
        let on = |last: u8| [net(&format!("10.{site}.0.{last}/24"))];
        let veth = VethConfig::new((host, "eth0"), (self.node(node), "eth-lan"));
        self.lab
            .veth(&veth.addresses(&on(2), &on(1)))
            .expect("a veth");
        let far = net(&format!("10.{}.0.0/24", 3 - site));
        let gateway = on(1)[0].addr();
        host.add_route(&Route::to(far).via(gateway).dev("eth0"))
            .expect("a route");
    }

    fn wire(&self, one: (&str, &str, &str), other: (&str, &str, &str)) {
        let address = |end: (&str, &str, &str)| [net(&format!("{}/24", end.2))];
        let veth = VethConfig::new((self.node(one.0), one.1), (self.node(other.0), other.1));
        self.lab
            .veth(&veth.addresses(&address(one), &address(other)))
            .expect("a veth");
    }

    fn start_daemon(&mut self, name: &'static str) {
        let daemon = Daemon::start(
            Path::new(env!("CARGO_BIN_EXE_twinseal")),
            name,
            self.node(name),
            &self.folder().join(format!("node-{name}")),
            &self.lines,
        );
        self.daemons.push((name, daemon.expect("a daemon").process));
    }

    /// Ends a daemon with SIGKILL and starts it again.
    pub(crate) fn restart(&mut self, name: &'static str) {
        let place = self.daemons.iter().position(|(known, _)| *known == name);
        let (_, mut process) = self.daemons.swap_remove(place.expect("it runs"));
        process.kill().expect("it is killed");
        self.start_daemon(name);
    }

    /// The topology as the example controller reads it.
    pub(crate) fn topology(&self) -> String {
        let target = |name| format!("unix:{}", self.socket(name).display());
        format!(
            r#"
nodes:
  a:
    target: {}
    underlays: {{ to-b: {{ netdev: to-b }}, to-t: {{ netdev: to-t }} }}
    sites: {{ lan: {{ netdev: eth-lan, vrf: red, prefixes: [10.1.0.0/24] }} }}
  b:
    target: {}
    underlays: {{ to-a: {{ netdev: to-a }}, to-t: {{ netdev: to-t }} }}
    sites: {{ lan: {{ netdev: eth-lan, vrf: red, prefixes: [10.2.0.0/24] }} }}
  t:
    target: {}
    underlays: {{ to-a: {{ netdev: to-a }}, to-b: {{ netdev: to-b }} }}
links:
  ab:
    a: {{ node: a, port: to-b, address: 192.0.2.1 }}
    b: {{ node: b, port: to-a, address: 192.0.2.2 }}
  at:
    a: {{ node: a, port: to-t, address: 198.51.100.1 }}
    b: {{ node: t, port: to-a, address: 198.51.100.2 }}
  tb:
    a: {{ node: t, port: to-b, address: 203.0.113.1 }}
    b: {{ node: b, port: to-t, address: 203.0.113.2 }}
tenants:
  red: {{ backup: true, tags: {{ customer: acme }} }}
"#,
            target("a"),
            target("b"),
            target("t"),
        )
    }

    /// A node's control socket.
    pub(crate) fn socket(&self, name: &str) -> PathBuf {
        self.folder().join(format!("node-{name}/control.sock"))
    }

    /// Where the lab's files are.
    pub(crate) fn folder(&self) -> PathBuf {
        self.lab.directory()
    }

    /// A node's namespace.
    pub(crate) fn node(&self, name: &str) -> &Namespace {
        let found = self.nodes.iter().find(|(known, _)| *known == name);
        &found.expect("one of a, b, t").1
    }

    /// Takes a node's device down, or up again.
    pub(crate) fn set_link(&self, node: &str, netdev: &str, up: bool) {
        let node = self.node(node);
        let set = if up {
            node.set_up(netdev)
        } else {
            node.set_down(netdev)
        };
        set.expect("the device is there");
    }

    /// Pings from host 1 to host 2 and back until both are answered.
    #[track_caller]
    pub(crate) fn wait_for_pings(&self, when: &str) {
        let config = PingConfig {
            count: 2,
            timeout: Duration::from_millis(500),
            ..PingConfig::default()
        };
        let begin = Instant::now();
        for (host, to) in self.hosts.iter().zip(["10.2.0.2", "10.1.0.2"]) {
            let to = to.parse().expect("an address");
            while !ping(host, to, &config).is_ok_and(|result| result.all_answered()) {
                assert!(
                    begin.elapsed() < PATIENCE,
                    "no answer {when}: {:#?}",
                    self.logs()
                );
            }
        }
    }

    /// What `twinseal ctl` says to a node.
    pub(crate) fn ctl(&self, node: &str, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_twinseal"))
            .args(["ctl", "--socket"])
            .arg(self.socket(node))
            .args(arguments)
            .output()
            .expect("ctl runs")
    }

    /// Waits until both ends say that a link is up.
    #[track_caller]
    pub(crate) fn wait_for_link(&self, link: &str, ends: [&str; 2]) {
        let is_up = |node: &&str| {
            let output = self.ctl(node, &["get", "--json"]);
            let got: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
            let mut links = got["links"].as_array().expect("links").iter();
            links.any(|it| it["link"] == link && it["up"] == true)
        };
        let begin = Instant::now();
        while !ends.iter().all(is_up) {
            assert!(begin.elapsed() < PATIENCE, "{link} does not come up");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Packets that t has forwarded.
    pub(crate) fn transit_packets(&self) -> u64 {
        let output = self.ctl("t", &["stats", "--json"]);
        let stats: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let links = stats["links"].as_array().expect("links").iter();
        links
            .map(|link| link["sent_packets"].as_u64().expect("a count"))
            .sum()
    }

    /// Begins to send numbered packets from host 1 to host 2.
    pub(crate) fn send(&self, until: Until) -> Traffic {
        let mut marker = [0; 8];
        random(&mut marker).expect("random octets");
        let bind: SocketAddr = "10.2.0.2:0".parse().expect("an address");
        let receiver = Receiver::start(&self.hosts[1], bind, marker).expect("a receiver");
        let config = SenderConfig::new(receiver.address(), 8);
        let sender = Sender::open(&self.hosts[0], &config).expect("sockets");
        let load = Load {
            marker,
            first_flow: 0,
            flows: 8,
            payload_size: 200,
            pps: PPS,
            until,
        };
        Traffic {
            running: sender.start(load),
            receiver,
        }
    }

    /// The end of every test: all daemons still run, and nothing in them panicked.
    #[track_caller]
    pub(crate) fn finish(mut self) {
        for (name, process) in &mut self.daemons {
            assert!(process.is_running(), "{name} is gone");
        }
        for (name, text) in self.logs() {
            assert!(!text.contains("panicked"), "{name}:\n{text}");
        }
    }

    fn logs(&self) -> Vec<(&'static str, String)> {
        let daemons = self.daemons.iter();
        daemons
            .map(|(name, process)| (*name, process.log_text()))
            .collect()
    }
}

impl Traffic {
    /// Ends the load and says what came of it.
    #[track_caller]
    pub(crate) fn stop(self) -> Summary {
        let sent = self.running.stop().expect("the load was sent");
        self.receiver.wait_for(sent.packets, Duration::from_secs(2));
        let tally = self.receiver.stop().expect("a tally");
        tally.summary(&sent)
    }
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a network")
}
