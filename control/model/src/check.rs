//! What must hold of a state at the end of a transaction: everything pointed at exists and is of the right kind.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use crate::check_keys;
use crate::parse::{Broken, ItemKey, Reference};
use crate::port::Device;
use crate::refusal::{Code, Refused, RefusedItem, place, reason};
use crate::state::{
    Circuit, CircuitName, Hop, LabelAction, LinkName, OwnerName, PersistentMap, Role, State,
    Target, Via, VrfName,
};
use crate::sweep::NOWHERE;
use crate::transaction::Touched;

/// What to do about a reference to what is not there.
const NAME_ANOTHER: &str = "set it in the same transaction, or name another";
/// The same if a whole state left it out.
const LEFT_OUT: &str = "set it in the same stream, or name another";
/// References to one item that are named.
const NAMED: usize = 5;
/// What to do about a reference to a port of the other role.
const NAME_UNDERLAY: &str = "name an underlay port";
const NAME_EDGE: &str = "name an edge port";

/// Adds everything that is wrong with `new` to `refused`. A whole state names what is `equal`, too.
pub fn check(
    old: &State,
    new: &State,
    (touched, equal): (&Touched, &Touched),
    broken: &Broken,
    refused: &mut Refused,
) {
    let checker = Checker {
        old,
        new,
        whole: false,
        touched,
        equal,
        broken,
        in_use: BTreeMap::new(),
        refused,
    };
    run(checker);
}

/// Adds what items refer to, that are not in `new` as something else is wrong with them, and that is not there or does not
/// fit: so it is told at once, not when the rest is mended.
pub(super) fn check_references(
    new: &State,
    references: &[Reference],
    broken: &Broken,
    refused: &mut Refused,
) {
    for Reference {
        index,
        item,
        field,
        to,
        edge,
    } in references
    {
        if broken.covers(to) {
            continue;
        }
        let there = match to {
            ItemKey::Port(name) => new.ports.contains_key(name),
            ItemKey::Vrf(name) => new.vrfs.contains_key(name),
            ItemKey::Link(name) => new.links.contains_key(name),
            ItemKey::Circuit(name) => new.circuits.contains_key(name),
            ItemKey::Group(name) => new.groups.contains_key(name),
            // Nothing refers to these by name.
            _ => continue,
        };
        let role = match to {
            ItemKey::Port(name) => new.ports.get(name).map(|port| &port.role),
            _ => None,
        };
        let (code, reason, fix) = match (role, edge) {
            _ if !there => (Code::NotFound, format!("there is no {to}"), NAME_ANOTHER),
            (Some(Role::Edge(_)), Some(false)) => (Code::WrongKind, is_edge(to), NAME_UNDERLAY),
            (Some(Role::Underlay), Some(true)) => (Code::WrongKind, is_underlay(to), NAME_EDGE),
            _ => continue,
        };
        refused.push(RefusedItem {
            change: place(*index),
            item: item.clone(),
            field: field.clone().into_owned(),
            reason,
            fix: fix.to_owned(),
            code: code.into(),
        });
    }
}

fn is_edge(port: &ItemKey) -> String {
    format!("{port} is an edge port")
}

fn is_underlay(port: &ItemKey) -> String {
    format!("{port} is an underlay port")
}

/// Adds everything that is wrong with a state that no transaction made of another.
pub fn check_whole(new: &State, refused: &mut Refused) {
    let checker = Checker {
        old: &State::default(),
        new,
        whole: true,
        touched: &Touched::new(),
        equal: &Touched::new(),
        broken: &Broken::default(),
        in_use: BTreeMap::new(),
        refused,
    };
    run(checker);
}

fn run(mut checker: Checker<'_>) {
    checker.ports();
    checker.links();
    checker.circuits();
    checker.labels();
    checker.groups();
    checker.routes();
    checker.neighbours();
    check_keys::check(&mut checker);
    checker.tell_in_use();
}

/// References to one item that is not there any more, or is another.
#[derive(Default)]
struct InUse {
    /// How many.
    all: usize,
    /// The first.
    named: Vec<String>,
}

/// Whether a table has less entries of those that it had.
fn lost<K: Ord, V: PartialEq>(old: &PersistentMap<K, V>, new: &PersistentMap<K, V>) -> bool {
    let mut lost = false;
    old.diff(new, |_, _, now| lost |= now.is_none());
    lost
}

