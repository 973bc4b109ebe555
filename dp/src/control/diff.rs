//! What a transaction changes, item by item. Only what it touched is looked at, however large the state is.

use prost::Message;
use twinseal_api::v1;

use super::items::proto;
use super::model::State;
use super::parse::{Item, ItemKey};
use super::transaction::Touched;

/// Changes that a report lists.
const MAX_CHANGES: usize = 1000;
/// Octets of them. Clients take messages of 4 MiB unless told otherwise.
const MAX_SIZE: usize = 2 << 20;

/// An item that changes.
pub(super) struct Difference {
    /// Which.
    pub(super) key: ItemKey,
    /// As it was, `None` if it is created.
    pub(super) old: Option<Item>,
    /// As it will be, `None` if it is deleted.
    pub(super) new: Option<Item>,
}

/// The items that differ, of those that were touched, in the order of their changes.
pub(super) fn differences(old: &State, new: &State, touched: &Touched) -> Vec<Difference> {
    let mut items: Vec<_> = touched.iter().collect();
    items.sort_by_key(|(_, change)| **change);
    let differences = items.into_iter().map(|(key, _)| Difference {
        key: key.clone(),
        old: old.item(key),
        new: new.item(key),
    });
    differences.filter(|it| it.old != it.new).collect()
}

/// As the API tells it, cut to what fits.
pub(super) fn report(differences: &[Difference]) -> v1::Diff {
    let mut diff = v1::Diff::default();
    let mut size = 0;
    for difference in differences {
        match (&difference.old, &difference.new) {
            (None, _) => diff.created += 1,
            (_, None) => diff.deleted += 1,
            _ => diff.updated += 1,
        }
        if diff.changes.len() < MAX_CHANGES && size < MAX_SIZE {
            let change = v1::ItemChange {
                old: difference.old.as_ref().map(proto),
                new: difference.new.as_ref().map(proto),
            };
            size += change.encoded_len();
            diff.changes.push(change);
        }
    }
    diff
}
