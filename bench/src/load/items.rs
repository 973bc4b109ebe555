//! What the controller says.

use std::net::{Ipv4Addr, Ipv6Addr};

use twinseal_api::v1::{self, item::Item, item_ref, route::Target};
use twinseal_testbed::items::delete;
use twinseal_wire::ethernet;

use super::LoadSizes;
use crate::harness::readdress;
use crate::routes::{Family, Route, random};

/// Links reach peers in 10.128.0.0/9, and labels count from here.
const FIRST_LABEL: u32 = 16;

pub(super) fn request(changes: impl Iterator<Item = v1::Change>) -> v1::ApplyRequest {
    v1::ApplyRequest {
        changes: changes.collect(),
        ..Default::default()
    }
}

/// A name that no other process has.
pub(super) fn wire(port: &str) -> String {
    format!("load-{}-{port}", std::process::id())
}

fn mac(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 7, n]
}

fn mac_text(n: u8) -> String {
    ethernet::Mac(mac(n)).to_string()
}

pub(super) fn vrf(n: u32) -> String {
    format!("vrf-{n}")
}

pub(super) fn vrf_item(n: u32) -> Item {
    Item::Vrf(v1::Vrf { name: vrf(n) })
}

fn vrf_of(circuit: u32, sizes: &LoadSizes) -> u32 {
    circuit % sizes.vrfs
}

fn link_of(circuit: u32, sizes: &LoadSizes) -> u32 {
    circuit % sizes.links
}

pub(super) fn port(name: &str, n: u8, vrf: Option<String>) -> Item {
    let role = match vrf {
        Some(_) => v1::PortRole::Edge,
        None => v1::PortRole::Underlay,
    };
    Item::Port(v1::Port {
        name: name.into(),
        role: role.into(),
        vrf: vrf.unwrap_or_default(),
        device: Some(v1::port::Device::Memory(v1::Memory {
            wire: wire(name),
            mac: mac_text(n),
        })),
        ..v1::Port::default()
    })
}

fn host(n: u64) -> String {
    format!("10.9.0.{}", n % 2 + 1)
}

/// A host that packets are routed to.
pub(super) fn neighbour(n: u64) -> Item {
    Item::Neighbour(v1::Neighbour {
        port: "out".into(),
        address: host(n),
        mac: mac_text(100 + n as u8),
    })
}

pub(super) fn link(n: u32) -> Item {
    Item::Link(v1::Link {
        name: format!("link-{n}"),
        end: v1::End::A.into(),
        port: "under".into(),
        local: "10.0.0.1".into(),
        remote: Ipv4Addr::from_bits(0x0a80_0001 + n).to_string(),
        ..Default::default()
    })
}

fn circuit_name(n: u32) -> String {
    format!("circuit-{n}")
}

pub(super) fn circuit(n: u32, sizes: &LoadSizes) -> Item {
    Item::Circuit(v1::Circuit {
        name: circuit_name(n),
        id: u64::from(n) + 1,
        end: v1::End::A.into(),
        vrf: vrf(vrf_of(n, sizes)),
        link: format!("link-{}", link_of(n, sizes)),
        label: FIRST_LABEL + n / sizes.links,
        ..Default::default()
    })
}

pub(super) fn label(n: u32, sizes: &LoadSizes) -> Item {
    Item::Label(v1::Label {
        link: format!("link-{}", link_of(n, sizes)),
        label: FIRST_LABEL + n / sizes.links,
        action: Some(v1::label::Action::Egress(v1::Egress {
            circuit: circuit_name(n),
        })),
    })
}

/// What takes a circuit and its label away again.
pub(super) fn without(circuit: u32, sizes: &LoadSizes) -> [v1::Change; 2] {
    let label = v1::LabelRef {
        link: format!("link-{}", link_of(circuit, sizes)),
        label: FIRST_LABEL + circuit / sizes.links,
    };
    [
        delete(item_ref::Item::Label(label)),
        delete(item_ref::Item::Circuit(circuit_name(circuit))),
    ]
}

/// One to send with and one to receive with.
pub(super) fn keys(circuit: u32) -> impl Iterator<Item = Item> {
    let directions = [(0, v1::Direction::AToB), (1, v1::Direction::BToA)];
    let keys = directions.map(|(n, direction)| {
        let word = |place: u64| random(40 + place, u64::from(circuit) * 2 + n).to_be_bytes();
        Item::Key(v1::Key {
            owner: Some(v1::key::Owner::Circuit(circuit_name(circuit))),
            direction: direction.into(),
            epoch: 1,
            secret: (0u64..4).flat_map(word).collect(),
            ..Default::default()
        })
    });
    keys.into_iter()
}

/// A route into one of its VRF's circuits, by a draw.
pub(super) fn route(family: Family, route: &Route, draw: usize, sizes: &LoadSizes) -> Item {
    let circuits = (sizes.circuits / sizes.vrfs).max(1);
    let circuit = route.vrf + draw as u32 % circuits * sizes.vrfs;
    let address = match family {
        Family::V4 => Ipv4Addr::from_bits((route.bits >> 96) as u32).to_string(),
        Family::V6 => Ipv6Addr::from_bits(route.bits).to_string(),
    };
    Item::Route(v1::Route {
        vrf: vrf(route.vrf),
        prefix: format!("{address}/{}", route.len),
        target: Some(Target::Circuit(circuit_name(circuit))),
    })
}

/// Where packets go: above all other routes, so that these do not matter.
fn target_prefix(n: u64) -> [u8; 3] {
    [224 - 1, (n >> 8) as u8, n as u8]
}

/// A route to one of two hosts.
pub(super) fn target(n: u64, round: u64) -> Item {
    let [a, b, c] = target_prefix(n);
    Item::Route(v1::Route {
        vrf: vrf(0),
        prefix: format!("{a}.{b}.{c}.7/32"),
        target: Some(Target::Via(v1::Via {
            port: "out".into(),
            address: host(n + round),
        })),
    })
}

/// A packet that takes it.
pub(super) fn packet(n: u64) -> Vec<u8> {
    let mut frame = twinseal_forward::fixture::host_frame_v4(64, 0);
    frame[..6].copy_from_slice(&mac(1));
    let [a, b, c] = target_prefix(n);
    readdress(&mut frame, [a, b, c, 7]);
    frame
}