/// What a transaction's own circuits and swaps take, each of which nothing else may have.
#[derive(Default)]
struct Used {
    ids: HashSet<u64>,
    /// On whatever link.
    labels: HashSet<u32>,
}

impl Used {
    fn by(touched: &Touched, new: &State) -> Self {
        let mut used = Self::default();
        for item in touched.keys() {
            match item {
                ItemKey::Circuit(name) => {
                    if let Some(circuit) = new.circuits.get(name) {
                        used.ids.insert(circuit.id);
                        used.labels.insert(circuit.label);
                    }
                }
                ItemKey::Label(link, label) => {
                    let action = new.labels.get(&(link.clone(), *label));
                    if let Some(LabelAction::Swap { label, .. }) = action {
                        used.labels.insert(*label);
                    }
                }
                _ => {}
            }
        }
        used
    }
}

pub(crate) struct Checker<'a> {
    pub(crate) old: &'a State,
    pub(crate) new: &'a State,
    /// Whether all of `new` is to be looked at. Else `old` was sound, so that only what was touched can be wrong, and what
    /// refers to what is gone.
    whole: bool,
    pub(crate) touched: &'a Touched,
    /// Where a whole state names what is as it was.
    equal: &'a Touched,
    pub(crate) broken: &'a Broken,
    /// By what was touched, and which change did.
    in_use: BTreeMap<(usize, ItemKey, Option<OwnerName>), InUse>,
    pub(crate) refused: &'a mut Refused,
}

