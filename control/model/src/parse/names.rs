//! What items of requests are called, and those among them that make no sense.

use std::collections::HashSet;
use std::net::IpAddr;

use twinseal_api::v1;
use twinseal_crypto::Direction;

use super::ItemKey;
use crate::state::{KeyId, LinkName, Name, Owner, PortName, Prefix, VrfName};

/// Items that were to be set but make no sense. What refers to them cannot be judged; all else can.
#[derive(Default)]
pub struct Broken {
    named: HashSet<ItemKey>,
    /// Kinds of items whose name is none. Nothing can refer to these, but which items of the state they were meant for is
    /// not known.
    unnamed: HashSet<&'static str>,
}

impl Broken {
    /// Whether this item is one of them.
    pub fn covers(&self, item: &ItemKey) -> bool {
        self.named.contains(item)
    }

    /// Whether one of them may be meant for this item.
    pub fn may_mean(&self, item: &ItemKey) -> bool {
        self.covers(item) || self.unnamed.contains(item.kind())
    }

    /// Adds one.
    pub fn add(&mut self, item: ItemKey) {
        self.named.insert(item);
    }

    pub(crate) fn add_name(&mut self, name: BrokenName) {
        match name {
            BrokenName::Of(items) => self.named.extend(items),
            BrokenName::None(kind) => _ = self.unnamed.insert(kind),
        }
    }
}

/// The name of an item that others may refer to.
pub(crate) enum BrokenName {
    /// It may be these.
    Of(Vec<ItemKey>),
    /// It is no name; the kind.
    None(&'static str),
}

impl BrokenName {
    /// `None` for items to which nothing refers: they are many, and this is asked before it is known whether they are
    /// sound.
    pub(crate) fn of(item: &v1::Item) -> Option<Self> {
        use v1::item::Item;
        let kind = match item.item.as_ref()? {
            Item::Port(_) => "port",
            Item::Vrf(_) => "vrf",
            Item::Link(_) => "link",
            Item::Circuit(_) => "circuit",
            Item::Group(_) => "group",
            Item::Key(key) => {
                let Some(owner) = key_owner(key) else {
                    return Some(Self::None("key"));
                };
                let ids = match direction(key.direction) {
                    Some(direction) => vec![direction],
                    None => vec![Direction::AToB, Direction::BToA],
                };
                let id = |direction| {
                    ItemKey::Key(KeyId {
                        owner: owner.clone(),
                        direction,
                        epoch: key.epoch,
                    })
                };
                return Some(Self::Of(ids.into_iter().map(id).collect()));
            }
            Item::Label(_) | Item::Route(_) | Item::Neighbour(_) | Item::Transmit(_) => {
                return None;
            }
        };
        Some(ItemKey::of(item).map_or(Self::None(kind), |key| Self::Of(vec![key])))
    }
}

impl ItemKey {
    /// Of which kind it is, as state files call it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Port(_) => "port",
            Self::Vrf(_) => "vrf",
            Self::Link(_) => "link",
            Self::Circuit(_) => "circuit",
            Self::Label(..) => "label",
            Self::Group(_) => "group",
            Self::Route(..) => "route",
            Self::Neighbour(..) => "neighbour",
            Self::Key(_) => "key",
            Self::Transmit(_) => "transmit",
        }
    }

    /// What a change of a request is about; `None` if it has no sound name.
    pub fn of_change(change: &v1::Change) -> Option<Self> {
        match change.change.as_ref()? {
            v1::change::Change::Set(item) => Self::of(item),
            v1::change::Change::Delete(item) => Self::of_reference(item),
        }
    }

    fn of(item: &v1::Item) -> Option<Self> {
        use v1::item::Item;
        Some(match item.item.as_ref()? {
            Item::Port(it) => Self::Port(Name::new(&it.name)?),
            Item::Vrf(it) => Self::Vrf(Name::new(&it.name)?),
            Item::Link(it) => Self::Link(Name::new(&it.name)?),
            Item::Circuit(it) => Self::Circuit(Name::new(&it.name)?),
            Item::Group(it) => Self::Group(Name::new(&it.name)?),
            Item::Label(it) => label(&it.link, it.label)?,
            Item::Route(it) => route(&it.vrf, &it.prefix)?,
            Item::Neighbour(it) => neighbour(&it.port, &it.address)?,
            Item::Key(it) => Self::Key(KeyId {
                owner: key_owner(it)?,
                direction: direction(it.direction)?,
                epoch: it.epoch,
            }),
            Item::Transmit(it) => Self::Transmit(match it.owner.as_ref()? {
                v1::transmit::Owner::Link(name) => Owner::Link(Name::new(name)?),
                v1::transmit::Owner::Circuit(name) => Owner::Circuit(Name::new(name)?),
            }),
        })
    }

    fn of_reference(item: &v1::ItemRef) -> Option<Self> {
        use v1::item_ref::Item;
        Some(match item.item.as_ref()? {
            Item::Port(name) => Self::Port(Name::new(name)?),
            Item::Vrf(name) => Self::Vrf(Name::new(name)?),
            Item::Link(name) => Self::Link(Name::new(name)?),
            Item::Circuit(name) => Self::Circuit(Name::new(name)?),
            Item::Group(name) => Self::Group(Name::new(name)?),
            Item::Label(it) => label(&it.link, it.label)?,
            Item::Route(it) => route(&it.vrf, &it.prefix)?,
            Item::Neighbour(it) => neighbour(&it.port, &it.address)?,
            Item::Key(it) => Self::Key(KeyId {
                owner: match it.owner.as_ref()? {
                    v1::key_ref::Owner::Link(name) => Owner::Link(Name::new(name)?),
                    v1::key_ref::Owner::Circuit(name) => Owner::Circuit(Name::new(name)?),
                },
                direction: direction(it.direction)?,
                epoch: it.epoch,
            }),
            Item::Transmit(it) => Self::Transmit(match it.owner.as_ref()? {
                v1::transmit_ref::Owner::Link(name) => Owner::Link(Name::new(name)?),
                v1::transmit_ref::Owner::Circuit(name) => Owner::Circuit(Name::new(name)?),
            }),
        })
    }
}

fn key_owner(key: &v1::Key) -> Option<Owner> {
    Some(match key.owner.as_ref()? {
        v1::key::Owner::Link(name) => Owner::Link(Name::new(name)?),
        v1::key::Owner::Circuit(name) => Owner::Circuit(Name::new(name)?),
    })
}

fn direction(number: i32) -> Option<Direction> {
    match v1::Direction::try_from(number) {
        Ok(v1::Direction::AToB) => Some(Direction::AToB),
        Ok(v1::Direction::BToA) => Some(Direction::BToA),
        _ => None,
    }
}

fn label(link: &str, label: u32) -> Option<ItemKey> {
    Some(ItemKey::Label(LinkName::new(link)?, label))
}

fn route(vrf: &str, prefix: &str) -> Option<ItemKey> {
    let (address, len) = prefix.split_once('/')?;
    let prefix = Prefix::new(address.parse().ok()?, len.parse().ok()?)?;
    Some(ItemKey::Route(VrfName::new(vrf)?, prefix))
}

fn neighbour(port: &str, address: &str) -> Option<ItemKey> {
    let address: IpAddr = address.parse().ok()?;
    Some(ItemKey::Neighbour(PortName::new(port)?, address))
}
