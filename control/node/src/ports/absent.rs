//! Ports whose device is not there when the node starts: they are taken in closed, and opened when it comes, as when it
//! goes while the node runs. All else that was stored need not wait for it.

use std::time::Instant;

use super::follow::{Following, cannot_be_opened};
use super::{Handle, Ports, local};
use crate::compile::OpenPort;
use crate::health::Status;
use crate::netlink::View;
use twinseal_fib::PortIndex;
use twinseal_model::port::{Device, PortSpec};
use twinseal_model::state::{Port, PortName};
use twinseal_runtime::ports::{Outcome, PortError, Steering};
use twinseal_runtime::workers::Pool;
use twinseal_wire::ethernet::Mac;

/// Bytes of an IP packet that a device is taken to carry that was never seen. Most do, and links that seemed to carry
/// less would have hosts told so.
const UNSEEN_MTU: u16 = 1500;

/// What becomes of a port that cannot be opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum IfAbsent {
    /// The transaction is refused: most likely somebody mistyped a name.
    Refuse,
    /// It is waited for, as the port was there before the node started.
    Wait,
}

impl IfAbsent {
    /// Whether a port waits that cannot be opened for this.
    pub(super) fn waits(self, spec: &PortSpec, error: &PortError) -> bool {
        let stays = matches!(error, PortError::TooMany | PortError::Stopped);
        self == Self::Wait && spec.netdev().is_some() && !stays
    }
}

impl Ports {
    /// Closes a port that cannot hold the address of one of its links yet.
    pub(super) fn wait_for_endpoint(&mut self, pool: &Pool, name: &PortName, error: &PortError) {
        self.park(pool, name, cannot_be_opened(error));
        self.wait_for_device(name, error, Instant::now());
    }

    /// Takes in a port that cannot be opened yet.
    pub(super) fn take_in_closed(
        &mut self,
        name: &PortName,
        port: &Port,
        index: PortIndex,
        view: &View,
        error: &PortError,
    ) {
        let mtu = match port.spec.mtu {
            0 => UNSEEN_MTU,
            mtu => mtu,
        };
        let outcome = Outcome {
            mac: Mac::default(),
            mtu,
            device_mtu: mtu,
            offloads: false,
            xdp: None,
            bind: Vec::new(),
            need_wakeup: false,
            peer: None,
            ifindex: None,
        };
        let mut open = OpenPort::new(index, &outcome);
        open.seen = false;
        let handle = Handle {
            steering: Steering::default(),
            outcome,
            netdev: port.spec.netdev().map(str::to_owned),
            addresses: local(port, None, view),
            endpoints: Vec::new(),
            port: port.clone(),
            following: Following::default(),
        };
        self.open.insert(name.clone(), open);
        self.handles.insert(name.clone(), handle);
        self.wait_for_device(name, error, Instant::now());
        // A TAP device is the node's to make.
        if let Device::AfXdp { netdev, .. } = &port.spec.device
            && view.has_device(netdev) == Some(false)
            && let Some(open) = self.open.get_mut(name)
        {
            open.device = Status::Down(format!("there is no network device {netdev}").into());
        }
        if let Some(open) = self.open.get(name) {
            let why = open.device.reason();
            tracing::error!(port = %name, why, "the port is closed until its device can be opened");
        }
    }
}