impl Checker<'_> {
    /// Refuses `item`, by the change that touched it; `None` if none did.
    pub(crate) fn refuse(
        &mut self,
        code: Code,
        item: &ItemKey,
        field: &str,
        why: impl Into<String>,
        fix: &str,
    ) {
        let places = self.touched.get(item).or_else(|| self.equal.get(item));
        let change = places.copied();
        self.refused
            .push(reason(code, change, item, field, why, fix));
    }

    /// Whether the transaction names this.
    pub(crate) fn names(&self, item: &ItemKey) -> bool {
        self.touched.contains_key(item) || self.equal.contains_key(item)
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
            Some(&change) if !self.names(from) => {
                let other = self.new.owners.other(from, &self.old.owners.of(to));
                let whose = match &other {
                    None => String::new(),
                    Some(other) => format!(", an item of owner {other:?},"),
                };
                let in_use = self.in_use.entry((change, to.clone(), other));
                let in_use = in_use.or_default();
                in_use.all += 1;
                if in_use.all <= NAMED {
                    // That it is not there is what was asked for.
                    let why = match code {
                        Code::NotFound => String::new(),
                        _ => format!(" ({why})"),
                    };
                    in_use.named.push(format!("{from}{whose} by {field}{why}"));
                }
            }
            _ => self.refuse(code, from, field, why, fix),
        }
    }

    fn missing(&mut self, from: &ItemKey, field: &str, to: &ItemKey) {
        if self.broken.covers(to) {
            return;
        }
        let why = format!("there is no {to}");
        self.refuse_reference(Code::NotFound, from, field, to, why, self.name_another(to));
    }

    /// What to do about a reference to what is not there.
    pub(crate) fn name_another(&self, to: &ItemKey) -> &'static str {
        match self.touched.get(to) {
            Some(&NOWHERE) => LEFT_OUT,
            _ => NAME_ANOTHER,
        }
    }

    /// One reason for each item that others still refer to, however many: a VRF may have a million routes.
    fn tell_in_use(&mut self) {
        for ((change, to, other), InUse { all, named }) in std::mem::take(&mut self.in_use) {
            let more = match all - named.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let why = format!("still referred to: {}{more}", named.join(", "));
            let fix = match other {
                None => "change or delete what refers to it in the same transaction",
                Some(_) => "have that owner change or delete what refers to it first",
            };
            self.refused
                .push(reason(Code::InUse, Some(change), &to, "", why, fix));
        }
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
                && old.spec.edge != port.spec.edge
            {
                self.refuse(Code::Immutable, &item, "role", "an open port cannot change its role", "delete it in a transaction of its own first, or give the port another name and device");
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
                    is_edge(&port),
                    NAME_UNDERLAY,
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
        let all = self.whole || lost(&old.links, &new.links) || lost(&old.vrfs, &new.vrfs);
        let used = Used::by(self.touched, new);
        let mut ids = BTreeMap::new();
        let mut labels: HashMap<(&LinkName, u32), ItemKey> = HashMap::new();
        for ((link, label), action) in new.labels.iter() {
            if let LabelAction::Swap {
                link: to,
                label: out,
            } = action
                && (self.whole || used.labels.contains(out))
            {
                labels.insert((to, *out), ItemKey::Label(link.clone(), *label));
            }
        }
        for (name, circuit) in new.circuits.iter() {
            let conflicts = self.whole
                || used.ids.contains(&circuit.id)
                || used.labels.contains(&circuit.label);
            if !all && !conflicts {
                continue;
            }
            let item = ItemKey::Circuit(name.clone());
            if !new.links.contains_key(&circuit.link) {
                self.missing(&item, "link", &ItemKey::Link(circuit.link.clone()));
            }
            if !new.vrfs.contains_key(&circuit.vrf) {
                self.missing(&item, "vrf", &ItemKey::Vrf(circuit.vrf.clone()));
            }
            if !conflicts {
                continue;
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
    pub(crate) fn refuse_pair(
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
        let all = self.whole || lost(&old.links, &new.links) || lost(&old.circuits, &new.circuits);
        let touched = self.touched.keys().filter_map(|item| match item {
            ItemKey::Label(link, label) => new.labels.entry(&(link.clone(), *label)),
            _ => None,
        });
        let labels = match all {
            true => new.labels.iter().collect(),
            false => touched.collect::<Vec<_>>(),
        };
        for ((link, label), action) in labels {
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
                is_underlay(&port),
                NAME_EDGE,
            ),
            Some(Role::Edge(_)) => {}
        }
    }

    /// A transaction looks at its own routes only, unless what other routes lead to may not be what it was.
    fn routes(&mut self) {
        let (old, new) = (self.old, self.new);
        let mut moved = HashSet::new();
        old.circuits.diff(&new.circuits, |name, before, now| {
            if before.is_some_and(|before| now.map(|now| &now.vrf) != Some(&before.vrf)) {
                moved.insert(name);
            }
        });
        let all = self.whole
            || !(new.groups.same(&old.groups) && new.ports.same(&old.ports))
            || lost(&old.vrfs, &new.vrfs);
        if all {
            for (vrf, routes) in new.routes.iter() {
                for (prefix, target) in routes.iter() {
                    let item = ItemKey::Route(vrf.clone(), *prefix);
                    self.route(&item, vrf, prefix.address(), target);
                }
            }
            return;
        }
        let touched = self.touched;
        let concerned = |target: &Target| match target {
            Target::Hop(Hop::Circuit(name)) => moved.contains(name),
            Target::Group(_) => true,
            Target::Hop(Hop::Via(_)) | Target::Blackhole => false,
        };
        if !moved.is_empty() {
            for (vrf, routes) in new.routes.iter() {
                for (prefix, target) in routes.iter().filter(|(_, target)| concerned(target)) {
                    let item = ItemKey::Route(vrf.clone(), *prefix);
                    if !touched.contains_key(&item) {
                        self.route(&item, vrf, prefix.address(), target);
                    }
                }
            }
        }
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
            Target::Hop(Hop::Circuit(circuit)) => match self.new.circuits.get(circuit) {
                None => self.missing(item, "circuit", &ItemKey::Circuit(circuit.clone())),
                Some(Circuit { vrf: other, .. }) => {
                    self.circuit_fits(item, "circuit", vrf, circuit, other);
                }
            },
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
                            Hop::Circuit(circuit) => {
                                if let Some(it) = self.new.circuits.get(circuit) {
                                    self.circuit_fits(item, "group", vrf, circuit, &it.vrf);
                                }
                            }
                            Hop::Via(via) => self.via_fits(item, "group", vrf, prefix, via),
                        }
                    }
                }
            },
        }
    }

    /// A tenant's packets stay in its VRF at both edges.
    fn circuit_fits(
        &mut self,
        item: &ItemKey,
        field: &str,
        vrf: &VrfName,
        circuit: &CircuitName,
        other: &VrfName,
    ) {
        if other != vrf {
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
