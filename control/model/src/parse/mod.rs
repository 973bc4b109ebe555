//! From protobuf to typed changes. What comes out of here is sound in itself; whether it fits the rest is for
//! [`transaction`](crate::transaction).

mod fields;
mod items;
mod names;

use std::borrow::Cow;
use std::net::IpAddr;

use twinseal_api::v1;
use twinseal_crypto::{Fingerprint, Secret, Suite};

use crate::owners::By;
use crate::refusal::{Code, Refused, place};
use crate::state::{
    Circuit, CircuitName, GroupName, Key, KeyId, LabelAction, Limits, Link, LinkName, Member,
    Owner, Port, PortName, Prefix, Target, VrfName,
};
use crate::transaction::Touched;
pub use names::Broken;
use names::BrokenName;
use twinseal_base::text::quoted;
use twinseal_wire::ethernet::Mac;

/// One change, with its place in the request.
pub struct Change {
    /// Its place.
    pub index: usize,
    /// What to do.
    pub action: Action,
}

/// What to do.
pub enum Action {
    /// Make or replace.
    Set(Item),
    /// Load a key with its secret.
    Install(KeyId, Key, Secret),
    /// Take a key that must be there, without its secret.
    Keep(KeyId, Kept),
    /// Remove.
    Delete(ItemKey),
}

/// An item with all that it says, but for secrets.
#[derive(Clone, PartialEq, Debug)]
pub enum Item {
    /// A port.
    Port(PortName, Port),
    /// A VRF.
    Vrf(VrfName),
    /// A link.
    Link(LinkName, Link),
    /// A circuit.
    Circuit(CircuitName, Circuit),
    /// A label.
    Label(LinkName, u32, LabelAction),
    /// A group.
    Group(GroupName, Vec<Member>),
    /// A route.
    Route(VrfName, Prefix, Target),
    /// A static neighbour.
    Neighbour(PortName, IpAddr, Mac),
    /// A key.
    Key(KeyId, Key),
    /// Which epoch transmits.
    Transmit(Owner, u32),
}

impl Item {
    /// What makes it unique.
    pub fn key(&self) -> ItemKey {
        match self {
            Self::Port(name, _) => ItemKey::Port(name.clone()),
            Self::Vrf(name) => ItemKey::Vrf(name.clone()),
            Self::Link(name, _) => ItemKey::Link(name.clone()),
            Self::Circuit(name, _) => ItemKey::Circuit(name.clone()),
            Self::Label(link, label, _) => ItemKey::Label(link.clone(), *label),
            Self::Group(name, _) => ItemKey::Group(name.clone()),
            Self::Route(vrf, prefix, _) => ItemKey::Route(vrf.clone(), *prefix),
            Self::Neighbour(port, address, _) => ItemKey::Neighbour(port.clone(), *address),
            Self::Key(id, _) => ItemKey::Key(id.clone()),
            Self::Transmit(owner, _) => ItemKey::Transmit(owner.clone()),
        }
    }
}

/// What is said of a key that must be there.
#[derive(Clone, PartialEq, Debug)]
pub struct Kept {
    /// The algorithm.
    pub suite: Suite,
    /// Names it in packets; 0 for circuits.
    pub receiver_index: u32,
    /// The public name of its secret, if the controller knows it.
    pub fingerprint: Option<Fingerprint>,
    /// When it must stop to transmit.
    pub limits: Limits,
    /// Whether it may have lost its secret in a restart, and stays so.
    pub needed: bool,
}

/// What makes an item unique.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ItemKey {
    /// A port.
    Port(PortName),
    /// A VRF.
    Vrf(VrfName),
    /// A link.
    Link(LinkName),
    /// A circuit.
    Circuit(CircuitName),
    /// A label.
    Label(LinkName, u32),
    /// A group.
    Group(GroupName),
    /// A route.
    Route(VrfName, Prefix),
    /// A static neighbour.
    Neighbour(PortName, IpAddr),
    /// A key.
    Key(KeyId),
    /// Which epoch transmits.
    Transmit(Owner),
}

