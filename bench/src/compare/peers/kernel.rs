//! What the kernel does by itself.

use super::{Peer, Running};
use crate::compare::Setup;
use crate::compare::network::{Network, Side, net};

/// Routers that seal nothing and add nothing.
pub(super) struct Forwarding;

impl Peer for Forwarding {
    fn name(&self) -> &'static str {
        super::KERNEL
    }

    fn about(&self) -> &'static str {
        "the kernel forwards, nothing sealed"
    }

    fn seals(&self) -> u8 {
        0
    }

    fn version(&self, _: &Setup) -> Result<String, String> {
        Ok("of the kernel".into())
    }

    fn start(&self, _: &Setup, network: &Network, _: &mut Running) -> anyhow::Result<()> {
        network.forward()?;
        for side in Side::ALL {
            network.route_via(side, side.other().wan())?;
        }
        Ok(())
    }
}

/// Routers with a VXLAN tunnel between them.
pub(super) struct Vxlan;

impl Peer for Vxlan {
    fn name(&self) -> &'static str {
        "vxlan"
    }

    fn about(&self) -> &'static str {
        "the kernel's VXLAN, nothing sealed"
    }

    fn seals(&self) -> u8 {
        0
    }

    fn version(&self, _: &Setup) -> Result<String, String> {
        Ok("of the kernel".into())
    }

    fn start(&self, _: &Setup, network: &Network, _: &mut Running) -> anyhow::Result<()> {
        network.forward()?;
        for side in Side::ALL {
            let (gateway, far) = (network.gateway(side), side.other());
            let (local, remote) = (side.wan().into(), far.wan().into());
            network.lab().vxlan(gateway, "vx0", 7, local, remote)?;
            gateway.add_address("vx0", net(side.tunnel()))?;
            network.route_via(side, far.tunnel())?;
        }
        Ok(())
    }
}
