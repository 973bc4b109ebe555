//! Items of the control protocol, made short.

use twinseal_api::v1;
use v1::item::Item;

/// A link's name on both its nodes.
pub(super) fn link_name(link: usize) -> String {
    format!("link-{link}")
}

/// The name of a tenant's VRF and of its circuit.
pub(super) fn tenant_name(tenant: u32) -> String {
    format!("tenant-{tenant}")
}

/// A port over AF_XDP, of its device's name.
pub(super) fn port(netdev: &str, role: v1::PortRole, vrf: &str) -> Item {
    let device = v1::AfXdp {
        netdev: netdev.into(),
        ..v1::AfXdp::default()
    };
    Item::Port(v1::Port {
        name: netdev.into(),
        role: role.into(),
        vrf: vrf.into(),
        device: Some(v1::port::Device::AfXdp(device)),
        ..v1::Port::default()
    })
}

pub(super) fn route(tenant: u32, prefix: String, target: v1::route::Target) -> Item {
    Item::Route(v1::Route {
        vrf: tenant_name(tenant),
        prefix,
        target: Some(target),
    })
}
