//! What the dataplane is asked to open for a port of the desired state.

use twinseal_ebpf::XdpMode;
use twinseal_model::port;
use twinseal_runtime::ports::{Device, PortSpec};
use twinseal_xsk::BindMode;

/// The same in the dataplane's types.
pub(super) fn wanted(spec: &port::PortSpec) -> PortSpec {
    PortSpec {
        edge: spec.edge,
        mtu: spec.mtu,
        device: match &spec.device {
            port::Device::AfXdp {
                netdev,
                bind,
                xdp,
                busy_poll,
                owned,
            } => Device::AfXdp {
                netdev: netdev.clone(),
                bind: match bind {
                    port::BindMode::Auto => BindMode::Auto,
                    port::BindMode::ZeroCopy => BindMode::ZeroCopy,
                    port::BindMode::Copy => BindMode::Copy,
                },
                xdp: match xdp {
                    port::XdpMode::Auto => XdpMode::Auto,
                    port::XdpMode::Native => XdpMode::Native,
                    port::XdpMode::Generic => XdpMode::Generic,
                },
                busy_poll: *busy_poll,
                owned: *owned,
            },
            port::Device::Tap { netdev } => Device::Tap {
                netdev: netdev.clone(),
            },
            port::Device::Memory { wire, mac } => Device::Memory {
                wire: wire.clone(),
                mac: *mac,
            },
        },
    }
}
