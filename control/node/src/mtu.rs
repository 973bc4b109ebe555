//! What fits the circuits of a VRF: its TAP devices get that MTU, and where it is too small for what the VRF routes, that
//! is told. It is accepted all the same, as what is routed may be meant for later.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;

use crate::compile::Sources;
use crate::node::Node;
use crate::warnings::Found;
use twinseal_model::parse::ItemKey;
use twinseal_model::port::Device;
use twinseal_model::state::{LinkName, PortName, Role, State, VrfName};
use twinseal_model::transaction::Touched;
use twinseal_wire::overlay::OVERHEAD;
use twinseal_wire::{ip, udp};

/// The least MTU that a path of IPv6 may have (RFC 8200, section 5).
const LEAST_V6: u16 = 1280;
/// What every IPv4 host takes (RFC 791), and many hosts' kernels go no lower for TCP.
const LEAST_V4: u16 = 576;

/// Families that a VRF routes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Families {
    pub(super) v4: bool,
    pub(super) v6: bool,
}

impl Families {
    /// Of a VRF.
    pub(super) fn of(state: &State, vrf: &VrfName) -> Self {
        let Some(routes) = state.routes.get(vrf) else {
            return Self::default();
        };
        // Prefixes of IPv4 come first.
        let is_v4 = |address: IpAddr| address.is_ipv4();
        let mut prefixes = routes.keys();
        let v4 = prefixes.next().is_some_and(|it| is_v4(it.address()));
        let v6 = routes.range(|prefix| match prefix.address() {
            IpAddr::V4(_) => std::cmp::Ordering::Less,
            IpAddr::V6(_) => std::cmp::Ordering::Equal,
        });
        Self {
            v4,
            v6: v6.take(1).count() > 0,
        }
    }
}

/// Whether a transaction may change what is warned of.
pub(super) fn concerned(old: &State, new: &State, touched: &Touched) -> bool {
    let same = new.ports.same(&old.ports)
        && new.links.same(&old.links)
        && new.circuits.same(&old.circuits);
    if !same {
        return true;
    }
    let vrfs: HashSet<_> = touched
        .keys()
        .filter_map(|item| match item {
            ItemKey::Route(vrf, _) => Some(vrf),
            _ => None,
        })
        .collect();
    let mut vrfs = vrfs.into_iter();
    vrfs.any(|vrf| Families::of(old, vrf) != Families::of(new, vrf))
}

/// All that there is to warn of.
pub(super) fn warnings(from: &Sources<'_>) -> Found {
    let state = from.state;
    let pairs: HashSet<_> = state
        .circuits
        .values()
        .map(|circuit| (&circuit.link, &circuit.vrf))
        .collect();
    let mut small: BTreeMap<(&LinkName, bool), BTreeSet<&VrfName>> = BTreeMap::new();
    for (link, vrf) in pairs {
        let Some(mtu) = from.inner_mtu(link) else {
            continue;
        };
        let families = Families::of(state, vrf);
        for (v6, used, least) in [
            (false, families.v4, LEAST_V4),
            (true, families.v6, LEAST_V6),
        ] {
            if used && mtu < least {
                small.entry((link, v6)).or_default().insert(vrf);
            }
        }
    }
    let warnings = small.into_iter().filter_map(|((link, v6), vrfs)| {
        let (mtu, it) = (from.inner_mtu(link)?, state.links.get(link)?);
        let (family, least, why) = match v6 {
            true => ("IPv6", LEAST_V6, "hosts need not send less (RFC 8200, section 5)"),
            false => ("IPv4", LEAST_V4, "hosts' TCP goes no lower"),
        };
        let of_port = from.ports.get(&it.port)?.mtu;
        let names: Vec<_> = vrfs.iter().take(3).map(|vrf| format!("{vrf:?}")).collect();
        let more = if vrfs.len() > 3 { " and others" } else { "" };
        let warning = format!(
            "its inner MTU, {mtu} bytes, is too small for {family}, which vrf {}{more} routes and which \
             needs {least}: {why}, and what is larger is lost. Raise the MTU of port {:?} from {of_port} to {} or more, or \
             lead {family} elsewhere",
            names.join(", "),
            it.port,
            u32::from(of_port) + u32::from(least - mtu),
        );
        Some((ItemKey::Link(link.clone()), warning))
    });
    let mut found = Found::new();
    for (link, warning) in warnings {
        found.entry(link).or_default().push(warning);
    }
    found
}

/// What MTU TAP devices should have: hosts then send nothing that does not fit.
pub(super) fn of_taps(from: &Sources<'_>) -> BTreeMap<PortName, u16> {
    let state = from.state;
    let mut taps = BTreeMap::new();
    for (name, port) in &state.ports {
        let (Device::Tap { .. }, Role::Edge(vrf)) = (&port.spec.device, &port.role) else {
            continue;
        };
        let circuits = state.circuits.values();
        let links: BTreeSet<_> = circuits
            .filter(|circuit| circuit.vrf == *vrf)
            .map(|circuit| &circuit.link)
            .collect();
        let least = links.into_iter().filter_map(|it| from.inner_mtu(it)).min();
        // Below, the kernel takes all IPv6 off the device.
        let floor = match Families::of(state, vrf).v6 {
            true => LEAST_V6,
            false => LEAST_V4,
        };
        taps.insert(name.clone(), least.map_or(u16::MAX, |it| it.max(floor)));
    }
    taps
}

impl Sources<'_> {
    /// Bytes of the largest inner packet that a link carries; `None` if its device was never seen.
    pub fn inner_mtu(&self, link: &LinkName) -> Option<u16> {
        let link = self.state.links.get(link)?;
        let outer = match link.local.ip() {
            IpAddr::V4(_) => ip::V4_LEN,
            IpAddr::V6(_) => ip::V6_LEN,
        };
        let around = (outer + udp::LEN + OVERHEAD) as u16;
        let port = self.ports.get(&link.port).filter(|port| port.seen)?;
        Some(port.mtu.saturating_sub(around))
    }
}

impl Node {
    /// Has TAP devices follow what fits, and has that looked at when warnings are looked at next.
    pub(super) fn look_at_mtus(&mut self) {
        let taps = of_taps(&self.sources());
        self.ports.fit(&taps, &self.events);
        self.warnings.look_at_mtus();
    }
}
