//! Items of the control protocol, made short.

use twinseal::cli::demo::plan::random;
use twinseal_api::v1;
use v1::change::Change as Of;
use v1::item::Item;
use v1::key::Owner;

/// A link's name on both its nodes.
pub(super) fn link_name(link: usize) -> String {
    format!("link-{link}")
}

/// The name of a tenant's VRF and of its circuit.
pub(super) fn tenant_name(tenant: u32) -> String {
    format!("tenant-{tenant}")
}

/// A key with a fresh secret.
pub(super) fn key(
    owner: Owner,
    direction: v1::Direction,
    epoch: u32,
    suite: v1::Suite,
    receiver_index: u32,
) -> anyhow::Result<v1::Key> {
    let mut secret = vec![0; 32];
    random(&mut secret)?;
    Ok(v1::Key {
        owner: Some(owner),
        direction: direction.into(),
        epoch,
        suite: suite.into(),
        secret,
        receiver_index,
        ..v1::Key::default()
    })
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
        mtu: 0,
        device: Some(v1::port::Device::AfXdp(device)),
    })
}

pub(super) fn label_item(link: usize, label: u32, action: v1::label::Action) -> Item {
    Item::Label(v1::Label {
        link: link_name(link),
        label,
        action: Some(action),
    })
}

pub(super) fn route(tenant: u32, prefix: String, target: v1::route::Target) -> Item {
    Item::Route(v1::Route {
        vrf: tenant_name(tenant),
        prefix,
        target: Some(target),
    })
}

pub(super) fn delete(item: v1::item_ref::Item) -> v1::Change {
    v1::Change {
        change: Some(Of::Delete(v1::ItemRef { item: Some(item) })),
    }
}
