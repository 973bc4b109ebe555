//! The network: load and sink at its ends, the node in the middle.

use twinseal_forward::fixture::{EAST as EAST_PORT, WEST as WEST_PORT, mac};
use twinseal_lab::{IpNet, Lab, Namespace, VethConfig};

use super::Error;

/// The node's device towards the load.
pub(super) const WEST: &str = "west0";
/// The node's device towards the sink.
pub(super) const EAST: &str = "east0";
/// The device of the load, and of the sink.
pub(super) const END: &str = "eth0";

/// load:eth0 - west0:node:east0 - eth0:sink, with the hardware addresses of the fixture's nodes.
pub(super) struct Workload {
    // Dropped in this order.
    load: Namespace,
    node: Namespace,
    sink: Namespace,
    _lab: Lab,
}

impl Workload {
    pub(super) fn new() -> Result<Self, Error> {
        let lab = Lab::new("l2fwd")?;
        let (load, node, sink) = (
            lab.namespace("load")?,
            lab.namespace("node")?,
            lab.namespace("sink")?,
        );
        for (mut veth, macs, address) in [
            (
                VethConfig::new((&load, END), (&node, WEST)),
                [mac(1, WEST_PORT), mac(2, WEST_PORT)],
                [192, 0, 2, 2],
            ),
            (
                VethConfig::new((&sink, END), (&node, EAST)),
                [mac(3, WEST_PORT), mac(2, EAST_PORT)],
                [198, 51, 100, 2],
            ),
        ] {
            (veth.mac_a, veth.mac_b) = (Some(macs[0].0), Some(macs[1].0));
            // The transit node holds its links' endpoints.
            veth.addresses_b = IpNet::new(address.into(), 24).into_iter().collect();
            lab.veth(&veth)?;
        }
        Ok(Self {
            load,
            node,
            sink,
            _lab: lab,
        })
    }

    pub(super) fn load(&self) -> &Namespace {
        &self.load
    }

    pub(super) fn node(&self) -> &Namespace {
        &self.node
    }

    pub(super) fn sink(&self) -> &Namespace {
        &self.sink
    }
}