impl std::fmt::Display for ItemKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Port(name) => write!(f, "port {name:?}"),
            Self::Vrf(name) => write!(f, "vrf {name:?}"),
            Self::Link(name) => write!(f, "link {name:?}"),
            Self::Circuit(name) => write!(f, "circuit {name:?}"),
            Self::Label(link, label) => write!(f, "label {label} on link {link:?}"),
            Self::Group(name) => write!(f, "group {name:?}"),
            Self::Route(vrf, prefix) => write!(f, "route {prefix} in vrf {vrf:?}"),
            Self::Neighbour(port, address) => write!(f, "neighbour {address} on port {port:?}"),
            Self::Key(id) => write!(f, "{id}"),
            Self::Transmit(owner) => write!(f, "transmit of {owner}"),
        }
    }
}

impl From<&Owner> for ItemKey {
    fn from(owner: &Owner) -> Self {
        match owner {
            Owner::Link(name) => Self::Link(name.clone()),
            Owner::Circuit(name) => Self::Circuit(name.clone()),
        }
    }
}

/// What an item refers to that makes no sense for other reasons, so that this can be judged all the same.
pub struct Reference {
    /// The change.
    pub index: usize,
    /// The item, as messages name it.
    pub item: String,
    /// Its field.
    pub field: Cow<'static, str>,
    /// What is named there.
    pub to: ItemKey,
    /// Of a port: whether it must be an edge port, or must not.
    pub edge: Option<bool>,
}

/// What became of a request.
#[derive(Default)]
pub struct Parsed {
    /// The changes that make sense.
    pub changes: Vec<Change>,
    /// The others.
    pub broken: Broken,
    /// What they refer to.
    pub references: Vec<Reference>,
    /// What is wrong with them.
    pub refused: Refused,
    /// Who asks.
    pub by: By,
    /// Where a whole state names what is there already, if it leaves out what that may refer to.
    pub equal: Touched,
}

/// Parses all changes and wipes every secret from the request. All that is wrong is reported, not only the first.
pub fn changes(request: Vec<v1::Change>) -> Parsed {
    changes_by(By::default(), request)
}

/// The same of an owner's.
pub fn changes_by(by: By, request: Vec<v1::Change>) -> Parsed {
    let mut parsed = Parsed {
        by,
        changes: Vec::with_capacity(request.len()),
        ..Parsed::default()
    };
    for (index, change) in request.into_iter().enumerate() {
        parsed.change(index, change.change);
    }
    parsed
}

impl Parsed {
    fn change(&mut self, index: usize, change: Option<v1::change::Change>) {
        let mut parser = Parser {
            index,
            item: "change".to_owned(),
            references: &mut self.references,
            refused: &mut self.refused,
        };
        let action = match change {
            Some(v1::change::Change::Set(item)) => return self.set(index, item),
            Some(v1::change::Change::Delete(item)) => parser.reference(item).map(Action::Delete),
            None => parser.refuse("change", "neither set nor delete is given", "give one"),
        };
        self.changes
            .extend(action.map(|action| Change { index, action }));
    }

    /// Parses one item that is to be set.
    pub fn set(&mut self, index: usize, item: v1::Item) {
        let name = BrokenName::of(&item);
        let owned = self.by.owns(&item.owner);
        let owner = match owned {
            true => String::new(),
            false => item.owner.clone(),
        };
        let before = self.references.len();
        let mut parser = Parser {
            index,
            item: "change".to_owned(),
            references: &mut self.references,
            refused: &mut self.refused,
        };
        let action = parser.item(item);
        if !owned {
            let why = format!("{} is another owner than the request's", quoted(&owner));
            parser.refuse::<()>("owner", why, "leave it out, or ask as that owner");
        }
        match action.filter(|_| owned) {
            Some(action) => {
                self.changes.push(Change { index, action });
                // It is judged itself, with all that it refers to.
                self.references.truncate(before);
            }
            None => {
                for reference in &mut parser.references[before..] {
                    reference.item.clone_from(&parser.item);
                }
                if let Some(name) = name {
                    self.broken.add_name(name);
                }
            }
        }
    }
}

/// Parses one change. Its methods record what is wrong and return `None`; callers evaluate all fields of an item
/// before they give up on it.
struct Parser<'a> {
    index: usize,
    item: String,
    references: &'a mut Vec<Reference>,
    refused: &'a mut Refused,
}

impl Parser<'_> {
    fn refuse<T>(&mut self, field: &str, reason: impl Into<String>, fix: &str) -> Option<T> {
        let item = v1::RefusedItem {
            change: place(self.index),
            item: self.item.clone(),
            field: field.to_owned(),
            reason: reason.into(),
            fix: fix.to_owned(),
            code: Code::Invalid.into(),
        };
        self.refused.push(item);
        None
    }
}
