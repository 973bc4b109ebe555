//! One Twinseal node as transit: real workers and ports, with the fixture's tables.

use std::sync::Arc;

use twinseal_crypto::{Lanes, Provider, Suite};
use twinseal_ebpf::XdpMode;
use twinseal_fib::OutboundSa;
use twinseal_forward::fixture::{EAST, Path, RECEIVER_AT_B, Seal, WEST};
use twinseal_runtime::ports::{Device, PortSpec, Steering};
use twinseal_runtime::workers::{DEFAULT_SLICE, Idle, Pool, PoolConfig};
use twinseal_wire::overlay::DEFAULT_PORT;
use twinseal_xsk::{BindMode, HugePages};

use super::workload::{self, Workload};
use super::{Error, bare};

/// The node, running.
pub(super) struct Transit {
    pool: Pool,
    steering: Vec<Steering>,
}

impl Transit {
    pub(super) fn start(
        course: &Workload,
        provider: &dyn Provider,
        suite: Suite,
        mode: XdpMode,
    ) -> Result<Self, Error> {
        let (lanes, owners) = Lanes::split(1, 4)?;
        let mut tables = Path::new(provider, suite)?.transit.tables;
        // The fixture's key is for lanes of its own.
        tables.links[1].transmit = Some(OutboundSa {
            sa: Arc::new(Seal::SecondLink.seal_sa(provider, suite, lanes)?),
            receiver: RECEIVER_AT_B,
        });
        let config = PoolConfig {
            cpus: vec![Some(bare::CPU)],
            frames: 16384,
            frame_size: 2048,
            jumbo_frames: 0,
            huge_pages: HugePages::Auto,
            ring: 2048,
            idle: Idle::Sleep,
            slice: DEFAULT_SLICE,
            lanes: 4,
        };
        // The workers' threads are born where this one is, and so are the sockets they open.
        let _inside = course.node().enter()?;
        let mut pool = Pool::start(config, owners)?;
        let mut steering = Vec::new();
        for (index, netdev, address) in [
            (WEST, workload::WEST, [192, 0, 2, 2]),
            (EAST, workload::EAST, [198, 51, 100, 2]),
        ] {
            let spec = PortSpec {
                edge: false,
                mtu: 0,
                device: Device::AfXdp {
                    netdev: netdev.into(),
                    bind: BindMode::Copy,
                    xdp: mode,
                    busy_poll: false,
                    owned: false,
                },
            };
            let (mut program, _) = pool.add_port(index, &spec, &[])?;
            program.set_endpoints(&[(address, DEFAULT_PORT).into()])?;
            steering.push(program);
        }
        pool.publish(tables);
        Ok(Self { pool, steering })
    }

    /// What the node dropped so far, where that is not zero.
    pub(super) fn drops(&self) -> String {
        let stats = self.pool.stats();
        let sockets = stats.ports.iter().flat_map(|port| &port.sockets);
        let drops = stats.drops.iter().chain(sockets);
        let drops = drops.filter(|(_, count)| *count > 0);
        let texts: Vec<_> = drops
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        texts.join(", ")
    }

    pub(super) fn stop(self) {
        drop(self.steering);
        self.pool.stop();
    }
}
