//! The two hosts as the demo sees them, whatever the path between them is made of.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use twinseal_lab::PingConfig;
use twinseal_lab::traffic::{Load, Receiver, Running, Sender, SenderConfig, Tally, wait_for};

use crate::demo::memory;
use twinseal_testbed::kernel;
use twinseal_testbed::plan::{Devices, Host, Router};

/// Pings a direction and family.
const PINGS: u32 = 10;

/// Either network.
pub(super) enum Testbed {
    /// Namespaces and AF_XDP.
    Kernel(Box<kernel::Network>),
    /// Memory ports.
    Memory(Box<memory::Network>),
}

/// Test packets on their way into a tally.
pub(super) enum Inlet<'a> {
    Kernel(Receiver),
    Memory(&'a memory::MemoryHost),
}

impl Testbed {
    pub(super) fn mode(&self) -> &'static str {
        match self {
            Testbed::Kernel(_) => "af_xdp",
            Testbed::Memory(_) => "in-memory",
        }
    }

    pub(super) fn devices(&self) -> &dyn Devices {
        match self {
            Testbed::Kernel(network) => &**network,
            Testbed::Memory(network) => &**network,
        }
    }

    pub(super) fn sockets(&self) -> Vec<(Router, &Path)> {
        match self {
            Testbed::Kernel(network) => network.sockets().collect(),
            Testbed::Memory(network) => network.sockets().collect(),
        }
    }

    /// Pings from one host to the other; how many requests were sent and how many answered.
    pub(super) fn ping(&self, from: Host, v6: bool) -> anyhow::Result<(u32, u32)> {
        match self {
            Testbed::Kernel(network) => {
                let config = PingConfig {
                    count: PINGS,
                    ..PingConfig::default()
                };
                let result = network.ping(from, v6, &config)?;
                Ok((result.sent, result.received))
            }
            Testbed::Memory(network) => Ok((PINGS, network.host(from).ping(v6, PINGS))),
        }
    }

    /// Begins to receive at a host.
    pub(super) fn receive(&self, at: Host, v6: bool, marker: [u8; 8]) -> anyhow::Result<Inlet<'_>> {
        Ok(match self {
            Testbed::Kernel(network) => {
                let address = SocketAddr::new(at.address(v6), memory::TEST_PORT);
                Inlet::Kernel(Receiver::start(network.host(at), address, marker)?)
            }
            Testbed::Memory(network) => {
                let host = network.host(at);
                host.receive(marker);
                Inlet::Memory(host)
            }
        })
    }

    /// Begins to send from a host to the other.
    pub(super) fn send(&self, from: Host, v6: bool, load: Load) -> anyhow::Result<Running> {
        Ok(match self {
            Testbed::Kernel(network) => {
                let to = SocketAddr::new(from.other().address(v6), memory::TEST_PORT);
                let config = SenderConfig::new(to, load.flows);
                Sender::open(network.host(from), &config)?.start(load)
            }
            Testbed::Memory(network) => Running::start(network.host(from).outlet(v6), load),
        })
    }
}

impl Inlet<'_> {
    pub(super) fn received(&self) -> u64 {
        match self {
            Inlet::Kernel(receiver) => receiver.received(),
            Inlet::Memory(host) => host.look(Tally::received).unwrap_or(0),
        }
    }

    /// Median, 99 % and 99.9 % in nanoseconds.
    pub(super) fn latency(&self) -> [u64; 3] {
        match self {
            Inlet::Kernel(receiver) => receiver.latency(),
            Inlet::Memory(host) => host
                .look(|tally| [0.5, 0.99, 0.999].map(|q| tally.latency().value_at_quantile(q)))
                .unwrap_or_default(),
        }
    }

    /// Waits until `count` packets are there or nothing has come for `quiet`, and ends.
    pub(super) fn finish(self, count: u64, quiet: Duration) -> anyhow::Result<Tally> {
        match self {
            Inlet::Kernel(receiver) => {
                receiver.wait_for(count, quiet);
                Ok(receiver.stop()?)
            }
            Inlet::Memory(host) => {
                let received = || host.look(Tally::received).unwrap_or(0);
                wait_for(count, quiet, received, received);
                host.finish()
                    .ok_or_else(|| anyhow::anyhow!("the host kept no tally"))
            }
        }
    }
}
