//! What must hold of a state at the end of a transaction: everything pointed at exists and is of the right kind.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use super::check_keys;
use super::model::{CircuitName, Hop, LabelAction, LinkName, Role, State, Target, Via, VrfName};
use super::parse::{Broken, ItemKey};
use super::refusal::{Code, Refused, reason};
use super::transaction::Touched;
use crate::ports::Device;

/// Adds everything that is wrong with `new` to `refused`.
pub(super) fn check(
    old: &State,
    new: &State,
    touched: &Touched,
    broken: &Broken,
    refused: &mut Refused,
) {
    let mut checker = Checker {
        old,
        new,
        touched,
        broken,
        refused,
    };
    checker.ports();
    checker.links();
    checker.circuits();
    checker.labels();
    checker.groups();
    checker.routes();
    checker.neighbours();
    check_keys::check(&mut checker);
}

pub(super) struct Checker<'a> {
    pub(super) old: &'a State,
    pub(super) new: &'a State,
    pub(super) touched: &'a Touched,
    pub(super) broken: &'a Broken,
    pub(super) refused: &'a mut Refused,
}

impl Checker<'_> {
    /// Refuses `item`, by the change that touched it; `None` if none did.
    pub(super) fn refuse(
        &mut self,
        code: Code,
        item: &ItemKey,
        field: &str,
        why: impl Into<String>,
        fix: &str,
    ) {
        let change = self.touched.get(item).copied();
        self.refused
            .push(reason(code, change, item, field, why, fix));
    }

    /// Refuses a reference from `from` to `to`. If only `to` was touched, then that change broke it and is named.
    fn refuse_reference(
        &mut self,
        code: Code,
        from: &ItemKey,
        field: &str,
        to: &ItemKey,
        why: String,
        fix: &str,
    ) {
        match self.touched.get(to) {
            Some(&change) if !self.touched.contains_key(from) => {
                let why = format!("{from} still refers to it by {field}: {why}");
                let fix = "change or delete what refers to it in the same transaction";
                self.refused
                    .push(reason(Code::InUse, Some(change), to, "", why, fix));
            }
            _ => self.refuse(code, from, field, why, fix),
        }
    }

    fn missing(&mut self, from: &ItemKey, field: &str, to: &ItemKey) {
        if self.broken.covers(to) {
            return;
        }
        let why = format!("there is no {to}");
        self.refuse_reference(
            Code::NotFound,
            from,
            field,
            to,
            why,
            "set it in the same transaction, or name another",
        );
    }

    fn ports(&mut self) {
        if self.new.ports.same(&self.old.ports) && self.new.vrfs.same(&self.old.vrfs) {
            return;
        }
        let mut netdevs = HashMap::new();
        for (name, port) in self.old.ports.iter() {
            if let Device::AfXdp { netdev, .. } | Device::Tap { netdev } = &port.spec.device {
                netdevs.insert(netdev, name);
            }
        }
        let new = self.new;
        for (name, port) in new.ports.iter() {
            let item = ItemKey::Port(name.clone());
            if let Role::Edge(vrf) = &port.role
                && !new.vrfs.contains_key(vrf)
            {
                self.missing(&item, "vrf", &ItemKey::Vrf(vrf.clone()));
            }
            if let Some(old) = self.old.ports.get(name)
                && old.spec != port.spec
            {
                self.refuse(Code::Immutable, &item, "device", "an open port can change nothing but its VRF", "delete it in a transaction of its own first, or give the port another name and device");
            }
            if let Device::AfXdp { netdev, .. } | Device::Tap { netdev } = &port.spec.device
                && let Some(other) = netdevs.insert(netdev, name)
                && other != name
            {
                let why = format!("port {other:?} has device {netdev}");
                self.refuse(Code::Conflict, &item, "device", why, "give each port a device of its own; to move a device to another port, delete the first port in a transaction of its own");
            }
        }
    }

    fn links(&mut self) {
        if self.new.links.same(&self.old.links) && self.new.ports.same(&self.old.ports) {
            return;
        }
        let new = self.new;
        for (name, link) in new.links.iter() {
            let item = ItemKey::Link(name.clone());
            let port = ItemKey::Port(link.port.clone());
            match new.ports.get(&link.port).map(|port| &port.role) {
                None => self.missing(&item, "port", &port),
                Some(Role::Edge(_)) => self.refuse_reference(
                    Code::WrongKind,
                    &item,
                    "port",
                    &port,
                    format!("{port} is an edge port"),
                    "name an underlay port",
                ),
                Some(Role::Underlay) => {}
            }
        }
    }

    fn circuits(&mut self) {
        let (old, new) = (self.old, self.new);
        if new.circuits.same(&old.circuits)
            && new.labels.same(&old.labels)
            && new.links.same(&old.links)
            && new.vrfs.same(&old.vrfs)
        {
            return;
        }
        let mut ids = BTreeMap::new();
        let mut labels: HashMap<(&LinkName, u32), ItemKey> = HashMap::new();
        for ((link, label), action) in new.labels.iter() {
            if let LabelAction::Swap {
                link: to,
                label: out,
            } = action
            {
                labels.insert((to, *out), ItemKey::Label(link.clone(), *label));
            }
        }
        for (name, circuit) in new.circuits.iter() {
            let item = ItemKey::Circuit(name.clone());
            if !new.links.contains_key(&circuit.link) {
                self.missing(&item, "link", &ItemKey::Link(circuit.link.clone()));
            }
            if !new.vrfs.contains_key(&circuit.vrf) {
                self.missing(&item, "vrf", &ItemKey::Vrf(circuit.vrf.clone()));
            }
            if let Some(other) = ids.insert(circuit.id, item.clone()) {
                let why = format!("{other} has id {} too", circuit.id);
                self.refuse_pair(
                    Code::Conflict,
                    &item,
                    &other,
                    "id",
                    why,
                    "give each circuit an id of its own",
                );
            }
            if let Some(other) = labels.insert((&circuit.link, circuit.label), item.clone()) {
                let why = format!(
                    "{other} sends on link {:?} under label {} too, so the far end could not tell them apart",
                    circuit.link, circuit.label
                );
                self.refuse_pair(
                    Code::Conflict,
                    &item,
                    &other,
                    "label",
                    why,
                    "give each circuit a label of its own on the link",
                );
            }
        }
    }

    /// Refuses one of two items that cannot both be: the one that the transaction touched.
    pub(super) fn refuse_pair(
        &mut self,
        code: Code,
        item: &ItemKey,
        other: &ItemKey,
        field: &str,
        why: String,
        fix: &str,
    ) {
        match self.touched.get(other) {
            Some(&change) if !self.touched.contains_key(item) => {
                let why = format!("conflict with {item}: {why}");
                self.refused
                    .push(reason(code, Some(change), other, field, why, fix));
            }
            _ => self.refuse(code, item, field, why, fix),
        }
    }

    fn labels(&mut self) {
        let (old, new) = (self.old, self.new);
        if new.labels.same(&old.labels)
            && new.links.same(&old.links)
            && new.circuits.same(&old.circuits)
        {
            return;
        }
        for ((link, label), action) in new.labels.iter() {
            let item = ItemKey::Label(link.clone(), *label);
            if !new.links.contains_key(link) {
                self.missing(&item, "link", &ItemKey::Link(link.clone()));
            }
            match action {
                LabelAction::Swap { link, .. } if !new.links.contains_key(link) => {
                    self.missing(&item, "swap.link", &ItemKey::Link(link.clone()));
                }
                LabelAction::Egress(circuit) if !new.circuits.contains_key(circuit) => {
                    self.missing(&item, "egress.circuit", &ItemKey::Circuit(circuit.clone()));
                }
                _ => {}
            }
        }
    }

    fn groups(&mut self) {
        let (old, new) = (self.old, self.new);
        if new.groups.same(&old.groups)
            && new.circuits.same(&old.circuits)
            && new.ports.same(&old.ports)
        {
            return;
        }
        for (name, members) in new.groups.iter() {
            let item = ItemKey::Group(name.clone());
            for (n, member) in members.iter().enumerate() {
                let field = format!("members[{n}]");
                match &member.hop {
                    Hop::Circuit(circuit) => {
                        self.circuit_exists(&item, &format!("{field}.circuit"), circuit)
                    }
                    Hop::Via(via) => self.via_exists(&item, &format!("{field}.via.port"), via),
                }
            }
        }
    }

    fn circuit_exists(&mut self, item: &ItemKey, field: &str, circuit: &CircuitName) {
        if !self.new.circuits.contains_key(circuit) {
            self.missing(item, field, &ItemKey::Circuit(circuit.clone()));
        }
    }

    fn via_exists(&mut self, item: &ItemKey, field: &str, via: &Via) {
        let port = ItemKey::Port(via.port.clone());
        match self.new.ports.get(&via.port).map(|port| &port.role) {
            None => self.missing(item, field, &port),
            Some(Role::Underlay) => self.refuse_reference(
                Code::WrongKind,
                item,
                field,
                &port,
                format!("{port} is an underlay port"),
                "name an edge port",
            ),
            Some(Role::Edge(_)) => {}
        }
    }

    /// A transaction of a few routes looks at those only, unless what routes lead to has changed.
    fn routes(&mut self) {
        let (old, new) = (self.old, self.new);
        let hops_changed = !(new.circuits.same(&old.circuits)
            && new.groups.same(&old.groups)
            && new.ports.same(&old.ports)
            && new.vrfs.same(&old.vrfs));
        if hops_changed {
            for (vrf, routes) in new.routes.iter() {
                for (prefix, target) in routes.iter() {
                    self.route(
                        &ItemKey::Route(vrf.clone(), *prefix),
                        vrf,
                        prefix.address(),
                        target,
                    );
                }
            }
            return;
        }
        let touched = self.touched;
        for item in touched.keys() {
            if let ItemKey::Route(vrf, prefix) = item
                && let Some(target) = new.routes.get(vrf).and_then(|routes| routes.get(prefix))
            {
                self.route(item, vrf, prefix.address(), target);
            }
        }
    }

    fn route(&mut self, item: &ItemKey, vrf: &VrfName, prefix: IpAddr, target: &Target) {
        if !self.new.vrfs.contains_key(vrf) {
            self.missing(item, "vrf", &ItemKey::Vrf(vrf.clone()));
        }
        match target {
            Target::Blackhole => {}
            Target::Hop(Hop::Circuit(circuit)) => {
                self.circuit_exists(item, "circuit", circuit);
                self.circuit_fits(item, "circuit", vrf, circuit);
            }
            Target::Hop(Hop::Via(via)) => {
                self.via_exists(item, "via.port", via);
                self.via_fits(item, "via", vrf, prefix, via);
            }
            Target::Group(group) => match self.new.groups.get(group) {
                None => self.missing(item, "group", &ItemKey::Group(group.clone())),
                // That they exist is checked once for the group.
                Some(members) => {
                    for member in members {
                        match &member.hop {
                            Hop::Circuit(circuit) => self.circuit_fits(item, "group", vrf, circuit),
                            Hop::Via(via) => self.via_fits(item, "group", vrf, prefix, via),
                        }
                    }
                }
            },
        }
    }

    /// A tenant's packets stay in its VRF at both edges.
    fn circuit_fits(&mut self, item: &ItemKey, field: &str, vrf: &VrfName, circuit: &CircuitName) {
        if let Some(other) = self.new.circuits.get(circuit).map(|circuit| &circuit.vrf)
            && other != vrf
        {
            let to = ItemKey::Circuit(circuit.clone());
            let why = format!("{to} belongs to vrf {other:?}");
            self.refuse_reference(
                Code::WrongKind,
                item,
                field,
                &to,
                why,
                "lead to a circuit of the route's own VRF",
            );
        }
    }

    fn via_fits(&mut self, item: &ItemKey, field: &str, vrf: &VrfName, prefix: IpAddr, via: &Via) {
        let to = ItemKey::Port(via.port.clone());
        if let Some(Role::Edge(other)) = self.new.ports.get(&via.port).map(|port| &port.role)
            && other != vrf
        {
            let why = format!("{to} belongs to vrf {other:?}");
            self.refuse_reference(
                Code::WrongKind,
                item,
                field,
                &to,
                why,
                "lead to a port of the route's own VRF",
            );
        }
        if let Some(address) = via.address
            && address.is_ipv4() != prefix.is_ipv4()
        {
            let why = format!("the next hop {address} is of another family than the prefix");
            self.refuse(
                Code::WrongKind,
                item,
                field,
                why,
                "give a next hop of the prefix's family",
            );
        }
    }

    fn neighbours(&mut self) {
        if self.new.neighbours.same(&self.old.neighbours) && self.new.ports.same(&self.old.ports) {
            return;
        }
        let new = self.new;
        for (port, address) in new.neighbours.keys() {
            if !new.ports.contains_key(port) {
                let item = ItemKey::Neighbour(port.clone(), *address);
                self.missing(&item, "port", &ItemKey::Port(port.clone()));
            }
        }
    }
}
