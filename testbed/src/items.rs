//! Items and changes of the control protocol, made short.

use twinseal_api::v1;
use v1::change::Change as Of;
use v1::item::Item;
use v1::key::Owner;

pub use twinseal_base::random;

/// A change that sets an item.
pub fn set(item: Item) -> v1::Change {
    v1::Change {
        change: Some(Of::Set(v1::Item {
            item: Some(item),
            ..Default::default()
        })),
    }
}

/// A change that deletes an item.
pub fn delete(item: v1::item_ref::Item) -> v1::Change {
    v1::Change {
        change: Some(Of::Delete(v1::ItemRef { item: Some(item) })),
    }
}

/// What is done with packets of a label.
pub fn label(link: &str, label: u32, action: v1::label::Action) -> Item {
    Item::Label(v1::Label {
        link: link.into(),
        label,
        action: Some(action),
    })
}

/// Keys of an epoch with fresh secrets, two for each link and circuit: one a direction.
///
/// # Errors
/// The kernel has no random numbers.
pub fn keys(
    owners: impl IntoIterator<Item = Owner>,
    epoch: u32,
    suite: v1::Suite,
) -> anyhow::Result<Vec<v1::Key>> {
    let mut keys = Vec::new();
    for owner in owners {
        for direction in [v1::Direction::AToB, v1::Direction::BToA] {
            let mut secret = vec![0; 32];
            random(&mut secret)?;
            let receiver_index = match owner {
                // Unique at every receiver: the epoch, and which of these keys it is.
                Owner::Link(_) => (epoch << 8) | (keys.len() as u32 + 1),
                Owner::Circuit(_) => 0,
            };
            keys.push(v1::Key {
                owner: Some(owner.clone()),
                direction: direction.into(),
                epoch,
                suite: suite.into(),
                secret,
                receiver_index,
                ..v1::Key::default()
            });
        }
    }
    Ok(keys)
}

/// The change that installs a key.
pub fn install(key: &v1::Key) -> v1::Change {
    set(Item::Key(key.clone()))
}

/// The change that has a link or circuit transmit with the keys of an epoch.
pub fn transmit(owner: &Owner, epoch: u32) -> v1::Change {
    let owner = match owner {
        Owner::Link(name) => v1::transmit::Owner::Link(name.clone()),
        Owner::Circuit(name) => v1::transmit::Owner::Circuit(name.clone()),
    };
    set(Item::Transmit(v1::Transmit {
        owner: Some(owner),
        epoch,
    }))
}

/// The change that deletes the key of an epoch.
pub fn retire(owner: &Owner, direction: i32, epoch: u32) -> v1::Change {
    let owner = match owner {
        Owner::Link(name) => v1::key_ref::Owner::Link(name.clone()),
        Owner::Circuit(name) => v1::key_ref::Owner::Circuit(name.clone()),
    };
    delete(v1::item_ref::Item::Key(v1::KeyRef {
        owner: Some(owner),
        direction,
        epoch,
    }))
}

/// The links and circuits of keys, each once if its keys are together.
pub fn owners<'a>(keys: impl IntoIterator<Item = &'a v1::Key>) -> Vec<&'a Owner> {
    let mut owners: Vec<_> = keys
        .into_iter()
        .filter_map(|key| key.owner.as_ref())
        .collect();
    owners.dedup();
    owners
}
