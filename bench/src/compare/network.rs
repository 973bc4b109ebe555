//! The network that every peer gets: two hosts, and the two gateways between them.
//!
//! ```text
//! host A -- eth0 | lan0 -- gateway A -- wan0 | wan0 -- gateway B -- lan0 | eth0 -- host B
//! 10.1.0.2        10.1.0.1        192.0.2.1   192.0.2.2       10.2.0.1     10.2.0.2
//! ```

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;
use twinseal_lab::{IpNet, Lab, Namespace, PingConfig, Process, Route, VethConfig, ping};

/// The hosts' path MTU in octets, whatever a peer could carry: all of them get the same packets.
pub(super) const INNER_MTU: u32 = 1400;
/// The MTU of the tunnels that have to be told one: with their headers it fits the 1500 of the underlay.
pub(super) const TUNNEL_MTU: u32 = 1420;
/// A host's device.
pub(super) const HOST: &str = "eth0";
/// A gateway's device towards its host.
pub(super) const LAN: &str = "lan0";
/// A gateway's device towards the other gateway.
pub(super) const WAN: &str = "wan0";

/// Which half of the network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    A,
    B,
}

impl Side {
    pub(super) const ALL: [Side; 2] = [Side::A, Side::B];

    pub(super) fn other(self) -> Self {
        match self {
            Side::A => Side::B,
            Side::B => Side::A,
        }
    }

    /// `a` or `b`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Side::A => "a",
            Side::B => "b",
        }
    }

    /// The host's address.
    pub(super) fn host(self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.number(), 0, 2)
    }

    /// The gateway's address towards its host.
    pub(super) fn lan(self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.number(), 0, 1)
    }

    /// The gateway's address towards the other gateway.
    pub(super) fn wan(self) -> Ipv4Addr {
        Ipv4Addr::new(192, 0, 2, self.number())
    }

    /// The gateway's address inside of a tunnel.
    pub(super) fn tunnel(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 9, 0, self.number())
    }

    /// What is behind the gateway.
    pub(super) fn site(self) -> IpNet {
        net(Ipv4Addr::new(10, self.number(), 0, 0))
    }

    fn number(self) -> u8 {
        match self {
            Side::A => 1,
            Side::B => 2,
        }
    }
}

/// An address in a network of 256.
pub(super) fn net(address: Ipv4Addr) -> IpNet {
    IpNet::new(address.into(), 24).expect("24 is a prefix length of IPv4")
}

/// The namespaces and what joins them. The gateways forward nothing yet.
pub(super) struct Network {
    hosts: [Namespace; 2],
    gateways: [Namespace; 2],
    lab: Lab,
}

impl Network {
    /// Hosts, gateways and veths with `queues` queues each; offloads are off.
    pub(super) fn new(queues: u32) -> anyhow::Result<Self> {
        let lab = Lab::new("compare")?;
        let pair = |role: &str| -> anyhow::Result<[Namespace; 2]> {
            let name = |side: Side| format!("{role}-{}", side.name());
            Ok([
                lab.namespace(&name(Side::A))?,
                lab.namespace(&name(Side::B))?,
            ])
        };
        let network = Self {
            hosts: pair("host")?,
            gateways: pair("gateway")?,
            lab,
        };
        for side in Side::ALL {
            let (host, gateway) = (network.host(side), network.gateway(side));
            let mut veth = VethConfig::new((host, HOST), (gateway, LAN))
                .addresses(&[net(side.host())], &[net(side.lan())]);
            veth.queues = queues;
            network.lab.veth(&veth)?;
            let route = Route::to(side.other().site()).via(side.lan().into());
            host.add_route(&route.mtu(INNER_MTU))?;
        }
        let mut veth = VethConfig::new(
            (network.gateway(Side::A), WAN),
            (network.gateway(Side::B), WAN),
        )
        .addresses(&[net(Side::A.wan())], &[net(Side::B.wan())]);
        veth.queues = queues;
        network.lab.veth(&veth)?;
        Ok(network)
    }

    pub(super) fn lab(&self) -> &Lab {
        &self.lab
    }

    pub(super) fn host(&self, side: Side) -> &Namespace {
        &self.hosts[side as usize]
    }

    pub(super) fn gateway(&self, side: Side) -> &Namespace {
        &self.gateways[side as usize]
    }

    /// Lets the kernels of both gateways forward.
    pub(super) fn forward(&self) -> anyhow::Result<()> {
        for gateway in &self.gateways {
            gateway.sysctl("net/ipv4/ip_forward", "1")?;
        }
        Ok(())
    }

    /// Routes the other site by a gateway's neighbour.
    pub(super) fn route_via(&self, side: Side, gateway: impl Into<IpAddr>) -> anyhow::Result<()> {
        let route = Route::to(side.other().site()).via(gateway.into());
        Ok(self.gateway(side).add_route(&route)?)
    }

    /// Waits for a gateway's tunnel device, then gives it its address, sets it up and routes the other site into it.
    pub(super) fn route_into(&self, side: Side, device: &str) -> anyhow::Result<()> {
        let gateway = self.gateway(side);
        wait(&format!("device {device}"), || {
            gateway.interface(device).is_ok()
        })?;
        gateway.add_address(device, net(side.tunnel()))?;
        gateway.set_mtu(device, TUNNEL_MTU)?;
        gateway.set_up(device)?;
        Ok(gateway.add_route(&Route::to(side.other().site()).dev(device))?)
    }

    /// Runs a program at a gateway to its end, and returns what it said.
    pub(super) fn run(&self, side: Side, command: Command) -> anyhow::Result<String> {
        finish(self.gateway(side).spawn(command)?)
    }

    /// Waits until the hosts reach each other, so that all neighbours are known and all sessions stand.
    pub(super) fn settle(&self) -> anyhow::Result<()> {
        let config = PingConfig {
            count: 3,
            timeout: Duration::from_millis(200),
            ..PingConfig::default()
        };
        for side in Side::ALL {
            let to = IpAddr::from(side.other().host());
            wait(
                &format!("an answer of {to}"),
                || matches!(ping(self.host(side), to, &config), Ok(result) if result.all_answered()),
            )?;
        }
        Ok(())
    }
}

/// How long anything may take to start.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for something.
pub(super) fn wait(what: &str, mut here: impl FnMut() -> bool) -> anyhow::Result<()> {
    let begin = Instant::now();
    while !here() {
        anyhow::ensure!(
            begin.elapsed() < PATIENCE,
            "waited {} s for {what}",
            PATIENCE.as_secs()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Waits for a program's end, and returns what it said.
pub(super) fn finish(mut process: Process) -> anyhow::Result<String> {
    let status = process
        .wait(PATIENCE)?
        .with_context(|| format!("it did not end:\n{}", process.log_text()))?;
    anyhow::ensure!(status.success(), "{status}:\n{}", process.log_text());
    Ok(process.log_text())
}
