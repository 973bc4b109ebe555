//! Items and changes in words, by kind and name.

use serde_json::{Value, json};
use twinseal_api::v1::{
    self, change::Change, item::Item, item_ref, key, key_ref, transmit, transmit_ref,
};

use twinseal_base::text::word;
use twinseal_model::diff::Summary;

/// How many items changed, and which, as far as they are named.
pub(super) fn diff(changed: &Summary) -> Value {
    let names = changed.named.iter();
    let names: Vec<_> = names
        .map(|(fate, key)| word(&format!("{} {key}", fate.as_str())).into_owned())
        .collect();
    json!({
        "created": changed.counts.created,
        "updated": changed.counts.updated,
        "deleted": changed.counts.deleted,
        "items": names,
    })
}

/// A change for people: what is done to which item.
pub(super) fn describe(change: &v1::Change) -> String {
    match &change.change {
        Some(Change::Set(item)) => format!("set {}", set(item)),
        Some(Change::Delete(item)) => format!("delete {}", deleted(item)),
        None => "nothing known".to_owned(),
    }
}

/// An item that is set.
pub(super) fn set(item: &v1::Item) -> String {
    match &item.item {
        Some(Item::Port(it)) => format!("port {}", it.name),
        Some(Item::Vrf(it)) => format!("vrf {}", it.name),
        Some(Item::Link(it)) => format!("link {}", it.name),
        Some(Item::Circuit(it)) => format!("circuit {}", it.name),
        Some(Item::Label(it)) => format!("label {} on {}", it.label, it.link),
        Some(Item::Group(it)) => format!("group {}", it.name),
        Some(Item::Route(it)) => format!("route {} in {}", it.prefix, it.vrf),
        Some(Item::Neighbour(it)) => format!("neighbour {} on {}", it.address, it.port),
        Some(Item::Key(it)) => {
            let owner = match &it.owner {
                Some(key::Owner::Link(name)) => format!("link {name}"),
                Some(key::Owner::Circuit(name)) => format!("circuit {name}"),
                None => "nobody".to_owned(),
            };
            format!(
                "key of {owner}, {}, epoch {}",
                way(it.direction()),
                it.epoch
            )
        }
        Some(Item::Transmit(it)) => {
            let owner = match &it.owner {
                Some(transmit::Owner::Link(name)) => format!("link {name}"),
                Some(transmit::Owner::Circuit(name)) => format!("circuit {name}"),
                None => "nobody".to_owned(),
            };
            format!("transmit of {owner}, epoch {}", it.epoch)
        }
        None => "something unknown".to_owned(),
    }
}

fn deleted(item: &v1::ItemRef) -> String {
    use item_ref::Item as Ref;
    match &item.item {
        Some(Ref::Port(name)) => format!("port {name}"),
        Some(Ref::Vrf(name)) => format!("vrf {name}"),
        Some(Ref::Link(name)) => format!("link {name}"),
        Some(Ref::Circuit(name)) => format!("circuit {name}"),
        Some(Ref::Group(name)) => format!("group {name}"),
        Some(Ref::Label(it)) => format!("label {} on {}", it.label, it.link),
        Some(Ref::Route(it)) => format!("route {} in {}", it.prefix, it.vrf),
        Some(Ref::Neighbour(it)) => format!("neighbour {} on {}", it.address, it.port),
        Some(Ref::Key(it)) => {
            let owner = match &it.owner {
                Some(key_ref::Owner::Link(name)) => format!("link {name}"),
                Some(key_ref::Owner::Circuit(name)) => format!("circuit {name}"),
                None => "nobody".to_owned(),
            };
            format!(
                "key of {owner}, {}, epoch {}",
                way(it.direction()),
                it.epoch
            )
        }
        Some(Ref::Transmit(it)) => match &it.owner {
            Some(transmit_ref::Owner::Link(name)) => format!("transmit of link {name}"),
            Some(transmit_ref::Owner::Circuit(name)) => format!("transmit of circuit {name}"),
            None => "transmit of nobody".to_owned(),
        },
        None => "something unknown".to_owned(),
    }
}

fn way(direction: v1::Direction) -> &'static str {
    match direction {
        v1::Direction::AToB => "a-to-b",
        v1::Direction::BToA => "b-to-a",
        v1::Direction::Unspecified => "of no direction",
    }
}
